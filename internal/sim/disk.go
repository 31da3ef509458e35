package sim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// disk makes folders and names so that a power loss does not take them. flush makes
// what was written to a file, or the names in a folder, durable.
type disk struct {
	flush func(*os.File) error
}

// MakeFolder makes a terminal's folder, and what is above it, unless it is there,
// and makes its name durable. It returns [ErrState].
func MakeFolder(path string) error { return disk{(*os.File).Sync}.make(path) }

// Inherit makes a terminal's folder and moves the memory into it that an earlier
// version kept in the file old; without that file it does nothing. It returns
// [ErrState].
func Inherit(old, path string) error { return disk{(*os.File).Sync}.inherit(old, path) }

// make flushes the folder above even when the folder is there: who made it may have
// lost the power before.
func (d disk) make(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	above := []string{filepath.Dir(path)}
	for top := above[0]; missing(top); above = append(above, top) {
		top = filepath.Dir(top)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	for _, dir := range above {
		if err := d.names(dir); err != nil {
			return err
		}
	}
	return nil
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func (d disk) inherit(old, path string) error {
	if missing(old) {
		return nil
	}
	if err := d.make(path); err != nil {
		return err
	}
	if err := os.Rename(old, filepath.Join(path, stateFile)); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	// The new name before the old one is gone: a rename between folders is two changes.
	if err := d.names(path); err != nil {
		return err
	}
	return d.names(filepath.Dir(old))
}

// names makes the names in a folder durable.
func (d disk) names(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	if err := errors.Join(d.flush(dir), dir.Close()); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	return nil
}
