package audit

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"
)

// The limits of a record's size and lists.
const (
	schemaVersion = 1
	maxRecord     = 8192 // bytes; the formats allow 65,535
	maxInt        = 1<<53 - 1
	maxRoles      = 8
	maxKeys       = 8
	maxApprovals  = 8
	maxTrees      = 8
	maxVkeys      = 4
	maxCountBy    = 72
	maxSignature  = 512 // bytes, before base64
	maxPurpose    = 256
	maxFilter     = 512
	cutText       = 64 // what is left of texts in a record that is too long
)

// identity is what every record of a process says of the process.
type identity struct {
	node, build, timeSource string
	boot                    [8]byte
	cfg                     [8]byte
}

// moment is everything that is read when an event is described. A record
// keeps it, so that encoding it again yields the same bytes.
type moment struct {
	wall  time.Time
	mono  int64 // microseconds since the process started
	who   *identity
	sync  bool
	errUS int64
}

// scrub tells of a value that was replaced, cut or left out.
type scrub struct {
	field string
	why   scrubWhy
}

// draft is an encoded record around its seq, which is not known until the
// record has its place in the log.
type draft struct {
	pre, suf []byte // pre ends with `"seq":`
	logAt    int    // offset of the log's name in pre
	scrubs   []scrub
	id       UUID
	wall     time.Time
}

var drafts = sync.Pool{New: func() any {
	return &draft{pre: make([]byte, 0, 1536), suf: make([]byte, 0, 512), scrubs: make([]scrub, 0, 4)}
}}

// free gives the draft back for reuse.
func (d *draft) free() { drafts.Put(d) }

// alarming reports whether a value failed its validator or the scanner. An
// unregistered name is no fault of the caller's.
func (d *draft) alarming() bool {
	return slices.ContainsFunc(d.scrubs, func(s scrub) bool { return s.why != whyUnregistered && s.why != whyLength })
}

// checkRecord says whether the catalogue allows the record in the log.
func checkRecord(r *Record, id LogID) error {
	if !r.Action.known() {
		return fmt.Errorf("%w: unknown action %d", ErrRecord, r.Action)
	}
	def := &actions[r.Action]
	switch {
	case def.log != 0 && def.log != id:
		return fmt.Errorf("%w: action %s belongs to log %v, not %v", ErrRecord, def.name, def.log, id)
	case r.Phase != PhaseIntent && r.Phase != PhaseOutcome:
		return fmt.Errorf("%w: action %s has unknown phase %d", ErrRecord, def.name, r.Phase)
	case r.Phase == PhaseIntent && !def.twice:
		return fmt.Errorf("%w: action %s has no intent", ErrRecord, def.name)
	case r.Phase == PhaseIntent && (r.Outcome != 0 || r.Reason != 0 || !r.Ref.IsZero()):
		return fmt.Errorf("%w: an intent of %s has no outcome, reason or ref", ErrRecord, def.name)
	case r.Phase == PhaseOutcome && (r.Outcome == 0 || int(r.Outcome) >= len(outcomeNames)):
		return fmt.Errorf("%w: an outcome of %s must say how it ended", ErrRecord, def.name)
	case r.Phase == PhaseOutcome && r.Outcome == OutcomeOK && def.twice && r.Ref.IsZero():
		return fmt.Errorf("%w: an outcome of %s must refer to its intent", ErrRecord, def.name)
	}
	return nil
}

// encode writes a record of the given shard. It never fails: a value that may
// not be written is replaced or left out, and listed.
func encode(r *Record, m *moment, shard Shard) *draft {
	d := drafts.Get().(*draft)
	e := encoder{r: r, m: m, shard: shard, def: &actions[r.Action]}
	e.run(d)
	if len(d.pre)+len(d.suf)+len("9007199254740991") > maxRecord {
		e.cut = true
		e.run(d)
	}
	d.id, d.wall = r.ID, m.wall
	return d
}

// statement returns the record without seq and signatures (L-76).
func statement(r *Record, m *moment) []byte {
	d := drafts.Get().(*draft)
	defer d.free()
	e := encoder{r: r, m: m, def: &actions[r.Action], unsigned: true}
	e.run(d)
	out := slices.Clone(d.pre[:len(d.pre)-len(`,"seq":`)])
	return append(out, d.suf...)
}

// encoder writes one record. Its functions stand in the order of the members.
type encoder struct {
	b        []byte
	r        *Record
	m        *moment
	shard    Shard
	def      *actionDef
	scrubs   []scrub
	cut      bool // shorten texts
	unsigned bool // leave the ceremony's signatures out
}

func (e *encoder) run(d *draft) {
	e.scrubs = d.scrubs[:0]
	e.b = append(d.pre[:0], '{')
	e.first()
	e.middle()
	d.logAt = e.log()
	e.last()
	pre := e.b

	// What follows seq may add to the list of scrubs, which stands before it.
	e.b = d.suf[:0]
	e.after()
	d.suf = append(e.b, '}')

	e.b = pre
	e.writeScrubs()
	e.key("seq")
	d.pre, d.scrubs = e.b, e.scrubs
}

// sec reports whether the record is one of sec.
func (e *encoder) sec() bool { return e.shard == 0 }

// group reports whether the action has a group and it is there. What is there
// without being allowed, or missing though an action that was done needs it,
// is listed.
func (e *encoder) group(g group, field string, present bool) bool {
	if (e.def.needs|e.def.may)&g == 0 {
		if present {
			e.scrub(field, whyInvalid)
		}
		return false
	}
	if !present && e.def.needs&g != 0 && (e.r.Phase == PhaseIntent || e.r.Outcome == OutcomeOK) {
		e.scrub(field, whyInvalid)
	}
	return present
}

