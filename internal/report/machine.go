package report

import (
	"fmt"
	"strconv"
	"time"

	"keyd.dev/keyd/audit"
)

// machine is the node itself: starts and stops, its log, its clock.
type machine struct {
	events  []*record // of starts, stops, the log and the token
	started bool      // the newest start has no stop
	newest  string    // time of the newest record of sec
	stopped bool      // the newest record of sec is the last one of an orderly stop
	cuts    Refs      // starts without a stop before them
	cutsAt  [2]string
	gaps    []gap
	spans   []*clockSpan
	steps   []*record
	back    Refs // records of which the time is before that of their neighbour
	anchors tally
	alarms  tally // code, level
	counts  map[string]map[string]*tallied
}

// gap is a time without a record in sec, in which the node should have said that
// it lives.
type gap struct {
	from, to string
	length   time.Duration
	refs     Refs
	stop     bool // after an orderly stop
}

// longestSilence: a node that lives has a record a minute (log.heartbeat).
const longestSilence = 150 * time.Second

// clockSpan is a stretch of sec in which the clock was of one state.
type clockSpan struct {
	boot, source string
	sync         bool
	from, to     string
	worst        int64
	n            int64
	refs         Refs
}

func newMachine(b *book) *machine {
	m := &machine{counts: make(map[string]map[string]*tallied), back: b.disordered}
	m.started = b.before != nil && b.before.is(audit.SysStart)
	return m
}

func (m *machine) see(r *record) {
	m.count(r)
	if r.Log != audit.Sec.String() {
		if !r.Clock.Sync {
			m.unsynced(r)
		}
		return
	}
	m.silence(r)
	m.state(r)
	if r.Alarm.Code != "" {
		m.alarms.add(r, 1, r.Alarm.Level, r.Alarm.Code, r.Action)
	}
	switch {
	case r.is(audit.SysStart):
		if m.started {
			m.cuts.add(r.Log, r.Seq)
			if m.cutsAt[0] == "" {
				m.cutsAt[0] = r.Time
			}
			m.cutsAt[1] = r.Time
		}
		m.started = true
		m.events = append(m.events, r)
	case r.is(audit.SysStop):
		m.started = false
		m.events = append(m.events, r)
	case r.is(audit.SysTime):
		m.steps = append(m.steps, r)
	case r.is(audit.LogCheckpoint):
		for _, t := range r.Trees {
			m.anchors.add(r, 1, t.Log)
		}
	case r.is(audit.LogHeartbeat), r.Query != nil:
	case r.Class == "log", r.Class == "hsm", r.is(audit.SysSelftest), r.is(audit.ConfigLoad), r.is(audit.ConfigRefuse):
		m.events = append(m.events, r)
	}
}

// count is every record by what it is and how it ended.
func (m *machine) count(r *record) {
	name := r.Outcome
	if r.intent() {
		name = "begun"
	}
	by := m.counts[r.Action]
	if by == nil {
		by = make(map[string]*tallied)
		m.counts[r.Action] = by
	}
	for _, name := range []string{name, ""} {
		l := by[name]
		if l == nil {
			l = &tallied{}
			by[name] = l
		}
		l.n++
		if name == "" {
			l.refs.add(r.Log, r.Seq)
		}
	}
}

func (m *machine) silence(r *record) {
	before, err1 := time.Parse(recordTime, m.newest)
	now, err2 := time.Parse(recordTime, r.Time)
	if err1 == nil && err2 == nil {
		if long := now.Sub(before); long > longestSilence {
			g := gap{from: m.newest, to: r.Time, length: long, stop: m.stopped}
			if r.Seq > 0 {
				g.refs.add(r.Log, r.Seq-1)
			}
			g.refs.add(r.Log, r.Seq)
			m.gaps = append(m.gaps, g)
		}
	}
	m.newest = r.Time
	m.stopped = r.is(audit.LogClose) || r.is(audit.SysStop)
}

func (m *machine) state(r *record) {
	last := len(m.spans) - 1
	if last < 0 || m.spans[last].boot != r.Boot || m.spans[last].sync != r.Clock.Sync || m.spans[last].source != r.Clock.Source {
		m.spans = append(m.spans, &clockSpan{boot: r.Boot, source: r.Clock.Source, sync: r.Clock.Sync, from: r.Time})
		last++
	}
	s := m.spans[last]
	s.to, s.worst = r.Time, max(s.worst, r.Clock.Error)
	s.n++
	s.refs.add(r.Log, r.Seq)
}

// unsynced adds a record of ops to the stretches without a synchronised clock.
func (m *machine) unsynced(r *record) {
	for _, s := range m.spans {
		if s.boot == r.Boot && !s.sync && s.from <= r.Time && (r.Time <= s.to || s == m.spans[len(m.spans)-1]) {
			s.n++
			s.refs.add(r.Log, r.Seq)
			return
		}
	}
}

