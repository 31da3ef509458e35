package isoswitch

import (
	"context"
	"fmt"
	"strings"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

// A transaction belongs to its upstream for as long as something of it can come:
// what undoes it elsewhere undoes nothing. So an upstream is taken out of the
// configuration when nothing is owed to it any more, and before that its routes
// are taken away.

// name is that of the upstream, empty where there is none.
func (h *host) name() string {
	if h == nil {
		return ""
	}
	return h.cfg.Name
}

// place settles to which host a sale goes: to that of what it refers to, whatever
// the routes say now, else to that of its route. It returns the refusal, or nil.
// It waits for nothing.
func (s *Switch) place(r *request, t *Txn) *verdict {
	if r.about != nil {
		r.host, t.Link = s.hostOf(r.about), r.about.Link
	}
	switch {
	case r.host == nil:
		return &verdict{code: codeNoRoute, reason: audit.ReasonProfileDenied}
	case !r.host.reachable():
		return &verdict{code: codeUnreachable, reason: audit.ReasonUpstreamSilent}
	}
	t.UpAcquirer = r.host.cfg.Acquirer
	return nil
}

// checkQueues refuses to serve while something is owed to an upstream that is not
// configured: nobody would send it, and nobody would see that.
func (s *Switch) checkQueues(ctx context.Context) error {
	var strays []Stray
	err := s.cfg.Journal.View(ctx, func(tx Tx) (err error) {
		strays, err = tx.Strays(s.upstreams())
		return err
	})
	if err != nil {
		return fmt.Errorf("counting what is owed to upstreams: %w", err)
	}
	if len(strays) == 0 {
		return nil
	}
	var owed []string
	for _, o := range strays {
		owed = append(owed, fmt.Sprintf("upstream %q is not configured, and %d reversals and %d sales without an outcome are owed to it", o.Upstream, o.Reversals, o.Originals))
	}
	return fmt.Errorf("%w: %s; put it back without a route until its queue is empty, or park what is left with keyd reversal", ErrConfig, strings.Join(owed, "; "))
}

// noteStranded tells of a reversal that was accepted and goes nowhere, for the
// upstream of its original is configured no more. Operators have it among those
// that are parked.
func (s *Switch) noteStranded(r *request, d decision) {
	s.log.Error("a reversal is parked: the upstream of its original is not configured", "corr", r.corr, "tid", r.terminal.TID)
	rec := r.note(audit.ReversalFail, d.verdict)
	rec.Outcome, rec.Reason = audit.OutcomeError, audit.ReasonConfigInvalid
	r.act.Note(rec)
	s.observe(Event{Name: "forward", Code: "parked"})
}

// homeless refuses to send what has nowhere to go.
func (d *Desk) homeless(t *Txn, o custody.ReversalOrder) error {
	s := d.sw.Load()
	sends := o.Act == custody.RetryReversal || o.Act == custody.ReleaseReversal
	if s == nil || !sends || s.hostOf(t) != nil {
		return nil
	}
	return fmt.Errorf("%w: its upstream %q is not configured", custody.ErrReversalState, t.Link)
}
