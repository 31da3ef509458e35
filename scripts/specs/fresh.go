package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// newerTest returns a test or script below the working directory that was
// changed after the results were written, or "". Old results say nothing of it.
func newerTest(results string) (newer string, err error) {
	written, err := os.Stat(results)
	if err != nil {
		return "", err
	}
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != "." && (name == "bin" || name == "node_modules" || strings.HasPrefix(name, ".")) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, "_test.go") && !strings.HasSuffix(path, ".txtar") {
			return nil
		}
		info, err := d.Info()
		if err == nil && info.ModTime().After(written.ModTime()) {
			newer = path
			return fs.SkipAll
		}
		return err
	})
	return newer, err
}
