package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// reopened opens a log of [closedLog] in the month after.
func reopened(t *testing.T, fsys *simFS) (*Log, error) {
	t.Helper()
	o := simOptions(fsys)
	o.Clock = func() time.Time { return time.Date(2026, 12, 1, 2, 0, 0, 0, time.UTC) }
	return Open("sim", testSigner(), o)
}

// prune prunes as a node does: intent, act, outcome.
func prune(l *Log, p Pruning) error {
	r := Record{Action: LogPrune, Phase: PhaseIntent, Actor: System(), Change: &Change{Kind: ChangeLog, Object: p.Log}, Trees: []Tree{p.Tree()}}
	pos, err := appendOne(l, Sec, r)
	if err != nil {
		return err
	}
	failed := l.Prune(context.Background(), p)
	r.Phase, r.Outcome, r.Ref = PhaseOutcome, OutcomeOK, pos.ID
	if failed != nil {
		r.Outcome, r.Reason = OutcomeError, ReasonInternal
	}
	_, err = appendOne(l, Sec, r)
	return errors.Join(failed, err)
}

// pruned prunes November below a seq, and closes the log in order.
func pruned(t *testing.T, fsys *simFS, below uint64) Pruning {
	t.Helper()
	l, err := reopened(t, fsys)
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.Prunable(november, below)
	if err != nil {
		t.Fatal(err)
	}
	if err := prune(l, p); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	return p
}

func wantVerified(t *testing.T, fsys fileSystem) Report {
	t.Helper()
	report, err := verify(fsys, "sim", []string{testVkey(t)}, VerifyOptions{})
	if err != nil || !report.OK() {
		t.Fatal(err, report.Findings)
	}
	return report
}

// TestPrune is L-173 and L-174: a prefix goes, what is at or above it stays
// readable and provable, the tree and its root stay, and the log opens and
// verifies.
func TestPrune(t *testing.T) {
	_, whole := closedLog(t, 600)
	before := wantVerified(t, whole)
	size := before.Logs[1].Size
	for _, below := range []uint64{256, 300, 768, 0} {
		t.Run(fmt.Sprintf("L-173 below %d of %d", below, size), func(t *testing.T) {
			fsys := whole.snapshot()
			p := pruned(t, fsys, below)
			want := below - below%256
			if below == 0 {
				want = size
			}
			if p.First != 0 || p.Size != want || p.All != size || p.Final != before.Logs[1].Root {
				t.Fatalf("%+v, want 0 to %d", p, want)
			}
			if after := wantVerified(t, fsys); after.Logs[1] != before.Logs[1] {
				t.Errorf("the tree became %+v, was %+v", after.Logs[1], before.Logs[1])
			}
			for _, name := range fsys.files() {
				if path, ok := strings.CutPrefix(name, "ops/2026-11/"); ok {
					if level, n, width, err := parseTilePath(path); err == nil && level == bundleLevel && n*256+uint64(width) <= want {
						t.Errorf("%s is still there", name)
					}
				}
			}
			wantProvable(t, whole, fsys, want, size)
			l, err := reopened(t, fsys)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			wantVerified(t, fsys)
		})
	}
}

