package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/sim"
)

// deal is a sale and its reversal as the terminal knows them.
type deal struct {
	tid    string
	amount int64     // minor units; no other deal of the terminal has it
	sale   *sim.Sent // the 0200 as it was sent first

	code      string    // DE 39 of the 0210; empty: none came
	first     reference // of that answer
	ref       reference // for the reversal
	abandoned bool      // the terminal never asked again what became of it

	asked    bool  // a reversal has left the terminal
	rest     int64 // of a partial one: what stays valid; 0 for a full one
	advice   bool
	stan     string // of the first reversal
	reversal string // DE 39 that ended it; empty: none came yet
	revRef   reference
	repeats  int // reversals sent after the first
}

// reference is what a repeat of a message must bring again.
type reference struct{ rrn, approval string }

func (d *deal) String() string {
	return fmt.Sprintf("%s STAN %s amount %d: sale answered %q, abandoned %v, reversal asked %v (rest %d, advice %v, %d repeats) answered %q",
		d.tid, d.sale.Message.Text(11), d.amount, d.code, d.abandoned, d.asked, d.rest, d.advice, d.repeats, d.reversal)
}

// message is one that an answer may come to.
type message struct {
	deal   *deal
	sent   *sim.Sent
	forged string // DE 39 that must refuse it; empty for a genuine one
}

// till is a terminal at work: it sells, reverses, loses its connection, sends
// again, and keeps its own book. It is for one goroutine.
type till struct {
	*sim.Terminal
	tid      string
	addr     string
	tls      *tls.Config
	dice     *dice
	card     sim.Card
	wire     *wire
	open     map[string]message // by KSN and STAN
	deals    []*deal
	refused  int // replayed KSNs that were refused
	equal    int // repeats that got the first answer again
	faults   []string
	approved atomic.Int64 // sales whose first answer was 00, read by others too

	pace   time.Duration // between two deeds, at most
	double int           // frames that are written twice, in a hundred
	slack  time.Duration // that an answer may need more, on a slow link
	forge  *forger       // nil: it forges nothing but replays
}

func newTill(dev *devReport, tid string, d *dice, card sim.Card) (*till, error) {
	fixed, err := dev.terminal(tid)
	if err != nil {
		return nil, err
	}
	t := &till{tid: tid, addr: dev.SwitchAddr, dice: d, card: card, open: make(map[string]message), pace: 120 * time.Millisecond}
	t.Terminal, err = sim.NewTerminal(sim.TerminalConfig{TID: fixed.TID, MID: fixed.MID, BDK: dev.TestKeys[fixed.BDK], KSN: fixed.KSN}, 0)
	if err != nil {
		return nil, err
	}
	t.tls, err = devTLS(dev, "terminal")
	return t, err
}

func (t *till) fault(format string, args ...any) {
	t.faults = append(t.faults, fmt.Sprintf(format, args...))
}

// work deals until the storm is over and all that it began has an end.
func (t *till) work(ctx context.Context, storm <-chan struct{}) {
	defer t.hangUp()
	for ctx.Err() == nil {
		select {
		case <-storm:
			return
		default:
		}
		wait(ctx, t.dice.between(0, t.pace)) // a cashier is no machine
		switch n := t.dice.below(100); {
		case n < 70:
			t.trade(ctx)
		case n < 80:
			t.reverseOld(ctx)
		case n < 88:
			t.repeatReversal(ctx)
		case n < 94:
			t.repeatSale(ctx)
		case t.forge != nil && n < 98:
			t.forge.try(ctx, t)
		default:
			t.replay(ctx)
		}
	}
}

// What the amounts end in, and what the issuer does with them in the storm.
const (
	approveSale      = 0
	silentReversal   = 10
	wrongMACReversal = 12
	lateReversal     = 14
	slowReversal     = 18
	declineSale      = 51
	closeSale        = 90
	slowSale         = 92
	lateSale         = 94
	wrongMACSale     = 97
	silentSale       = 99
)

