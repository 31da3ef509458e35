package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/logindex"
)

// The daemon keeps the search index of its log, for whoever searches beside it.
// It is never on the way of an answer: one goroutine reads what checkpoints cover,
// and rests nine times as long as it works.
const (
	indexPause = 30 * time.Second
	indexRest  = 9
	// daemonSlack is how much of the end of a log stays without a file, 8,192
	// records, which a search reads in a few hundredths of a second.
	daemonSlack = 32
)

// keepIndex builds what is missing, now and then, until ctx ends.
func (n *node) keepIndex(ctx context.Context) {
	tick := time.NewTicker(indexPause)
	defer tick.Stop()
	failing := false
	for {
		err := n.updateIndex(ctx)
		if ctx.Err() != nil {
			return
		}
		if failed := err != nil; failed != failing {
			failing = failed
			if failed {
				n.log.Warn("the search index of the audit log falls behind; searches read the log instead", "err", err)
			} else {
				n.log.Info("the search index of the audit log is kept again")
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// errNoRoom: what room there is belongs to the log.
var errNoRoom = errors.New("too little disk space for the search index")

// updateIndex builds what is missing once.
func (n *node) updateIndex(ctx context.Context) (err error) {
	if s := n.audit.Stats(); s.DiskTotal > 0 && s.DiskFree*100 < s.DiskTotal*int64(n.cfg.Audit.DiskWarnPct) {
		return errNoRoom
	}
	reader, err := audit.OpenReader(n.cfg.Audit.Dir)
	if err != nil {
		return err
	}
	index, err := logindex.Open(logindex.Config{Dir: filepath.Join(n.cfg.Audit.Dir, "index"), Reader: reader})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, index.Close()) }()
	names, err := reader.Logs()
	if err != nil {
		return err
	}
	for _, name := range names {
		snap, err := reader.Snapshot(name)
		if err != nil {
			return fmt.Errorf("indexing %s: %w", name, err)
		}
		if _, err := index.Update(ctx, snap, logindex.Update{Slack: daemonSlack, Pace: resting(ctx)}); err != nil {
			return err
		}
	}
	return nil
}

// resting makes a pace that rests after each piece of work, in proportion.
func resting(ctx context.Context) func() error {
	begun := time.Now()
	return func() error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Since(begun) * indexRest):
		}
		begun = time.Now()
		return nil
	}
}
