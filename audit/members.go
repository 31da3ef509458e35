package audit

import (
	"encoding/base64"
	"slices"
)

// first writes the members from action to corr.
func (e *encoder) first() {
	r := e.r
	e.raw("action", e.def.name)
	e.actor()
	if e.group(groupL, "alarm", r.Alarm != Alarm{}) {
		e.open("alarm")
		e.need("alarm.code", r.Alarm.Code, isID(r.Alarm.Code))
		e.enumNeeded("alarm.level", r.Alarm.Level.String())
		e.shut()
	}
	e.approvals()
	e.hex("boot", e.m.who.boot[:])
	if e.sec() {
		e.raw("build", e.m.who.build)
	}
	e.cer()
	e.hex("cfg", e.m.who.cfg[:])
	e.change()
	e.raw("class", e.def.class)
	e.id("corr", r.Corr)
}

func (e *encoder) actor() {
	a := &e.r.Actor
	e.open("actor")
	if e.sec() {
		e.enumNeeded("actor.authn", a.Authn.String())
		e.hash("actor.cert", a.Cert)
	}
	if a.ID == systemActor {
		e.raw("actor.id", systemActor)
	} else {
		e.idNeeded("actor.id", a.ID)
	}
	e.enumNeeded("actor.kind", a.Kind.String())
	if e.sec() {
		roles := a.Roles
		if !slices.IsSorted(roles) {
			roles = slices.Sorted(slices.Values(roles))
		}
		e.list("actor.roles", len(roles), maxRoles, func(i int) {
			e.element("actor.roles", roles[i], isID(roles[i]) && scan(roles[i]) == 0)
		})
	}
	e.shut()
}

// element writes a string in an array.
func (e *encoder) element(field, s string, ok bool) {
	if !ok {
		e.scrub(field, whyInvalid)
		s = "?"
	}
	e.b = append(e.b, '"')
	e.b = append(e.b, s...)
	e.b = append(e.b, '"')
}

func (e *encoder) approvals() {
	as := e.r.Approvals
	if (e.def.needs|e.def.may)&groupA == 0 {
		e.group(groupA, "approvals", len(as) > 0)
		return
	}
	if len(as) == 0 {
		return
	}
	e.list("approvals", len(as), maxApprovals, func(i int) {
		e.b = append(e.b, '{')
		e.idNeeded("approvals[].id", as[i].ID)
		e.uuid("approvals[].ref", as[i].Ref)
		e.ts("approvals[].ts", as[i].At)
		e.shut()
	})
}

func (e *encoder) cer() {
	c := e.r.Cer
	if !e.group(groupC, "cer", c != nil) {
		return
	}
	e.open("cer")
	e.id("cer.bag_in", c.BagIn)
	e.id("cer.bag_out", c.BagOut)
	if c.Component != 0 {
		e.int("cer.component", int64(c.Component))
	}
	e.id("cer.component_id", c.ComponentID)
	e.plain("cer.component_kcv", c.ComponentKCV, isKCV(c.ComponentKCV, 10))
	e.id("cer.custodian", c.Custodian)
	e.id("cer.device", c.Device)
	e.idNeeded("cer.id", c.ID)
	e.int("cer.m", int64(c.M))
	e.int("cer.n", int64(c.N))
	if c.Purpose == "" {
		e.bad("cer.purpose", whyInvalid)
	}
	e.text("cer.purpose", c.Purpose, maxPurpose)
	e.signature("cer.sig", c.Sig)
	e.enumNeeded("cer.step", c.Step.String())
	e.int("cer.step_no", int64(c.StepNo))
	e.id("cer.witness", c.Witness)
	e.signature("cer.witness_sig", c.WitnessSig)
	e.shut()
}

func (e *encoder) signature(field string, sig []byte) {
	if len(sig) == 0 || e.unsigned {
		return
	}
	if len(sig) > maxSignature {
		e.bad(field, whyLength)
		return
	}
	e.base64(field, sig)
}

