package custody

import (
	"context"
	"encoding/hex"
	"fmt"

	"keyd.dev/keyd/audit"
)

// Pruner removes closed months of the audit log, which archives hold, from the
// node. It is safe for concurrent use.
type Pruner interface {
	// Plan says what would be removed of a log below a seq, 0 for all of it. It
	// returns [ErrConflict], with the reason, where that may not be removed: the
	// month is not over, not archived, or younger than the policy of the
	// configuration, or there is none.
	Plan(log string, below uint64) (PrunePlan, error)
	// Prune removes what Plan named. The intent is durable by then.
	Prune(ctx context.Context, p PrunePlan) error
}

// PrunePlan is a range of records that an archive holds.
type PrunePlan struct {
	audit.Pruning
	Archive audit.Hash // SHA-256 of the archive's manifest
}

// object is what a second person reads.
func (p PrunePlan) object() string {
	return fmt.Sprintf("records %d to %d of %s, %d in all; the archive's SHA-256 is %s",
		p.First, p.Size-1, p.Log, p.All, hex.EncodeToString(p.Archive[:]))
}

// PruneLog removes the beginning of a closed month of the audit log under dual
// control (L-173). Range, root and archive are in the log before and after. It
// returns [ErrDenied], [ErrApproval], [ErrConflict] or [ErrUnavailable].
func (c *Custody) PruneLog(ctx context.Context, caller Caller, corr, log string, below uint64) (PrunePlan, error) {
	if !caller.may(OpPruneLog) {
		return PrunePlan{}, c.refuse(ctx, caller, corr, OpPruneLog, fmt.Errorf("%w: no role of the caller has %s", ErrDenied, OpPruneLog))
	}
	if c.pruner == nil {
		return PrunePlan{}, fmt.Errorf("%w: without a policy nothing is pruned; set audit.keep_months", ErrConflict)
	}
	if !c.dual.policy.On && len(caller.Quorum) == 0 {
		return PrunePlan{}, fmt.Errorf("%w: the audit log is pruned by two persons only; set api.dual_control", ErrConflict)
	}
	p, err := c.pruner.Plan(log, below)
	if err != nil {
		return p, err
	}
	second, err := c.approved(ctx, caller, corr, OpPruneLog, p.object())
	if err != nil {
		return p, err
	}
	r := c.changeRecord(caller, corr, audit.LogPrune, audit.ChangeLog, "archive/"+p.Log)
	r.Change.After = p.Archive
	r.Trees, r.Approvals = []audit.Tree{p.Tree()}, second
	return p, c.intended(ctx, r, func(*audit.Record) error {
		if err := c.pruner.Prune(ctx, p); err != nil {
			return fmt.Errorf("%w: pruning the audit log: %w", ErrUnavailable, err)
		}
		return nil
	})
}
