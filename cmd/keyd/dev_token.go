package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// The folder of SoftHSM's tokens, and a copy of it as it was made. SoftHSM
// empties token.object at each login before it writes it again, so a daemon
// killed between the two leaves a token that is none. That file alone is put
// back: others come and go, because the token knows the register of the database.
const (
	devTokens = "tokens"
	devCopied = "tokens.made"
)

// keepToken copies the token as it was made.
func (d *devDir) keepToken() error {
	if err := os.RemoveAll(d.file(devCopied)); err != nil {
		return err
	}
	if err := copyTree(d.file(devTokens), d.file(devCopied)); err != nil {
		return fmt.Errorf("keeping a copy of the token: %w", err)
	}
	return nil
}

// mendToken puts the copy of token.object in the place of one that a kill has
// emptied. It reports whether there was anything to mend.
func (d *devDir) mendToken() (mended bool, err error) {
	copies, err := filepath.Glob(d.file(devCopied, "*", "token.object"))
	if err != nil {
		return false, err
	}
	for _, path := range copies {
		made, err := os.ReadFile(path)
		if err != nil {
			return mended, fmt.Errorf("mending the token: %w", err)
		}
		object := d.file(devTokens, filepath.Base(filepath.Dir(path)), "token.object")
		now, err := os.Stat(object)
		if err == nil && now.Size() >= int64(len(made)) {
			continue
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = writeFile(object, made, 0o600)
		}
		if err != nil {
			return mended, fmt.Errorf("mending the token: %w", err)
		}
		mended = true
	}
	return mended, nil
}

// copyTree copies a folder of files for the owner alone; to must not exist.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.Mkdir(filepath.Join(to, rel), 0o700)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return writeFile(filepath.Join(to, rel), raw, 0o600)
	})
}