func (e *encoder) base64(field string, b []byte) {
	e.key(field)
	e.b = append(e.b, '"')
	e.b = base64.StdEncoding.AppendEncode(e.b, b)
	e.b = append(e.b, '"')
}

func (e *encoder) change() {
	c := e.r.Change
	if !e.group(groupA, "change", c != nil) {
		return
	}
	e.open("change")
	e.hash("change.after", c.After)
	e.hash("change.before", c.Before)
	e.enumNeeded("change.kind", c.Kind.String())
	e.idNeeded("change.object", c.Object)
	e.shut()
}

// middle writes the members from count to ksn.
func (e *encoder) middle() {
	r := e.r
	if c := r.Count; e.group(groupN, "count", c != nil) {
		e.count(c)
	}
	if e.either(groupK, 0, "custody", r.Custody != 0) {
		e.enum("custody", r.Custody.String())
	}
	if e.group(groupD, "disk", r.Disk != nil) {
		e.open("disk")
		e.int("disk.free_mb", r.Disk.FreeMB)
		e.int("disk.free_pct", r.Disk.FreePercent)
		e.shut()
	}
	if e.either(groupK, groupI, "dur_us", r.Duration != 0) {
		e.int("dur_us", r.Duration.Microseconds())
	}
	e.hsm()
	e.uuid("id", r.ID)
	if e.either(groupH, 0, "import", r.Import != nil) {
		e.imports(r.Import)
	}
	if e.group(groupI, "iso", r.ISO != ISO{}) {
		e.iso(&r.ISO)
	}
	e.keys()
	if e.either(groupK, 0, "ksn", r.KSN != "") {
		e.plain("ksn", r.KSN, isKSN(r.KSN))
	}
}

func (e *encoder) has(g group) bool { return (e.def.needs|e.def.may)&g != 0 }

// either reports whether an optional member is there and one of two groups,
// which the action has, allows it.
func (e *encoder) either(a, b group, field string, present bool) bool {
	if present && !e.has(a|b) {
		e.scrub(field, whyInvalid)
		return false
	}
	return present
}

func (e *encoder) count(c *Count) {
	e.open("count")
	if len(c.By) == 0 {
		e.scrub("count.by", whyInvalid)
	} else {
		e.list("count.by", len(c.By), maxCountBy, func(i int) {
			e.b = append(e.b, '{')
			e.int("count.by[].n", c.By[i].N)
			e.enumNeeded("count.by[].reason", c.By[i].Reason.String())
			e.shut()
		})
	}
	e.ts("count.from", c.From)
	e.int("count.n", c.N)
	e.idNeeded("count.peer", c.Peer)
	e.ts("count.to", c.To)
	e.shut()
}

func (e *encoder) hsm() {
	h := &e.r.HSM
	present := *h != HSM{}
	if !e.has(groupH) {
		if e.either(groupK, 0, "hsm", present) {
			e.open("hsm")
			e.plain("hsm.serial", h.Serial, isID(h.Serial))
			e.shut()
		}
		return
	}
	if !e.group(groupH, "hsm", present) {
		return
	}
	e.open("hsm")
	e.plain("hsm.fw", h.Firmware, isID(h.Firmware))
	e.need("hsm.serial", h.Serial, isID(h.Serial))
	e.intAt("hsm.slot", h.Slot)
	e.shut()
}

func (e *encoder) imports(m *Import) {
	e.open("import")
	e.intAt("import.first", m.First)
	e.hash("import.hash", m.Hash)
	e.intAt("import.last", m.Last)
	e.intAt("import.n", m.N)
	e.id("import.source", m.Source)
	e.shut()
}

