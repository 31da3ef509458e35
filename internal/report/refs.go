package report

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// The bounds of what is kept and shown of the places of records.
const (
	mostRuns  = 1000 // kept of one figure; above, only the first and the last are exact
	mostShown = 4    // runs in text and on paper
)

// Refs are the records behind a figure. The zero value has none.
type Refs struct {
	logs []logRefs
}

type logRefs struct {
	log  string
	n    int64
	runs []run
	last uint64
	cut  bool // runs after mostRuns are only counted
}

// run is a stretch of records without a gap.
type run struct{ first, last uint64 }

func (r *Refs) add(log string, seq uint64) {
	var l *logRefs
	for i := range r.logs {
		if r.logs[i].log == log {
			l = &r.logs[i]
		}
	}
	if l == nil {
		r.logs = append(r.logs, logRefs{log: log})
		l = &r.logs[len(r.logs)-1]
	}
	l.n++
	l.last = seq
	last := len(l.runs) - 1
	switch {
	case last >= 0 && !l.cut && l.runs[last].last+1 == seq:
		l.runs[last].last = seq
	case last+1 < mostRuns:
		l.runs = append(l.runs, run{seq, seq})
	default:
		l.cut = true
	}
}

// N is how many records there are.
func (r *Refs) N() (n int64) {
	for i := range r.logs {
		n += r.logs[i].n
	}
	return n
}

func (s run) String() string {
	if s.first == s.last {
		return strconv.FormatUint(s.first, 10)
	}
	return strconv.FormatUint(s.first, 10) + ".." + strconv.FormatUint(s.last, 10)
}

// String names all runs, or the first ones and the last where there are many.
func (r *Refs) String() string { return r.text(mostShown) }

// Whole names all runs that are kept.
func (r *Refs) Whole() string { return r.text(mostRuns) }

func (r *Refs) text(most int) string {
	parts := make([]string, 0, len(r.logs))
	for i := range r.logs {
		parts = append(parts, r.logs[i].text(most))
	}
	return strings.Join(parts, " ")
}

func (l *logRefs) text(most int) string {
	if !l.cut && len(l.runs) <= most {
		runs := make([]string, len(l.runs))
		for i, s := range l.runs {
			runs[i] = s.String()
		}
		return l.log + ":" + strings.Join(runs, ",")
	}
	runs := make([]string, 0, most)
	for _, s := range l.runs[:min(most-1, len(l.runs))] {
		runs = append(runs, s.String())
	}
	return fmt.Sprintf("%s:%s,…,%d (%d records)", l.log, strings.Join(runs, ","), l.last, l.n)
}

// MarshalJSON writes an object for each log: its name, the number of records, and
// the runs as [first, last]. cut says that only the first runs are listed.
func (r Refs) MarshalJSON() ([]byte, error) {
	type place struct {
		Log  string      `json:"log"`
		N    int64       `json:"n"`
		Runs [][2]uint64 `json:"runs"`
		Last uint64      `json:"last"`
		Cut  bool        `json:"cut,omitempty"`
	}
	all := make([]place, 0, len(r.logs))
	for _, l := range r.logs {
		p := place{Log: l.log, N: l.n, Last: l.last, Cut: l.cut}
		for _, s := range l.runs {
			p.Runs = append(p.Runs, [2]uint64{s.first, s.last})
		}
		all = append(all, p)
	}
	return json.Marshal(all)
}

// addRun adds a stretch that stands behind all others of its log.
func (r *Refs) addRun(log string, s run) {
	r.add(log, s.first)
	for i := range r.logs {
		l := &r.logs[i]
		if l.log != log {
			continue
		}
		l.n += int64(s.last - s.first)
		l.last = s.last
		if !l.cut && len(l.runs) > 0 {
			l.runs[len(l.runs)-1].last = s.last
		}
	}
}

// joined are the records of two figures, those of the second behind those of the
// first in each log.
func joined(a, b Refs) Refs {
	var both Refs
	for _, of := range []Refs{a, b} {
		for _, l := range of.logs {
			kept := int64(0)
			for _, s := range l.runs {
				both.addRun(l.log, s)
				kept += int64(s.last-s.first) + 1
			}
			if l.cut {
				both.cutAt(l.log, l.n-kept, l.last)
			}
		}
	}
	return both
}

// cutAt counts records whose runs are not kept.
func (r *Refs) cutAt(log string, n int64, last uint64) {
	for i := range r.logs {
		if l := &r.logs[i]; l.log == log {
			l.n, l.last, l.cut = l.n+n, last, true
		}
	}
}
