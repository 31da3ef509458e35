// Package tomlfile says of a TOML file that people write what is wrong with it,
// and where: file, line and key. The daemon's configuration and the profiles of
// terminals are read with it.
package tomlfile

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// Complaints turns the error of a strict decoder into lines of "file:line: key:
// what". t is the type of the document; of an unknown key it says which known one
// is near.
func Complaints(file string, err error, t reflect.Type) []string {
	var missing *toml.StrictMissingError
	if errors.As(err, &missing) {
		var lines []string
		for _, e := range missing.Errors {
			row, _ := e.Position()
			lines = append(lines, fmt.Sprintf("%s:%d: unknown key %q%s", file, row, strings.Join(e.Key(), "."), suggest(t, e.Key())))
		}
		return lines
	}
	var wrong *toml.DecodeError
	if errors.As(err, &wrong) {
		row, col := wrong.Position()
		where := fmt.Sprintf("%s:%d:%d", file, row, col)
		if key := wrong.Key(); len(key) > 0 {
			where += ": " + strings.Join(key, ".")
		}
		return []string{where + ": " + strings.TrimPrefix(wrong.Error(), "toml: ")}
	}
	return []string{fmt.Sprintf("%s: %v", file, err)}
}

// suggest names the known key of the same table that is nearest to key, when
// one is near.
func suggest(t reflect.Type, key []string) string {
	for _, part := range key[:len(key)-1] {
		next, ok := fieldOf(t, part)
		if !ok {
			return ""
		}
		for slices.Contains([]reflect.Kind{reflect.Slice, reflect.Pointer, reflect.Map}, next.Kind()) {
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
		if d := Distance(given, name); d < least {
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
		if Name(t.Field(i)) == key {
			return t.Field(i).Type, true
		}
	}
	return nil, false
}

func keysOf(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		names = append(names, Name(t.Field(i)))
	}
	return names
}

// Name returns the key of a field of a document, which its toml tag says.
func Name(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
	return name
}

// Distance is the Levenshtein distance of two short words.
func Distance(a, b string) int {
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

// Lines gives the line on which a key stands, "api.listen" or
// "upstream[0].addr".
type Lines map[string]int

// LinesOf finds the lines of all keys of a document; of one that does not
// parse, those up to the fault.
func LinesOf(text []byte) Lines {
	lines := make(Lines)
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
		if e.Kind != unstable.KeyValue {
			name = within(parts, counts)
		}
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

// within is the name of a table whose parts before the last may be lists: it
// stands in the last entry of each.
func within(parts []string, counts map[string]int) string {
	name := ""
	for i, part := range parts {
		if i > 0 {
			if n := counts[name]; n > 0 {
				name = fmt.Sprintf("%s[%d]", name, n-1)
			}
			name += "."
		}
		name += part
	}
	return name
}

// Of returns the line of the key, else of its table, else 1.
func (k Lines) Of(key string) int {
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
