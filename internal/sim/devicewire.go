package sim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// exchange sends a message and fills in what came. An error is that of power, of
// the folder or of a context that ended; what the network does is a Fault.
func (d *Device) exchange(ctx context.Context, sent *Sent, f Faults, r *Result, write, send, answer Stage) error {
	at := func(s Stage) error {
		if f.PowerAt == s {
			return fmt.Errorf("%w: at %s", ErrPower, s)
		}
		return d.cfg.At(s)
	}
	if err := at(write); err != nil {
		return err
	}
	if err := rest(ctx, f.Delay); err != nil {
		return err
	}
	started := time.Now()
	raw, err := d.carry(ctx, sent, f, func() error { return at(send) })
	r.Took, r.Sends = time.Since(started), r.Sends+1
	if errors.Is(err, ErrPower) || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	r.Answer, r.Code, r.MAC, r.Fault = nil, "", MACNone, nil
	if err != nil {
		d.hangUp() // a late answer must not be taken for that of the next message
		r.Fault = fmt.Errorf("%w: %w", errSilent, err)
		return nil
	}
	if err := at(answer); err != nil {
		return err
	}
	judged, err := d.cfg.Speaker.judge(sent, f.spoil(raw))
	r.Answer, r.MAC, r.Fault = judged.Message, judged.MAC, err
	if errors.Is(err, ErrMismatch) {
		d.hangUp() // from here on each message would get the answer to the one before
	}
	if err == nil {
		r.Code = judged.Message.Text(39)
	}
	return nil
}

// carry is what happens on the wire.
func (d *Device) carry(ctx context.Context, sent *Sent, f Faults, left func() error) ([]byte, error) {
	if err := d.connect(ctx); err != nil {
		return nil, err
	}
	raw := sent.Raw
	if f.BadMAC {
		raw = spoiled(raw)
	}
	if err := d.link.Send(raw); err != nil {
		return nil, err
	}
	if err := left(); err != nil {
		return nil, err
	}
	if f.Cut {
		return nil, fmt.Errorf("%w: the connection was cut", os.ErrDeadlineExceeded)
	}
	got, err := d.link.Receive()
	if err == nil && f.Replay {
		if err = d.link.Send(raw); err == nil {
			got, err = d.link.Receive()
		}
	}
	if err == nil && f.LoseAnswer {
		return nil, fmt.Errorf("%w: the answer was lost", os.ErrDeadlineExceeded)
	}
	return got, err
}

// connect returns [ErrUnreachable] when there is no way to the switch.
func (d *Device) connect(ctx context.Context) error {
	if d.link != nil {
		return nil
	}
	link, err := d.cfg.Dial(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	d.link = link
	return nil
}

func (d *Device) hangUp() {
	if d.link != nil {
		_ = d.link.Close()
		d.link = nil
	}
}

// rest waits.
func rest(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// spoil does to an answer what the faults want.
func (f Faults) spoil(raw []byte) []byte {
	switch {
	case f.Garble:
		return raw[:len(raw)/2]
	case f.AnswerMAC:
		return spoiled(raw)
	}
	return raw
}

// spoiled has another last byte: the MAC is last in every message, and stays
// hexadecimal where it was.
func spoiled(raw []byte) []byte {
	out := append([]byte(nil), raw...)
	last := &out[len(out)-1]
	switch {
	case *last == '0':
		*last = '1'
	case *last >= '1' && *last <= '9' || *last >= 'A' && *last <= 'F':
		*last = '0'
	default:
		*last ^= 1
	}
	return out
}
