package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

type auditPruneCmd struct {
	doorFlags
	Log   string `arg:"" help:"The month, ops-2026-01."`
	Below uint64 `xor:"what" required:"" placeholder:"SEQ" help:"The first record that stays; rounded down to a multiple of 256."`
	Shard bool   `xor:"what" required:"" help:"The whole month."`
	JSON  bool   `help:"Print JSON."`
}

// prunedAnswer is the daemon's answer.
type prunedAnswer struct {
	Log, Origin   string
	First, Size   uint64
	Root          string
	ArchiveSHA256 string
}

// Run asks the daemon to prune. The first time it files a request that a second
// administrator approves.
func (c *auditPruneCmd) Run(p *program) error {
	d, err := c.open()
	if err != nil {
		return err
	}
	q := struct {
		Log   string
		Below uint64 `json:",omitempty"`
		All   bool   `json:",omitempty"`
	}{c.Log, c.Below, c.Shard}
	var gone prunedAnswer
	err = d.own(p.ctx, string(custody.OpPruneLog), q, &gone)
	var refused *refusedError
	if errors.As(err, &refused) && refused.Type == "AccessDeniedException" {
		return fmt.Errorf("%w: %w", errAccess, err)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(p.stdout).Encode(gone)
	}
	_, err = fmt.Fprintf(p.stdout, "records %d to %d of %s are gone from this node; root %s at size %d\nthe archive with SHA-256 %s holds them\n",
		gone.First, gone.Size-1, gone.Log, gone.Root, gone.Size, gone.ArchiveSHA256)
	return err
}

// pruner is custody.Pruner over the node's log.
type pruner struct {
	log  *audit.Log
	dir  string
	keep int // months
	now  func() time.Time
}

// newPruner is what prunes the node's log; nil without a policy.
func (n *node) newPruner() custody.Pruner {
	if n.cfg.Audit.KeepMonths == 0 {
		return nil
	}
	return &pruner{n.audit, n.cfg.Audit.Dir, n.cfg.Audit.KeepMonths, n.cfg.now}
}

// Plan implements custody.Pruner.
func (r *pruner) Plan(log string, below uint64) (custody.PrunePlan, error) {
	no := func(format string, args ...any) (custody.PrunePlan, error) {
		return custody.PrunePlan{}, fmt.Errorf("%w: "+format, append([]any{custody.ErrConflict}, args...)...)
	}
	p, err := r.log.Prunable(log, below)
	switch {
	case errors.Is(err, audit.ErrShardOpen):
		return no("%s is not a month that is over", log)
	case errors.Is(err, audit.ErrPruned):
		return no("of %s nothing is left to remove there; records go in steps of 256", log)
	case errors.Is(err, audit.ErrNotFound), errors.Is(err, audit.ErrFormat):
		return no("there is no such month, or it has fewer records")
	case err != nil:
		return custody.PrunePlan{}, fmt.Errorf("%w: %w", custody.ErrUnavailable, err)
	}
	if until, err := keptUntil(log, r.keep); err != nil || r.now().Before(until) {
		return no("audit.keep_months = %d keeps %s until %s", r.keep, log, until.Format(time.DateOnly))
	}
	reader, err := audit.OpenReader(r.dir)
	if err != nil {
		return custody.PrunePlan{}, fmt.Errorf("%w: %w", custody.ErrUnavailable, err)
	}
	a, err := reader.Archived(log)
	switch {
	case errors.Is(err, audit.ErrNotFound):
		return no("the log knows of no archive of %s; make one with `keyd audit archive %s` on the node", log, log)
	case err != nil:
		return custody.PrunePlan{}, fmt.Errorf("%w: %w", custody.ErrUnavailable, err)
	case a.Size != p.All || a.Root != p.Final:
		return no("the archive that sec:%d records is not of the whole of %s", a.Seq, log)
	}
	return custody.PrunePlan{Pruning: p, Archive: a.SHA256}, nil
}

// Prune implements custody.Pruner.
func (r *pruner) Prune(ctx context.Context, p custody.PrunePlan) error {
	return r.log.Prune(ctx, p.Pruning)
}

// keptUntil is when so many months after a month of ops have passed.
func keptUntil(log string, months int) (time.Time, error) {
	t, err := time.Parse("ops-2006-01", log)
	if err != nil {
		return t, err
	}
	return t.AddDate(0, months+1, 0), nil
}
