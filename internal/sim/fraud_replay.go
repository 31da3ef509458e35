package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"keyd.dev/keyd/internal/iso8583"
)

// The attacks with what was recorded, with numbers that come again, and with
// genuine messages at the wrong place.

// replayed is A-12.T1 and A-15.T2: an honoured reversal, byte for byte.
func replayed(f *Fraud) error {
	d, err := f.sell()
	if err != nil {
		return err
	}
	sent, first, err := f.reverse(d)
	if err != nil {
		return err
	}
	for n := range 5 {
		m, err := f.ask(f.cfg.Victim, sent)
		if err != nil {
			return err
		}
		for _, de := range []int{37, 38, 39} {
			if m.Text(de) != first.Text(de) {
				return fmt.Errorf("sim: repeat %d has another DE %d", n+1, de)
			}
		}
	}
	f.saw("an honoured 0400 five times more", "the stored answer each time")
	return f.onceReversed(func(e Entry) bool { return e.RRN == d.rrn }, reversedOnce)
}

// saleAgain is A-13.T1: the recorded sale after its reversal.
func saleAgain(f *Fraud) error {
	d, err := f.sell()
	if err != nil {
		return err
	}
	if _, _, err := f.reverse(d); err != nil {
		return err
	}
	if err := f.refused("a recorded 0200 after its reversal", d.sale.Raw, "94"); err != nil {
		return err
	}
	return f.onceReversed(func(e Entry) bool { return e.RRN == d.rrn }, reversedOnce)
}

// reflected is A-14.T2: keyd's own answer sent back to it. It gets no answer; the
// next to come is that of an echo test.
func reflected(f *Fraud) error {
	d, err := f.sell()
	if err != nil {
		return err
	}
	link, err := f.open()
	if err != nil {
		return err
	}
	defer func() { _ = link.Close() }()
	wrong, err := f.reversal(iso8583.ReversalRequest, d, func(b *iso8583.Builder) { b.Set(4, "000000000001") })
	if err != nil {
		return err
	}
	own, err := link.Exchange(wrong.Raw)
	if err != nil {
		return err
	}
	if err := link.Send(own); err != nil {
		return err
	}
	echo, err := f.cfg.Victim.Network("301")
	if err != nil {
		return err
	}
	raw, err := link.Exchange(echo.Raw)
	if err != nil {
		return fmt.Errorf("sim: after the 0410 the link is of no use: %w", err)
	}
	if _, err := f.cfg.Victim.Answer(echo, raw); err != nil {
		f.through = true
		return fmt.Errorf("%w: a 0410 from a terminal was answered", errThrough)
	}
	f.saw("keyd's own 0410 sent back to it", "no answer; the link goes on")
	return f.stands(d)
}

// rolledBack is A-15.T1, T3, T4 and T6: KSNs that must not be.
func rolledBack(f *Fraud) error {
	d, err := f.sell()
	if err != nil {
		return err
	}
	if _, err := f.sell(); err != nil { // the counter moves on
		return err
	}
	v := f.cfg.Victim
	old, err := v.at(d.sale.KSN)
	if err != nil {
		return err
	}
	same, err := old.Reversal(iso8583.ReversalRequest, d.sale, d.rrn, d.auth, nil)
	if err != nil {
		return err
	}
	if err := f.refused("0400 under the KSN of the sale, valid MAC (T1, T3)", same.Raw, "63"); err != nil {
		return err
	}
	far := *v
	far.keys, err = oldKeys(v.keys, v.keys.ksn())
	if err != nil {
		return err
	}
	for range farAhead {
		if _, err := far.take(); err != nil {
			return err
		}
	}
	jump, err := far.Reversal(iso8583.ReversalRequest, d.sale, d.rrn, d.auth, nil)
	if err != nil {
		return err
	}
	if err := f.refused(fmt.Sprintf("0400 under a KSN %d messages ahead, valid MAC (T4)", farAhead), jump.Raw, "63"); err != nil {
		return err
	}
	if tdes, ok := v.keys.(*tdesKeys); ok {
		good, err := f.reversal(iso8583.ReversalRequest, d, nil)
		if err != nil {
			return err
		}
		device := tdes.ksn()
		ones := device[:14] + string("02468ACE"[strings.IndexByte("0123456789ABCDEF", device[14])/2]) + "07FF0" // eleven ones
		if err := f.refused("0400 under a TDES counter of eleven ones (T6)", withMAC(bytes.Replace(good.Raw, []byte(good.KSN), []byte(ones), 1), guessed), "63"); err != nil {
			return err
		}
	}
	return f.stands(d)
}

