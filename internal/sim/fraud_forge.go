package sim

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"

	"keyd.dev/keyd/internal/iso8583"
)

// The attacks of a forger: with what stands on a receipt, with another terminal's
// key, without a MAC, with one cut short, with crooked messages.

// fromReceipt is A-01.T1: the thief's own terminal, the victim's sale.
func fromReceipt(f *Fraud) error {
	d, err := f.sell()
	if err != nil {
		return err
	}
	sent, err := f.cfg.Thief.Reversal(iso8583.ReversalRequest, d.sale, d.rrn, d.auth, nil)
	if err != nil {
		return err
	}
	if err := f.refused("0400 of the thief's terminal, valid MAC, all data of the receipt", sent.Raw, "25"); err != nil {
		return err
	}
	return f.stands(d)
}

// underOtherKey is A-01.T2 and A-04.T2: the victim's TID and KSN, the thief's key.
func underOtherKey(what iso8583.MTI) func(*Fraud) error {
	return func(f *Fraud) error {
		d, err := f.sell()
		if err != nil {
			return err
		}
		good, err := f.genuine(what, d)
		if err != nil {
			return err
		}
		as := func(b *iso8583.Builder) { b.Set(41, f.cfg.VictimID[0]).Set(42, f.cfg.VictimID[1]).Set(62, good.KSN) }
		var forged *Sent
		if what.Class() == '4' {
			forged, err = f.cfg.Thief.Reversal(what, d.sale, d.rrn, d.auth, as)
		} else {
			forged, err = f.cfg.Thief.Sale(f.amount+2, Card{PAN: f.cfg.Card}, as)
		}
		if err != nil {
			return err
		}
		if err := f.refused(string(what)+" with the victim's TID and the MAC of the thief's key", forged.Raw, "63"); err != nil {
			return err
		}
		return f.stands(d)
	}
}

// genuine is a good message of the victim's.
func (f *Fraud) genuine(mti iso8583.MTI, d *deal) (*Sent, error) {
	if mti.Class() == '4' {
		return f.reversal(mti, d, nil)
	}
	f.amount += 100
	return f.cfg.Victim.Sale(f.amount, Card{PAN: f.cfg.Card}, nil)
}

// badMAC sends messages of these types with a MAC that was guessed.
func badMAC(types ...iso8583.MTI) func(*Fraud) error {
	return ofEach(types, "with a guessed MAC", func(_ iso8583.MTI, good *Sent) ([]byte, error) { return withMAC(good.Raw, guessed), nil })
}

// bareMAC sends them without a MAC and its bit.
func bareMAC(types ...iso8583.MTI) func(*Fraud) error { return ofEach(types, "without a MAC", bare) }

// ofEach sends a forgery made of a good message of each type.
func ofEach(types []iso8583.MTI, how string, forge func(iso8583.MTI, *Sent) ([]byte, error)) func(*Fraud) error {
	return func(f *Fraud) error {
		d, err := f.sell()
		if err != nil {
			return err
		}
		for _, mti := range types {
			good, err := f.genuine(mti, d)
			if err != nil {
				return err
			}
			raw, err := forge(mti, good)
			if err != nil {
				return err
			}
			if err := f.refused(string(mti)+" "+how, raw, "63"); err != nil {
				return err
			}
		}
		return f.stands(d)
	}
}

// bare takes the MAC and its bit out of a good message: that of DE 128 where DE 90
// brings a secondary bitmap with it, else that of DE 64. A 0220 is made of a 0200.
func bare(mti iso8583.MTI, good *Sent) ([]byte, error) {
	raw := append([]byte(mti), good.Raw[4:len(good.Raw)-16]...)
	if mti == iso8583.FinancialAdvice {
		pan := good.Message.Text(2)
		raw = bytes.Replace(raw, []byte(pan+"000000"), []byte(pan+"200000"), 1)
	}
	last := 4 + 16 - 1
	if mti.Class() == '4' {
		last = 4 + 32 - 1
	}
	bits, err := hex.DecodeString("0" + string(raw[last]))
	if err != nil || bits[0]&1 == 0 {
		return nil, errors.New("sim: the message has no bit for a MAC")
	}
	raw[last] = "0123456789ABCDEF"[bits[0]&0xE]
	return raw, nil
}

