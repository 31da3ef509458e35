package isoswitch

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/profile"
)

// machine runs random histories of one sale and what may happen to it: repeats,
// reversals of every kind, late and early, upstream answers, crashes, commits
// that fail. It is the switch's own code from stage 6 on, over a journal in
// memory.
type machine struct {
	s       *Switch
	journal *memory
	now     time.Time
	counter uint32
	stan    int
	flight  *live
	sale    *Txn // as first journalled; nil before

	upstream  int   // full reversals that upstream holds effective: 0 or 1
	remaining int64 // what upstream holds valid of the sale, -1 before it came
	granted   int   // 00 to a full reversal that was no repeat
	undone    bool  // the terminal asked for a full reversal while the sale was in flight
}

func newMachine() *machine {
	speaks, err := profile.Builtin("ascii87")
	if err != nil {
		panic(err)
	}
	m := &machine{journal: newMemory(), now: noon, remaining: -1}
	to := &host{cfg: Upstream{Name: "test"}}
	m.s = &Switch{
		dialect: iso8583.ASCII87(),

		listeners: []Listener{{Profile: speaks}},

		flights: &flights{byOID: map[OID]*live{}},
		hosts:   []*host{to}, byName: map[string]*host{"test": to},
		rates:   newRates(m.clock),
		observe: func(Event) {},
		cfg:     Config{Journal: m.journal, Clock: m.clock},
	}
	rules := &settings{policy: testPolicy(), routes: &routes{all: &cardRoutes{}}}
	rules.Limits.KSNStep = 10_000
	rules.Timers, _ = Timers{}.withDefaults()
	rules.Retry, _ = Retry{}.withDefaults()
	m.s.set.Store(rules)
	m.s.numbers = &numbers{journal: m.journal, clock: m.clock}
	return m
}

func (m *machine) clock() time.Time { return m.now }

const (
	machineAmount = 1000
	machineSent   = "1122110000"
)

// message builds what a terminal sends. Its MAC is not looked at here: who
// comes this far has a valid one.
func (m *machine) message(mti iso8583.MTI, change func(*iso8583.Builder)) *request {
	m.stan++
	m.counter++
	b := m.s.dialect.Build(mti, iso8583.SideTerminal).
		Set(2, "4111111111111111").Set(3, "000000").Set(4, fmt.Sprintf("%012d", machineAmount)).
		Set(7, m.now.Format(layoutDE7)).Set(11, fmt.Sprintf("%06d", m.stan+100)).
		Set(12, "110000").Set(13, "1122").Set(22, "051").Set(25, "00").
		Set(41, "T0000001").Set(42, "M00000000000001").Set(49, "978")
	change(b)
	open, err := b.Pack()
	if err != nil {
		panic(err)
	}
	raw := open.Seal([8]byte{})
	msg, err := m.s.dialect.Parse(raw, iso8583.SideTerminal)
	if err != nil {
		panic(err)
	}
	return &request{
		msg: msg, raw: hashOf(raw), at: m.now, rules: m.s.rules(), macKey: "key", known: true, keyed: true,
		speech: speech{m.s.listeners[0].Profile}, terminal: Terminal{TID: "T0000001"}, serial: serial{device: "D", counter: m.counter, text: "FFFF9876543210E00001"},
	}
}

// sell journals the sale, or meets it again.
func (m *machine) sell() {
	r := m.message("0200", func(b *iso8583.Builder) { b.Set(7, machineSent).Set(11, "000007") })
	card := custody.Card{Token: "k1:card"}
	key := m.s.lookupKey("M00000000000001", "T0000001", machineSent, "000007", '2')
	t := &Txn{Link: "test",
		OID: newOID(key, m.now), Key: key, MTI: "0200", Received: m.now, Card: card, Processing: "000000",
		Amount: machineAmount, Sent: machineSent, STAN: "000007", Condition: "00", TID: "T0000001",
		MID: "M00000000000001", Currency: "978", Content: saleContent(r.msg, card.Token), State: Forwarded,
		RRN: "000000000001", UpSTAN: "000001", UpSent: machineSent,
	}
	_ = m.journal.Update(context.Background(), func(tx Tx) error {
		earlier, err := tx.Newest(key, m.now.Add(-m.s.rules().Timers.LookBack))
		isFresh, v, failed := m.s.judgeSerial(tx, r, earlier)
		if v != nil || failed != nil {
			return failed
		}
		if isFresh {
			var record *Txn
			if err != nil {
				record = t
			}
			if err := m.s.spend(tx, r, record); err != nil {
				return err
			}
		}
		if err == nil {
			if in := m.s.duplicate(earlier, t); in.joined != nil {
				m.s.leaveQuietly(in.joined)
			}
			return nil
		}
		if err := tx.InsertTxn(t); err != nil {
			return err
		}
		m.flight = m.s.flights.start(t)
		m.sale = t
		return nil
	})
	if m.sale != nil {
		if _, ok := m.journal.held.txns[m.sale.OID]; !ok { // the commit failed
			m.s.flights.end(m.flight)
			m.flight, m.sale = nil, nil
		}
	}
}

