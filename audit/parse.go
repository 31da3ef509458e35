package audit

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// parseRecord checks that a stored record is canonical (RFC 8785), has the
// schema of section 7.2, and the groups that its action needs and may have. The
// error is [ErrFormat].
func parseRecord(record []byte) (*facts, error) {
	p := parser{s: string(record)}
	p.path, p.missing = p.room[:0], p.space[:0]
	if len(record) > maxRecord {
		return nil, p.fail("record has %d bytes, more than %d", len(record), maxRecord)
	}
	if err := p.object(schema, 0); err != nil {
		return nil, err
	}
	if p.i != len(p.s) {
		return nil, p.fail("bytes behind the record")
	}
	return &p.f, p.finish()
}

// parser walks over one record.
type parser struct {
	s       string
	i       int
	f       facts
	class   string
	version int64
	top     [2]uint64 // which members of the schema are there
	nested  group     // groups of members inside of others
	secOnly bool      // there is a member that only sec has
	path    []string
	room    [6]string // of path
	marks   []string  // paths of values that were replaced
	missing []absence
	space   [8]absence // of missing
}

// absence is a member that is needed and not there.
type absence struct {
	f      *field
	parent [3]string // path of its object
	depth  int
}

func (a *absence) path() string {
	return scrubPath(append(a.parent[:a.depth:a.depth], a.f.name))
}

// scrubPath writes a path as lists of scrubbed members spell it.
func scrubPath(path []string) string {
	return strings.ReplaceAll(strings.Join(path, "."), ".[]", "[]")
}

func (p *parser) fail(format string, args ...any) error {
	at := strings.Join(p.path, ".")
	return fmt.Errorf("%w: record: %s, byte %d: %s", ErrFormat, at, p.i, fmt.Sprintf(format, args...))
}

func (p *parser) expect(c byte) error {
	if p.i >= len(p.s) || p.s[p.i] != c {
		return p.fail("need %q", c)
	}
	p.i++
	return nil
}

// object reads an object whose members stand in fs, sorted by name.
func (p *parser) object(fs []field, depth int) error {
	if err := p.expect('{'); err != nil {
		return err
	}
	next := 0
	for n := 0; ; n++ {
		if p.i < len(p.s) && p.s[p.i] == '}' && n > 0 {
			break
		}
		if n > 0 {
			if err := p.expect(','); err != nil {
				return err
			}
		}
		name, err := p.name()
		if err != nil {
			return err
		}
		for next < len(fs) && fs[next].name < name {
			p.absent(&fs[next])
			next++
		}
		if next == len(fs) || fs[next].name != name {
			return p.fail("member %.40q is unknown, repeated or out of order", name)
		}
		if depth == 0 {
			p.top[next/64] |= 1 << (next % 64)
		}
		p.path = append(p.path, name)
		if err := p.value(&fs[next], depth+1); err != nil {
			return err
		}
		p.path = p.path[:len(p.path)-1]
		next++
	}
	p.i++
	for ; next < len(fs); next++ {
		p.absent(&fs[next])
	}
	return nil
}

// absent notes a member that is not there and may have to be.
func (p *parser) absent(f *field) {
	if f.need {
		a := absence{f: f, depth: len(p.path)}
		copy(a.parent[:], p.path)
		p.missing = append(p.missing, a)
	}
}

func (p *parser) name() (string, error) {
	if err := p.expect('"'); err != nil {
		return "", err
	}
	start := p.i
	for p.i < len(p.s) && p.s[p.i] != '"' {
		if c := p.s[p.i]; (c < 'a' || c > 'z') && c != '_' && (c < '0' || c > '9') {
			return "", p.fail("bad member name")
		}
		p.i++
	}
	name := p.s[start:min(p.i, len(p.s))]
	if err := p.expect('"'); err != nil {
		return "", err
	}
	return name, p.expect(':')
}