// wantProvable reads and proves records on both sides of the range's end.
func wantProvable(t *testing.T, whole, fsys *simFS, from, size uint64) {
	t.Helper()
	r := &Reader{fsys}
	for seq := range size {
		if seq%61 != 0 && seq+1 != size && seq != from && seq+1 != from {
			continue
		}
		raw, err := r.Get(november, seq)
		if seq < from {
			if !errors.Is(err, ErrPruned) {
				t.Fatalf("seq %d was pruned: %v", seq, err)
			}
			continue
		}
		old, olderr := (&Reader{whole}).Get(november, seq)
		if err != nil || olderr != nil || !slices.Equal(raw, old) {
			t.Fatalf("seq %d: %v, %v", seq, err, olderr)
		}
		proof, err := r.Prove(november, seq, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := CheckProof(proof, []string{testVkey(t)}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPruneAgain is L-173: a range can grow, and never comes back.
func TestPruneAgain(t *testing.T) {
	_, fsys := closedLog(t, 600)
	pruned(t, fsys, 256)
	if p := pruned(t, fsys, 768); p.First != 256 || p.Size != 768 {
		t.Errorf("%+v", p)
	}
	if p := pruned(t, fsys, 0); p.First != 768 {
		t.Errorf("%+v", p)
	}
	wantVerified(t, fsys)
	if _, err := prunable(fsys, november, 0); !errors.Is(err, ErrPruned) {
		t.Errorf("nothing is left: %v", err)
	}
}

// TestPruneRefused is L-173: only a prefix of a closed shard.
func TestPruneRefused(t *testing.T) {
	_, fsys := closedLog(t, 300)
	tests := []struct {
		name, log string
		below     uint64
		want      error
	}{
		{"sec", "sec", 256, ErrShardOpen},
		{"the current month", "ops-2026-12", 0, ErrShardOpen},
		{"no such month", "ops-2026-10", 0, ErrNotFound},
		{"no log", "opus", 0, ErrFormat},
		{"behind the end", november, 1 << 40, ErrNotFound},
		{"less than a bundle", november, 255, ErrPruned},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := prunable(fsys, tt.log, tt.below); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}

// TestPruneTampered is L-174: what is missing at or above min_index is damage,
// and so is a min_index that no record explains.
func TestPruneTampered(t *testing.T) {
	_, fsys := closedLog(t, 600)
	pruned(t, fsys, 512)
	setMin := func(min uint64) func(*testing.T, *simFS) {
		return func(t *testing.T, s *simFS) {
			m, err := readManifest(s)
			if err != nil {
				t.Fatal(err)
			}
			m.find(202611).MinIndex = min
			if err := m.write(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(*testing.T, *simFS) {
		return func(t *testing.T, s *simFS) {
			if err := s.Remove("ops/2026-11/tile/" + name); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := []struct {
		name string
		do   func(*testing.T, *simFS)
	}{
		{"more than was pruned", setMin(768)},
		{"less than was pruned", setMin(256)},
		{"nothing", setMin(0)},
		{"a bundle above", remove("entries/002")},
		{"a tile above", remove("0/002")},
		{"the tile that stands for the range", func(t *testing.T, s *simFS) {
			name := partialOf(t, s, "ops/2026-11/tile/1/000.p/")
			if err := s.flip(name, 3); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bad := fsys.snapshot()
			tt.do(t, bad)
			report, err := verify(bad, "sim", []string{testVkey(t)}, VerifyOptions{})
			if err == nil && report.OK() {
				t.Error("not found")
			}
		})
	}
}

// TestPruneCrash is L-173 under L-190: the power goes at each call of a pruning.
// What survives explains its min_index, opens, verifies, has every record that
// its min_index promises, and can be pruned again.
func TestPruneCrash(t *testing.T) {
	_, whole := closedLog(t, 600)
	trial := whole.snapshot()
	l, err := reopened(t, trial)
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.Prunable(november, 768)
	if err != nil {
		t.Fatal(err)
	}
	first := trial.calls()
	if err := prune(l, p); err != nil {
		t.Fatal(err)
	}
	last := trial.calls()
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	for limit := first + 1; limit <= last; limit += max(1, (last-first)/effort(t, 30, 4000)) {
		t.Run(fmt.Sprintf("L-190 call %d", limit), func(t *testing.T) {
			fsys := whole.snapshot()
			fsys.limit = limit
			if l, err := reopened(t, fsys); err == nil {
				_ = prune(l, p) // the power goes at any time
				_ = l.Close(context.Background())
			}
			if fsys.cut == nil {
				return
			}
			r := prng(limit)
			for range effort(t, 2, 40) {
				afterPruneCrash(t, whole, fsys.cut.crash(&r), p)
			}
		})
	}
}

func afterPruneCrash(t *testing.T, whole, state *simFS, p Pruning) {
	t.Helper()
	report, err := verify(state, "sim", []string{testVkey(t)}, VerifyOptions{})
	for _, f := range report.Findings {
		if err != nil || f.Rule == "L-174" {
			t.Fatalf("before the start: %v, %v", f, err)
		}
	}
	l, err := reopened(t, state)
	if err != nil {
		t.Fatalf("false refusal: %v", err)
	}
	m, err := readManifest(state)
	if err != nil {
		t.Fatal(err)
	}
	min := m.find(202611).MinIndex
	if min != 0 && min != p.Size {
		t.Fatalf("first index %d", min)
	}
	if min == 0 {
		if err := prune(l, p); err != nil {
			t.Fatalf("the next attempt: %v", err)
		}
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	wantVerified(t, state)
	wantProvable(t, whole, state, p.Size, p.All)
	for _, name := range state.files() {
		if name == "ops/2026-11/tile/entries/000" {
			t.Error("what was pruned is still there after a start")
		}
	}
}

// TestArchivedRecord is L-173: sec says which archive holds a shard.
func TestArchivedRecord(t *testing.T) {
	_, fsys := closedLog(t, 300)
	r := &Reader{fsys}
	if _, err := r.Archived(november); !errors.Is(err, ErrNotFound) {
		t.Errorf("before: %v", err)
	}
	cp, err := r.Closed(november)
	if err != nil {
		t.Fatal(err)
	}
	l, err := reopened(t, fsys)
	if err != nil {
		t.Fatal(err)
	}
	tree := Tree{Log: november, Origin: cp.Origin, Size: int64(cp.Size), Root: &cp.Root, First: new(int64)}
	rec := Record{Action: LogArchive, Phase: PhaseIntent, Actor: System(), Change: &Change{Kind: ChangeLog, Object: "archive/" + november}, Trees: []Tree{tree}}
	for i, sum := range []Hash{{1}, {2}, {3}} {
		pos, err := appendOne(l, Sec, rec)
		if err != nil {
			t.Fatal(err)
		}
		end := rec
		end.Phase, end.Outcome, end.Ref = PhaseOutcome, OutcomeOK, pos.ID
		end.Change = &Change{Kind: ChangeLog, Object: "archive/" + november, After: sum}
		if i == 2 {
			end.Outcome, end.Reason, end.Change = OutcomeError, ReasonInternal, rec.Change
		}
		if _, err := appendOne(l, Sec, end); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	a, err := r.Archived(november)
	if err != nil || a.SHA256 != (Hash{2}) || a.Size != cp.Size || a.Root != cp.Root {
		t.Errorf("%+v, %v", a, err)
	}
	wantVerified(t, fsys)
}
