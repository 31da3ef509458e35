package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"

	"keyd.dev/keyd/internal/iso8583"
)

// FraudConfig is a switch that is attacked, and what the attacker has: a victim's
// terminal, for honest sales and for what can be recorded on its line, and a
// terminal of his own. It is for test terminals alone, for it knows their keys.
type FraudConfig struct {
	Victim, Thief     *Terminal // DUKPT, of one merchant or of two; nil: nothing of this dialect is tried
	VictimID, ThiefID [2]string // TID and MID
	Master            *CUP      // a UnionPay terminal; nil: nothing of this dialect is tried
	Dial, DialMaster  func(context.Context) (*Link, error)
	DialStranger      func(context.Context) (*Link, error)  // with a certificate that has no business here; nil: there is none
	Book              func() ([]Entry, error)               // the issuer's; nil: not at hand
	Card              string                                // number of a test card
	Settled           func(done func() (bool, error)) error // waits until done, for what happens behind the switch; needed with Book
	Late              int64                                 // added to an amount it makes the issuer approve after the switch has given up
}

// Verdict is what came of an attack.
type Verdict string

// The verdicts.
const (
	FraudRefused Verdict = "refused"
	FraudUnseen  Verdict = "not seen" // refused by the answers; whether it had an effect was not looked at
	FraudThrough Verdict = "GOT THROUGH"
	FraudFailed  Verdict = "FAILED"  // it could not be carried out: nothing is proved
	FraudNotRun  Verdict = "not run" // not from outside
)

// Finding is a test of an attack and what came of it.
type Finding struct {
	Attack  string   `json:"attack"`
	Test    string   `json:"test"`   // A-01.T1
	Title   string   `json:"title"`
	Tried   []string `json:"tried,omitempty"`
	Seen    []string `json:"seen,omitempty"`   // DE 39, or what else came, for each that was tried
	Effect  string   `json:"effect,omitempty"` // what there was of it, and by which proof
	Stopped string   `json:"stopped"`          // what stopped it; why it was not run
	Verdict Verdict  `json:"verdict"`
	Covered string   `json:"covered,omitempty"` // the test of keyd that has what was not run

	run int // of those of a Fraud
}

// FraudTest is one test of the catalogue.
type FraudTest struct {
	Test, Title, Stops string
	Covered            string // by which test, where Run is nil
	Run                func(*Fraud) error
	Needs              FraudNeed
}

// FraudNeed is what a test needs beside a switch.
type FraudNeed string

// The needs.
const (
	NeedsDUKPT    FraudNeed = ""
	NeedsMaster   FraudNeed = "a UnionPay terminal"
	NeedsBook     FraudNeed = "the issuer's book"
	NeedsStranger FraudNeed = "a certificate that the terminal may not use"
)

// Fraud runs attacks. It is for one goroutine.
type Fraud struct {
	cfg     FraudConfig
	ctx     context.Context
	at      *Finding
	through bool
	unseen  bool
	amount  int64
	runs    int
	claims  map[bookKey]claim
}

// NewFraud makes a Fraud.
func NewFraud(cfg FraudConfig) *Fraud {
	f := &Fraud{cfg: cfg, amount: 10_000, claims: make(map[bookKey]claim)}
	if cfg.Victim != nil { // of each run other amounts, by which the issuer's book is read
		f.amount += int64(cfg.Victim.stan%20_000) * 100
	}
	return f
}

