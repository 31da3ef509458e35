package isoswitch

import (
	"context"
	"errors"
	"fmt"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

// recover meets the sales that were in flight when the process last ended: what
// may have left is reversed, what never left is void. It is done before the
// first terminal is let in.
func (s *Switch) recover(ctx context.Context) error {
	const batch = 128
	var after OID
	for {
		var found []*Txn
		err := s.cfg.Journal.View(ctx, func(tx Tx) (err error) {
			found, err = tx.Unfinished(after, batch)
			return err
		})
		if err != nil {
			return fmt.Errorf("reading the sales in flight: %w", err)
		}
		for _, t := range found {
			if err := s.recoverOne(ctx, t); err != nil {
				return fmt.Errorf("recovering a sale in flight: %w", err)
			}
			after = t.OID
		}
		if len(found) < batch {
			return nil
		}
	}
}

// recoverOne ends one sale in flight. R-01.
func (s *Switch) recoverOne(ctx context.Context, t *Txn) error {
	num, err := s.numbers.take(ctx)
	if err != nil {
		return err
	}
	act, err := s.custody.Begin(ctx, s.self(), "restart")
	if err != nil {
		return err
	}
	defer act.Close()
	res := result{kind: unknownResult, cause: ByRestart, code: s.speechOf(t).silence()}
	if t.State == Received {
		res = result{kind: neverLeft, code: codeCannot}
	}
	var out settlement
	err = s.cfg.Journal.Update(ctx, func(tx Tx) (err error) {
		t, out, err = settleTxn(tx, t.OID, res, num, s.now().UTC())
		return err
	})
	if errors.Is(err, errSettled) {
		return nil
	}
	if errors.Is(err, custody.ErrTampered) { // it keeps nobody from starting, and is told
		s.log.Error("a sale in flight cannot be recovered", "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	if out.reverse && !out.suppress {
		s.automatic(ByRestart)
	}
	rec := noteOf(act, audit.ReversalAccept, t, "")
	rec.Reason = audit.ReasonCrash
	if !out.reverse {
		rec.Action, rec.Outcome = audit.SaleAnswer, audit.OutcomeUnknown
		rec.ISO.DE39 = out.code
	}
	act.Note(rec)
	_, err = act.Commit(ctx)
	s.log.Warn("a sale was in flight when the process ended", "tid", t.TID, "stan", t.STAN, "state", t.State)
	return err
}

// self is keyd's own part in the records.
func (s *Switch) self() custody.Caller {
	return custody.SwitchCaller("keyd", audit.ActorSystem, "", "", "")
}
