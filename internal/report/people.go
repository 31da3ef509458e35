package report

import (
	"net"
	"strings"

	"keyd.dev/keyd/audit"
)

// mostListed acts stand one by one; what is more is counted.
const mostListed = 400

// listed adds a row about one record, and counts what does not fit.
func (s *Section) listed(rest *tally, r *record, cells ...string) *Row {
	if len(s.Rows) < mostListed {
		return s.one(r, cells...)
	}
	rest.add(r, 1, "more")
	return nil
}

// rest is the last line of a section that has more than fits.
func (s *Section) rest(t *tally) {
	for _, l := range t.byKey() {
		cells := make([]string, len(s.Columns))
		cells[0] = short(l.first)
		cells[1] = "and " + number(l.n) + " more, to " + short(l.last)
		s.row(l.refs, cells...)
	}
}

// access is who came, who was refused, and who read the log.
type access struct {
	came     tally // actor, kind, authentication
	away     []*record
	readings []*record
	readers  tally // actor, command
}

func (a *access) see(r *record) {
	switch {
	case r.is(audit.AuthAccept):
		a.came.add(r, 1, r.Actor.ID, r.Actor.Kind, r.Actor.Authn)
	case r.is(audit.AuthClose):
	case r.Class == "auth":
		a.away = append(a.away, r)
	case r.Query != nil:
		a.readings = append(a.readings, r)
		a.readers.add(r, 1, r.Actor.ID, r.Query.Cmd, r.result())
	}
}

// denied are those who were refused, each by itself.
func (a *access) denied(d *Document) {
	s := d.section("Access refused, locked and unlocked", "At the door (auth.refuse), for an operation (auth.deny), and who was locked or unlocked.", "Nobody was refused, locked or unlocked.",
		"Time (UTC)", "Who", "What", "Why", "From", "About")
	var rest tally
	for _, r := range a.away {
		row := s.listed(&rest, r, short(r.Time), r.Actor.ID, r.Action, r.result(), r.Src.Addr, r.object())
		if row != nil && r.is(audit.AuthLock) {
			row.Level = critical
		}
	}
	s.rest(&rest)
}

// logins are the connections by who came.
func (a *access) logins(d *Document) {
	s := d.section("Logins", "Connections and sessions that were let in.", "Nobody came.", "Who", "Kind", "By", "#Times", "First (UTC)", "Last (UTC)")
	a.came.into(s, a.came.byCount(), true)
}

// read is who read the log.
func (a *access) read(d *Document, each bool) {
	s := d.section("Readings of the log", "Who read the log by which command, and with what outcome (PCI DSS 10.2.1.3).", "Nobody read the log.", "Who", "Command", "Outcome", "#Times", "First (UTC)", "Last (UTC)")
	a.readers.into(s, a.readers.byCount(), true)
	if !each {
		return
	}
	s = d.section("Each reading", "What was asked for; a card number stands as its token.", "Nobody read the log.", "Time (UTC)", "Who", "Command", "Asked for", "Log", "#Number", "From")
	var rest tally
	for _, r := range a.readings {
		s.listed(&rest, r, short(r.Time), r.Actor.ID, r.Query.Cmd, r.Query.Filter, r.Query.Log, number(r.Query.Rows), r.Src.Addr)
	}
	s.rest(&rest)
}

// origins are the addresses of those who were refused.
func (a *access) origins(d *Document) {
	var t tally
	for _, r := range a.away {
		if r.is(audit.AuthRefuse) || r.is(audit.AuthDeny) {
			t.add(r, 1, r.Actor.ID, host(r.Src.Addr), r.Action, r.Reason)
		}
	}
	s := d.section("Refused access by who and from where", "", "Nobody was refused.", "Who", "From", "What", "Why", "#Times", "First (UTC)", "Last (UTC)")
	t.into(s, t.byCount(), true)
}

// host is an address without its port.
func host(addr string) string {
	if h, _, err := net.SplitHostPort(addr); err == nil && !strings.HasPrefix(addr, "unix:") {
		return h
	}
	return orDash(addr)
}

