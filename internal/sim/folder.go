package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// The files in a terminal's folder.
const (
	stateFile = "terminal.json"
	slipFile  = "slips.jsonl"
	lockFile  = "lock"
)

// folder is what a terminal has in place of its flash memory. One process at a
// time has it.
type folder struct {
	path  string
	disk  disk
	lock  *os.File
	slips *os.File
}

func openFolder(path string, on disk) (*folder, error) {
	if err := on.make(path); err != nil {
		return nil, err
	}
	f := &folder{path: path, disk: on}
	var err error
	if f.lock, err = os.OpenFile(f.file(lockFile), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	if err := syscall.Flock(int(f.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: another process is this terminal: %s", ErrState, path), f.lock.Close())
	}
	if f.slips, err = os.OpenFile(f.file(slipFile), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600); err == nil {
		err = cutTorn(f.slips)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrState, err), f.close())
	}
	return f, nil
}

func (f *folder) file(name string) string { return filepath.Join(f.path, name) }

// close lets another process be the terminal.
func (f *folder) close() error {
	if f.slips == nil {
		return f.lock.Close()
	}
	return errors.Join(f.slips.Close(), f.lock.Close())
}

// load reads the state. It reports whether there is one: a new terminal has none,
// and one that cannot be read is never taken for new, or counters would be used
// twice.
func (f *folder) load(s *State) (there bool, err error) {
	raw, err := os.ReadFile(f.file(stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrState, err)
	}
	if err := s.parse(raw); err != nil {
		return false, fmt.Errorf("%w: %s: %w", ErrState, f.file(stateFile), err)
	}
	return true, nil
}

// save replaces the state as a whole. When it returns, a power loss brings back
// this state or a later one.
func (f *folder) save(s *State) error {
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	fresh := f.file(stateFile + ".new")
	file, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	_, err = file.Write(append(raw, '\n'))
	if err := errors.Join(err, f.disk.flush(file), file.Close()); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	if err := os.Rename(fresh, f.file(stateFile)); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	return f.disk.names(f.path)
}

// print adds a slip. When it returns, a power loss does not take it: the state,
// which has the newest slip alone, may then be given the next one.
func (f *folder) print(s Slip) error {
	line, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if _, err := f.slips.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	return f.printed()
}

func (f *folder) printed() error {
	if err := f.disk.flush(f.slips); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	return nil
}

// reprint prints the newest slip unless it was.
func (f *folder) reprint(last Slip) error {
	all, err := ReadSlips(f.path)
	if err != nil {
		return err
	}
	if n := len(all); n > 0 && all[n-1] == last {
		return f.printed()
	}
	return f.print(last)
}

// parseStrict reads one JSON object with known members alone.
func parseStrict(raw []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one object")
	}
	return nil
}