// farAhead is above what a switch takes by default.
const farAhead = 20_000

// at is the terminal as it was at a KSN.
func (t *Terminal) at(ksn string) (*Terminal, error) {
	keys, err := oldKeys(t.keys, ksn)
	if err != nil {
		return nil, err
	}
	was := *t
	was.keys = keys
	return &was, nil
}

// foreignKSN is A-16.T1: the thief's KSN and MAC, the victim's TID; the thief's own
// counter must not have moved.
func foreignKSN(f *Fraud) error {
	d, err := f.sell()
	if err != nil {
		return err
	}
	now, err := f.cfg.Thief.at(f.cfg.Thief.keys.ksn())
	if err != nil {
		return err
	}
	forged, err := now.Reversal(iso8583.ReversalRequest, d.sale, d.rrn, d.auth, func(b *iso8583.Builder) {
		b.Set(41, f.cfg.VictimID[0]).Set(42, f.cfg.VictimID[1])
	})
	if err != nil {
		return err
	}
	if err := f.refused("0400 with the victim's TID, the thief's KSN and MAC", forged.Raw, "63"); err != nil {
		return err
	}
	own, err := f.cfg.Thief.Network("301")
	if err != nil {
		return err
	}
	m, err := f.ask(f.cfg.Thief, own)
	if err != nil {
		return err
	}
	if m.Text(39) != "00" {
		f.through = true
		return fmt.Errorf("%w: the forgery moved the counter of the thief's device: %s", errThrough, m.Text(39))
	}
	f.saw("the thief's own message under that KSN", "00: its counter was not moved")
	return f.stands(d)
}

// inParts is A-22.T1 and T2: parts that add up to more than the sale. A switch that
// reverses nothing in part refuses the first, and says that it is for that.
func inParts(f *Fraud) error {
	d, err := f.sell()
	if err != nil {
		return err
	}
	amount, _ := d.sale.Message.Amount()
	part := func(rest int64) (*Sent, error) {
		text, err := iso8583.ReplacementText(rest)
		if err != nil {
			return nil, err
		}
		return f.reversal(iso8583.ReversalRequest, d, func(b *iso8583.Builder) { b.Set(95, text) })
	}
	first, err := part(amount / 2)
	if err != nil {
		return err
	}
	m, err := f.ask(f.cfg.Victim, first)
	if err != nil {
		return err
	}
	f.saw(fmt.Sprintf("0400 that leaves %d of %d", amount/2, amount), m.Text(39))
	if taken, err := takesParts(m.Text(39)); err != nil {
		return err
	} else if !taken {
		return f.stands(d)
	}
	for _, rest := range []int64{amount / 2, amount/2 + 100, amount, 0} {
		sent, err := part(rest)
		if err != nil {
			return err
		}
		if err := f.refused(fmt.Sprintf("another that leaves %d", rest), sent.Raw, "13", "64"); err != nil {
			return err
		}
	}
	whole, err := f.reversal(iso8583.ReversalRequest, d, nil)
	if err != nil {
		return err
	}
	if err := f.refused("a reversal of the whole after it", whole.Raw, "22", "12"); err != nil {
		return err
	}
	return f.onceReversed(func(e Entry) bool { return e.RRN == d.rrn }, reversedBy(amount-amount/2))
}

// takesParts reports whether a switch reverses in part, by its answer to the first
// part. A refusal for another reason, say a host that is down, is an error.
func takesParts(code string) (bool, error) {
	if code == "00" {
		return true, nil
	}
	return false, among("a first partial reversal", code, []string{"12", "13", "64"})
}

