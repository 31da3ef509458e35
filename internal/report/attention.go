package report

import (
	"cmp"
	"fmt"
	"slices"

	"keyd.dev/keyd/audit"
)

// The levels of what a person must look at.
const (
	critical = "critical"
	warn     = "warn"
)

// watch is what a person must look at, by the records that tell of it. The first
// of the list that fits a record is said of it.
type watch struct {
	level string
	text  string
	fits  func(r *record) bool
}

func action(actions ...audit.Action) func(*record) bool {
	return func(r *record) bool { return slices.ContainsFunc(actions, r.is) }
}

// done is an act that was carried out.
func done(actions ...audit.Action) func(*record) bool {
	return func(r *record) bool {
		return r.Outcome == audit.OutcomeOK.String() && slices.ContainsFunc(actions, r.is)
	}
}

func watches() []watch {
	return []watch{
		{critical, "The log could not be written, and the process ended", action(audit.LogPoisoned)},
		{critical, "Acts were begun and their end is unknown, since the process was cut off", action(audit.LogDangling)},
		{critical, "Checkpoints could not be signed", action(audit.LogCheckpointFail)},
		{critical, "Something was taken out of a record, since it looked like card or key data", action(audit.LogScrub)},
		{critical, "A log was begun anew, in place of one that was lost", action(audit.LogFork)},
		{critical, "The key of the log was changed", action(audit.LogKeyRotate)},
		{critical, "The token was tampered with, or is not the one it was", action(audit.HSMTamper, audit.HSMDrift)},
		{critical, "Critical alarms", func(r *record) bool { return r.Alarm.Level == audit.LevelCritical.String() }},
		{critical, "Keys were marked as compromised", done(audit.KeyCompromise)},
		{critical, "Messages that only an attacker sends, or a broken terminal (alert: security)", func(r *record) bool { return r.ISO.Alert == audit.AlertSecurity.String() }},
		{critical, "Reversals were ordered by hand", done(audit.ReversalManual)},
		{critical, "Terminals or persons were locked out", action(audit.AuthLock)},
		{warn, "Messages that look like fraud (alert: fraud)", func(r *record) bool { return r.ISO.Alert == audit.AlertFraud.String() }},
		{warn, "The end of the log was cut off by a crash, and was mended", action(audit.LogRecover)},
		{warn, "The token failed or was away", action(audit.HSMLost, audit.HSMError, audit.HSMFailover)},
		{warn, "The clock stepped, or lost or found its source", action(audit.SysTime)},
		{warn, "Records were archived or pruned", action(audit.LogArchive, audit.LogPrune)},
		{warn, "A copy of the log to another machine lags or failed", action(audit.LogSink)},
		{warn, "The disk of the log ran low", action(audit.LogDisk)},
		{warn, "Other alarms", func(r *record) bool { return r.Alarm.Code != "" }},
		{warn, "Ceremonies were given up or expired", action(audit.CeremonyAbort, audit.CeremonyExpire)},
		{warn, "Keys left the node, or their copies did", done(audit.KeyExport, audit.KeyBackup)},
		{warn, "Keys were destroyed, suspended or brought back from a backup", done(audit.KeyDestroy, audit.KeySuspend, audit.KeyRestore)},
		{warn, "Acts on keys, ceremonies or the administration were refused or failed", func(r *record) bool {
			return r.Outcome != "" && r.Outcome != audit.OutcomeOK.String() && slices.Contains([]string{"key", "ceremony", "admin"}, r.Class)
		}},
		{warn, "Somebody was refused at the door, or what he asked for", action(audit.AuthRefuse, audit.AuthDeny)},
		{warn, "The configuration was changed, or a change of it refused", action(audit.ConfigChange, audit.ConfigRefuse)},
		{warn, "Acts of the administration without a second person", func(r *record) bool {
			return r.Outcome == audit.OutcomeOK.String() && isAdministration(r) && r.Actor.Kind != audit.ActorSystem.String() &&
				len(r.Approvals) == 0 && !isDecision(r)
		}},
		{warn, "Operations failed, or their end is unknown", func(r *record) bool {
			return r.Outcome == audit.OutcomeError.String() || r.Outcome == audit.OutcomeUnknown.String()
		}},
	}
}

// isAdministration: what people change.
func isAdministration(r *record) bool {
	return r.Class == "admin" || r.is(audit.ConfigChange) || r.is(audit.AuthUnlock) || r.is(audit.LogPrune) || r.is(audit.LogFork)
}

// isDecision: a request for approval and what was said to it.
func isDecision(r *record) bool {
	return r.is(audit.AdminRequest) || r.is(audit.AdminApprove) || r.is(audit.AdminReject) || r.is(audit.AdminExecute)
}

// attention collects what a person must look at.
type attention struct {
	list  []watch
	found []tallied
	more  []Row // what no single record says
	open  map[string]*record
	order []string // of open
}

func newAttention() *attention {
	list := watches()
	return &attention{list: list, found: make([]tallied, len(list)), open: make(map[string]*record)}
}

func (a *attention) see(r *record) {
	a.close(r)
	if r.intent() {
		a.open[r.ID] = r
		a.order = append(a.order, r.ID)
		return
	}
	for i, w := range a.list {
		if !w.fits(r) {
			continue
		}
		f := &a.found[i]
		if f.n == 0 {
			f.first, f.last = r.Time, r.Time
		}
		f.n++
		f.refs.add(r.Log, r.Seq)
		f.first, f.last = min(f.first, r.Time), max(f.last, r.Time)
		return
	}
}

// close looks for the end of an act, also behind the range.
func (a *attention) close(r *record) {
	if r.Ref != "" {
		delete(a.open, r.Ref)
	}
}

// say adds what was found by other means.
func (a *attention) say(level, text string, n int64, first, last string, refs Refs) {
	if n == 0 {
		return
	}
	a.more = append(a.more, Row{Cells: []string{text, number(n), short(first), short(last)}, Level: level, Refs: refs})
}

func (a *attention) section(d *Document) {
	var open Refs
	var first, last string
	n := int64(0)
	for _, id := range a.order {
		if r := a.open[id]; r != nil {
			open.add(r.Log, r.Seq)
			n++
			if first == "" {
				first = r.Time
			}
			last = r.Time
		}
	}
	a.say(critical, "Acts have a beginning and no end in the log", n, first, last, open)
	s := d.section("What needs a person's eye",
		"The most important first. Each line is to be explained by the person who signs this report; the sections below have the details.",
		"Nothing in this range is on the list of what needs a person's eye.",
		"What", "#Number", "First (UTC)", "Last (UTC)")
	s.Rows = append(s.Rows, a.more...)
	for i, f := range a.found {
		if f.n > 0 {
			row := s.row(f.refs, a.list[i].text, number(f.n), short(f.first), short(f.last))
			row.Level = a.list[i].level
		}
	}
	slices.SortStableFunc(s.Rows, func(x, y Row) int { return cmp.Compare(x.Level, y.Level) }) // critical before warn
	for i := range s.Rows {
		s.Rows[i].Cells[0] = fmt.Sprintf("%d. %s", i+1, s.Rows[i].Cells[0])
	}
}