// stormRules are what the issuer does while keyd is killed.
func stormRules() []sim.Rule {
	suffix := func(n int) string { return fmt.Sprintf("%02d", n) }
	return []sim.Rule{
		{Suffix: suffix(silentSale), Code: "00", Silent: true},
		{Suffix: suffix(wrongMACSale), Code: "00", WrongMAC: true},
		{Suffix: suffix(lateSale), Code: "00", Delay: 2500 * time.Millisecond},
		{Suffix: suffix(slowSale), Code: "00", Delay: 300 * time.Millisecond},
		{Suffix: suffix(closeSale), Code: "00", Close: true},
		{Suffix: suffix(declineSale), Code: "51"},
		{Reversal: true, Suffix: suffix(silentReversal), Code: "00", Silent: true},
		{Reversal: true, Suffix: suffix(wrongMACReversal), Code: "00", WrongMAC: true},
		{Reversal: true, Suffix: suffix(lateReversal), Code: "00", Delay: 2500 * time.Millisecond},
		{Reversal: true, Suffix: suffix(slowReversal), Code: "00", Delay: 300 * time.Millisecond},
	}
}

// quietRules are those of the end: what the issuer owes an answer, it answers.
func quietRules() []sim.Rule {
	return slices.DeleteFunc(stormRules(), func(r sim.Rule) bool { return r.Reversal })
}

// ending draws what an amount ends in.
func (t *till) ending() int {
	odds := []int{
		approveSale, approveSale, approveSale, approveSale, approveSale, approveSale, approveSale, approveSale, approveSale, approveSale,
		silentReversal, silentReversal, wrongMACReversal, lateReversal, slowReversal, slowReversal,
		declineSale, declineSale, slowSale, slowSale, slowSale, lateSale, wrongMACSale, silentSale,
	}
	if t.dice.chance(2) {
		return closeSale // and all others lose the link with it
	}
	return odds[t.dice.below(len(odds))]
}

// patience is how long it waits for an answer that should come.
func (t *till) patience() time.Duration { return 4*time.Second + t.slack }

// trade sells, and sees to it that it knows what became of the sale.
func (t *till) trade(ctx context.Context) {
	d := &deal{tid: t.tid, amount: int64(len(t.deals)+1)*100 + int64(t.ending())}
	card := t.card
	if t.dice.chance(50) {
		card.PIN = ""
	}
	var err error
	if d.sale, err = t.Sale(d.amount, card, nil); err != nil {
		t.fault("building a sale: %v", err)
		return
	}
	t.deals = append(t.deals, d)
	patience := t.dice.between(2500*time.Millisecond, t.patience())
	switch n := t.dice.below(100); {
	case n < 4:
		t.send(ctx, message{deal: d, sent: d.sale})
		t.hangUp()
	case n < 18:
		patience = t.dice.between(20*time.Millisecond, 500*time.Millisecond)
		fallthrough
	default:
		t.exchange(ctx, message{deal: d, sent: d.sale}, patience)
	}
	if d.code == "" {
		t.chase(ctx, d)
	}
	switch {
	case d.asked || d.abandoned:
	case d.code == "91":
		wait(ctx, 100*time.Millisecond) // as a cashier does
	case d.code == "00" && t.dice.chance(35), d.code == "51" && t.dice.chance(10):
		t.reverse(ctx, d)
	case d.code == "00" && t.dice.chance(8):
		d.rest = d.amount / 2
		t.reverse(ctx, d)
	case d.code != "00" && d.code != "51" && t.dice.chance(50):
		t.reverse(ctx, d) // keyd undoes these by itself as well
	}
}

// chase is what a terminal does that got no answer to a sale.
func (t *till) chase(ctx context.Context, d *deal) {
	switch n := t.dice.below(100); {
	case n < 12:
		d.abandoned = true
	case n < 32: // the very bytes again (M-21)
		t.exchange(ctx, message{deal: d, sent: d.sale}, t.patience())
	case n < 55: // the sale again (W-16)
		t.sellAgain(ctx, d)
	}
	if d.code == "" && !d.abandoned {
		t.reverse(ctx, d)
	}
}

// sellAgain repeats a sale under a new KSN.
func (t *till) sellAgain(ctx context.Context, d *deal) {
	card := t.card
	card.PIN = ""
	m := d.sale.Message
	again, err := t.Sale(d.amount, card, func(b *iso8583.Builder) { b.Copy(m, 7, 11, 12, 13) })
	if err != nil {
		t.fault("building a repeat of a sale: %v", err)
		return
	}
	t.exchange(ctx, message{deal: d, sent: again}, t.patience())
}

