package isoswitch

import (
	"context"
	"errors"
	"fmt"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
)

// intake is what the journal said to a sale. Exactly one of the first three is
// set, or txn and live together.
type intake struct {
	refused *verdict
	stored  *Txn  // a repeat of a sale that has its answer
	joined  *live // a repeat of a sale in flight
	txn     *Txn
	live    *live
}

// acceptSale does stage 6 and section 9 in one transaction: KSN, duplicates,
// limits, the record of the sale. When it returns, all of it is durable.
func (s *Switch) acceptSale(ctx context.Context, r *request, card custody.Card) (intake, error) {
	num, err := s.numbers.take(ctx)
	if err != nil {
		return intake{}, err
	}
	t, ruled := s.newTxn(r, card, num)
	r.rrn = t.RRN
	e := entry{t: t, ruled: ruled, room: s.cfg.Room()}
	var in intake
	err = s.cfg.Journal.Update(ctx, func(tx Tx) (err error) {
		earlier, err := tx.Newest(t.Key, r.at.Add(-r.rules.Timers.LookBack))
		if err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("looking for an earlier sale: %w", err)
		}
		isFresh, refused, err := s.judgeSerial(tx, r, earlier)
		if in.refused = refused; err != nil || refused != nil {
			return err
		}
		var record *Txn
		if in, record, err = s.enter(tx, r, e, earlier); err == nil && isFresh {
			err = s.spend(tx, r, record)
		}
		return err
	})
	if err != nil {
		s.abandon(in)
		return intake{}, err
	}
	return in, nil
}

// entry is a sale that may become a record.
type entry struct {
	t     *Txn
	ruled *verdict // its own content refuses it, or nil
	room  bool     // the disk has some
}

// enter makes a sale a record, unless there is one or no room. It returns the
// record that it has made, or nil.
func (s *Switch) enter(tx Tx, r *request, e entry, earlier *Txn) (in intake, record *Txn, err error) {
	t, ruled := e.t, e.ruled
	if earlier != nil {
		if earlier.Content == t.Content { // one sale has one reference, also in a refusal
			r.rrn = earlier.RRN
		}
		return s.duplicate(earlier, t), nil, nil
	}
	if !e.room { // what was accepted before has what is left of the disk
		in.refused = &verdict{code: codeCannot, reason: audit.ReasonDiskCritical}
		return in, nil, nil
	}
	if ruled == nil {
		if ruled, err = s.relate(tx, r, t); err != nil {
			return in, nil, err
		}
		if ruled == nil {
			ruled = s.place(r, t)
		}
		if ruled != nil {
			t.decline(ruled, r.at)
		}
	}
	if err := tx.InsertTxn(t); err != nil {
		return in, nil, fmt.Errorf("writing the sale: %w", err)
	}
	if in.refused = ruled; ruled == nil {
		in.txn, in.live = t, s.flights.start(t)
		s.batches.enter(t.TID, batchOf(r.msg))
	}
	return in, t, nil
}

// abandon takes back what the process noted of a sale that was not journalled.
func (s *Switch) abandon(in intake) {
	if in.live != nil {
		in.live.failed = true
		s.flights.end(in.live)
		close(in.live.done)
	}
	if in.joined != nil {
		s.leave(in.joined, false)
	}
}

// duplicate is the table of section 9 for a sale whose look-up key is taken.
func (s *Switch) duplicate(earlier, t *Txn) intake {
	flight := s.flights.find(earlier.OID)
	same := earlier.Content == t.Content
	undone := earlier.ReverseOnCompletion || earlier.ReversedAmount > 0
	switch {
	case same && !undone && flight != nil && (earlier.inFlight() || earlier.State == Approved):
		flight.join()
		return intake{joined: flight}
	case same && !undone && (earlier.State == Approved || earlier.State == Declined):
		return intake{stored: earlier}
	}
	v := verdict{code: codeDuplicate, reason: audit.ReasonAlreadyReversed} // section 7.3
	if earlier.State == Tombstone {
		v.rule = "D-10"
	}
	if !same {
		v.reason, v.alert = audit.ReasonAttributeMismatch, audit.AlertSecurity
	}
	return intake{refused: &v}
}

// newTxn is the record of a sale, and the refusal where the sale's own content
// refuses it; a refused one is recorded as declined, so that its repeat gets the
// same answer and its reversal finds it (D-16).
func (s *Switch) newTxn(r *request, card custody.Card, num number) (*Txn, *verdict) {
	m := r.msg
	amount, _ := m.Amount()
	r.host = s.route(r)
	hhmmss, mmdd := r.localTime()
	key := s.lookupKey(m.Text(42), m.Text(41), r.speech.sentOf(m), m.Text(11), m.MTI().Class())
	t := &Txn{
		OID:        newOID(key, r.at),
		Key:        key,
		Link:       r.host.name(),
		Profile:    r.speech.Name,
		Received:   r.at,
		MTI:        string(m.MTI()),
		Card:       card,
		Processing: m.Text(3),
		Amount:     amount,
		Sent:       r.speech.sentOf(m),
		STAN:       m.Text(11),
		Time:       hhmmss,
		Date:       mmdd,
		Entry:      m.Text(22),
		Condition:  m.Text(25),
		Acquirer:   m.Text(32),
		TID:        m.Text(41),
		MID:        m.Text(42),
		Currency:   m.Text(49),
		KSN:        r.serial.text,
		MACKey:     r.macKey,
		Content:    r.content(card.Token),
		Raw:        r.raw,
		UpSTAN:     num.stan,
		UpSent:     num.sent,
		State:      Forwarded,
		RRN:        orDefault(m.Text(37), num.rrn),
	}
	ruled := s.permitSale(r)
	if ruled != nil {
		t.decline(ruled, r.at)
	}
	return t, ruled
}

// saleContent is what a repeat of a sale has in common with it. W-16.
func saleContent(m *iso8583.Message, token string) Hash {
	parts := []string{token, m.Text(3), m.Text(4), m.Text(11), m.Text(12),
		m.Text(13), m.Text(25), m.Text(41), m.Text(42), m.Text(49)}
	for _, de := range []int{61, 90} { // what it names is part of it
		if m.Has(de) {
			parts = append(parts, m.Text(de))
		}
	}
	return digest("keyd-sale-1", parts...)
}
