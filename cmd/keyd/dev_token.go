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
// killed between the two leaves a token that is none. Nothing else in the folder
// changes once keyd's own keys are in it, so the copy is the token.
const (
	devTokens = "tokens"
	devCopied = "tokens.made"
	devMended = "tokens.new"
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

// mendToken puts the copy in the place of a token that a kill has emptied. It
// reports whether there was anything to mend.
func (d *devDir) mendToken() (mended bool, err error) {
	whole, err := d.tokenIsWhole()
	if err != nil || whole {
		return false, err
	}
	err = errors.Join(os.RemoveAll(d.file(devMended)), copyTree(d.file(devCopied), d.file(devMended)))
	if err == nil {
		err = errors.Join(os.RemoveAll(d.file(devTokens)), os.Rename(d.file(devMended), d.file(devTokens)))
	}
	if err != nil {
		return false, fmt.Errorf("mending the token: %w", err)
	}
	return true, nil
}

// tokenIsWhole reports whether the token's object is there and not shorter than
// its copy.
func (d *devDir) tokenIsWhole() (bool, error) {
	copies, err := filepath.Glob(d.file(devCopied, "*", "token.object"))
	if err != nil {
		return false, err
	}
	for _, path := range copies {
		made, err := os.Stat(path)
		if err != nil {
			return false, err
		}
		now, err := os.Stat(d.file(devTokens, filepath.Base(filepath.Dir(path)), "token.object"))
		if errors.Is(err, fs.ErrNotExist) || err == nil && now.Size() < made.Size() {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
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