func (e *encoder) iso(m *ISO) {
	e.open("iso")
	e.plain("iso.acq", m.Acquirer, all(m.Acquirer, classDigit, 1, 11))
	e.enum("iso.alert", m.Alert.String())
	e.intAt("iso.amt", m.Amount)
	e.plain("iso.cur", m.Currency, all(m.Currency, classDigit, 3, 3))
	e.printable("iso.de39", m.DE39, 2, false)
	e.name("iso.merch", m.Merchant, 15, false)
	e.need("iso.mti", m.MTI, all(m.MTI, classDigit, 4, 4))
	if o := &m.Orig; *o != (Orig{}) {
		e.open("iso.orig")
		e.plain("iso.orig.dt", o.DateTime, isOrigDateTime(o.DateTime))
		e.plain("iso.orig.mti", o.MTI, all(o.MTI, classDigit, 4, 4))
		e.plain("iso.orig.stan", o.STAN, all(o.STAN, classDigit, 6, 12))
		e.shut()
	}
	e.plain("iso.proc", m.Proc, all(m.Proc, classDigit, 6, 6))
	e.printable("iso.rrn", m.RRN, 12, true)
	e.id("iso.rule", m.Rule)
	e.plain("iso.stan", m.STAN, all(m.STAN, classDigit, 6, 12))
	e.name("iso.term", m.Terminal, 8, true)
	e.shut()
}

// name writes a registered identifier of up to n characters, or a token.
func (e *encoder) name(field string, v Name, n int, scanned bool) {
	switch {
	case v.value == "":
	case v.registered:
		e.printable(field, v.value, n, scanned)
	default:
		e.scrub(field, whyUnregistered)
		e.plain(field, v.value, isToken(v.value))
	}
}

func (e *encoder) keys() {
	ks := inOrder(e.r.Keys)
	if !e.group(groupK, "keys", len(ks) > 0) {
		return
	}
	e.list("keys", len(ks), maxKeys, func(i int) {
		k := &ks[i]
		e.b = append(e.b, '{')
		if e.sec() {
			e.enum("keys[].algo", k.Algo.String())
		}
		if k.Header != "" && !isKeyBlockHeader(k.Header) {
			e.bad("keys[].hdr", whyInvalid)
		} else {
			e.printable("keys[].hdr", k.Header, 16, !isTR31Header(k.Header))
		}
		e.need("keys[].id", k.ID, isID(k.ID))
		e.plain("keys[].kcv", k.KCV, isKCV(k.KCV, k.Algo.kcvLimit()))
		e.enumNeeded("keys[].role", k.Role.String())
		if e.sec() {
			e.plain("keys[].usage", k.Usage, all(k.Usage, classID, 2, 2))
		}
		e.int("keys[].ver", int64(k.Version))
		e.shut()
	})
}

// inOrder returns the keys in the order of their roles, which is that of the
// record (section 7.2), whoever listed them.
func inOrder(ks []Key) []Key {
	byRole := func(a, b Key) int { return int(a.Role) - int(b.Role) }
	if slices.IsSortedFunc(ks, byRole) {
		return ks
	}
	ks = slices.Clone(ks)
	slices.SortStableFunc(ks, byRole)
	return ks
}

// kcvLimit is the number of digits that a check value may show.
func (a Algo) kcvLimit() int {
	switch a {
	case AlgoDES, AlgoTDES2, AlgoTDES3:
		return 6
	}
	return 10
}

// log writes the log's name and returns its offset.
func (e *encoder) log() int {
	e.key("log")
	e.b = append(e.b, '"')
	at := len(e.b)
	e.b = e.shard.append(e.b)
	e.b = append(e.b, '"')
	return at
}

