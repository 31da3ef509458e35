package sim

import (
	"errors"
	"fmt"
	"slices"

	"keyd.dev/keyd/internal/iso8583"
)

// DUKPT is the language of terminals of the ascii87 dialect.
type DUKPT struct {
	*Terminal
	cfg    TerminalConfig
	locked bool // the switch wants a sign-on with a valid MAC
}

// NewDUKPT checks the configuration. cfg.KSN is that of a new terminal's first
// message.
func NewDUKPT(cfg TerminalConfig) (*DUKPT, error) {
	t, err := NewTerminal(cfg, 0)
	if err != nil {
		return nil, err
	}
	return &DUKPT{Terminal: t, cfg: cfg}, nil
}

func (t *DUKPT) begin(s *State, fresh bool) (err error) {
	if fresh {
		t.numbers(s)
		return nil
	}
	cfg := t.cfg
	cfg.KSN = s.KSN
	if t.Terminal, err = NewTerminal(cfg, s.STAN); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	return nil
}

func (t *DUKPT) numbers(s *State) { s.KSN, s.STAN = t.State() }

// kept notes the numbers that a message has used up.
func (t *DUKPT) kept(s *State, sent *Sent, err error) (*Sent, error) {
	t.numbers(s)
	return sent, err
}

func (t *DUKPT) request(s *State, o Order) (*Sent, error) {
	var of *Sent
	var err error
	if o.Do.names() {
		if of, err = t.Recall(*o.Of); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrOrder, err)
		}
	}
	var chip Draft
	if o.Card.Chip {
		chip = func(b *iso8583.Builder) {
			b.Set(22, "051").Set(55, chipData(o.Amount, t.Terminal.cfg.Currency, t.stan))
		}
	}
	var sent *Sent
	switch o.Do {
	case DoSale:
		sent, err = t.Sale(o.Amount, o.Card, chip)
	case DoPreauth:
		sent, err = t.Preauth(o.Amount, o.Card, chip)
	case DoComplete:
		sent, err = t.Complete(of, o.Amount, nil)
	case DoVoid:
		sent, err = t.Void(of, nil)
	case DoRefund:
		sent, err = t.Refund(of, o.Amount, nil)
	case DoBalance:
		sent, err = t.Terminal.request(iso8583.FinancialRequest, "310000", o.Amount, o.Card, chip)
	default:
		return nil, fmt.Errorf("%w: %q", ErrOrder, o.Do)
	}
	return t.kept(s, sent, err)
}

// owes: all but a balance inquiry moves money.
func (t *DUKPT) owes(o Order) bool { return o.Do != DoBalance }

func (t *DUKPT) repeats(Order) bool { return false }

func (t *DUKPT) again(*Memory) (*Sent, error) {
	return nil, fmt.Errorf("%w: it sends no advice again", ErrOrder)
}

// reversal has a STAN and a DE 7 of its own, the same in each repeat, which is a
// 0401, and each time a KSN that was never used.
func (t *DUKPT) reversal(s *State, p *Pending) (*Sent, error) {
	of, err := t.Recall(p.Original)
	if err != nil {
		return nil, fmt.Errorf("%w: the pending reversal: %w", ErrState, err)
	}
	mti := iso8583.ReversalRequest
	if p.STAN != "" {
		mti = iso8583.ReversalRepeat
	}
	sent, err := t.Reversal(mti, of, p.Original.RRN, p.Original.Approval, func(b *iso8583.Builder) {
		b.Set(39, p.Reason)
		if p.STAN != "" {
			b.Set(11, p.STAN).Set(7, p.DateTime)
		}
		if text := reversedChip(p.Original.field(55)); text != "" {
			b.Set(55, text)
		}
	})
	if err == nil {
		p.STAN, p.DateTime = sent.Message.Text(11), sent.Message.Text(7)
	}
	return t.kept(s, sent, err)
}

func (t *DUKPT) undoes(of *Memory, mti iso8583.MTI, rest int64) (*Sent, error) {
	sale, err := t.Recall(*of)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	var draft Draft
	if rest >= 0 {
		text, err := iso8583.ReplacementText(rest)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrOrder, err)
		}
		draft = func(b *iso8583.Builder) { b.Set(95, text) }
	}
	return t.Reversal(mti, sale, of.RRN, of.Approval, draft)
}

func (t *DUKPT) call(s *State, k Kind) (*Sent, error) {
	code, ok := map[Kind]string{DoSignIn: "001", DoSignOff: "002", DoEcho: "301"}[k]
	if !ok {
		return nil, fmt.Errorf("%w: the dialect has no message to %s", ErrOrder, k)
	}
	sent, err := t.Network(code)
	return t.kept(s, sent, err)
}

// judge believes no answer without a valid MAC, a refusal neither.
func (t *DUKPT) judge(sent *Sent, raw []byte) (Judged, error) {
	m, err := t.Answer(sent, raw)
	if m == nil {
		return Judged{}, err
	}
	j := Judged{Message: m, MAC: MACUnchecked}
	switch {
	case errors.Is(err, iso8583.ErrMACAbsent):
		j.MAC = MACAbsent
	case errors.Is(err, ErrAnswer):
		j.MAC = MACWrong
	case err == nil:
		j.MAC = MACValid
	}
	if err == nil && (m.MTI() != sent.Message.MTI().Response() || !echoes(m, sent.Message, 2, 3, 4, 7, 42, 49, 62)) {
		return j, fmt.Errorf("%w: its echo differs", ErrMismatch)
	}
	if errors.Is(err, ErrAnswer) && m.Text(39) == "63" {
		t.locked = true
	}
	return j, err
}

// echoes reports whether the answer repeats these fields where it has them.
func echoes(m, of *iso8583.Message, des ...int) bool {
	return !slices.ContainsFunc(des, func(de int) bool { return m.Has(de) && of.Has(de) && m.Text(de) != of.Text(de) })
}

func (t *DUKPT) reason(err error) string {
	switch {
	case errors.Is(err, errSilent):
		return "68"
	case errors.Is(err, ErrAnswer):
		return "63"
	}
	return "06"
}

func (t *DUKPT) approves(code string) bool { return code == "00" }

// settles: accepted, or an answer that no repeat can change: nothing approved, the
// original's state, not found.
func (t *DUKPT) settles(code string) bool {
	return slices.Contains([]string{"00", "12", "22", "25"}, code)
}

// renew: after a refusal for security the terminal signs on, which clears a
// lock-out.
func (t *DUKPT) renew(_ *State, code string) { t.locked = t.locked || code == "63" }

func (t *DUKPT) ready(*State) bool { return !t.locked }

func (t *DUKPT) installs(*State, *iso8583.Message) error {
	t.locked = false
	return nil
}

func (t *DUKPT) closes(*State) {}
