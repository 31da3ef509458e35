package siem

import (
	"context"
	"fmt"

	"keyd.dev/keyd/audit"
)

// order sets the cursor of one log.
type order struct {
	log  string
	next uint64
	done chan error
}

// Rewind sets the cursor of a log back, so that the receiver gets everything from
// that record on once more. Forward it moves only to the first record that is
// still there, past what was pruned before the receiver had it. It returns when
// the cursor is kept. Errors: [ErrConfig], those of reading the log, and ctx's.
func (e *Exporter) Rewind(ctx context.Context, log string, next uint64) error {
	o := order{log, next, make(chan error, 1)}
	select {
	case e.orders <- o:
	case <-ctx.Done():
		return fmt.Errorf("setting the cursor of sink %s: %w", e.cfg.Name, ctx.Err())
	}
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("setting the cursor of sink %s: %w", e.cfg.Name, ctx.Err())
	}
}

// obey sets the cursor.
func (e *Exporter) obey(o order) error {
	if !e.cfg.Logs(o.log) {
		return fmt.Errorf("%w: sink %s does not have the log %s", ErrConfig, e.cfg.Name, o.log)
	}
	now, err := e.current(o.log)
	if err != nil {
		return err
	}
	first, err := e.cfg.Reader.First(o.log)
	if err != nil {
		return err
	}
	at := e.state.delivered()
	p, known := at[o.log]
	if !known || p.Origin != now.origin {
		p = Position{Origin: now.origin}
	}
	switch {
	case o.next < first:
		return fmt.Errorf("%w: %s:%d; the first record that is there is %d", audit.ErrPruned, o.log, o.next, first)
	case o.next > p.Next && o.next != first:
		return fmt.Errorf("%w: sink %s stands at %s:%d, and goes back only", ErrConfig, e.cfg.Name, o.log, p.Next)
	}
	kept := e.kept.clone()
	kept[o.log] = Position{Origin: now.origin, Next: o.next, Told: min(p.Told, o.next)}
	e.kept, e.ordered = kept, true
	if err := e.save(); err != nil {
		return err
	}
	at[o.log] = kept[o.log]
	e.state.place(at)
	e.state.keep(kept)
	return nil
}
