package isoswitch

import (
	"context"
	"errors"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

// cannot is the refusal where the journal did not do its part: 96, so that the
// terminal keeps what it asked for and repeats it. Where a row is not what the
// switch wrote the record is a security event. The answer has its
// MAC, since the key is at hand, unlike D-05.
func cannot(cause error) verdict {
	v := verdict{code: codeCannot, reason: audit.ReasonInternal}
	if errors.Is(cause, custody.ErrTampered) {
		v.alert = audit.AlertSecurity
	}
	return v
}

// hopeless reports whether trying again is of no use: nothing makes a row that
// somebody changed right again but an operator.
func hopeless(err error) bool {
	return err == nil || errors.Is(err, errSettled) || errors.Is(err, custody.ErrTampered)
}

// parkTampered takes a reversal out of the queue whose original is not what the
// switch wrote: what it would say upstream cannot be believed. It is for an
// operator, and hinders no other.
func (s *Switch) parkTampered(ctx context.Context, rid RID, cause error) error {
	var rev *Reversal
	err := s.cfg.Journal.Update(ctx, func(tx Tx) (err error) {
		if rev, err = tx.Reversal(rid); err != nil {
			return err
		}
		if rev.State != Queued && rev.State != Sent {
			rev = nil
			return nil
		}
		rev.State, rev.Closed = Parked, s.now().UTC()
		return tx.UpdateReversal(rev)
	})
	if err != nil || rev == nil {
		return err
	}
	s.log.Error("a reversal is parked: its original is not what the switch wrote", "stan", rev.UpSTAN, "tid", rev.TID, "error", cause)
	act, err := s.custody.Begin(ctx, s.self(), "saf."+rev.UpSTAN)
	if err != nil {
		return err
	}
	defer act.Close()
	act.Note(audit.Record{
		Action: audit.ReversalFail, Outcome: audit.OutcomeError, Reason: audit.ReasonInternal,
		ISO: audit.ISO{MTI: string(reversalMTI(rev)), STAN: rev.UpSTAN, Terminal: audit.Registered(rev.TID), Alert: audit.AlertSecurity},
	})
	s.commitAct(ctx, act)
	s.observe(Event{Name: "forward", Code: "parked"})
	return nil
}