func (e *encoder) scrub(field string, why scrubWhy) {
	for i := range e.scrubs {
		if e.scrubs[i].field == field && e.scrubs[i].why == why {
			return
		}
	}
	e.scrubs = append(e.scrubs, scrub{field, why})
}

// key writes a member's name, which is what stands after the last dot of its
// path.
func (e *encoder) key(field string) {
	if n := len(e.b); n == 0 || e.b[n-1] != '{' {
		e.b = append(e.b, ',')
	}
	i := len(field)
	for i > 0 && field[i-1] != '.' {
		i--
	}
	e.b = append(e.b, '"')
	e.b = append(e.b, field[i:]...)
	e.b = append(e.b, '"', ':')
}

func (e *encoder) open(field string) {
	e.key(field)
	e.b = append(e.b, '{')
}

func (e *encoder) shut() { e.b = append(e.b, '}') }

// raw writes a string that needs neither check nor escape.
func (e *encoder) raw(field, s string) {
	e.key(field)
	e.b = append(e.b, '"')
	e.b = append(e.b, s...)
	e.b = append(e.b, '"')
}

// bad writes "?" in the place of a value and lists it.
func (e *encoder) bad(field string, why scrubWhy) {
	e.raw(field, "?")
	e.scrub(field, why)
}

// plain writes a string of a type whose validator leaves no room for secrets.
// An empty one is absent.
func (e *encoder) plain(field, s string, ok bool) {
	switch {
	case s == "":
	case !ok:
		e.bad(field, whyInvalid)
	default:
		e.raw(field, s)
	}
}

// need is [encoder.plain] for a member that may not be absent.
func (e *encoder) need(field, s string, ok bool) {
	if s == "" || !ok {
		e.bad(field, whyInvalid)
		return
	}
	e.raw(field, s)
}

// enum writes an enumerated value; "" is absent and "?" is out of range.
func (e *encoder) enum(field, s string) { e.plain(field, s, s != "?") }

// enumNeeded is [encoder.enum] for a member that may not be absent.
func (e *encoder) enumNeeded(field, s string) { e.need(field, s, s != "?") }

// id writes an identifier that came from outside. An empty one is absent.
func (e *encoder) id(field, s string) {
	if s == "" {
		return
	}
	e.idNeeded(field, s)
}

func (e *encoder) idNeeded(field, s string) {
	switch {
	case len(s) > 128:
		e.bad(field, whyLength)
	case !isID(s):
		e.bad(field, whyInvalid)
	default:
		if why := scan(s); why != 0 {
			e.bad(field, why)
			return
		}
		e.raw(field, s)
	}
}

// printable writes up to n printable ASCII characters. An empty value is absent.
func (e *encoder) printable(field, s string, n int, scanned bool) {
	if s == "" {
		return
	}
	if !isPrintable(s, n) {
		e.bad(field, whyInvalid)
		return
	}
	if why := scan(s); scanned && why != 0 {
		e.bad(field, why)
		return
	}
	e.key(field)
	e.b = appendString(e.b, s)
}

// text writes UTF-8 and cuts it to n bytes. An empty value is absent.
func (e *encoder) text(field, s string, n int) {
	if s == "" {
		return
	}
	if !isText(s) {
		e.bad(field, whyUTF8)
		return
	}
	if why := scan(s); why != 0 {
		e.bad(field, why)
		return
	}
	if e.cut {
		n = cutText
	}
	if len(s) > n {
		s = cutString(s, n)
		e.scrub(field, whyLength)
	}
	e.key(field)
	e.b = appendString(e.b, s)
}

// int writes a number; one that is out of range is left out and listed.
func (e *encoder) int(field string, n int64) {
	if n < 0 || n > maxInt {
		e.scrub(field, whyInvalid)
		return
	}
	e.sint(field, n)
}

func (e *encoder) sint(field string, n int64) {
	e.key(field)
	e.b = strconv.AppendInt(e.b, n, 10)
}

// intAt writes the number that p points to; nil is absent.
func (e *encoder) intAt(field string, p *int64) {
	if p != nil {
		e.int(field, *p)
	}
}

func (e *encoder) bool(field string, v bool) {
	e.key(field)
	e.b = strconv.AppendBool(e.b, v)
}

// hash writes 64 lower-case hexadecimal digits; the zero hash is absent.
func (e *encoder) hash(field string, h Hash) {
	if h != (Hash{}) {
		e.hex(field, h[:])
	}
}

func (e *encoder) hex(field string, b []byte) {
	e.key(field)
	e.b = append(e.b, '"')
	e.b = appendHex(e.b, b)
	e.b = append(e.b, '"')
}

func (e *encoder) uuid(field string, u UUID) {
	e.key(field)
	e.b = append(e.b, '"')
	e.b = u.append(e.b)
	e.b = append(e.b, '"')
}

func (e *encoder) ts(field string, t time.Time) {
	t = t.UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		e.bad(field, whyInvalid)
		return
	}
	e.key(field)
	e.b = append(e.b, '"')
	e.b = appendTime(e.b, t)
	e.b = append(e.b, '"')
}

// list writes an array of n elements, at most limit of them.
func (e *encoder) list(field string, n, limit int, element func(i int)) {
	if n > limit {
		e.scrub(field, whyLength)
		n = limit
	}
	e.key(field)
	e.b = append(e.b, '[')
	for i := range n {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		element(i)
	}
	e.b = append(e.b, ']')
}

func (e *encoder) writeScrubs() {
	if len(e.scrubs) == 0 {
		return
	}
	e.list("scrub", len(e.scrubs), len(e.scrubs), func(i int) {
		e.b = append(e.b, '{')
		e.raw("field", e.scrubs[i].field)
		e.raw("why", e.scrubs[i].why.String())
		e.shut()
	})
}