// last writes the members from mac to replay.
func (e *encoder) last() {
	r := e.r
	if e.group(groupM, "mac", r.MAC != MAC{}) {
		e.open("mac")
		e.enumNeeded("mac.alg", r.MAC.Alg.String())
		e.int("mac.len", int64(r.MAC.Len))
		e.enumNeeded("mac.verdict", r.MAC.Verdict.String())
		e.shut()
	}
	if e.either(groupK, 0, "mech", r.Mech != "") {
		e.plain("mech", r.Mech, isID(r.Mech))
	}
	e.int("mono", e.m.mono)
	if e.either(groupI, groupM, "msg_tok", r.MsgTok.tok != "") {
		e.plain("msg_tok", r.MsgTok.tok, isToken(r.MsgTok.tok))
	}
	e.raw("node", e.m.who.node)
	if r.Phase == PhaseOutcome {
		e.enumNeeded("outcome", r.Outcome.String())
	}
	if e.either(groupP, groupI, "pan", r.PAN != PAN{}) {
		e.plain("pan", r.PAN.truncated, isTruncatedPAN(r.PAN.truncated))
		e.plain("pan_tok", r.PAN.tok, isToken(r.PAN.tok))
		e.plain("pan_tok_prev", r.PAN.prev, isToken(r.PAN.prev))
	}
	e.raw("phase", r.Phase.String())
	if e.group(groupP, "pin", r.PIN != PIN{}) {
		e.open("pin")
		e.enumNeeded("pin.fmt_in", r.PIN.FormatIn.String())
		e.enumNeeded("pin.fmt_out", r.PIN.FormatOut.String())
		e.shut()
	}
	if q := r.Query; e.group(groupQ, "query", q != nil) {
		e.query(q)
	}
	e.id("rc", r.RC)
	if r.Phase == PhaseOutcome && r.Outcome != OutcomeOK {
		e.enumNeeded("reason", r.Reason.String())
	} else {
		e.enum("reason", r.Reason.String())
	}
	if !r.Ref.IsZero() {
		e.uuid("ref", r.Ref)
	}
	if e.either(groupK, groupI, "replay", r.Replay) {
		e.bool("replay", true)
	}
}

func (e *encoder) query(q *Query) {
	e.open("query")
	e.enumNeeded("query.cmd", q.Cmd.String())
	e.text("query.filter", q.Filter, maxFilter)
	e.intAt("query.first", q.First)
	e.intAt("query.last", q.Last)
	e.plain("query.log", q.Log, isLogName(q.Log))
	e.int("query.rows", q.Rows)
	e.shut()
}

// after writes the members from sink to wal.
func (e *encoder) after() {
	r := e.r
	if s := r.Sink; e.group(groupS, "sink", s != nil) {
		e.open("sink")
		e.int("sink.lag_ms", s.Lag.Milliseconds())
		e.int("sink.lag_rec", s.LagRecords)
		e.need("sink.name", s.Name, isID(s.Name))
		e.shut()
	}
	if r.Src != (Source{}) {
		e.open("src")
		e.id("src.addr", r.Src.Addr)
		e.id("src.conn", r.Src.Conn)
		e.shut()
	}
	if e.group(groupX, "step", r.Step != nil) {
		e.open("step")
		e.sint("step.wall_us", r.Step.Wall.Microseconds())
		e.shut()
	}
	if r.Trace != (Trace{}) {
		e.hex("trace", r.Trace[:])
	}
	e.trees()
	e.ts("ts", e.m.wall)
	e.open("tsq")
	if e.sec() {
		e.int("tsq.err_us", e.m.errUS)
		e.raw("tsq.src", e.m.who.timeSource)
	}
	e.bool("tsq.sync", e.m.sync)
	e.shut()
	e.int("v", schemaVersion)
	if e.group(groupV, "vkeys", len(r.Vkeys) > 0) {
		e.list("vkeys", len(r.Vkeys), maxVkeys, func(i int) {
			_, err := parseVkey(r.Vkeys[i])
			e.element("vkeys", r.Vkeys[i], err == nil)
		})
	}
	if w := r.WAL; e.group(groupW, "wal", w != nil) {
		e.open("wal")
		e.int("wal.dropped", w.Dropped)
		e.int("wal.offset", w.Offset)
		e.int("wal.segment", w.Segment)
		e.shut()
	}
}

func (e *encoder) trees() {
	ts := e.r.Trees
	if !e.group(groupT, "trees", len(ts) > 0) {
		return
	}
	e.list("trees", len(ts), maxTrees, func(i int) {
		t := &ts[i]
		e.b = append(e.b, '{')
		e.intAt("trees[].first", t.First)
		e.need("trees[].log", t.Log, isLogName(t.Log))
		e.need("trees[].origin", t.Origin, isOrigin(t.Origin))
		if t.Root != nil {
			e.base64("trees[].root", t.Root[:])
		}
		e.int("trees[].size", t.Size)
		e.shut()
	})
}