// leaveQuietly takes a joined repeat back: what happens to its answer is not
// this test's.
func (s *Switch) leaveQuietly(l *live) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.takers--
}

// depart hands the sale to the link.
func (m *machine) depart() {
	if m.flight != nil && !m.flight.gone() && m.flight.depart() {
		m.remaining = machineAmount
	}
}

// settle ends the sale's flight.
func (m *machine) settle(res result) {
	if m.flight == nil {
		return
	}
	if !m.flight.gone() {
		res = result{kind: neverLeft, code: "91"}
	}
	num, err := m.s.numbers.take(context.Background())
	if err != nil {
		return
	}
	err = m.journal.Update(context.Background(), func(tx Tx) error {
		_, _, err := settleTxn(tx, m.flight.oid, res, num, m.now)
		return err
	})
	if err == nil || errors.Is(err, errSettled) {
		m.s.flights.end(m.flight)
		m.flight = nil
	}
}

// undeliver reverses an approval that nobody took.
func (m *machine) undeliver() {
	if m.sale == nil || m.flight != nil {
		return
	}
	num, err := m.s.numbers.take(context.Background())
	if err != nil {
		return
	}
	_ = m.journal.Update(context.Background(), func(tx Tx) error {
		_, err := reverseUndelivered(tx, m.sale.OID, num, m.now)
		return err
	})
}

// reverse asks for a reversal as a terminal does.
func (m *machine) reverse(mti iso8583.MTI, rest int64, wrong string) {
	names, err := iso8583.OriginalData{MTI: "0200", STAN: "000007", DateTime: machineSent}.Text()
	if err != nil {
		panic(err)
	}
	token := "k1:card"
	r := m.message(mti, func(b *iso8583.Builder) {
		b.Set(39, "06").Set(90, names)
		switch wrong {
		case "amount":
			b.Set(4, fmt.Sprintf("%012d", machineAmount+1))
		case "pan":
			token = "k1:other"
		case "proc":
			b.Set(3, "000001")
		}
		if rest >= 0 {
			text, err := iso8583.ReplacementText(rest)
			if err != nil {
				panic(err)
			}
			b.Set(95, text)
		}
	})
	before := m.fullRecord()
	d, err := m.s.decideReversal(context.Background(), r, custody.Card{Token: token})
	if err == nil && d.verdict.effect == reverseWhole && before == nil {
		m.granted++
	}
	if err == nil && m.flight != nil && rest < 0 && wrong == "" {
		m.undone = true
	}
}

// close closes the batches of all terminals, with the sale in them (D-25).
func (m *machine) close() {
	desk := &Desk{journal: m.journal}
	_, _ = desk.CloseBatch(context.Background(), custody.BatchClosing{Before: m.now.Add(time.Second)})
}

// operate decides on what is held: releases it or rejects it (D-25, D-34, D-35).
func (m *machine) operate(act custody.ReversalAct) {
	for rid, r := range m.journal.held.revs {
		if r.State != Held {
			continue
		}
		err := m.journal.Update(context.Background(), func(tx Tx) error {
			rev, err := tx.Reversal(rid)
			if err != nil {
				return err
			}
			t, err := tx.Txn(rev.OID)
			if err != nil {
				return err
			}
			return obey(tx, rev, t, custody.ReversalOrder{Act: act}, m.now)
		})
		if err == nil && act == custody.ReleaseReversal {
			m.granted++
		}
	}
}

func (m *machine) fullRecord() *Reversal {
	for _, r := range m.journal.held.revs {
		if r.Full {
			return &r
		}
	}
	return nil
}

// forward makes one try at whatever is due. upstream keeps its own book, as an
// issuer does: by the original, however often a message comes.
func (m *machine) forward(code string, answered bool) {
	m.now = m.now.Add(time.Hour / 4)
	due, err := (&m.journal.held).Due("test", m.now, 10, nil)
	if err != nil || len(due) == 0 {
		return
	}
	m.s.log = quiet()
	rev, _, err := m.s.startTry(context.Background(), due[0].RID)
	if err != nil || rev == nil {
		return
	}
	if code == "00" && m.remaining > 0 {
		if rev.Full {
			m.upstream++
			m.remaining = 0
		} else {
			m.remaining = min(m.remaining, rev.Rest)
		}
	}
	if !answered {
		return
	}
	_ = m.journal.Update(context.Background(), func(tx Tx) error {
		_, err := m.s.settleReversal(tx, rev.RID, code)
		return err
	})
}