// crooked is A-09.T1 and T2: bytes that padding 1 of the MAC does not see.
func crooked(f *Fraud) error {
	d, err := f.sell()
	if err != nil {
		return err
	}
	good, err := f.reversal(iso8583.ReversalRequest, d, nil)
	if err != nil {
		return err
	}
	longer := bytes.Replace(good.Raw, fmt.Appendf(nil, "%03d%s", len(good.KSN), good.KSN), fmt.Appendf(nil, "%03d%s\x00", len(good.KSN)+1, good.KSN), 1)
	if len(longer) != len(good.Raw)+1 {
		return errors.New("sim: no DE 62 found")
	}
	at := len(good.Raw) - 16
	for _, c := range []struct {
		how string
		raw []byte
	}{
		{"0400 with a zero more in the last variable field", longer},
		{"0400 with a zero before the MAC, where padding would put it", bytes.Join([][]byte{good.Raw[:at], good.Raw[at:]}, []byte{0})},
		{"0400 with a zero after the last field", append(bytes.Clone(good.Raw), 0)},
	} {
		if err := f.refused(c.how, c.raw, "63", "30"); err != nil {
			return err
		}
	}
	return f.stands(d)
}

// cutShort is A-11.T1.
func cutShort(f *Fraud) error {
	d, err := f.sell()
	if err != nil {
		return err
	}
	for _, n := range []int{0, 1, 4, 7} {
		good, err := f.reversal(iso8583.ReversalRequest, d, nil)
		if err != nil {
			return err
		}
		if err := f.refused(fmt.Sprintf("0400 with %d bytes of its right MAC", n), good.Raw[:len(good.Raw)-16+2*n], "63", "30"); err != nil {
			return err
		}
	}
	good, err := f.reversal(iso8583.ReversalRequest, d, nil)
	if err != nil {
		return err
	}
	if err := f.refused("0400 with half its right MAC and zeros", withMAC(good.Raw, "00000000"), "63"); err != nil {
		return err
	}
	return f.stands(d)
}

// locked is A-11.T2: bad MACs lock the TID on the link, a sign-on ends it.
func locked(f *Fraud) error {
	d, err := f.sell()
	if err != nil {
		return err
	}
	link, err := f.open()
	if err != nil {
		return err
	}
	defer func() { _ = link.Close() }()
	const most = 50 // of a switch with a long patience
	for n := 1; ; n++ {
		good, err := f.reversal(iso8583.ReversalRequest, d, nil)
		if err != nil {
			return err
		}
		if _, err := reply(link, f.cfg.Victim.dialect, withMAC(good.Raw, guessed)); err != nil {
			return err
		}
		again, err := f.reversal(iso8583.ReversalRequest, d, func(b *iso8583.Builder) { b.Set(4, "000000000001") }) // another amount: no effect
		if err != nil {
			return err
		}
		seen, err := reply(link, f.cfg.Victim.dialect, again.Raw)
		if err != nil {
			return err
		}
		if seen == "63" {
			f.saw(fmt.Sprintf("%d guessed MACs by one link", n), "locked: a valid MAC gets 63 too")
			break
		}
		if n == most {
			f.through = true
			return fmt.Errorf("%w: %d guessed MACs by one link lock nothing", errThrough, most)
		}
	}
	if err := f.stands(d); err != nil { // by another link
		return err
	}
	f.saw("the same terminal by another link", "served: not locked there (A-11.T3)")
	on, err := f.cfg.Victim.Network("001")
	if err != nil {
		return err
	}
	seen, err := reply(link, f.cfg.Victim.dialect, on.Raw)
	if err == nil && seen != "00" {
		err = fmt.Errorf("sim: a sign-on with a valid MAC does not unlock the terminal: %s", seen)
	}
	return err
}

// oracle is A-17.T1: bad MACs with an original and without one look alike.
func oracle(f *Fraud) error {
	d, err := f.sell()
	if err != nil {
		return err
	}
	shapes := make(map[string]string)
	for _, stan := range []string{d.sale.Message.Text(11), "987654"} {
		named, err := iso8583.OriginalData{MTI: "0200", STAN: stan, DateTime: d.sale.Message.Text(7)}.Text()
		if err != nil {
			return err
		}
		sent, err := f.reversal(iso8583.ReversalRequest, d, func(b *iso8583.Builder) { b.Set(90, named) })
		if err != nil {
			return err
		}
		shape, err := f.shape(withMAC(sent.Raw, guessed))
		if err != nil {
			return err
		}
		shapes[shape] = stan
		f.saw("0400 with a guessed MAC, original "+stan, shape[8:])
	}
	if len(shapes) != 1 {
		f.through = true
		return fmt.Errorf("%w: the answers tell whether there is an original", errThrough)
	}
	return f.stands(d)
}

