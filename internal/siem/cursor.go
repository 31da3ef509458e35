package siem

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
)

// Position is how far a sink has come in one log.
type Position struct {
	Origin string `json:"origin"`
	Next   uint64 `json:"next"` // seq of the first record that is still to be sent
	Told   uint64 `json:"told"` // size of the last checkpoint that was sent
}

// cursor is a Position for each log: sec, ops-yyyy-mm.
type cursor map[string]Position

func (c cursor) clone() cursor { return maps.Clone(c) }

// cursorFormat is the first member of a cursor's file.
const cursorFormat = "keyd-sink-1"

type cursorFile struct {
	Format string `json:"format"`
	Sink   string `json:"sink"`
	Logs   cursor `json:"logs"`
	// Trouble is the corr of the records of a failure or lag that has no end yet.
	Trouble string `json:"trouble,omitempty"`
}

// mostCursor bounds the file: a month takes about 100 bytes.
const mostCursor = 1 << 20

// loadCursor reads the file of a sink's cursor. A sink without a file begins at
// the beginning. The error is [ErrFormat], or that of the file system.
func loadCursor(path, sink string) (at cursor, trouble string, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return cursor{}, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("reading the cursor of sink %s: %w", sink, err)
	}
	if info.Size() > mostCursor {
		return nil, "", fmt.Errorf("%w: cursor %s has %d bytes", ErrFormat, path, info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, "", fmt.Errorf("reading the cursor of sink %s: %w", sink, err)
	}
	return parseCursor(text, sink)
}

func parseCursor(text []byte, sink string) (at cursor, trouble string, err error) {
	var f cursorFile
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, "", fmt.Errorf("%w: cursor of sink %s: %w", ErrFormat, sink, err)
	}
	if f.Format != cursorFormat || f.Sink != sink {
		return nil, "", fmt.Errorf("%w: cursor of sink %s: it is of format %.32q and sink %.64q", ErrFormat, sink, f.Format, f.Sink)
	}
	if f.Logs == nil {
		f.Logs = cursor{}
	}
	if f.Trouble != "" && !plain(f.Trouble) {
		return nil, "", fmt.Errorf("%w: cursor of sink %s: its trouble is no identifier", ErrFormat, sink)
	}
	return f.Logs, f.Trouble, nil
}

// save replaces the file by way of another, so that after a crash it is the old
// one or the new one.
func (c cursor) save(path, sink, trouble string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("keeping the cursor of sink %s: %w", sink, err)
		}
	}()
	text, err := json.Marshal(cursorFile{cursorFormat, sink, c, trouble})
	if err != nil {
		return err
	}
	next := path + ".tmp"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder makes the names in a folder durable.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
