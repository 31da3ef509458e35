package isoswitch

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
)

// happening is an original in a state, and what may happen to it.
type happening struct {
	*machine
	t   *testing.T
	oid OID
}

// newHappening journals an original in a state, with the records that this state
// has beside it.
func newHappening(t *testing.T, state State, processing string) *happening {
	t.Helper()
	m := newMachine()
	m.s.log = quiet()
	h := &happening{m, t, OID{}}
	o := h.record("000000", "0200", "000007", state)
	o.Processing = processing
	if processing == "030000" {
		o.MTI = "0100"
	}
	o.Key = m.s.lookupKey(o.MID, o.TID, o.Sent, o.STAN, o.MTI[1])
	o.OID = newOID(o.Key, m.now)
	h.oid = o.OID
	own := map[State]ReversalState{
		ReversalPending: Sent, Reversed: Confirmed, ReversedUnknown: Confirmed, ReversalFailed: Failed,
		ReversalHeld: Held, LocalVoid: Closed, Tombstone: Closed,
	}
	h.put(func(tx Tx) error {
		if err := tx.InsertTxn(o); err != nil {
			return err
		}
		if rev, ok := own[state]; ok {
			return tx.InsertReversal(&Reversal{
				RID: fullRID(o.OID), OID: o.OID, Full: true, Cause: ByTerminal, State: rev, Answer: "00", Tries: 1, Content: Hash{1},
			})
		}
		if state == Voided || state == Completed {
			return tx.InsertTxn(h.follower(o, state))
		}
		return nil
	})
	return h
}

// record is a message as the journal has it.
func (h *happening) record(processing, mti, stan string, state State) *Txn {
	return &Txn{
		MTI: mti, Received: h.now, Card: custody.Card{Token: "k1:card"}, Processing: processing, Amount: machineAmount,
		Sent: machineSent, STAN: stan, Condition: "00", TID: "T0000001", MID: "M00000000000001", Currency: "978",
		State: state, RRN: "000000000001", UpSTAN: stan, UpSent: machineSent,
	}
}

// follower is the void or completion that has had its effect on o.
func (h *happening) follower(o *Txn, state State) *Txn {
	f := h.record("200000", o.MTI, "000008", Approved)
	if state == Completed {
		f.Processing, f.MTI = "000000", "0200"
	}
	f.OID, f.RefersTo = OID{8}, o.OID
	return f
}

func (h *happening) put(fn func(Tx) error) {
	h.t.Helper()
	if err := h.journal.Update(context.Background(), fn); err != nil {
		h.t.Fatal(err)
	}
}

func (h *happening) state() State { return h.journal.held.txns[h.oid].State }

// end gives the original a result, as the end of its flight does.
func (h *happening) end(kind resultKind) func() {
	return func() {
		_ = h.journal.Update(context.Background(), func(tx Tx) error {
			_, _, err := settleTxn(tx, h.oid, result{kind: kind, cause: ByTimeout, code: "00"}, number{}, h.now)
			return err
		})
	}
}

// ask reverses the original, whole or down to a rest.
func (h *happening) ask(mti iso8583.MTI, rest int64) func() {
	return func() {
		o := h.journal.held.txns[h.oid]
		names, err := iso8583.OriginalData{MTI: iso8583.MTI(o.MTI), STAN: o.STAN, DateTime: o.Sent}.Text()
		if err != nil {
			h.t.Fatal(err)
		}
		r := h.message(mti, func(b *iso8583.Builder) {
			b.Set(3, o.Processing).Set(39, "06").Set(90, names)
			if rest > 0 {
				text, err := iso8583.ReplacementText(rest)
				if err != nil {
					h.t.Fatal(err)
				}
				b.Set(95, text)
			}
		})
		if _, err := h.s.decideReversal(context.Background(), r, custody.Card{Token: "k1:card"}); err != nil {
			h.t.Errorf("the reversal failed: %v", err)
		}
	}
}

