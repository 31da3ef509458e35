package sim

import "context"

// insist sends an advice that was not answered again, until its tries are used up.
func (d *Device) insist(ctx context.Context, r *Result) error {
	for a := d.state.Advice; a != nil && r.Fault != nil && a.Tries < reversalTries; {
		if err := d.prepare(ctx, r); err != nil {
			return err
		}
		sent, err := d.cfg.Speaker.again(&a.Message)
		if err != nil {
			return err
		}
		a.Tries++
		if err := d.dir.save(&d.state); err != nil {
			return err
		}
		r.Sent = sent
		if err := d.exchange(ctx, sent, Faults{}, r, StageWrite, StageSend, StageAnswer); err != nil {
			return err
		}
	}
	return nil
}

// advise sends the advice that a loss of power kept back.
func (d *Device) advise(ctx context.Context) (*Advised, error) {
	m := d.state.Advice.Message
	r := &Result{Fault: errSilent}
	if err := d.insist(ctx, r); err != nil {
		return nil, err
	}
	u := &Advised{STAN: m.STAN(), Code: r.Code, Tries: d.state.Advice.Tries, GivenUp: r.Fault != nil}
	slip := Slip{Do: "advice", STAN: m.STAN(), Amount: m.Amount(), Code: r.Code, Tries: u.Tries, Result: "not answered"}
	switch {
	case r.Fault != nil:
	case d.cfg.Speaker.approves(r.Code):
		slip.Result, slip.RRN = "approved", r.Answer.Text(37)
	default:
		slip.Result, slip.RRN = "declined", r.Answer.Text(37)
		d.cfg.Speaker.renew(&d.state, r.Code)
	}
	d.state.Advice = nil
	return u, d.print(slip)
}

// undo sends the pending reversal until it is settled or given up.
func (d *Device) undo(ctx context.Context, power Stage) (*Undone, error) {
	p := d.state.Pending
	u := &Undone{Of: p.Original, STAN: p.STAN, Reason: p.Reason, Tries: p.Tries}
	for p.Tries < reversalTries {
		if err := d.prepare(ctx, nil); err != nil {
			return u, err
		}
		done, err := d.tryUndo(ctx, p, u, power)
		if err != nil {
			return u, err
		}
		if done {
			return u, d.undone(u, "reversed")
		}
	}
	u.GivenUp = true
	return u, d.undone(u, "reversal failed")
}

// tryUndo sends the pending reversal once. It reports whether that settled it.
func (d *Device) tryUndo(ctx context.Context, p *Pending, u *Undone, power Stage) (bool, error) {
	p.Tries++
	sent, err := d.cfg.Speaker.reversal(&d.state, p)
	if err != nil {
		return false, err
	}
	u.Tries, u.STAN, u.Reason = p.Tries, sent.Message.Text(11), p.Reason
	if err := d.dir.save(&d.state); err != nil {
		return false, err
	}
	r := &Result{Sent: sent}
	if err := d.exchange(ctx, sent, Faults{PowerAt: power}, r, StageReversalWrite, StageReversalSend, StageReversalAnswer); err != nil {
		return false, err
	}
	if r.Fault != nil {
		return false, nil
	}
	u.Code, u.MAC = r.Code, r.MAC
	if d.cfg.Speaker.settles(r.Code) {
		if d.cfg.Speaker.approves(r.Code) {
			m := sent.Remember(r.Answer)
			d.state.Reversal = &m
		}
		return true, nil
	}
	p.Reason = d.cfg.Speaker.reason(nil) // U-62
	d.cfg.Speaker.renew(&d.state, r.Code)
	return false, d.dir.save(&d.state)
}

// undone forgets the reversal.
func (d *Device) undone(u *Undone, result string) error {
	d.state.Pending = nil
	return d.print(Slip{Do: "reversal", STAN: u.Of.field(11), Amount: u.Of.Amount(), Code: u.Code, Reason: u.Reason, Tries: u.Tries, Result: result})
}