// Run runs one test of the catalogue.
func (f *Fraud) Run(ctx context.Context, t FraudTest) Finding {
	found := Finding{Attack: t.Test[:4], Test: t.Test, Title: t.Title, Stopped: t.Stops, Verdict: FraudRefused, Covered: t.Covered}
	lacks := map[FraudNeed]bool{
		NeedsDUKPT: f.cfg.Victim == nil || f.cfg.Thief == nil, NeedsMaster: f.cfg.Master == nil,
		NeedsBook: f.cfg.Book == nil || f.cfg.Victim == nil, NeedsStranger: f.cfg.DialStranger == nil || f.cfg.Victim == nil,
	}
	switch {
	case t.Run == nil:
		found.Verdict = FraudNotRun
		return found
	case lacks[t.Needs]:
		need := string(t.Needs)
		if need == "" {
			need = "two DUKPT terminals"
		}
		found.Verdict, found.Stopped = FraudNotRun, "needs "+need
		return found
	}
	f.runs++
	found.run = f.runs
	f.ctx, f.at, f.through, f.unseen = ctx, &found, false, false
	err := t.Run(f)
	switch {
	case f.through:
		found.Verdict = FraudThrough
	case err != nil:
		found.Verdict = FraudFailed
	case f.unseen:
		found.Verdict, found.Effect = FraudUnseen, "not seen: the issuer's book is not at hand"
	}
	if err != nil {
		found.Stopped = err.Error()
	}
	return found
}

// errThrough ends a test whose attack had its way.
var errThrough = errors.New("sim: the switch let it through")

// open connects to the switch; each attempt has a connection of its own, for bad
// MACs lock a terminal on theirs.
func (f *Fraud) open() (*Link, error) { return f.cfg.Dial(f.ctx) }

// saw notes what was tried and what was seen.
func (f *Fraud) saw(tried, seen string) {
	f.at.Tried, f.at.Seen = append(f.at.Tried, tried), append(f.at.Seen, seen)
}

// refused sends a message by a connection of its own and wants a refusal, of the
// usual codes where some are named. An answer with 00, of whatever MAC, is none.
func (f *Fraud) refused(tried string, raw []byte, codes ...string) error {
	link, err := f.open()
	if err != nil {
		return err
	}
	defer func() { _ = link.Close() }()
	return f.refusedBy(link, f.cfg.Victim.dialect, tried, raw, codes...)
}

func (f *Fraud) refusedBy(link *Link, d *iso8583.Dialect, tried string, raw []byte, codes ...string) error {
	seen, err := reply(link, d, raw)
	if err != nil {
		return err
	}
	f.saw(tried, seen)
	switch {
	case slices.Contains([]string{"00", "10", "11", "A2", "A4", "A5", "A6"}, seen):
		f.through = true
		return fmt.Errorf("%w: %s was answered %s", errThrough, tried, seen)
	case len(codes) > 0:
		return among(tried, seen, codes)
	}
	return nil
}

// among is an error where a refusal is not one of those that were to be tried.
func among(tried, seen string, codes []string) error {
	if slices.Contains(codes, seen) {
		return nil
	}
	return fmt.Errorf("sim: %s was answered %s, not %v: refused, but by something else than was to be tried", tried, seen, codes)
}

// The answers of a link that have no DE 39.
const (
	seenClosed = "closed"
	seenSilent = "silent"
)

// reply sends a message and returns DE 39 of the answer, "closed" or "silent".
func reply(link *Link, d *iso8583.Dialect, raw []byte) (string, error) {
	got, err := link.Exchange(raw)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return seenSilent, nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return seenClosed, nil
	case err != nil:
		return "", err
	}
	m, err := d.Parse(got, iso8583.SideTerminal)
	if err != nil {
		return "", fmt.Errorf("sim: the answer of the switch: %w", err)
	}
	return m.Text(39), nil
}

// deal is an approved sale of the victim.
type deal struct {
	sale *Sent
	rrn  string
	auth string
}

// sell makes an approved sale of the victim.
func (f *Fraud) sell() (*deal, error) { return f.sellBy(f.cfg.Victim) }

// Sell makes an honest sale of the victim's, so that its card is in all that a switch
// keeps of one.
func (f *Fraud) Sell(ctx context.Context) error {
	f.ctx = ctx
	_, err := f.sell()
	return err
}

func (f *Fraud) sellBy(t *Terminal) (*deal, error) {
	f.amount += 100
	sale, err := t.Sale(f.amount, Card{PAN: f.cfg.Card}, nil)
	if err != nil {
		return nil, err
	}
	m, err := f.ask(t, sale)
	if err != nil {
		return nil, err
	}
	if m.Text(39) != "00" {
		return nil, fmt.Errorf("sim: an honest sale of %d was answered %s", f.amount, m.Text(39))
	}
	return &deal{sale, m.Text(37), m.Text(38)}, nil
}

