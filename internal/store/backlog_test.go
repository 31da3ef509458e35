package store

import (
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
)

// TestBacklog: what waits is counted, what is over is not.
func TestBacklog(t *testing.T) {
	cfg, err := config(filepath.Join(t.TempDir(), "keyd.db"), Serve)
	if err != nil {
		t.Fatal(err)
	}
	now := day().Add(10 * time.Minute)
	cfg.Clock = func() time.Time { return now }
	var commits, changes atomic.Int64
	cfg.Committed = func(took time.Duration, n int) {
		if took <= 0 {
			t.Errorf("a commit took %v", took)
		}
		commits.Add(1)
		changes.Add(int64(n))
	}
	db, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, db) })
	want := func(name string, w Backlog) {
		t.Helper()
		got, err := db.Backlog(t.Context())
		if diff := cmp.Diff(w, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
	want("nothing", Backlog{})

	queued, sent, failed := aReversal(20, hash(1)), aReversal(30, hash(2)), aReversal(40, hash(3))
	sent.State, sent.Built = isoswitch.Sent, day().Add(-time.Hour)
	failed.State, failed.Built = isoswitch.Failed, day().Add(-2*time.Hour)
	update(t, db, func(tx isoswitch.Tx) error {
		for n, v := range []*isoswitch.Reversal{queued, sent, failed} {
			if err := errors.Join(tx.InsertTxn(aTxn(byte(n+1))), tx.InsertReversal(v)); err != nil {
				return err
			}
		}
		return nil
	})
	var queues []Queue
	for _, v := range []*isoswitch.Reversal{failed, queued, sent} {
		queues = append(queues, Queue{Upstream: "issuer", State: string(v.State), Reversals: 1, Oldest: v.Built})
	}
	want("two of three reversals", Backlog{Reversals: 2, Oldest: sent.Built, Queues: queues})

	over, waits, decided := anApproval("0000000001", "anna", 1, day().Add(-2*time.Hour)), anApproval("0000000002", "anna", 2, day()), anApproval("0000000003", "lee", 3, day())
	for _, a := range []custody.Approval{over, waits, decided} {
		if err := db.AddApproval(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.ChangeApproval(t.Context(), custody.ApprovalWaiting, approved(decided)); err != nil {
		t.Fatal(err)
	}
	want("one of three requests", Backlog{Reversals: 2, Oldest: sent.Built, Queues: queues, Approvals: 1, Asked: waits.Asked})
	if l := db.Load(); l.Waiting != 0 || l.Room != mostQueued {
		t.Errorf("at rest: %+v", l)
	}
	if commits.Load() == 0 || changes.Load() < commits.Load() {
		t.Errorf("told of %d commits of %d changes", commits.Load(), changes.Load())
	}
}
