package main

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The reference of the configuration is made from the struct: names from the
// toml tags, meanings and defaults from the comments, and from the tag reload
// whether a running daemon takes a change (decision 0035). docs/OPERATIONS.md
// holds what writeReference makes of it, and a test compares.

// configSection is one table of the file.
type configSection struct {
	name  string // "api", "token.vault"
	list  bool   // written [[name]], any number of times
	about string
	keys  []configKey
}

// configKey is one key of a table.
type configKey struct {
	name     string
	form     string // "text", "duration"
	fallback string // the default in words; "" where the key has none
	meaning  string // the comment without its default
	comment  string
	reload   bool // a running daemon takes a change
	// filled is the default that fillDefaults gives, as a word; "" for none.
	filled string
	typ    reflect.Type
}

// configSections lists the tables in the order of the struct.
func configSections() []configSection {
	var c config
	v := reflect.ValueOf(&c).Elem()
	for i := range v.NumField() { // one of each, so that the defaults of lists show
		oneOfEach(v.Field(i))
	}
	c.fillDefaults()
	return sectionsOf("", v)
}

// oneOfEach makes lists of tables that have one, also below one another.
func oneOfEach(v reflect.Value) {
	if !isList(v.Type()) {
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	for one, i := v.Index(0), 0; i < one.NumField(); i++ {
		oneOfEach(one.Field(i))
	}
}

func isList(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct
}

// sectionsOf lists the tables below v, a struct; prefix is "" or ends in a dot.
func sectionsOf(prefix string, v reflect.Value) []configSection {
	var all []configSection
	for i := range v.NumField() {
		f, field := v.Type().Field(i), v.Field(i)
		s := configSection{name: prefix + tomlName(f), about: f.Tag.Get("comment")}
		if isList(f.Type) {
			s.list, field = true, field.Index(0)
		}
		if field.Kind() == reflect.Pointer && field.Type().Elem().Kind() == reflect.Struct {
			field = reflect.New(field.Type().Elem()).Elem()
		}
		if field.Kind() != reflect.Struct {
			continue
		}
		for j := range field.NumField() {
			if k, ok := keyOf(field.Type().Field(j), field.Field(j)); ok {
				s.keys = append(s.keys, k)
			}
		}
		all = append(append(all, s), sectionsOf(s.name+".", field)...)
	}
	return all
}

// keyOf describes one field, or says that it is a table of its own.
func keyOf(f reflect.StructField, v reflect.Value) (configKey, bool) {
	form, ok := formOf(f.Type)
	if !ok {
		return configKey{}, false
	}
	k := configKey{name: tomlName(f), form: form, comment: f.Tag.Get("comment"), reload: f.Tag.Get("reload") == "yes", filled: wordOf(v), typ: f.Type}
	k.meaning, k.fallback = splitDefault(k.comment)
	return k, true
}

// formOf says in words how a value is written.
func formOf(t reflect.Type) (string, bool) {
	switch {
	case t == reflect.TypeFor[duration]():
		return "duration", true
	case t.Kind() == reflect.Pointer:
		return formOf(t.Elem())
	case t.Kind() == reflect.String:
		return "text", true
	case t.Kind() == reflect.Bool:
		return "true or false", true
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Float64:
		return "number", true
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String:
		return "list of texts", true
	case t.Kind() == reflect.Map:
		return "table of texts", true
	}
	return "", false
}

// wordOf is a value as the comments write it; "" for the zero value.
func wordOf(v reflect.Value) string {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return ""
		}
		return fmt.Sprint(v.Elem().Interface())
	}
	if v.IsZero() {
		return ""
	}
	switch value := v.Interface().(type) {
	case duration:
		return shortDuration(value.std())
	case []string:
		return strings.Join(value, " and ")
	}
	return fmt.Sprint(v.Interface())
}

// shortDuration writes 5m and 168h in place of 5m0s and 168h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// The two ways in which a comment names its default: "…; default 2s." and
// "TDES_2KEY (default), TDES_3KEY".
var (
	defaultClause = regexp.MustCompile(`[;,]? ?default (.+?)(;|\. |\.$)`)
	defaultMark   = regexp.MustCompile(`(\S+) \(default\)`)
)

// splitDefault takes the default out of a comment.
func splitDefault(comment string) (meaning, fallback string) {
	if m := defaultClause.FindStringSubmatchIndex(comment); m != nil {
		meaning = comment[:m[0]] + comment[m[4]:]
		return meaning, strings.Trim(comment[m[2]:m[3]], `"`)
	}
	if m := defaultMark.FindStringSubmatch(comment); m != nil {
		return comment, strings.Trim(m[1], `"`)
	}
	return comment, ""
}

// writeReference is the reference as it stands in docs/OPERATIONS.md.
func writeReference() string {
	var b strings.Builder
	for _, s := range configSections() {
		fmt.Fprintf(&b, "### `%s`\n\n%s\n\n", s.heading(), s.about)
		if len(s.keys) == 0 {
			continue
		}
		b.WriteString("| key | form | default | change | meaning |\n|---|---|---|---|---|\n")
		for _, k := range s.keys {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", k.name, k.form, cell(k.fallback), k.change(), cell(k.meaning))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (s *configSection) heading() string {
	if s.list {
		return "[[" + s.name + "]]"
	}
	return "[" + s.name + "]"
}

// change is when a new value holds.
func (k *configKey) change() string {
	if k.reload {
		return "reload"
	}
	return "restart"
}

// cell keeps a text within its cell of a table, and patterns from being markup.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "* and ?", "`*` and `?`", `"*"`, "`\"*\"`").Replace(s)
}

// writeExample is a configuration in which every key stands, as a comment, with
// its default.
func writeExample() string {
	var b strings.Builder
	b.WriteString("# Every key that keyd knows, with its default. Take away the # before those\n# that are to be other, and fill in those that are empty.\n")
	for _, s := range configSections() {
		fmt.Fprintf(&b, "\n# %s\n%s%s\n", s.about, s.mark(), s.heading())
		for _, k := range s.keys {
			fmt.Fprintf(&b, "# %s\n#%s = %s\n", k.comment, k.name, k.literal())
		}
	}
	return b.String()
}

// mark comments the head of a list out: an entry without its keys is refused.
func (s *configSection) mark() string {
	if s.list {
		return "#"
	}
	return ""
}

// literal is the default as TOML.
func (k *configKey) literal() string {
	switch k.form {
	case "number":
		return orElse(k.filled, "0")
	case "true or false":
		return orElse(k.filled, "false")
	case "list of texts":
		if k.filled == "" {
			return "[]"
		}
		return `["` + strings.ReplaceAll(k.filled, " and ", `", "`) + `"]`
	case "table of texts":
		return "{}"
	case "duration":
		return strconv.Quote(orElse(k.filled, "0s"))
	}
	return strconv.Quote(k.filled)
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
