package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"keyd.dev/keyd/internal/isoswitch"
)

// hasty is a journal with a planted bug: an effect shows before its commit. What
// follows from a transaction, an answer or a message upstream, no longer waits
// until the transaction is durable (I-5, R-03). It is how a switch would behave
// whose author took the end of the function for the end of the transaction.
type hasty struct {
	isoswitch.Journal
	written atomic.Int64
}

// lateness is how long a late commit is late: a message leaves in that time on a
// slow machine too, on which nothing else moves until the commit.
const lateness = 1500 * time.Millisecond

// Update returns as soon as fn has, and now and then leaves much time until the
// commit: a kill is to come in between.
func (h *hasty) Update(ctx context.Context, fn func(isoswitch.Tx) error) error {
	shown := make(chan error, 1)
	go func() {
		err := h.Journal.Update(ctx, func(tx isoswitch.Tx) error {
			w := &writing{Tx: tx}
			err := fn(w)
			if err != nil || !w.wrote {
				return err
			}
			shown <- nil
			if h.written.Add(1)%8 == 0 {
				wait(context.Background(), lateness)
			}
			return nil
		})
		select {
		case shown <- err:
		default: // it is believed to be done
		}
	}()
	return <-shown
}

// writing notes whether a transaction adds a sale or a reversal.
type writing struct {
	isoswitch.Tx
	wrote bool
}

func (w *writing) InsertTxn(t *isoswitch.Txn) error {
	w.wrote = true
	return w.Tx.InsertTxn(t)
}

func (w *writing) InsertReversal(r *isoswitch.Reversal) error {
	w.wrote = true
	return w.Tx.InsertReversal(r)
}

// planted is `keyd serve` with the bug: the command keyd-planted CONFIG, which
// is a command of the test binary alone.
func planted() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := servePlanted(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "keyd-planted:", err)
		os.Exit(exitFailed)
	}
}

func servePlanted(ctx context.Context, path string) error {
	cfg, err := loadConfig(path)
	if err != nil {
		return err
	}
	d, err := newDaemon(ctx, cfg, newLogger(os.Stderr, "info"))
	if err != nil {
		return err
	}
	d.metrics = newMetrics() // those of the switch that is not used have its names
	switching, err := d.switchConfig()
	if err != nil {
		return d.abandon(ctx, err)
	}
	switching.Journal = &hasty{Journal: switching.Journal}
	if d.sw, err = isoswitch.New(switching); err != nil {
		return d.abandon(ctx, err)
	}
	return d.serve(ctx, nil)
}