// follow sends a message that names the original, and upstream approves it.
func (h *happening) follow(mti iso8583.MTI, processing, condition string) func() {
	return func() {
		o := h.journal.held.txns[h.oid]
		names, err := iso8583.OriginalData{MTI: iso8583.MTI(o.MTI), STAN: o.STAN, DateTime: o.Sent}.Text()
		if err != nil {
			h.t.Fatal(err)
		}
		r := h.message(mti, func(b *iso8583.Builder) { b.Set(3, processing).Set(25, condition).Set(90, names) })
		t := h.record(processing, string(mti), r.msg.Text(11), Forwarded)
		t.OID, t.Condition, t.Sent = OID{9}, o.Condition, r.msg.Text(7)
		h.put(func(tx Tx) error {
			v, err := h.s.relate(tx, r, t)
			if err != nil {
				return err
			}
			if v != nil {
				t.decline(v, h.now)
			}
			return tx.InsertTxn(t)
		})
		_ = h.journal.Update(context.Background(), func(tx Tx) error {
			_, _, err := settleTxn(tx, t.OID, result{kind: approvedResult, code: "00"}, number{}, h.now)
			return err
		})
	}
}

// undo reverses the void or completion that has had its effect on the original.
func (h *happening) undo() {
	_ = h.journal.Update(context.Background(), func(tx Tx) error {
		_, err := reverseUndelivered(tx, OID{8}, number{}, h.now)
		return err
	})
}

// undelivered says that nobody took the approval.
func (h *happening) undelivered() {
	_ = h.journal.Update(context.Background(), func(tx Tx) error {
		_, err := reverseUndelivered(tx, h.oid, number{}, h.now)
		return err
	})
}

// confirm is upstream's answer to the reversal, so many times.
func (h *happening) confirm(code string, times int) func() {
	return func() {
		for range times {
			_ = h.journal.Update(context.Background(), func(tx Tx) error {
				_, err := h.s.settleReversal(tx, fullRID(h.oid), code)
				return err
			})
		}
	}
}

// order is what an operator orders.
func (h *happening) order(act custody.ReversalAct) func() {
	return func() {
		if _, ok := h.journal.held.revs[fullRID(h.oid)]; !ok {
			return
		}
		desk := NewDesk(h.journal, bench{h.journal}, h.clock)
		_, _ = desk.Order(context.Background(), fullRID(h.oid).Name(), custody.ReversalOrder{Act: act, Case: "C-7"})
	}
}

// tooFast is a reversal above the rate, where such are held.
func (h *happening) tooFast() {
	rules := *h.s.rules()
	rules.policy.over = Hold
	rules.Limits.Velocity = Velocity{PerHour: 1, Action: Hold}
	h.s.set.Store(&rules)
	h.s.rates.add([]tally{{"terminal T0000001", 1}})
	if s := h.state(); s == Received || s == Forwarded {
		return // those are observed
	}
	h.ask(iso8583.ReversalRequest, -1)()
}

// TestReversalsCount: D-35: each reversal that was accepted counts, whatever
// follows from it, and none that was refused.
func TestReversalsCount(t *testing.T) {
	for state, want := range map[State]bool{Approved: true, Forwarded: true, Declined: false} {
		t.Run(string(state), func(t *testing.T) {
			h := newHappening(t, state, "000000")
			rules := *h.s.rules()
			rules.Limits.Velocity = Velocity{PerHour: 1}
			h.s.set.Store(&rules)
			if state == Forwarded {
				h.s.flights.start(&Txn{OID: h.oid}).depart()
			}
			h.ask(iso8583.ReversalRequest, -1)()
			if got := h.s.rates.over([]tally{{"terminal T0000001", 1}}); got != want {
				t.Errorf("counted %v, want %v", got, want)
			}
		})
	}
}