// tell adds to what a person must look at.
func (m *machine) tell(a *attention) {
	a.say(critical, "Starts without a stop before them: the process was cut off", m.cuts.N(), m.cutsAt[0], m.cutsAt[1], m.cuts)
	var refs Refs
	n, first, last := int64(0), "", ""
	for _, g := range m.gaps {
		if g.stop {
			continue
		}
		n++
		refs = joined(refs, g.refs)
		if first == "" {
			first = g.from
		}
		last = g.to
	}
	a.say(critical, fmt.Sprintf("Times without a record for more than %v, and no stop before them", longestSilence), n, first, last, refs)
	var unsynced Refs
	n, first, last = 0, "", ""
	for _, s := range m.spans {
		if s.sync {
			continue
		}
		n += s.n
		if first == "" {
			first = s.from
		}
		last = s.to
		unsynced = joined(unsynced, s.refs)
	}
	a.say(warn, "Records with a clock that was not synchronised", n, first, last, unsynced)
}

func (m *machine) alarmSection(d *Document) {
	s := d.section("Alarms", "By level and code; docs/OPERATIONS.md says what each means and what to do.", "No alarm was raised.", "Level", "Code", "Record", "#Times", "First (UTC)", "Last (UTC)")
	m.alarms.into(s, m.alarms.byCount(), true)
	for i := range s.Rows {
		s.Rows[i].Level = s.Rows[i].Cells[0]
	}
}

func (m *machine) eventSection(d *Document) {
	s := d.section("Starts, stops, and the log itself", "The process, the log, the token and the configuration; what was begun and has no end.", "Nothing: the process ran on through the range.",
		"Time (UTC)", "What", "Outcome", "Details")
	var rest tally
	for _, r := range m.events {
		row := s.listed(&rest, r, short(r.Time), r.Action, r.result(), eventWords(r))
		if row != nil && (r.is(audit.LogDangling) || r.is(audit.LogPoisoned)) {
			row.Level = critical
		}
	}
	s.rest(&rest)
	for _, g := range m.gaps {
		what, level := "no record", critical
		if g.stop {
			what, level = "stopped", ""
		}
		row := s.row(g.refs, short(g.from), what, "", "for "+g.length.Round(time.Second).String()+", to "+short(g.to))
		row.Level = level
	}
}

func eventWords(r *record) string {
	switch {
	case r.WAL != nil:
		return number(r.WAL.Dropped) + " bytes of a torn end dropped"
	case r.Sink != nil:
		return r.Sink.Name + " " + r.Alarm.Code
	case r.Alarm.Code != "":
		return r.Alarm.Code
	case r.is(audit.SysStart):
		return "build " + r.Build + ", boot " + r.Boot
	case len(r.Trees) > 0:
		return r.Trees[0].Log + " of size " + strconv.FormatUint(r.Trees[0].Size, 10)
	}
	return r.object()
}

func (m *machine) clockSections(d *Document) {
	s := d.section("The clock", "Stretches of the node's own log with one state of the clock: synchronised by the kernel's word, the configured source, and the greatest estimated error (PCI DSS 10.6). Records of operations are counted where it was not synchronised.", "No record.",
		"From (UTC)", "To (UTC)", "Synchronised", "Source", "#Greatest error (us)", "#Number")
	for _, c := range m.spans {
		word := "yes"
		if !c.sync {
			word = "NO"
		}
		row := s.row(c.refs, short(c.from), short(c.to), word, orDash(c.source), number(c.worst), number(c.n))
		if !c.sync {
			row.Level = warn
		}
	}
	s = d.section("Steps of the clock", "Steps of half a second and more against the monotonic clock, and when the source was lost or found (sys.time).", "The clock made no step and lost no source.",
		"Time (UTC)", "Change of the wall clock (us)", "Alarm", "Synchronised")
	for _, r := range m.steps {
		wall := "–"
		if r.Step != nil {
			wall = number(r.Step.Wall)
		}
		s.one(r, short(r.Time), wall, orDash(r.Alarm.Code), strconv.FormatBool(r.Clock.Sync)).Level = warn
	}
}

func (m *machine) coverage(d *Document) {
	s := d.section("Under which checkpoints these records stand", "Size and root of each log at the checkpoint that was verified before this report; records behind it were durable and not yet signed for. The node's own log anchors the size and root of the log of operations each minute (log.checkpoint).", "No log has a record of this range.",
		"Log", "Origin", "#Size", "Root", "#Records of the range", "#Behind the checkpoint", "#Anchors in sec")
	for _, l := range d.Logs {
		n, refs := int64(0), l.Refs
		for _, a := range m.anchors.byKey() {
			if a.key[0] == l.Log {
				n = a.n
				refs = joined(refs, a.refs)
			}
		}
		row := s.row(refs, l.Log, l.Origin, number(int64(l.Size)), l.Root, number(l.Records), number(l.Uncovered), number(n))
		if l.Uncovered > 0 {
			row.Level = warn
		}
	}
}

// outcomes are the columns of the table of all records.
var outcomes = [...]string{"ok", "refused", "error", "unknown", "begun"}

func (m *machine) countSection(d *Document) {
	s := d.section("All records by action and outcome", "Every record of the range. An act with a beginning and an end has two records.", "No record.",
		"Action", "#ok", "#refused", "#error", "#unknown", "#begun", "#All")
	var order tally
	for name, by := range m.counts {
		order.add(&record{}, by[""].n, name)
	}
	for _, l := range order.byCount() {
		by := m.counts[l.key[0]]
		cells := []string{l.key[0]}
		for _, o := range outcomes {
			n := int64(0)
			if t := by[o]; t != nil {
				n = t.n
			}
			cells = append(cells, number(n))
		}
		s.row(by[""].refs, append(cells, number(by[""].n))...)
	}
}