// shape is an answer without what differs from one to the next.
func (f *Fraud) shape(raw []byte) (string, error) {
	link, err := f.open()
	if err != nil {
		return "", err
	}
	defer func() { _ = link.Close() }()
	got, err := link.Exchange(raw)
	if err != nil {
		return "", err
	}
	m, err := f.cfg.Victim.dialect.Parse(got, iso8583.SideTerminal)
	if err != nil {
		return "", err
	}
	shape := fmt.Sprintf("%s of %s in", m.MTI(), m.Text(39))
	for de := 2; de <= 128; de++ {
		if m.Has(de) {
			shape += fmt.Sprintf(" %d", de)
		}
	}
	return shape, nil
}

// elsewhere is A-18.T2: a good message by a link that its terminal may not use.
func elsewhere(f *Fraud) error {
	d, err := f.sell()
	if err != nil {
		return err
	}
	good, err := f.reversal(iso8583.ReversalRequest, d, nil)
	if err != nil {
		return err
	}
	link, err := f.cfg.DialStranger(f.ctx)
	if err != nil {
		f.saw("0400 with a valid MAC by a link with another certificate", "no connection")
		return f.stands(d)
	}
	defer func() { _ = link.Close() }()
	if err := f.refusedBy(link, f.cfg.Victim.dialect, "0400 with a valid MAC by a link with another certificate", good.Raw, "58", seenClosed); err != nil {
		return err
	}
	return f.stands(d)
}

// declines is A-20.T1: refusals carry MACs, so that nobody can make them of
// approvals unseen.
func declines(f *Fraud) error {
	d, err := f.sell()
	if err != nil {
		return err
	}
	for de, value := range map[int]string{4: "000000000001", 42: "M99999999999999", 37: "000000000000"} {
		sent, err := f.reversal(iso8583.ReversalRequest, d, func(b *iso8583.Builder) { b.Set(de, value) })
		if err != nil {
			return err
		}
		m, err := f.ask(f.cfg.Victim, sent)
		if err != nil {
			f.through = errors.Is(err, ErrAnswer)
			return err
		}
		if m.Text(39) == "00" {
			f.through = true
			return fmt.Errorf("%w: a reversal with another DE %d was honoured", errThrough, de)
		}
		f.saw(fmt.Sprintf("0400 with another DE %d", de), m.Text(39)+" with a valid MAC")
	}
	return f.stands(d)
}

// gone is A-27.T1: a sale whose terminal hangs up at once.
func gone(f *Fraud) error {
	f.amount += 100
	sale, err := f.cfg.Victim.Sale(f.amount+f.cfg.Late, Card{PAN: f.cfg.Card}, nil)
	if err != nil {
		return err
	}
	link, err := f.open()
	if err != nil {
		return err
	}
	err = link.Send(sale.Raw)
	if closed := link.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	f.saw("a sale whose terminal hangs up and never comes back", "no answer possible")
	amount, _ := sale.Message.Amount()
	return f.onceReversed(func(e Entry) bool { return e.TID == f.cfg.VictimID[0] && e.Amount == amount }, reversedOnce)
}

// late is A-21.T1: an issuer who answers after the terminal has been told no.
func late(f *Fraud) error {
	f.amount += 100
	amount := f.amount + f.cfg.Late
	sale, err := f.cfg.Victim.Sale(amount, Card{PAN: f.cfg.Card}, nil)
	if err != nil {
		return err
	}
	link, err := f.open()
	if err != nil {
		return err
	}
	defer func() { _ = link.Close() }()
	if err := f.refusedBy(link, f.cfg.Victim.dialect, "a sale that the issuer approves too late", sale.Raw, "68", "96"); err != nil {
		return err
	}
	if err := f.onceReversed(func(e Entry) bool { return e.TID == f.cfg.VictimID[0] && e.Amount == amount }, reversedOnce); err != nil {
		return err
	}
	echo, err := f.cfg.Victim.Network("301")
	if err != nil {
		return err
	}
	raw, err := link.Exchange(echo.Raw)
	if err != nil {
		return err
	}
	if _, err := f.cfg.Victim.Answer(echo, raw); err != nil {
		f.through = true
		return fmt.Errorf("%w: the next frame was no answer to an echo test: %w", errThrough, err)
	}
	f.saw("an echo test by the same link", "the late approval was not delivered")
	return nil
}