// recalled lets a reversal come while the original has not left.
func (h *happening) recalled() {
	if s := h.state(); s != Forwarded && s != Received {
		return
	}
	flight := h.s.flights.start(&Txn{OID: h.oid})
	h.ask(iso8583.ReversalRequest, -1)()
	h.s.flights.end(flight)
}

// TestEveryStateEveryEvent sends every event to an original in every state: only
// the transitions of section 2.2 happen.
func TestEveryStateEveryEvent(t *testing.T) {
	type moves map[string]State
	inFlight := moves{"approved": Approved, "declined": Declined, "unknown": ReversalPending, "never left": Declined, "recalled": LocalVoid}
	sale := map[State]moves{
		Received: inFlight, Forwarded: inFlight,
		Approved:        {"undelivered": ReversalPending, "reversal": ReversalPending, "advice": ReversalPending, "void": Voided, "over the rate": ReversalHeld},
		Voided:          {"follower reversed": Approved},
		ReversalPending: {"confirmed": Reversed, "25": ReversedUnknown, "declined three times": ReversalFailed},
		ReversalHeld:    {"released": ReversalPending, "rejected": Approved}, ReversalFailed: {"retried": ReversalPending},
	}
	preauth := map[State]moves{
		Received: inFlight, Forwarded: inFlight,
		Approved: {
			"undelivered": ReversalPending, "reversal": ReversalPending, "advice": ReversalPending, "over the rate": ReversalHeld,
			"pre-authorization's void": Voided, "completion": Completed,
		},
		Voided: {"follower reversed": Approved}, Completed: {"follower reversed": Approved},
		ReversalPending: {"confirmed": Reversed, "25": ReversedUnknown, "declined three times": ReversalFailed},
		ReversalHeld:    {"released": ReversalPending, "rejected": Approved}, ReversalFailed: {"retried": ReversalPending},
	}
	for _, of := range []struct {
		name, processing string
		want             map[State]moves
	}{{"sale", "000000", sale}, {"pre-authorization", "030000", preauth}} {
		for _, state := range States() {
			if state == Completed && of.name == "sale" {
				continue // no sale is ever completed
			}
			events := (&happening{}).events()
			for event := range events {
				t.Run(fmt.Sprintf("%s %s: %s", of.name, state, event), func(t *testing.T) {
					h := newHappening(t, state, of.processing)
					h.events()[event]()
					want, ok := of.want[state][event]
					if !ok {
						want = state
					}
					if got := h.state(); got != want {
						t.Errorf("%s goes to %s, want %s", state, got, want)
					}
					if !MayBecome(state, want) {
						t.Errorf("the table of transitions lacks %s to %s", state, want)
					}
				})
			}
		}
	}
}

// events are all that can happen to an original.
func (h *happening) events() map[string]func() {
	return map[string]func(){
		"approved":                 h.end(approvedResult),
		"declined":                 h.end(declinedResult),
		"unknown":                  h.end(unknownResult),
		"never left":               h.end(neverLeft),
		"recalled":                 h.recalled,
		"undelivered":              h.undelivered,
		"reversal":                 h.ask(iso8583.ReversalRequest, -1),
		"advice":                   h.ask(iso8583.ReversalAdvice, -1),
		"partial reversal":         h.ask(iso8583.ReversalRequest, 400),
		"void":                     h.follow(iso8583.FinancialRequest, "200000", "00"),
		"pre-authorization's void": h.follow(iso8583.AuthorizationRequest, "200000", "00"),
		"completion":               h.follow(iso8583.FinancialRequest, "000000", "06"),
		"follower reversed":        h.undo,
		"confirmed":                h.confirm("00", 1),
		"25":                       h.confirm("25", 1),
		"declined once":            h.confirm("12", 1),
		"over the rate":            h.tooFast,
		"released":                 h.order(custody.ReleaseReversal),
		"rejected":                 h.order(custody.RejectReversal),
		"retried":                  h.order(custody.RetryReversal),
		"parked":                   h.order(custody.ParkReversal),
		"resolved":                 h.order(custody.ResolveReversal),
		"declined three times":     h.confirm("12", 3),
	}
}

