package report

import (
	"slices"
	"strings"
	"time"
)

// Chart is drawn from figures that stand in tables of the report.
type Chart struct {
	Title  string   `json:"title"`
	Bars   bool     `json:"bars"` // one bar a label, else columns over time, of the series one on the other
	Labels []string `json:"labels"`
	Series []Series `json:"series"`
}

// Series is one kind of what is counted, a value for each label.
type Series struct {
	Name   string  `json:"name"`
	Values []int64 `json:"values"`
}

// mostSeries can be told apart on grey paper; the rest are one.
const mostSeries = 6

const restOfSeries = "all others"

// timeline counts by time and kind, in steps that suit the length of the range.
type timeline struct {
	step   time.Duration // a day, or an hour
	labels []string
	at     map[string]int
	kinds  tally
	counts map[string][]int64
	refs   []Refs
}

const (
	longestByHour = 74 * time.Hour
	mostSteps     = 400
)

// newTimeline covers a range; it is nil for one without bounds, or too long.
func newTimeline(from, to string) *timeline {
	begin, err1 := time.Parse(recordTime, from)
	end, err2 := time.Parse(recordTime, to)
	if err1 != nil || err2 != nil || !begin.Before(end) {
		return nil
	}
	t := &timeline{step: time.Hour, at: make(map[string]int), counts: make(map[string][]int64)}
	if end.Sub(begin) > longestByHour {
		t.step = 24 * time.Hour
	}
	for at := begin.Truncate(t.step); at.Before(end); at = at.Add(t.step) {
		label := t.label(at.Format(recordTime))
		t.at[label] = len(t.labels)
		t.labels = append(t.labels, label)
	}
	if len(t.labels) > mostSteps {
		return nil
	}
	t.refs = make([]Refs, len(t.labels))
	return t
}

// label is the step that a time belongs to.
func (t *timeline) label(stamp string) string {
	if t.step == time.Hour {
		return stamp[:10] + " " + stamp[11:13] + ":00"
	}
	return stamp[:10]
}

// unit is the step in words.
func (t *timeline) unit() string {
	if t != nil && t.step == time.Hour {
		return "hour"
	}
	return "day"
}

func (t *timeline) add(r *record, n int64, kind string) {
	if t == nil {
		return
	}
	i, ok := t.at[t.label(r.Time)]
	if !ok {
		return
	}
	if t.counts[kind] == nil {
		t.counts[kind] = make([]int64, len(t.labels))
	}
	t.counts[kind][i] += n
	t.kinds.add(r, n, kind)
	t.refs[i].add(r.Log, r.Seq)
}

// series are the kinds, the most frequent first, or in the order given; those
// beyond what can be told apart are one.
func (t *timeline) series(order []string) []Series {
	var names []string
	for _, l := range t.kinds.byCount() {
		names = append(names, l.key[0])
	}
	if order != nil {
		names = slices.DeleteFunc(slices.Clone(order), func(k string) bool { return t.counts[k] == nil })
	}
	var all []Series
	for i, name := range names {
		if len(names) > mostSeries && i >= mostSeries-1 {
			if i == mostSeries-1 {
				all = append(all, Series{restOfSeries, make([]int64, len(t.labels))})
			}
			for j, n := range t.counts[name] {
				all[mostSeries-1].Values[j] += n
			}
			continue
		}
		all = append(all, Series{name, t.counts[name]})
	}
	return all
}

// section is the table of the steps in which something was, with its chart.
func (t *timeline) section(d *Document, title, lead, none string, order []string) {
	if t == nil {
		return
	}
	all := t.series(order)
	names := []string{strings.ToUpper(t.unit()[:1]) + t.unit()[1:] + " (UTC)"}
	for _, one := range all {
		names = append(names, "#"+one.Name)
	}
	s := d.section(title, lead, none, names...)
	for i, label := range t.labels {
		if t.refs[i].N() == 0 {
			continue
		}
		cells := []string{label}
		for _, one := range all {
			cells = append(cells, number(one.Values[i]))
		}
		s.row(t.refs[i], cells...)
	}
	if len(s.Rows) > 0 {
		s.Chart = &Chart{Title: title, Labels: t.labels, Series: all}
	}
}

// mostBars are drawn of a tally.
const mostBars = 10

// bars draws the largest lines of a tally.
func bars(title, unit string, lines []*tallied) *Chart {
	if len(lines) == 0 {
		return nil
	}
	c := &Chart{Title: title, Bars: true, Series: []Series{{Name: unit}}}
	for _, l := range lines[:min(mostBars, len(lines))] {
		c.Labels = append(c.Labels, l.key[0])
		c.Series[0].Values = append(c.Series[0].Values, l.n)
	}
	return c
}