// reverse asks until it is answered.
func (t *till) reverse(ctx context.Context, d *deal) {
	d.advice = t.dice.chance(15)
	var last *sim.Sent
	for n := 0; d.reversal == "" && ctx.Err() == nil; n++ {
		if last == nil || !t.dice.chance(20) {
			var err error
			if last, err = t.buildReversal(d, n > 0 && !t.dice.chance(10)); err != nil {
				t.fault("building a reversal: %v", err)
				return
			}
		}
		d.asked = true
		d.repeats = n
		t.exchange(ctx, message{deal: d, sent: last}, t.dice.between(300*time.Millisecond, 5*time.Second))
	}
	if d.reversal != "" && t.dice.chance(20) {
		t.reverseAgain(ctx, d)
	}
}

func (t *till) buildReversal(d *deal, repeat bool) (*sim.Sent, error) {
	mti := iso8583.ReversalRequest
	switch {
	case d.advice && repeat:
		mti = iso8583.ReversalAdviceRepeat
	case d.advice:
		mti = iso8583.ReversalAdvice
	case repeat:
		mti = iso8583.ReversalRepeat
	}
	sent, err := t.Reversal(mti, d.sale, d.ref.rrn, d.ref.approval, func(b *iso8583.Builder) {
		if d.rest == 0 {
			return
		}
		// What stays valid, and the STAN, make a partial reversal the same.
		if d.stan != "" {
			b.Set(11, d.stan)
		}
		if text, err := iso8583.ReplacementText(d.rest); err == nil {
			b.Set(95, text)
		}
	})
	if err == nil && d.stan == "" {
		d.stan = sent.Message.Text(11)
	}
	return sent, err
}

// reverseAgain repeats a reversal that has its answer (D-07).
func (t *till) reverseAgain(ctx context.Context, d *deal) {
	again, err := t.buildReversal(d, true)
	if err != nil {
		t.fault("building a repeat of a reversal: %v", err)
		return
	}
	d.repeats++
	t.exchange(ctx, message{deal: d, sent: again}, t.patience())
}

// pick returns one of the deals for which fits holds, or nil.
func (t *till) pick(fits func(*deal) bool) *deal {
	if len(t.deals) == 0 {
		return nil
	}
	from := t.dice.below(len(t.deals))
	for i := range t.deals {
		if d := t.deals[(from+i)%len(t.deals)]; fits(d) {
			return d
		}
	}
	return nil
}

// reverseOld takes back a sale that was approved some time ago, maybe by an
// earlier process.
func (t *till) reverseOld(ctx context.Context) {
	if d := t.pick(func(d *deal) bool { return d.code == "00" && !d.asked && !d.abandoned }); d != nil {
		t.reverse(ctx, d)
	}
}

func (t *till) repeatReversal(ctx context.Context) {
	if d := t.pick(func(d *deal) bool { return d.reversal != "" }); d != nil {
		t.reverseAgain(ctx, d)
	}
}

func (t *till) repeatSale(ctx context.Context) {
	if d := t.pick(func(d *deal) bool { return (d.code == "00" || d.code == "51") && !d.asked && !d.abandoned }); d != nil {
		t.sellAgain(ctx, d)
	}
}

// replay forges a reversal under the KSN of a sale that was answered.
func (t *till) replay(ctx context.Context) {
	d := t.pick(func(d *deal) bool { return d.code == "00" })
	if d == nil {
		return
	}
	forgery, err := sim.ForgeryByName("replayed-ksn")
	if err != nil {
		t.fault("%v", err)
		return
	}
	sent, err := forgery.Make(t.Terminal, nil, d.sale, nil)
	if err != nil {
		t.fault("building a replay: %v", err)
		return
	}
	t.exchange(ctx, message{deal: d, sent: sent, forged: "63"}, t.patience())
}

