package sim

import "keyd.dev/keyd/internal/iso8583"

// Preauth builds a 0100 that reserves an amount (DE 3 03, DE 25 06).
func (t *Terminal) Preauth(amount int64, card Card, draft Draft) (*Sent, error) {
	return t.request(iso8583.AuthorizationRequest, "030000", amount, card, func(b *iso8583.Builder) {
		b.Set(25, "06")
		if draft != nil {
			draft(b)
		}
	})
}

// Void builds the void of a sale, a pre-authorization or a completion: the same
// message type and amount, DE 3 20, and DE 90 names it.
func (t *Terminal) Void(sale *Sent, draft Draft) (*Sent, error) {
	amount, _ := sale.Message.Amount()
	return t.follow(sale.Message.MTI(), "200000", amount, sale, draft)
}

// Complete builds the completion of a pre-authorization: a 0200 with DE 3 00.
func (t *Terminal) Complete(preauth *Sent, amount int64, draft Draft) (*Sent, error) {
	return t.follow(iso8583.FinancialRequest, "000000", amount, preauth, draft)
}

// Refund builds a 0220 that gives a sale, or part of it, back.
func (t *Terminal) Refund(sale *Sent, amount int64, draft Draft) (*Sent, error) {
	return t.follow(iso8583.FinancialAdvice, "200000", amount, sale, draft)
}

// follow builds a message that names another.
func (t *Terminal) follow(mti iso8583.MTI, processing string, amount int64, of *Sent, draft Draft) (*Sent, error) {
	m := of.Message
	names, err := iso8583.OriginalData{MTI: m.MTI(), STAN: m.Text(11), DateTime: m.Text(7)}.Text()
	if err != nil {
		return nil, err
	}
	return t.request(mti, processing, amount, Card{PAN: m.Text(2)}, func(b *iso8583.Builder) {
		b.Copy(m, 25, 49).Set(90, names)
		if draft != nil {
			draft(b)
		}
	})
}

// request builds a 0100, 0200 or 0220.
func (t *Terminal) request(mti iso8583.MTI, processing string, amount int64, card Card, draft Draft) (*Sent, error) {
	now := t.cfg.Clock().UTC()
	text, err := iso8583.AmountText(amount)
	if err != nil {
		return nil, err
	}
	b := t.dialect.Build(mti, iso8583.SideTerminal).
		Set(2, card.PAN).Set(3, processing).Set(4, text).
		Set(7, now.Format("0102150405")).Set(11, t.nextSTAN()).
		Set(12, now.Format("150405")).Set(13, now.Format("0102")).
		Set(22, "051").Set(25, "00").
		Set(41, t.cfg.TID).Set(42, t.cfg.MID).Set(49, t.cfg.Currency)
	ksn, err := t.take()
	if err != nil {
		return nil, err
	}
	if err := t.setPIN(b, ksn, card); err != nil {
		return nil, err
	}
	return t.seal(b, ksn, draft)
}