// ask sends an honest message by a connection of its own; the answer's MAC must be
// valid.
func (f *Fraud) ask(t *Terminal, sent *Sent) (*iso8583.Message, error) {
	link, err := f.open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = link.Close() }()
	raw, err := link.Exchange(sent.Raw)
	if err != nil {
		return nil, err
	}
	return t.Answer(sent, raw)
}

// reversal is a genuine one of a sale of the victim's, changed by draft.
func (f *Fraud) reversal(mti iso8583.MTI, d *deal, draft Draft) (*Sent, error) {
	return f.cfg.Victim.Reversal(mti, d.sale, d.rrn, d.auth, draft)
}

// reverse honours a sale's reversal.
func (f *Fraud) reverse(d *deal) (*Sent, *iso8583.Message, error) {
	sent, err := f.reversal(iso8583.ReversalRequest, d, nil)
	if err != nil {
		return nil, nil, err
	}
	m, err := f.ask(f.cfg.Victim, sent)
	if err == nil && m.Text(39) != "00" {
		err = fmt.Errorf("sim: a genuine reversal was answered %s", m.Text(39))
	}
	return sent, m, err
}

// stands proves that a sale has not been touched: its bytes sent again get the
// stored answer, where those of a sale that was reversed get 94; and the issuer,
// where its book is at hand, has seen no reversal of it.
func (f *Fraud) stands(d *deal) error {
	m, err := f.ask(f.cfg.Victim, d.sale)
	if err != nil && (!errors.Is(err, ErrAnswer) || m.Text(39) == "00") {
		return err
	}
	return f.untouched(d.rrn, m.Text(39), m.Text(37))
}

func (f *Fraud) untouched(rrn, code, again string) error {
	if code != "00" || again != rrn {
		f.through = true
		return fmt.Errorf("%w: the sale does not stand any more; it is answered %s", errThrough, code)
	}
	f.at.Effect = "none: the sale again gets its stored answer"
	if f.cfg.Book == nil {
		return nil
	}
	e, err := f.booked(rrn)
	if err != nil {
		return err
	}
	if err := f.claim(*e, unreversed); err != nil {
		return err
	}
	f.at.Effect += ", the issuer's book has it once and unreversed"
	return nil
}

// booked is what the issuer has of a sale.
func (f *Fraud) booked(rrn string) (*Entry, error) {
	book, err := f.cfg.Book()
	if err != nil {
		return nil, err
	}
	for i := range slices.Backward(book) {
		if book[i].RRN == rrn {
			return &book[i], nil
		}
	}
	return nil, fmt.Errorf("sim: the issuer has no sale with the reference %s", rrn)
}

// onceReversed waits until the issuer has reversed a sale, and wants it once: what
// holds then must hold at the end too.
func (f *Fraud) onceReversed(find func(Entry) bool, holds func(Entry) error) error {
	if f.cfg.Book == nil {
		f.unseen = true
		return nil
	}
	var last Entry
	err := f.cfg.Settled(func() (bool, error) {
		book, err := f.cfg.Book()
		for _, e := range slices.Backward(book) {
			if find(e) {
				last = e
				return e.Effective > 0, err
			}
		}
		return false, err
	})
	if err != nil {
		return fmt.Errorf("sim: waiting for the issuer to have reversed the sale: %w", err)
	}
	if err := f.claim(last, holds); err != nil {
		return err
	}
	f.at.Effect = "one reversal in the issuer's book"
	return nil
}

// withMAC is a message with another MAC.
func withMAC(raw []byte, digits string) []byte {
	out := bytes.Clone(raw)
	copy(out[len(out)-len(digits):], digits)
	return out
}

// guessed is a MAC that nobody computed.
const guessed = "0123456789ABCDEF"