// TestVoidOfWhatChanged: an approved void never stands beside a sale that is no
// longer simply approved; it is reversed, and the terminal is told 22.
func TestVoidOfWhatChanged(t *testing.T) {
	h := newHappening(t, ReversalPending, "000000")
	void := h.record("200000", "0200", "000009", Forwarded)
	void.OID, void.RefersTo = OID{9}, h.oid
	h.put(func(tx Tx) error { return tx.InsertTxn(void) })
	got, s, err := h.s.settleSale(t.Context(), h.s.flights.start(void), result{kind: approvedResult, code: "00"})
	if err != nil || got.State != ReversalPending || s.code != codeState || !s.reverse || s.cause != ByUndelivered {
		t.Errorf("the void is %s with code %s, reversed for %q, %v", got.State, s.code, s.cause, err)
	}
	h.put(func(tx Tx) error {
		rev, err := tx.Reversal(fullRID(void.OID))
		if err == nil && (len(rev.UpSTAN) != 6 || len(rev.UpSent) != 10) {
			t.Errorf("its reversal has no numbers, so that it can never be sent: %q, %q", rev.UpSTAN, rev.UpSent)
		}
		return err
	})
	if h.state() != ReversalPending {
		t.Errorf("the sale is %s", h.state())
	}
}

// TestUndeliveredAndRefunded: an approval that reached nobody is not reversed too
// once the sale was refunded.
func TestUndeliveredAndRefunded(t *testing.T) {
	h := newHappening(t, Approved, "000000")
	h.put(func(tx Tx) error {
		o, err := tx.Txn(h.oid)
		if err != nil {
			return err
		}
		o.Refunded = true
		return tx.UpdateTxn(o)
	})
	h.undelivered()
	if h.state() != Approved {
		t.Errorf("the sale is %s", h.state())
	}
}

// TestOneLiveFollower: of two voids at once one is accepted, and the next only
// when the first has come to nothing.
func TestOneLiveFollower(t *testing.T) {
	h := newHappening(t, Approved, "000000")
	first := h.record("200000", "0200", "000008", Forwarded)
	first.OID, first.RefersTo = OID{8}, h.oid
	h.put(func(tx Tx) error { return tx.InsertTxn(first) })
	second := h.record("200000", "0200", "000009", Forwarded)
	second.OID, second.RefersTo = OID{9}, h.oid
	err := h.journal.Update(context.Background(), func(tx Tx) error { return tx.InsertTxn(second) })
	if !errors.Is(err, ErrExists) {
		t.Errorf("the journal took a second void: %v", err)
	}
	for _, c := range []struct {
		state State
		row   string
	}{{Forwarded, "D-23"}, {ReversalPending, "D-23"}, {ReversalFailed, "D-23"}, {Reversed, ""}, {ReversedUnknown, ""}, {Declined, ""}, {LocalVoid, ""}} {
		t.Run(string(c.state), func(t *testing.T) {
			a := about{original: approvedSale()}
			became := *first
			became.State = c.state
			h.journal.held.txns[first.OID] = became
			var err error
			if a.live, err = optionalTxn(h.journal.held.Live(h.oid)); err != nil {
				t.Fatal(err)
			}
			q := reference{voidKind, goodQuestion().names, approvedVoid()}
			if got := testPolicy().relation(q, a); got != c.row {
				t.Errorf("row %q, want %q", got, c.row)
			}
		})
	}
}

// approvedVoid is the void of approvedSale.
func approvedVoid() *Txn {
	v := approvedSale()
	v.OID, v.Processing, v.STAN, v.Received, v.State = OID{2}, "200000", "000008", noon, Forwarded
	return v
}