func (p *parser) value(f *field, depth int) error {
	p.secOnly = p.secOnly || f.sec
	if depth > 1 {
		p.nested |= f.group
	}
	switch f.kind {
	case kindObject:
		return p.object(f.of, depth)
	case kindArray:
		return p.array(f, depth)
	case kindInt, kindSint:
		n, err := p.number()
		if err != nil {
			return err
		}
		if f.kind == kindInt && n < 0 {
			return p.fail("negative number")
		}
		p.noteInt(n)
		return nil
	case kindBool:
		return p.boolean()
	}
	s, err := p.str()
	if err != nil {
		return err
	}
	if s == "?" {
		p.marks = append(p.marks, scrubPath(p.path))
		p.noteString(f, s)
		return nil
	}
	if !f.accepts(s) {
		return p.fail("value has the wrong form")
	}
	p.noteString(f, s)
	return nil
}

func (p *parser) array(f *field, depth int) error {
	if err := p.expect('['); err != nil {
		return err
	}
	if p.i < len(p.s) && p.s[p.i] == ']' {
		if f.name != "roles" {
			return p.fail("empty array")
		}
		p.i++
		return nil
	}
	p.path = append(p.path, "[]")
	for n := 0; ; n++ {
		if n > 0 {
			if p.i < len(p.s) && p.s[p.i] == ']' {
				break
			}
			if err := p.expect(','); err != nil {
				return err
			}
		}
		if f.name == "trees" {
			p.f.trees = append(p.f.trees, treeFact{first: -1})
		}
		if err := p.value(&f.of[0], depth+1); err != nil {
			return err
		}
	}
	p.path = p.path[:len(p.path)-1]
	p.i++
	return nil
}

// number reads an integer as RFC 8785 writes it.
func (p *parser) number() (int64, error) {
	start := p.i
	if p.i < len(p.s) && p.s[p.i] == '-' {
		p.i++
	}
	for p.i < len(p.s) && isDigit(p.s[p.i]) {
		p.i++
	}
	text := p.s[start:p.i]
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n > maxInt || n < -maxInt || text[0] == '0' && len(text) > 1 || text[0] == '-' && (n == 0 || text[1] == '0') {
		return 0, p.fail("number %.24q is not an integer in canonical form", text)
	}
	return n, nil
}

func (p *parser) boolean() error {
	for _, word := range []string{"true", "false"} {
		if strings.HasPrefix(p.s[p.i:], word) {
			p.i += len(word)
			return nil
		}
	}
	return p.fail("need true or false")
}

// str reads a string and checks that it is escaped as RFC 8785 does.
func (p *parser) str() (string, error) {
	if err := p.expect('"'); err != nil {
		return "", err
	}
	start := p.i
	plain := true
	for p.i < len(p.s) {
		c := p.s[p.i]
		if c == '"' {
			break
		}
		if c == '\\' {
			plain = false
			p.i++
		}
		if c < 0x20 {
			return "", p.fail("control character")
		}
		plain = plain && c < 0x80
		p.i++
	}
	raw := p.s[start:min(p.i, len(p.s))]
	if err := p.expect('"'); err != nil {
		return "", err
	}
	if raw == "" {
		return "", p.fail("empty string")
	}
	if plain {
		return raw, nil
	}
	s, ok := unescape(raw)
	if !ok || !utf8.ValidString(s) || string(appendString(nil, s)) != `"`+raw+`"` {
		return "", p.fail("string is not escaped in canonical form")
	}
	return s, nil
}

// unescape resolves the escapes that records can have.
func unescape(s string) (string, bool) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b = append(b, s[i])
			continue
		}
		i++
		if i == len(s) || s[i] != '"' && s[i] != '\\' {
			return "", false // no type allows the other escapes
		}
		b = append(b, s[i])
	}
	return string(b), true
}

