package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// anchoring offers checkpoints to the anchors. No record waits for it: each
// anchor has a goroutine of its own, and what that has no time for is replaced
// by newer checkpoints.
type anchoring struct {
	log   *Log
	all   []*keeper
	stop  chan struct{}
	once  sync.Once
	group sync.WaitGroup
}

// keeper updates one anchor.
type keeper struct {
	anchor Anchor
	wake   chan struct{}

	mu  sync.Mutex
	due map[string][]byte // of each log, the newest checkpoint that is not stored

	// Owned by the goroutine, and after its end by Close.
	away  bool       // it was alarmed
	began time.Time  // the last update
	busy  chan error // what an update will say that had no answer at the stop
}

// newAnchoring makes what [anchoring.run] starts. away names the anchors that
// were alarmed.
func newAnchoring(l *Log, away map[string]error) *anchoring {
	g := &anchoring{log: l, stop: make(chan struct{})}
	for _, a := range l.o.Anchors {
		g.all = append(g.all, &keeper{
			anchor: a.Anchor, wake: make(chan struct{}, 1), due: map[string][]byte{}, away: away[a.Anchor.Name()] != nil,
		})
	}
	return g
}

// offer passes a published checkpoint on (L-53 step 8). It never waits.
func (g *anchoring) offer(log string, msg []byte) {
	for _, k := range g.all {
		k.mu.Lock()
		k.due[log] = bytes.Clone(msg)
		k.mu.Unlock()
		signal(k.wake)
	}
}

func (g *anchoring) run() {
	for _, k := range g.all {
		g.group.Go(func() { g.keep(k) })
	}
}

// keep updates an anchor when there is something new, at most once a minute.
func (g *anchoring) keep(k *keeper) {
	for {
		select {
		case <-k.wake:
		case <-g.stop:
			return
		}
		if g.update(k) {
			return
		}
		rest := time.NewTimer(anchorInterval)
		select {
		case <-rest.C:
		case <-g.stop:
			rest.Stop()
			return
		}
	}
}

// update stores what is due and says whether the log was stopped meanwhile. An
// anchor that takes long is alarmed while it is waited for.
func (g *anchoring) update(k *keeper) (stopped bool) {
	k.began = time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		defer cancel()
		done <- k.store(ctx)
	}()
	late := time.NewTimer(anchorWait)
	defer late.Stop()
	for {
		select {
		case err := <-done:
			g.judge(k, err)
			return false
		case <-late.C:
			g.judge(k, fmt.Errorf("no answer in %v: %w", anchorWait, context.DeadlineExceeded))
			cancel() // who listens to it answers now
		case <-g.stop:
			k.busy = done
			return true
		}
	}
}

// judge tells once of an anchor that does not take checkpoints, until it does
// again.
func (g *anchoring) judge(k *keeper, err error) {
	told := k.away
	k.away = err != nil
	if err == nil || told {
		return
	}
	g.alarm(k, err)
	// A log that cannot take the record says so by an alarm of its own.
	_ = g.log.own(Sec, awayRecord(k.anchor.Name(), err))
}

func (g *anchoring) alarm(k *keeper, err error) {
	g.log.o.Alarm(anchorAlarm(), fmt.Errorf("anchor %s: %w", k.anchor.Name(), err))
}

// end stops the updates.
func (g *anchoring) end() {
	g.once.Do(func() { close(g.stop) })
	g.group.Wait()
}

// finish gives the final checkpoints to anchors that had no update for a minute:
// a process that lived for less leaves one too. It waits 10 s at most, and not
// for an anchor that is known to hang. No record can be written any more.
func (g *anchoring) finish(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, anchorWait)
	defer cancel()
	var group sync.WaitGroup
	for _, k := range g.all {
		group.Go(func() {
			if err := k.finish(ctx); err != nil && !k.away {
				g.alarm(k, err)
			}
		})
	}
	group.Wait()
}

func (k *keeper) finish(ctx context.Context) error {
	done := k.busy
	switch {
	case done != nil && k.away:
		return nil
	case done == nil && !k.began.IsZero() && time.Since(k.began) < anchorInterval:
		return nil
	case done == nil:
		done = make(chan error, 1)
		go func() { done <- k.store(ctx) }()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// store gives the anchor what is due. What it does not take stays due, unless
// newer is there.
func (k *keeper) store(ctx context.Context) error {
	k.mu.Lock()
	due := k.due
	k.due = map[string][]byte{}
	k.mu.Unlock()
	var errs []error
	for _, log := range sortedLogs(due) {
		if err := k.anchor.Store(ctx, due[log]); err != nil {
			errs = append(errs, fmt.Errorf("storing the checkpoint of %s: %w", log, err))
			k.keepDue(log, due[log])
		}
	}
	return errors.Join(errs...)
}

func (k *keeper) keepDue(log string, msg []byte) {
	k.mu.Lock()
	if k.due[log] == nil {
		k.due[log] = msg
	}
	k.mu.Unlock()
	signal(k.wake)
}

// sortedLogs returns the logs in a fixed order: months before sec, whose
// cross-anchors name them.
func sortedLogs(due map[string][]byte) []string {
	var logs []string
	for log := range due {
		logs = append(logs, log)
	}
	slices.Sort(logs)
	return logs
}
