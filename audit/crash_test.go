package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

const simSegment = 128 << 10

// effort returns how much of a thorough test to do: the usual amount, a tenth
// of it under the race detector, which looks for other faults, and all of it
// when KEYD_AUDIT_THOROUGH is set.
func effort(t testing.TB, usual, all int) int {
	t.Helper()
	switch {
	case os.Getenv("KEYD_AUDIT_THOROUGH") != "":
		return all
	case underRace:
		return max(1, usual/10)
	}
	return usual
}

func simOptions(fsys fileSystem) Options {
	o := testOptions()
	o.fsys, o.SegmentSize, o.CheckpointInterval = fsys, simSegment, time.Millisecond
	return o
}

func testVkey(t testing.TB) string {
	t.Helper()
	key, err := Vkey("audit.example/n1/sec", testSigner().Public())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// acknowledged collects what Append said was durable.
type acknowledged struct {
	mu  sync.Mutex
	pos map[string]string // place → corr
}

func (a *acknowledged) add(p Pos, corr string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pos[p.String()] = corr
}

// produce appends records with several producers until the log fails or each
// has had its turns.
func produce(l *Log, producers, turns int, name string, acks *acknowledged) {
	var group sync.WaitGroup
	for p := range producers {
		group.Go(func() {
			for i := range turns {
				id, r := Ops, benchRecord()
				if (p+i)%7 == 0 {
					id, r = Sec, Record{Action: AuthAccept, Outcome: OutcomeOK, Actor: Actor{ID: "switch-a", Kind: ActorSwitch, Authn: AuthnMTLS}}
				}
				r.Corr = fmt.Sprintf("%s-%d-%d", name, p, i)
				t, err := l.Reserve(context.Background(), id, 2)
				if err != nil {
					return
				}
				rs := []Record{r}
				if i%5 == 0 {
					rs = append(rs, r)
				}
				pos, err := t.Append(rs...)
				t.Release()
				if err != nil {
					return
				}
				for _, p := range pos {
					acks.add(p, r.Corr)
				}
			}
		})
	}
	group.Wait()
}

// checkAcks reads every acknowledged record back.
func checkAcks(t *testing.T, fsys fileSystem, acks *acknowledged) {
	t.Helper()
	if missing := lost(t, fsys, acks); len(missing) > 0 {
		t.Fatalf("L-13: %d acknowledged records are lost or changed, %s among them", len(missing), missing[0])
	}
}

// lost returns the places of acknowledged records that hold another one, or none.
func lost(t *testing.T, fsys fileSystem, acks *acknowledged) (missing []string) {
	t.Helper()
	r := &Reader{fsys}
	found := map[string]string{}
	logs, err := r.Logs()
	if err != nil {
		t.Fatal(err)
	}
	for _, log := range logs {
		for e, err := range r.Records(log, 0) {
			if err != nil {
				t.Fatal(err)
			}
			found[fmt.Sprintf("%s:%d", log, e.Seq)] = stringMember(e.Raw, "corr")
		}
	}
	for pos, corr := range acks.pos {
		if found[pos] != corr {
			missing = append(missing, pos)
		}
	}
	return missing
}

// TestCrash is L-190: whatever part of the unsynced state survives, the log
// opens, has every acknowledged record, verifies, and goes on.
func TestCrash(t *testing.T) {
	runs, states := effort(t, 40, 200), effort(t, 30, 50)
	for run := range runs {
		t.Run(fmt.Sprintf("L-190 run %d", run), func(t *testing.T) {
			t.Parallel()
			r := prng(run + 1)
			fsys := newSimFS()
			acks := &acknowledged{pos: map[string]string{}}
			// A first life that ends in order, for every second run.
			if run%2 == 0 {
				l, err := Open("sim", testSigner(), simOptions(fsys))
				if err != nil {
					t.Fatal(err)
				}
				produce(l, 3, 20, "first", acks)
				if err := l.Close(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
			fsys.mu.Lock()
			fsys.limit = fsys.ops + 1 + int(r.below(600))
			fsys.mu.Unlock()
			if l, err := Open("sim", testSigner(), simOptions(fsys)); err == nil {
				produce(l, 4, 200, "second", acks)
				_ = l.Close(context.Background()) // the power goes at any time
			} else if !errors.Is(err, errPowerCut) && !errors.Is(err, ErrUnavailable) {
				t.Fatalf("first Open: %v", err)
			}
			fsys.mu.Lock()
			cut := fsys.cut
			fsys.mu.Unlock()
			if cut == nil {
				cut = fsys.snapshot()
			}
			for state := range states {
				survivor := cut.crash(&r)
				afterCrash(t, survivor, acks, &r, state)
			}
		})
	}
}

// afterCrash opens a state, perhaps crashes again while it recovers, and checks
// that nothing is missing.
func afterCrash(t *testing.T, fsys *simFS, acks *acknowledged, r *prng, state int) {
	t.Helper()
	if state%3 == 0 {
		fsys.limit = 1 + int(r.below(60))
		if l, err := Open("sim", testSigner(), simOptions(fsys)); err == nil {
			_ = l.Close(context.Background()) // the power goes at any time
		} else if !errors.Is(err, errPowerCut) && !errors.Is(err, ErrUnavailable) {
			t.Fatalf("state %d: false refusal while the power goes: %v", state, err)
		}
		if fsys.cut != nil {
			fsys = fsys.cut.crash(r)
		} else {
			fsys.limit = 0
		}
	}
	l, err := Open("sim", testSigner(), simOptions(fsys))
	if err != nil {
		t.Fatalf("state %d: false refusal: %v", state, err)
	}
	produce(l, 1, 3, fmt.Sprintf("state-%d", state), &acknowledged{pos: map[string]string{}})
	if err := l.Close(context.Background()); err != nil {
		t.Fatalf("state %d: %v", state, err)
	}
	checkAcks(t, fsys, acks)
	report, err := verify(fsys, "sim", []string{testVkey(t)}, VerifyOptions{})
	if err != nil || !report.OK() {
		t.Fatalf("state %d: %v, %v", state, err, report.Findings)
	}
}

// TestDamage is the other half of L-190: a changed byte in any batch but the
// last is found, after an unclean stop too.
func TestDamage(t *testing.T) {
	fsys := newSimFS()
	l, err := Open("sim", testSigner(), simOptions(fsys))
	if err != nil {
		t.Fatal(err)
	}
	produce(l, 2, 150, "x", &acknowledged{pos: map[string]string{}})
	live := fsys.now()
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	scan, err := scanWAL(live, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := prng(7)
	for range effort(t, 300, 3000) {
		damaged := live.snapshot()
		seg := scan.oldest + r.below(scan.last-scan.oldest+1)
		end := scan.end
		if seg < scan.last {
			h, _, err := readHead(live, segmentName(seg+1))
			if err != nil {
				t.Fatal(err)
			}
			next, _ := parseSegmentHeader(h)
			end = int64(next.prevLen)
		}
		at := int(r.below(uint64(end)))
		if err := damaged.flip(segmentName(seg), at); err != nil {
			t.Fatal(err)
		}
		if seg == scan.last && lastBatchHas(t, live, scan, int64(at)) {
			continue // L-32
		}
		if l, err := Open("sim", testSigner(), simOptions(damaged)); err == nil {
			_ = l.Close(context.Background())
			t.Fatalf("L-28: a changed byte at %d of segment %d (of %d) was not found", at, seg, scan.last)
		} else if !errors.Is(err, ErrCorrupt) {
			t.Fatalf("refused for another reason: %v", err)
		}
	}
}

// lastBatchHas reports whether an offset of the last used segment lies in its
// last batch, or in the header when there is only that batch.
func lastBatchHas(t *testing.T, fsys fileSystem, scan *walScan, at int64) bool {
	t.Helper()
	start, batches := int64(0), 0
	_, err := scanWAL(fsys, func(seg uint64, off int64, f *frame) error {
		if seg == scan.last && f.batch != scan.batch {
			batches++
		}
		if seg == scan.last && f.batch == scan.batch && start == 0 {
			start = off
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return at >= start || batches == 0
}

// TestSyncBeforeReply is the order of L-191: the sync of a record's segment
// returns before Append does.
func TestSyncBeforeReply(t *testing.T) {
	fsys := newSimFS()
	l, err := Open("sim", testSigner(), simOptions(fsys))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	for i := range 50 {
		ticket, err := l.Reserve(context.Background(), Ops, 1)
		if err != nil {
			t.Fatal(err)
		}
		r := benchRecord()
		r.Corr = fmt.Sprintf("order-%d", i)
		if _, err := ticket.Append(r); err != nil {
			t.Fatal(err)
		}
		ticket.Release()
		fsys.mu.Lock()
		durable := false
		for _, f := range fsys.kept {
			durable = durable || f != nil && bytes.Contains(f.kept, []byte(`"`+r.Corr+`"`))
		}
		fsys.mu.Unlock()
		if !durable {
			t.Fatalf("L-12: record %d was acknowledged and is not on the disk", i)
		}
	}
}