// acts are those of people: the administration, keys, ceremonies.
type acts struct {
	admin      []*record
	life       []*record
	machine    tally // life of keys that no person caused: action, actor, outcome
	machineAdm tally
	ceremonies map[string]*ceremonyTally
	order      []string
}

type ceremonyTally struct {
	purpose, first, last string
	end                  string
	refs                 Refs
	n                    int64
}

func (a *acts) see(r *record) {
	person := r.Actor.Kind != audit.ActorSystem.String() && r.Actor.Kind != audit.ActorSwitch.String() || len(r.Approvals) > 0
	switch {
	case r.Cer != nil:
		a.step(r)
	case r.intent():
	case r.Class == "key" && person:
		a.life = append(a.life, r)
	case r.Class == "key":
		a.machine.add(r, 1, r.Action, r.Actor.ID, r.result())
	case isAdministration(r) && person:
		a.admin = append(a.admin, r)
	case isAdministration(r):
		a.machineAdm.add(r, 1, r.Action, r.Actor.ID, r.result())
	}
}

func (a *acts) step(r *record) {
	if a.ceremonies == nil {
		a.ceremonies = make(map[string]*ceremonyTally)
	}
	c := a.ceremonies[r.Cer.ID]
	if c == nil {
		c = &ceremonyTally{purpose: r.Cer.Purpose, first: r.Time, end: "not ended in this range"}
		a.ceremonies[r.Cer.ID] = c
		a.order = append(a.order, r.Cer.ID)
	}
	c.n++
	c.last = r.Time
	c.refs.add(r.Log, r.Seq)
	if r.intent() {
		return
	}
	switch {
	case r.is(audit.CeremonyCommit), r.is(audit.CeremonyAbort), r.is(audit.CeremonyExpire):
		c.end = r.Cer.Step + " " + r.result()
	}
}

func (a *acts) sections(d *Document) {
	s := d.section("Acts of the administration, and who approved them", "Changes of users, roles, peers, terminals, profiles, limits, the configuration and the log; requests for approval and what was said to them.", "Nothing was administered.",
		"Time (UTC)", "Who", "What", "Object", "Outcome", "Approved by")
	var rest tally
	for _, r := range a.admin {
		s.listed(&rest, r, short(r.Time), r.Actor.ID, r.Action, r.object(), r.result(), orDash(r.approvers()))
	}
	s.rest(&rest)
	for _, l := range a.machineAdm.byCount() {
		s.row(l.refs, short(l.first), l.key[1]+" (no person)", l.key[0], number(l.n)+" times, to "+short(l.last), l.key[2], "–")
	}
	s = d.section("The life of keys", "Made, imported, exported, derived, rotated, suspended, resumed, destroyed (PCI DSS 10.2.1.7, key management).", "No key began, changed or ended.",
		"Time (UTC)", "Who", "What", "Keys", "Outcome", "Approved by")
	rest = tally{}
	for _, r := range a.life {
		s.listed(&rest, r, short(r.Time), r.Actor.ID, r.Action, lifeWords(r), r.result(), orDash(r.approvers()))
	}
	s.rest(&rest)
	for _, l := range a.machine.byCount() {
		s.row(l.refs, short(l.first), l.key[1]+" (no person)", l.key[0], number(l.n)+" times, to "+short(l.last), l.key[2], "–")
	}
	s = d.section("Ceremonies", "The command keyd audit report ceremony ID has the minutes of each.", "There was no ceremony.",
		"Ceremony", "Purpose", "#Number", "First (UTC)", "Last (UTC)", "End")
	for _, id := range a.order {
		c := a.ceremonies[id]
		s.row(c.refs, id, c.purpose, number(c.n), short(c.first), short(c.last), c.end)
	}
}

// lifeWords are the keys of a step, and what was meant where the object says more.
func lifeWords(r *record) string {
	words := r.keyWords()
	if o := r.object(); o != "" && !strings.Contains(words, o) {
		words = o + ": " + words
	}
	return strings.TrimSuffix(words, ": ")
}