// accepts reports whether a string has the form of the field's type.
func (f *field) accepts(s string) bool {
	switch f.kind {
	case kindTS:
		return isTS(s)
	case kindUUID:
		return isUUID7(s)
	case kindID:
		return isID(s)
	case kindHex:
		return all(s, classLower, f.lo, f.lo)
	case kindHEX:
		return all(s, classUpper, f.lo, f.hi)
	case kindKSN:
		return isKSN(s)
	case kindNum:
		return all(s, classDigit, f.lo, f.hi)
	case kindAn:
		return isPrintable(s, f.hi)
	case kindAnTok:
		return isPrintable(s, f.hi) || isToken(s)
	case kindText:
		return len(s) <= f.hi && isText(s)
	case kindB64:
		b, err := base64.StdEncoding.Strict().DecodeString(s)
		return err == nil && len(b) > 0
	case kindTok:
		return isToken(s)
	case kindPAN:
		return isTruncatedPAN(s)
	case kindVkey:
		_, err := parseVkey(s)
		return err == nil
	case kindLog:
		return isLogName(s)
	case kindOrigin:
		return isOrigin(s)
	case kindDT:
		return isOrigDateTime(s)
	case kindEnum:
		return slices.Contains(f.values, s)
	}
	return false
}

// isTS reports whether s is YYYY-MM-DDThh:mm:ss.ffffffZ with every part in range.
func isTS(s string) bool {
	if len(s) != 27 || s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' || s[19] != '.' || s[26] != 'Z' {
		return false
	}
	for _, r := range [...][2]int{{0, 4}, {5, 7}, {8, 10}, {11, 13}, {14, 16}, {17, 19}, {20, 26}} {
		if !all(s[r[0]:r[1]], classDigit, 1, 6) {
			return false
		}
	}
	two := func(i int) int { return int(s[i]-'0')*10 + int(s[i+1]-'0') }
	month, day := two(5), two(8)
	return month >= 1 && month <= 12 && day >= 1 && day <= daysOf[month] && two(11) < 24 && two(14) < 60 && two(17) < 60
}

// finish checks what the members say of each other.
func (p *parser) finish() error {
	f := &p.f
	if !f.action.known() {
		return p.fail("no known action")
	}
	def := &actions[f.action]
	sec := f.log == "sec"
	switch {
	case p.version != schemaVersion:
		return p.fail("version %d", p.version)
	case p.class != def.class:
		return p.fail("class %s of action %s", p.class, def.name)
	case def.log != 0 && (def.log == Sec) != sec:
		return p.fail("action %s in log %s", def.name, f.log)
	case p.secOnly && !sec:
		return p.fail("a record of ops has a member of sec")
	case p.nested&^(def.needs|def.may) != 0:
		return p.fail("action %s has a member of another group", def.name)
	case f.intent && (!def.twice || f.outcome != "" || f.reason != ""):
		return p.fail("action %s cannot have this intent", def.name)
	case !f.intent && f.outcome == "":
		return p.fail("outcome is missing")
	case !f.intent && f.outcome != "ok" && f.reason == "":
		return p.fail("reason is missing")
	case !f.intent && f.outcome == "ok" && def.twice && f.ref == "":
		return p.fail("ref is missing")
	}
	for _, m := range p.marks {
		if !slices.Contains(f.scrubs, m) {
			return p.fail("%s was replaced and is not in scrub", m)
		}
	}
	for i := range p.missing {
		m := &p.missing[i]
		if m.f.sec && !sec {
			continue
		}
		path := m.path()
		if slices.Contains(f.scrubs, path) || path == "hsm.serial" && def.needs&groupH == 0 {
			continue
		}
		return p.fail("%s is missing", path)
	}
	return p.groups(def)
}

// groups checks that the members belong to groups of the action, and that the
// groups it needs are there when it was done.
func (p *parser) groups(def *actionDef) error {
	for i := range schema {
		there := p.top[i/64]>>(i%64)&1 == 1
		g := schema[i].group
		if there && g != 0 && (def.needs|def.may)&g == 0 {
			return p.fail("action %s has no member %s", def.name, schema[i].name)
		}
		if !there && def.needs&g != 0 && (p.f.intent || p.f.outcome == "ok") &&
			isGroupField(def.needs&g, schema[i].name) && !slices.Contains(p.f.scrubs, schema[i].name) {
			return p.fail("action %s needs %s", def.name, schema[i].name)
		}
	}
	return nil
}

func isGroupField(g group, name string) bool {
	for _, gf := range groupField {
		if gf.group == g {
			return gf.name == name
		}
	}
	return false
}
