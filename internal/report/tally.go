package report

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// tally counts by a key of one or more columns, and keeps where.
type tally struct {
	lines map[string]*tallied
}

type tallied struct {
	key         []string
	n           int64
	refs        Refs
	first, last string // times
}

// add counts n for the key; one record may stand for many.
func (t *tally) add(r *record, n int64, key ...string) {
	if t.lines == nil {
		t.lines = make(map[string]*tallied)
	}
	name := strings.Join(key, "\x00")
	l := t.lines[name]
	if l == nil {
		l = &tallied{key: key, first: r.Time, last: r.Time}
		t.lines[name] = l
	}
	l.n += n
	l.refs.add(r.Log, r.Seq)
	l.first, l.last = min(l.first, r.Time), max(l.last, r.Time)
}

// byCount is the largest first.
func (t *tally) byCount() []*tallied {
	all := t.byKey()
	slices.SortStableFunc(all, func(a, b *tallied) int { return cmp.Compare(b.n, a.n) })
	return all
}

func (t *tally) byKey() []*tallied {
	all := make([]*tallied, 0, len(t.lines))
	for _, l := range t.lines {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b *tallied) int { return slices.Compare(a.key, b.key) })
	return all
}

// into makes a row of each line: its key, its count, and when where times are wanted.
func (t *tally) into(s *Section, lines []*tallied, times bool) {
	for _, l := range lines {
		cells := append(slices.Clone(l.key), number(l.n))
		if times {
			cells = append(cells, short(l.first), short(l.last))
		}
		s.row(l.refs, cells...)
	}
}

// number writes a count with its thousands apart.
func number(n int64) string {
	s := strconv.FormatInt(n, 10)
	digits := len(strings.TrimPrefix(s, "-"))
	var b strings.Builder
	for i, c := range s {
		left := len(s) - i
		if left%3 == 0 && left < digits {
			b.WriteByte(',')
		}
		b.WriteRune(c)
	}
	return b.String()
}

// short is a time without its fractions.
func short(stamp string) string {
	if len(stamp) != len(recordTime) {
		return stamp
	}
	return stamp[:10] + " " + stamp[11:19]
}
