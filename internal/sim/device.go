package sim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"keyd.dev/keyd/internal/iso8583"
)

// reversalTries is how often a terminal sends a reversal before it gives up (U-62).
const reversalTries = 3

// DeviceConfig is what a terminal in the field is made of.
type DeviceConfig struct {
	Speaker Speaker
	Dir     string // its memory; made when it is not there
	// Dial connects it to its switch.
	Dial func(context.Context) (*Link, error)
	// At is told of each stage. An error ends the exchange there, as a loss of
	// power would: nothing more is written. nil: nothing happens.
	At    func(Stage) error
	Clock func() time.Time
}

// Device is a terminal as it stands in a shop: it writes down the reversal of what
// it is about to send, sends it, and forgets the reversal when a valid answer has
// come. A reversal that is still there goes out before anything else, three times
// at most (U-57 to U-66). It is for one goroutine.
type Device struct {
	cfg   DeviceConfig
	dir   *folder
	state State
	link  *Link
}

// NewDevice takes up where the terminal of the folder stopped. It returns
// [ErrState].
func NewDevice(cfg DeviceConfig) (*Device, error) {
	if cfg.Speaker == nil || cfg.Dial == nil || cfg.Dir == "" {
		return nil, errors.New("sim: a terminal needs a language, a folder and a way to its switch")
	}
	if cfg.At == nil {
		cfg.At = func(Stage) error { return nil }
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	d := &Device{cfg: cfg}
	var err error
	if d.dir, err = openFolder(cfg.Dir, disk{(*os.File).Sync}); err != nil {
		return nil, err
	}
	there, err := d.dir.load(&d.state)
	if err == nil {
		err = cfg.Speaker.begin(&d.state, !there)
	}
	if err == nil && d.state.Last != nil {
		err = d.dir.reprint(*d.state.Last)
	}
	if err != nil {
		return nil, errors.Join(err, d.dir.close())
	}
	return d, nil
}

// State is what the terminal remembers. The caller must not change it.
func (d *Device) State() *State { return &d.state }

// Close hangs up and leaves the folder.
func (d *Device) Close() error {
	d.hangUp()
	return d.dir.close()
}

// Result is what became of an order.
type Result struct {
	Do     Kind
	Sent   *Sent            // nil where nothing was to be sent
	Answer *iso8583.Message // nil: none came, or none that could be read
	MAC    MACState         // of the answer
	Code   string           // DE 39 of a believed answer; "" without one
	Fault  error            // why the result is not known
	// Owed is the reason of the reversal that is pending now; "" without one.
	Owed string
	Took time.Duration
	// Before is the reversal that went first, nil where none was pending.
	Before *Undone
	// Advised is the advice that went first, nil where none waited.
	Advised *Advised
	// SignedIn: the terminal signed in before the message.
	SignedIn bool
	// Local: the switch does not speak of it; the terminal did its part alone.
	Local bool
	// Sends is how often the message left.
	Sends int
}

// Undone is what became of a pending reversal.
type Undone struct {
	Of     Memory
	STAN   string   // of the reversal
	Reason string   // DE 39 of the last try
	Code   string   // DE 39 of the last believed answer; "" without one
	MAC    MACState // of that answer
	Tries  int      // in all, those before a loss of power too
	// GivenUp: no try was answered so that it ends; the slip says so (U-62).
	GivenUp bool
}

// Advised is what became of an advice that waited.
type Advised struct {
	STAN    string
	Code    string // DE 39 of the believed answer; "" without one
	Tries   int
	GivenUp bool
}

// Do carries an order out, and the pending reversal before it. The error is for
// what kept the terminal from trying: [ErrOrder], [ErrState], [ErrUnreachable],
// [ErrSignIn], [ErrPower]. An answer that never came is no error: Result.Fault
// says so.
func (d *Device) Do(ctx context.Context, o Order) (*Result, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	r := &Result{Do: o.Do}
	var err error
	if d.state.Pending != nil && o.Do != DoEcho && o.Do != DoSignIn {
		if r.Before, err = d.undo(ctx, o.Faults.PowerAt); err != nil {
			return r, err
		}
	}
	if d.state.Advice != nil && o.Do != DoEcho && o.Do != DoSignIn {
		if r.Advised, err = d.advise(ctx); err != nil {
			return r, err
		}
	}
	switch {
	case o.Do == DoResume:
		return r, nil
	case o.Do == DoSettle:
		return r, d.settle(ctx, o, r)
	case o.Do == DoSignIn:
		return r, d.signIn(ctx, o.Faults, r)
	case o.Do.transaction():
		return r, d.trade(ctx, o, r)
	}
	return r, d.call(ctx, o, r)
}

// trade is one transaction.
func (d *Device) trade(ctx context.Context, o Order, r *Result) error {
	if err := d.prepare(ctx, r); err != nil {
		return err
	}
	sent, err := d.cfg.Speaker.request(&d.state, o)
	if err != nil {
		return err
	}
	r.Sent = sent
	if d.cfg.Speaker.owes(o) {
		d.state.Pending = &Pending{Original: sent.Remember(nil), Reason: d.cfg.Speaker.reason(nil)}
	}
	if d.cfg.Speaker.repeats(o) {
		d.state.Advice = &Advice{Message: sent.Remember(nil), Tries: 1}
	}
	if err := d.dir.save(&d.state); err != nil {
		return err
	}
	if err := d.exchange(ctx, sent, o.Faults, r, StageWrite, StageSend, StageAnswer); err != nil {
		return err
	}
	if err := d.insist(ctx, r); err != nil {
		return err
	}
	return d.conclude(o, r)
}

// conclude writes down what is known, and forgets the reversal when that is
// enough. What was approved is durable before the reversal is gone, and both are
// one write.
func (d *Device) conclude(o Order, r *Result) error {
	if o.Faults.CardGone && r.Fault == nil && d.cfg.Speaker.approves(r.Code) {
		r.Fault, r.Code = ErrCard, ""
		if p := d.state.Pending; p != nil {
			p.Original.RRN, p.Original.Approval = r.Answer.Text(37), r.Answer.Text(38)
		}
	}
	d.state.Advice = nil // answered, or its tries are used up
	slip := Slip{Do: string(o.Do), STAN: r.Sent.Message.Text(11), Amount: o.Amount, Code: r.Code, Result: "declined"}
	if r.Fault == nil {
		slip.RRN = r.Answer.Text(37)
	}
	if r.Fault != nil {
		slip.Result = "unknown"
		if p := d.state.Pending; p != nil {
			p.Reason = d.cfg.Speaker.reason(r.Fault)
			r.Owed, slip.Reason = p.Reason, p.Reason
		}
	} else {
		d.state.Pending = nil
		if d.cfg.Speaker.approves(r.Code) {
			slip.Result = "approved"
			d.remember(o, r)
		}
		d.cfg.Speaker.renew(&d.state, r.Code)
	}
	return d.print(slip)
}

// remember keeps what a later transaction may name.
func (d *Device) remember(o Order, r *Result) {
	m := r.Sent.Remember(r.Answer)
	switch o.Do {
	case DoSale:
		d.state.Sale, d.state.Reversal = &m, nil
	case DoPreauth:
		d.state.Preauth = &m
	case DoComplete:
		d.state.Completion = &m
	}
}

// call is an echo test or a sign-off, which no terminal reverses.
func (d *Device) call(ctx context.Context, o Order, r *Result) error {
	if o.Do == DoSignOff {
		if err := d.prepare(ctx, r); err != nil {
			return err
		}
	}
	if err := d.connect(ctx); err != nil {
		return err
	}
	sent, err := d.cfg.Speaker.call(&d.state, o.Do)
	if err != nil {
		return err
	}
	r.Sent = sent
	if err := d.dir.save(&d.state); err != nil {
		return err
	}
	return d.exchange(ctx, sent, o.Faults, r, StageWrite, StageSend, StageAnswer)
}

// Send sends a message that the caller builds, after the pending reversal. It is
// no transaction of the terminal: nothing is reversed when no answer comes.
func (d *Device) Send(ctx context.Context, build func() (*Sent, error)) (*Result, error) {
	r := &Result{}
	var err error
	if d.state.Pending != nil {
		if r.Before, err = d.undo(ctx, ""); err != nil {
			return r, err
		}
	}
	if err := d.prepare(ctx, r); err != nil {
		return r, err
	}
	r.Sent, err = build()
	d.cfg.Speaker.numbers(&d.state)
	if err = errors.Join(err, d.dir.save(&d.state)); err != nil {
		return r, err
	}
	return r, d.exchange(ctx, r.Sent, Faults{}, r, StageWrite, StageSend, StageAnswer)
}

// Reverse sends a reversal of the last approved sale, as a clerk asks for one. rest,
// in minor units, is what stays valid of it; negative: nothing.
func (d *Device) Reverse(ctx context.Context, mti iso8583.MTI, rest int64) (*Result, error) {
	sale := d.state.Sale
	if sale == nil {
		return nil, fmt.Errorf("%w: it has no approved sale", ErrOrder)
	}
	r, err := d.Send(ctx, func() (*Sent, error) { return d.cfg.Speaker.undoes(sale, mti, rest) })
	if err == nil && r.Fault == nil && d.cfg.Speaker.approves(r.Code) {
		m := r.Sent.Remember(r.Answer)
		d.state.Reversal = &m
		err = d.dir.save(&d.state)
	}
	return r, err
}

// prepare connects the terminal and signs it in where it must.
func (d *Device) prepare(ctx context.Context, r *Result) error {
	if err := d.connect(ctx); err != nil {
		return err
	}
	if d.cfg.Speaker.ready(&d.state) {
		return nil
	}
	in := &Result{Do: DoSignIn}
	err := d.signIn(ctx, Faults{}, in)
	switch {
	case err != nil:
		return err
	case in.Fault != nil:
		return fmt.Errorf("%w: %w", ErrSignIn, in.Fault)
	case in.Code != "00":
		return fmt.Errorf("%w: DE 39 is %q", ErrSignIn, in.Code)
	}
	if r != nil {
		r.SignedIn = true
	}
	return d.connect(ctx)
}

// signIn asks for working keys, or with DUKPT signs on. The old keys are deleted
// first (U-47).
func (d *Device) signIn(ctx context.Context, f Faults, r *Result) error {
	if err := d.connect(ctx); err != nil {
		return err
	}
	d.state.Keys = ""
	sent, err := d.cfg.Speaker.call(&d.state, DoSignIn)
	if err != nil {
		return err
	}
	r.Sent = sent
	if err := d.dir.save(&d.state); err != nil {
		return err
	}
	if err := d.exchange(ctx, sent, f, r, StageWrite, StageSend, StageAnswer); err != nil {
		return err
	}
	if r.Fault != nil || r.Code != "00" {
		return nil
	}
	if err := d.cfg.Speaker.installs(&d.state, r.Answer); err != nil {
		return err
	}
	return d.dir.save(&d.state)
}

// print makes the state durable, the slip in it, and prints that.
func (d *Device) print(s Slip) error {
	s.Time = d.cfg.Clock().UTC()
	d.state.Last = &s
	if err := d.dir.save(&d.state); err != nil {
		return err
	}
	return d.dir.print(s)
}

// settle closes the batch; what the switch has no messages for, the terminal does
// alone.
func (d *Device) settle(ctx context.Context, o Order, r *Result) error {
	sent, err := d.cfg.Speaker.call(&d.state, DoSettle)
	switch {
	case errors.Is(err, ErrOrder):
		r.Local = true
	case err != nil:
		return err
	default:
		if err := d.prepare(ctx, r); err != nil {
			return err
		}
		r.Sent = sent
		if err := d.dir.save(&d.state); err != nil {
			return err
		}
		if err := d.exchange(ctx, sent, o.Faults, r, StageWrite, StageSend, StageAnswer); err != nil {
			return err
		}
		if r.Fault != nil || !d.cfg.Speaker.approves(r.Code) {
			return nil
		}
	}
	d.cfg.Speaker.closes(&d.state)
	return d.dir.save(&d.state)
}
