package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"keyd.dev/keyd/internal/tomlfile"
)

// errConfig is what every complaint about a configuration file is.
var errConfig = errors.New("the configuration is not valid")

// configFile is a configuration with where it came from.
type configFile struct {
	config
	path string   // absolute
	hash [32]byte // SHA-256 of the file's bytes
	at   tomlfile.Lines

	clock func() time.Time // of keys; nil is time.Now, and tests have others
	vault *vaultLink       // of a daemon; commands make their own
	level slog.LevelVar    // of the logger that it made
}

// now is the time by which keys live.
func (c *configFile) now() time.Time {
	if c.clock != nil {
		return c.clock()
	}
	return time.Now()
}

// logger makes the operator's log of the file.
func (c *configFile) logger(w io.Writer) *slog.Logger {
	c.level.Set(levelOf(c.Log.Level))
	return leveledLogger(w, &c.level)
}

// loadConfig reads, fills and checks the file. The error lists every problem,
// one a line, as file:line: key: what and what to do.
func loadConfig(path string) (*configFile, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(abs)
	if err != nil {
		return nil, advise(fmt.Errorf("reading the configuration: %w", err), "name another with --config, or make one with `keyd dev`")
	}
	return parseConfig(path, abs, text)
}

// parseConfig is loadConfig of a file that was read; abs is where it stands, and
// name what the errors call it.
func parseConfig(name, abs string, text []byte) (*configFile, error) {
	f := &configFile{path: abs, hash: sha256.Sum256(text), at: tomlfile.LinesOf(text)}
	dec := toml.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f.config); err != nil {
		return nil, decodeProblems(name, err)
	}
	f.fillDefaults()
	f.resolvePaths(filepath.Dir(abs))
	if err := f.check(name); err != nil {
		return nil, err
	}
	return f, nil
}

// configError lists what is wrong with a configuration, a line each.
type configError struct{ lines []string }

func (e *configError) Error() string {
	if len(e.lines) == 1 {
		return e.lines[0]
	}
	return fmt.Sprintf("%v, for %d reasons:\n  %s", errConfig, len(e.lines), strings.Join(e.lines, "\n  "))
}

// Is makes every configError errConfig.
func (e *configError) Is(target error) bool { return target == errConfig }

func problems(lines []string) error { return &configError{lines} }

// decodeProblems turns the decoder's errors into lines of file:line: key.
func decodeProblems(path string, err error) error {
	return problems(tomlfile.Complaints(path, err, reflect.TypeFor[config]()))
}

func tomlName(f reflect.StructField) string { return tomlfile.Name(f) }

// resolvePaths makes relative paths relative to the configuration's folder.
func (c *config) resolvePaths(dir string) {
	paths := []*string{
		&c.Token.Module, &c.Store.Path, &c.Audit.Dir, &c.Backup.Dir, &c.Ops.Socket,
		&c.API.Cert, &c.API.Key, &c.API.ClientCA, &c.API.CRL,
		&c.Switch.Cert, &c.Switch.Key, &c.Switch.ClientCA, &c.Switch.CRL,
	}
	for i := range c.Upstream {
		u := &c.Upstream[i]
		paths = append(paths, &u.CA, &u.Cert, &u.Key)
		for n := range u.Link {
			paths = append(paths, &u.Link[n].CA, &u.Link[n].Cert, &u.Link[n].Key)
		}
	}
	paths = append(paths, &c.Hook.CA, &c.Hook.Cert, &c.Hook.Key)
	for i := range c.Sink {
		s := &c.Sink[i]
		paths = append(paths, &s.CA, &s.Cert, &s.Key, &s.Path)
	}
	for i := range c.Anchor {
		paths = append(paths, &c.Anchor[i].Dir)
	}
	paths = append(paths, c.ownProfiles()...)
	paths = append(paths, c.Vault.paths()...)
	paths = append(paths, c.Process.paths()...)
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) && !isIssued(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	if c.Ops.Socket == "" && c.Store.Path != "" {
		c.Ops.Socket = filepath.Join(filepath.Dir(c.Store.Path), "keyd.sock")
	}
	if c.Vault.Dir == "" && c.Vault.Address != "" && c.Store.Path != "" {
		c.Vault.Dir = filepath.Join(filepath.Dir(c.Store.Path), "vault")
	}
}

// quoted lists words for an error message.
func quoted[T ~string](words []T) string {
	out := make([]string, 0, len(words))
	for _, w := range words {
		out = append(out, fmt.Sprintf("%q", string(w)))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}