// exchange sends a message and takes what comes until it is the answer to it,
// or patience ends. It reports whether an answer came that could be believed.
func (t *till) exchange(ctx context.Context, m message, patience time.Duration) bool {
	if !t.send(ctx, m) {
		return false
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case raw, ok := <-t.wire.frames:
			if !ok {
				t.hangUp()
				return false
			}
			to, believed := t.take(raw)
			if to == m.sent {
				return believed
			}
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// send puts a message on the wire, connecting first where that is needed.
func (t *till) send(ctx context.Context, m message) bool {
	if !t.connect(ctx) {
		return false
	}
	t.open[handle(m.sent.Message)] = m
	frames := 1
	if m.forged == "" && t.dice.chance(t.double) {
		frames = 2
	}
	for range frames {
		if err := t.wire.write(m.sent.Raw); err != nil {
			t.hangUp()
			return false
		}
	}
	return true
}

// handle is what an answer repeats of its message.
func handle(m *iso8583.Message) string { return m.Text(62) + "/" + m.Text(11) }

// take reads an answer and tells the deal that it belongs to. An answer without
// a valid MAC is none.
func (t *till) take(raw []byte) (to *sim.Sent, believed bool) {
	m, err := iso8583.ASCII87().Parse(raw, iso8583.SideTerminal)
	if err != nil {
		t.fault("%s: an answer that cannot be read: %v", t.tid, err)
		return nil, false
	}
	asked, ok := t.open[handle(m)]
	if !ok {
		t.fault("%s: an answer to nothing: %s, DE 39 %s", t.tid, m.MTI(), m.Text(39))
		return nil, false
	}
	if m, err = t.Answer(asked.sent, raw); err != nil {
		if !errors.Is(err, sim.ErrAnswer) || m.Text(39) == "00" {
			t.fault("%s: %s with DE 39 %s: %v", t.tid, m.MTI(), m.Text(39), err)
		}
		return asked.sent, false
	}
	if want := asked.sent.Message.MTI().Response(); m.MTI() != want {
		t.fault("%s: answered by %s, want %s", asked.deal, m.MTI(), want)
	}
	switch {
	case asked.forged != "":
		t.refusedForgery(asked, m)
	case asked.sent.Message.MTI().Class() == '4':
		t.reversed(asked.deal, m)
	default:
		t.sold(asked.deal, m)
	}
	return asked.sent, true
}

func (t *till) refusedForgery(asked message, m *iso8583.Message) {
	if code := m.Text(39); code != asked.forged && code != "96" {
		t.fault("I-3: a forged reversal was answered %s, want %s: %s", code, asked.forged, asked.deal)
		return
	}
	t.refused++
}

// sold notes the answer to a sale. An answer that comes twice comes alike.
func (t *till) sold(d *deal, m *iso8583.Message) {
	code, ref := m.Text(39), reference{m.Text(37), m.Text(38)}
	switch {
	case !slices.Contains([]string{"00", "51", "68", "91", "94", "96"}, code):
		t.fault("a sale was answered %s: %s", code, d)
	case d.code == "":
		d.code, d.first = code, ref
		if code == "00" {
			t.approved.Add(1)
		}
		if code != "94" { // a refusal of a duplicate has a reference of its own
			d.ref = ref
		}
	case code == "94" && (d.asked || d.code != "00" && d.code != "51"), code == "96", d.code == "96", d.code == "94":
	case code != d.code || ref != d.first:
		t.fault("R-44: the answer %s %v to a repeated sale is not the first, %s %v: %s", code, ref, d.code, d.first, d)
	default:
		t.equal++
	}
}

// reversed notes the answer to a reversal.
func (t *till) reversed(d *deal, m *iso8583.Message) {
	code, ref := m.Text(39), reference{m.Text(37), m.Text(38)}
	switch {
	case code == "96": // later
	case code != "00" && code != "12" && code != "25":
		t.fault("a reversal was answered %s: %s", code, d)
		d.reversal = code
	case d.reversal == "":
		d.reversal, d.revRef = code, ref
	case code != d.reversal || ref != d.revRef:
		t.fault("R-08: the answer %s %v to a repeated reversal is not the first, %s %v: %s", code, ref, d.reversal, d.revRef, d)
	default:
		t.equal++
	}
}

// connect tries until the switch lets the terminal in.
func (t *till) connect(ctx context.Context) bool {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for t.wire == nil {
		wire, err := dialWire(ctx, t.addr, t.tls)
		if err == nil {
			t.wire = wire
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

func (t *till) hangUp() {
	if t.wire != nil {
		t.wire.close()
		t.wire = nil
	}
}