// repeatFlag is A-24.T2: the type of a 0400 changed to 0401 under its MAC.
func repeatFlag(f *Fraud) error {
	return ofEach([]iso8583.MTI{iso8583.ReversalRepeat}, "made of a 0400 by changing its type alone", func(mti iso8583.MTI, good *Sent) ([]byte, error) {
		original, err := f.cfg.Victim.at(good.KSN)
		if err != nil {
			return nil, err
		}
		names := good.Message
		sent, err := original.seal(original.dialect.Build(iso8583.ReversalRequest, iso8583.SideTerminal).
			Copy(names, 2, 3, 4, 7, 11, 12, 13, 22, 25, 39, 41, 42, 49, 90), good.KSN, nil)
		if err != nil {
			return nil, err
		}
		return append([]byte(mti), sent.Raw[4:]...), nil
	})(f)
}

// flagAlone is A-24.T1: a 0401 without a 0400 before it is one itself: of a sale that
// never was it gets what a 0400 gets.
func flagAlone(f *Fraud) error {
	d, err := f.sell()
	if err != nil {
		return err
	}
	stan := fmt.Sprintf("%06d", (f.cfg.Victim.stan+500_000)%999_999+1) // a tombstone stays: not a number of the next sales
	never, err := iso8583.OriginalData{MTI: "0200", STAN: stan, DateTime: d.sale.Message.Text(7)}.Text()
	if err != nil {
		return err
	}
	sent, err := f.reversal(iso8583.ReversalRepeat, d, func(b *iso8583.Builder) { b.Set(90, never) })
	if err != nil {
		return err
	}
	if err := f.refused("0401 of a sale that never was, valid MAC", sent.Raw, "25"); err != nil {
		return err
	}
	return f.stands(d)
}

// sameNumbers is A-25.T3: STAN and time of a sale again, with another amount.
func sameNumbers(f *Fraud) error {
	d, err := f.sell()
	if err != nil {
		return err
	}
	f.amount += 100
	m := d.sale.Message
	other, err := f.cfg.Victim.Sale(f.amount, Card{PAN: f.cfg.Card}, func(b *iso8583.Builder) { b.Copy(m, 7, 11, 12, 13) })
	if err != nil {
		return err
	}
	if err := f.refused("0200 with the numbers of another, and another amount", other.Raw, "94"); err != nil {
		return err
	}
	return f.stands(d)
}

// changed is D-13 to D-15: each compared field of a reversal with a valid MAC.
func changed(f *Fraud) error {
	d, err := f.sell()
	if err != nil {
		return err
	}
	for _, c := range []struct {
		de    int
		value string
		codes []string
	}{
		{2, "5555555555554444", []string{"14"}},
		{4, "000900000000", []string{"64", "13"}},
		{3, "200000", []string{"25", "12"}},
		{25, "06", []string{"25", "12"}},
		{42, "M99999999999999", []string{"03"}},
		{49, "840", []string{"64", "13", "12"}},
	} {
		sent, err := f.reversal(iso8583.ReversalRequest, d, func(b *iso8583.Builder) { b.Set(c.de, c.value) })
		if err != nil {
			return err
		}
		if err := f.refused(fmt.Sprintf("0400 with another DE %d, valid MAC", c.de), sent.Raw, c.codes...); err != nil {
			return err
		}
	}
	return f.stands(d)
}

// Settle finds a KSN that the switch takes of each terminal, where others have used
// its terminals since: it steps ahead until an echo test is answered.
func (f *Fraud) Settle(ctx context.Context) error {
	f.ctx = ctx
	for _, t := range []*Terminal{f.cfg.Victim, f.cfg.Thief} {
		if t == nil {
			continue
		}
		if err := f.settle(t); err != nil {
			return err
		}
	}
	return nil
}

func (f *Fraud) settle(t *Terminal) error {
	const tries, step = 12, 1500
	for range tries {
		echo, err := t.Network("301")
		if err != nil {
			return err
		}
		link, err := f.open()
		if err != nil {
			return err
		}
		raw, err := link.Exchange(echo.Raw)
		_ = link.Close()
		if err != nil {
			return err
		}
		m, err := t.Answer(echo, raw)
		if err == nil && m.Text(39) == "00" {
			return nil
		}
		if m == nil || m.Text(39) != "63" {
			return errors.Join(fmt.Errorf("sim: an honest echo test was not answered with 00"), err)
		}
		for range step {
			if _, err := t.take(); err != nil {
				return err
			}
		}
	}
	return errors.New("sim: no KSN of the terminal is accepted; are its keys those of the switch?")
}