// TestRelation has what a void, a completion or a refund must find.
func TestRelation(t *testing.T) {
	for _, c := range []struct {
		name, row string
		kind      kind
		change    func(v *Txn, o *Txn)
	}{
		{"void", "", voidKind, func(v, o *Txn) {}},
		{"D-13 PAN", "D-13", voidKind, func(v, o *Txn) { v.Card.Token = "k1:other" }},
		{"D-14 less than the whole", "D-14", voidKind, func(v, o *Txn) { v.Amount-- }},
		{"D-14 currency", "D-14", voidKind, func(v, o *Txn) { v.Currency = "156" }},
		{"D-15 acquirer", "D-15", voidKind, func(v, o *Txn) { v.Acquirer, o.Acquirer = "1", "2" }},
		{"D-15 condition", "D-15", voidKind, func(v, o *Txn) { v.Condition = "06" }},
		{"D-16 declined", "D-16", voidKind, func(v, o *Txn) { o.State = Declined }},
		{"D-17 void of a refund", "D-17", voidKind, func(v, o *Txn) { o.Processing = "200000" }},
		{"D-17 class", "D-17", voidKind, func(v, o *Txn) { v.MTI = "0100" }},
		{"D-22 reversed", "D-22", voidKind, func(v, o *Txn) { o.State = Reversed }},
		{"D-22 in flight", "D-22", voidKind, func(v, o *Txn) { o.State = Forwarded }},
		{"D-22 held", "D-22", voidKind, func(v, o *Txn) { o.State = ReversalHeld }},
		{"D-23 voided", "D-23", voidKind, func(v, o *Txn) { o.State = Voided }},
		{"D-23 refunded", "D-23", voidKind, func(v, o *Txn) { o.Refunded = true }},
		{"D-23 reversed in part", "D-23", voidKind, func(v, o *Txn) { o.ReversedAmount = 1 }},
		{"D-24 completed", "D-24", voidKind, func(v, o *Txn) { o.State = Completed }},
		{"D-25 batch closed", "D-25", voidKind, func(v, o *Txn) { o.BatchClosed = true }},
		{"D-34 too old", "D-34", voidKind, func(v, o *Txn) { o.Received = v.Received.Add(-25 * time.Hour) }},
		{"D-11 tombstone", "D-11", voidKind, func(v, o *Txn) { o.State = Tombstone }},
		{"refund", "", refundKind, func(v, o *Txn) { v.MTI, v.Amount = "0220", 400 }},
		{"refund of a closed batch", "", refundKind, func(v, o *Txn) { v.MTI, o.BatchClosed = "0220", true }},
		{"refund of what is left", "", refundKind, func(v, o *Txn) { v.MTI, v.Amount, o.ReversedAmount = "0220", 600, 400 }},
		{"D-14 refund of more than is left", "D-14", refundKind, func(v, o *Txn) { v.MTI, v.Amount, o.ReversedAmount = "0220", 601, 400 }},
		{"completion", "", completeKind, func(v, o *Txn) { v.Processing, o.Processing, o.MTI = "000000", "030000", "0200" }},
		{"D-14 completion of more", "D-14", completeKind, func(v, o *Txn) {
			v.Processing, v.Amount, o.Processing = "000000", 1001, "030000"
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, v := approvedSale(), approvedVoid()
			c.change(v, o)
			names := goodQuestion().names
			if c.name == "completion" {
				o.MTI, names.MTI = "0100", "0100"
			}
			if got := testPolicy().relation(reference{c.kind, names, v}, about{original: o}); got != c.row {
				t.Errorf("row %q, want %q", got, c.row)
			}
		})
	}
	p := testPolicy()
	p.completion = 115
	o, v := approvedSale(), approvedVoid()
	o.Processing, o.MTI, v.Processing, v.Amount = "030000", "0100", "000000", 1150
	names := goodQuestion().names
	names.MTI = "0100"
	if got := p.relation(reference{completeKind, names, v}, about{original: o}); got != "" {
		t.Errorf("a completion of 115 percent where that is allowed: %q", got)
	}
}