// crash forgets what the process knew, and recovers as a start does.
func (m *machine) crash() {
	m.journal.failNext = nil // the disk is sound again when the process starts
	m.s.flights = &flights{byOID: map[OID]*live{}}
	m.flight = nil
	m.s.numbers = &numbers{journal: m.journal, clock: m.clock}
	open, _ := (&m.journal.held).Unfinished(OID{}, 10)
	for _, t := range open {
		num, err := m.s.numbers.take(context.Background())
		if err != nil {
			panic(err)
		}
		err = m.journal.Update(context.Background(), func(tx Tx) error {
			_, _, err := settleTxn(tx, t.OID, result{kind: unknownResult, cause: ByRestart, code: "68"}, num, m.now)
			return err
		})
		if err != nil {
			panic(err)
		}
	}
}

// check holds the invariants of section 13.
func (m *machine) check(t *rapid.T) {
	full := 0
	for _, r := range m.journal.held.revs {
		if r.Full && r.State != Closed {
			full++
		}
	}
	if full > 1 || m.upstream > 1 || m.granted > 1 {
		t.Fatalf("I-1: %d full reversals in the journal, %d effective upstream, %d granted", full, m.upstream, m.granted)
	}
	for _, x := range m.journal.held.txns {
		if x.ReversedAmount > x.Amount {
			t.Fatalf("I-2: %d reversed of %d", x.ReversedAmount, x.Amount)
		}
		if full == 1 && x.ReversedAmount > 0 {
			t.Fatalf("I-2: reversed whole, and %d in parts", x.ReversedAmount)
		}
		rev, has := m.journal.held.revs[fullRID(x.OID)]
		switch x.State {
		case ReversalPending, Reversed, ReversedUnknown, ReversalFailed:
			if !has {
				t.Fatalf("I-4: state %s without a reversal", x.State)
			}
		case Approved:
			if has && rev.State != Closed { // rejected
				t.Fatalf("I-4: approved, with a full reversal that is %s", rev.State)
			}
		case LocalVoid, Tombstone:
			if !has || rev.State != Closed || m.remaining >= 0 && x.State == LocalVoid {
				t.Fatalf("state %s with reversal %v %s, upstream %d", x.State, has, rev.State, m.remaining)
			}
		}
		if has && rev.Cause == ByTerminal && rev.KSN == "" {
			t.Fatal("I-3: a reversal without its KSN")
		}
	}
}

// finish lets everything come to rest: then no sale may be left in doubt.
func (m *machine) finish(t *rapid.T) {
	m.settle(result{kind: unknownResult, cause: ByTimeout, code: "68"})
	m.settle(result{kind: unknownResult, cause: ByTimeout, code: "68"})
	m.operate(custody.ReleaseReversal)
	for range 20 {
		m.forward("00", true)
	}
	m.check(t)
	for _, x := range m.journal.held.txns {
		switch x.State {
		case Approved:
			if m.undone {
				t.Fatal("D-18: approved, and its terminal asked for its reversal while it was in flight")
			}
			if want := x.Amount - x.ReversedAmount; m.remaining != want {
				t.Fatalf("R-36: the journal holds %d valid, upstream %d", want, m.remaining)
			}
		case Reversed:
			if m.remaining > 0 {
				t.Fatalf("R-36: reversed, and upstream holds %d valid", m.remaining)
			}
		case Declined, LocalVoid, Tombstone, ReversedUnknown, ReversalFailed:
		default:
			t.Fatalf("a sale rests in %s", x.State)
		}
	}
}

func TestMachine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine()
		mtis := rapid.SampledFrom([]iso8583.MTI{"0400", "0401", "0420", "0421"})
		t.Repeat(map[string]func(*rapid.T){
			"sell": func(t *rapid.T) {
				if m.sell(); rapid.Bool().Draw(t, "close") {
					m.close()
				}
			},
			"depart":    func(*rapid.T) { m.depart() },
			"undeliver": func(*rapid.T) { m.undeliver() },
			"crash":     func(*rapid.T) { m.crash() },
			"settle": func(t *rapid.T) {
				m.settle(rapid.SampledFrom([]result{
					{kind: approvedResult, code: "00", approval: "A1B2C3"},
					{kind: unknownResult, cause: ByTimeout, code: "68"},
					{kind: unknownResult, cause: ByBadAnswer, code: "96"},
				}).Draw(t, "result"))
			},
			"reverse": func(t *rapid.T) {
				m.reverse(mtis.Draw(t, "mti"), -1, rapid.SampledFrom([]string{"", "", "", "amount", "pan", "proc"}).Draw(t, "wrong"))
			},
			"reverse in part": func(t *rapid.T) {
				m.reverse(mtis.Draw(t, "mti"), rapid.Int64Range(0, machineAmount+1).Draw(t, "rest"), "")
			},
			"forward": func(t *rapid.T) {
				m.forward("00", rapid.Bool().Draw(t, "answered"))
			},
			"operate": func(t *rapid.T) {
				m.operate(rapid.SampledFrom([]custody.ReversalAct{custody.ReleaseReversal, custody.RejectReversal}).Draw(t, "act"))
			},
			"commit fails": func(*rapid.T) { m.journal.failNext = errors.New("disk full") },
			"":             m.check,
		})
		m.journal.failNext = nil
		m.finish(t)
	})
}
