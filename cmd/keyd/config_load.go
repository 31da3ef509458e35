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
	"github.com/pelletier/go-toml/v2/unstable"
)

// errConfig is what every complaint about a configuration file is.
var errConfig = errors.New("the configuration is not valid")

// configFile is a configuration with where it came from.
type configFile struct {
	config
	path string   // absolute
	hash [32]byte // SHA-256 of the file's bytes
	at   keyLines

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
	f := &configFile{path: abs, hash: sha256.Sum256(text), at: lineKeys(text)}
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
	var missing *toml.StrictMissingError
	if errors.As(err, &missing) {
		var lines []string
		for _, e := range missing.Errors {
			row, _ := e.Position()
			lines = append(lines, fmt.Sprintf("%s:%d: unknown key %q%s", path, row, strings.Join(e.Key(), "."), suggest(e.Key())))
		}
		return problems(lines)
	}
	var wrong *toml.DecodeError
	if errors.As(err, &wrong) {
		row, col := wrong.Position()
		where := fmt.Sprintf("%s:%d:%d", path, row, col)
		if key := wrong.Key(); len(key) > 0 {
			where += ": " + strings.Join(key, ".")
		}
		return problems([]string{where + ": " + strings.TrimPrefix(wrong.Error(), "toml: ")})
	}
	return problems([]string{fmt.Sprintf("%s: %v", path, err)})
}

// suggest names the known key of the same table that is nearest to key, when
// one is near.
func suggest(key []string) string {
	t := reflect.TypeFor[config]()
	for _, part := range key[:len(key)-1] {
		next, ok := fieldOf(t, part)
		if !ok {
			return ""
		}
		for next.Kind() == reflect.Slice || next.Kind() == reflect.Pointer {
			next = next.Elem()
		}
		if next.Kind() != reflect.Struct {
			return ""
		}
		t = next
	}
	given := key[len(key)-1]
	best, least := "", 1+max(2, len(given)/3)
	known := keysOf(t)
	for _, name := range known {
		if d := distance(given, name); d < least {
			best, least = name, d
		}
	}
	if best == "" {
		return "; known here are " + strings.Join(known, ", ")
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

func fieldOf(t reflect.Type, key string) (reflect.Type, bool) {
	for i := range t.NumField() {
		if tomlName(t.Field(i)) == key {
			return t.Field(i).Type, true
		}
	}
	return nil, false
}

func keysOf(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		names = append(names, tomlName(t.Field(i)))
	}
	return names
}

func tomlName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
	return name
}

// distance is the Levenshtein distance of two short words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// keyLines gives the line on which a key stands, "api.listen" or
// "upstream[0].addr".
type keyLines map[string]int

// lineKeys finds the lines of all keys of a document; of one that does not
// parse, those up to the fault.
func lineKeys(text []byte) keyLines {
	lines := make(keyLines)
	counts := make(map[string]int)
	table := ""
	var p unstable.Parser
	p.Reset(text)
	for p.NextExpression() {
		e := p.Expression()
		var parts []string
		line := 0
		for it := e.Key(); it.Next(); {
			parts = append(parts, string(it.Node().Data))
			if line == 0 {
				line = p.Shape(it.Node().Raw).Start.Line
			}
		}
		name := strings.Join(parts, ".")
		switch e.Kind {
		case unstable.Table:
			table = name
			lines[table] = line
		case unstable.ArrayTable:
			table = fmt.Sprintf("%s[%d]", name, counts[name])
			counts[name]++
			lines[table] = line
		case unstable.KeyValue:
			if table != "" {
				name = table + "." + name
			}
			lines[name] = line
		}
	}
	return lines
}

// of returns the line of the key, else of its table, else 1.
func (k keyLines) of(key string) int {
	for key != "" {
		if n, ok := k[key]; ok {
			return n
		}
		i := strings.LastIndexByte(key, '.')
		if i < 0 {
			break
		}
		key = key[:i]
	}
	return 1
}

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
	}
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
