package report

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
)

// Source is a log that was opened, and what its verification found.
type Source struct {
	Reader *audit.Reader
	Found  audit.Report
	OwnKey bool // it was verified with the key in its own folder
}

// recordTime is the form of times in records.
const recordTime = "2006-01-02T15:04:05.000000Z"

// The time stamps of neighbours may be a little out of order (L-15).
const slack = 2 * time.Minute

// book reads the records of a range, those of sec first.
type book struct {
	src         Source
	from, to    string // as records have times; "" is open
	early       string // records before this one in their log are of before the range
	late        string // and after this one, of behind it
	disorder    time.Duration
	first, last string  // times of the whole of sec
	disordered  Refs    // records of sec at which the clock went back by a second or more
	before      *record // the newest sys.start or sys.stop of before the range
	states      map[string]*LogState
	order       []string
	pruned      []string
}

// newBook reads the times of sec, to know how far the clock ever went back: by so
// much may the times of a log be out of order, and a range is looked for within.
func newBook(ctx context.Context, src Source, from, to string) (*book, error) {
	b := &book{src: src, from: from, to: to, states: make(map[string]*LogState)}
	logs, err := src.Reader.Logs()
	if err != nil {
		return nil, err
	}
	for _, name := range logs {
		b.order = append(b.order, name)
		b.states[name] = &LogState{Log: name}
	}
	for _, l := range src.Found.Logs {
		if s := b.states[l.Log]; s != nil {
			s.Origin, s.Size, s.Root = l.Origin, l.Size, base64.StdEncoding.EncodeToString(l.Root[:])
		}
	}
	if err := b.clock(ctx); err != nil {
		return nil, err
	}
	b.early, b.late = b.shift(from, -1), b.shift(to, 1)
	return b, nil
}

// shift is a time moved by the slack.
func (b *book) shift(at string, sign time.Duration) string {
	if at == "" {
		return ""
	}
	t, err := time.Parse(recordTime, at)
	if err != nil {
		return at
	}
	return t.Add(sign * (slack + b.disorder)).Format(recordTime)
}

// clock goes over sec and looks at nothing but times, starts and stops.
func (b *book) clock(ctx context.Context) error {
	var latest time.Time
	for e, err := range b.src.Reader.Records(audit.Sec.String(), 0) {
		if err != nil {
			return b.unread(err)
		}
		if e.Seq%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		stamp := timeOf(e.Raw)
		at, err := time.Parse(recordTime, stamp)
		if err != nil {
			return b.unread(fmt.Errorf("record %s:%d has no time", e.Log, e.Seq))
		}
		if b.first == "" {
			b.first = stamp
		}
		b.last = max(b.last, stamp)
		if back := latest.Sub(at); back > 0 {
			b.disorder = max(b.disorder, back)
			if back >= time.Second {
				b.disordered.add(e.Log, e.Seq)
			}
		} else {
			latest = at
		}
		if stamp < b.from && (actionIs(e.Raw, audit.SysStart) || actionIs(e.Raw, audit.SysStop)) {
			if r, err := parse(e); err == nil {
				b.before = r
			}
		}
	}
	return nil
}

// bounds are those of the range, or of the log where it is open.
func (b *book) bounds() (from, to string) {
	from, to = b.from, b.to
	if from == "" {
		from = b.first
	}
	if to == "" && len(b.last) == len(recordTime) {
		to = b.last[:len("2006-01-02T15")] + ":59:59.999999Z"
	}
	return from, to
}

// unread is the error of a log that cannot be read. Where the verification has
// found it damaged already, the report says so and goes on with what there is.
func (b *book) unread(err error) error {
	if !b.src.Found.OK() {
		return nil
	}
	return fmt.Errorf("reading the audit log: %w", err)
}

// actionIs looks at the first member of a stored record alone.
func actionIs(raw []byte, a audit.Action) bool {
	return bytes.HasPrefix(raw, []byte(`{"action":"`+a.String()+`"`))
}

// timeOf is the time of a stored record: of its members of the first level only
// "trace", "trees", "tsq", "v", "vkeys" and "wal" stand behind it.
func timeOf(raw []byte) string {
	const name = `,"ts":"`
	at := bytes.LastIndex(raw, []byte(name))
	// An approval has a time too, and stands before.
	if at < 0 || len(raw) < at+len(name)+len(recordTime) {
		return ""
	}
	return string(raw[at+len(name) : at+len(name)+len(recordTime)])
}

// each shows the records of the range in the order of each log: sec, then the
// months of ops. behind, if any, gets those that come after the range, as far as
// the search must look. want passes over records by their bytes; nil wants all.
func (b *book) each(ctx context.Context, want func(raw []byte) bool, see func(*record), behind func(*record)) error {
	for _, name := range b.order {
		if err := b.eachOf(ctx, name, want, see, behind); err != nil {
			return err
		}
	}
	return nil
}

func (b *book) eachOf(ctx context.Context, name string, want func(raw []byte) bool, see func(*record), behind func(*record)) error {
	first, err := b.begin(name)
	if err != nil {
		return b.unread(err)
	}
	state := b.states[name]
	state.Records, state.Uncovered, state.Refs = 0, 0, Refs{}
	for e, err := range b.src.Reader.Records(name, first) {
		if err != nil {
			return b.unread(err)
		}
		if e.Seq%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		at := timeOf(e.Raw)
		if b.late != "" && at >= b.late {
			return nil
		}
		if at < b.from || b.to != "" && at >= b.to && behind == nil {
			continue
		}
		inside := b.to == "" || at < b.to
		if inside {
			state.Records++
			state.Refs.add(name, e.Seq)
			if e.Seq >= state.Size {
				state.Uncovered++
			}
		}
		if want != nil && !want(e.Raw) {
			continue
		}
		r, err := parse(e)
		if err != nil {
			if err := b.unread(err); err != nil {
				return err
			}
			continue
		}
		if inside {
			see(r)
		} else {
			behind(r)
		}
	}
	return nil
}

// begin finds the first record of a log that can be of the range: by halves, since
// times rise but for the slack.
func (b *book) begin(name string) (uint64, error) {
	lo, hi, kept := uint64(0), b.states[name].Size, uint64(0)
	for lo < hi {
		mid := lo + (hi-lo)/2
		raw, err := b.src.Reader.Get(name, mid)
		switch {
		case errors.Is(err, audit.ErrPruned):
			lo, kept = mid+1, mid+1
		case err != nil:
			return 0, err
		case b.early == "" || timeOf(raw) >= b.early:
			hi = mid
		default:
			lo = mid + 1
		}
	}
	if kept > 0 && lo == kept {
		b.pruned = append(b.pruned, name)
	}
	return lo, nil
}

// finish fills the head of a document.
func (b *book) finish(d *Document) {
	d.Verdict = Verdict{Verified: b.src.Found.OK(), OwnKey: b.src.OwnKey, Failed: b.src.Found.Failed, Findings: b.src.Found.Findings}
	d.Logs = []LogState{}
	for _, name := range b.order {
		s := *b.states[name]
		if s.Records > 0 || name == audit.Sec.String() {
			d.Logs = append(d.Logs, s)
		}
		if parts := strings.Split(s.Origin, "/"); d.Node == "" && len(parts) > 1 {
			d.Node = parts[len(parts)-2]
		}
	}
	d.From, d.To = b.from, b.to
}
