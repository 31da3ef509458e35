package isoswitch

import (
	"context"
	"time"

	"keyd.dev/keyd/audit"
)

// joinSale answers a repeat of a sale in flight with the answer to that sale.
func (s *Switch) joinSale(ctx context.Context, r *request, flight *live) {
	timer := time.NewTimer(r.rules.Timers.Switch)
	defer timer.Stop()
	select {
	case <-flight.done:
	case <-timer.C:
		s.leave(flight, false)
		s.refuse(ctx, r, audit.SaleRefuse, verdict{code: r.speech.silence(), reason: audit.ReasonTimeout})
		return
	}
	switch {
	case flight.failed:
		s.leave(flight, false)
		s.refuse(ctx, r, audit.SaleRefuse, verdict{code: codeCannot, reason: audit.ReasonInternal})
	case flight.outcome.suppress:
		s.leave(flight, false)
		s.refuse(ctx, r, audit.SaleRefuse, verdict{code: codeDuplicate, reason: audit.ReasonDuplicate})
	default:
		s.deliverSale(ctx, r, flight, flight.txn)
	}
}

// repeatSale answers a repeated sale with the stored answer.
func (s *Switch) repeatSale(ctx context.Context, r *request, t *Txn) {
	r.act.Note(r.saleNote(t, true))
	if err := s.reply(ctx, r, verdict{}, answerOf(t)); err != nil {
		s.log.Warn("the answer to a repeated sale was not delivered", "corr", r.corr, "error", err)
	}
}

// answerOf is the answer that the journal holds for a sale.
func answerOf(t *Txn) answer {
	return answer{code: t.Answer, rrn: t.RRN, approval: t.Approval, emv: t.IssuerDE55}
}
