package audit

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestLive reads, proves and verifies while producers append, and from the
// outside as another process would.
func TestLive(t *testing.T) {
	dir := t.TempDir()
	o := testOptions()
	o.CheckpointInterval = 100 * time.Millisecond
	l, err := Open(dir, testSigner(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(context.Background()) }) // before its folder goes, also after a failure
	acks := &acknowledged{pos: map[string]string{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		produce(l, 8, 400, "live", acks)
	}()
	rounds := 0
	for running := true; running; rounds++ {
		select {
		case <-done:
			running = false
		default:
		}
		report, err := Verify(dir, []string{testVkey(t)}, VerifyOptions{})
		if err != nil || !report.OK() {
			t.Fatalf("L-141 beside a writer: %v, %v", err, report.Findings)
		}
		r, err := OpenReader(dir)
		if err != nil {
			t.Fatal(err)
		}
		next := uint64(0)
		for e, err := range r.Records("sec", 0) {
			if err != nil || e.Seq != next {
				t.Fatalf("record %d: %+v, %v", next, e, err)
			}
			next++
		}
	}
	checkAcks(t, osFS(dir), acks)
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	checkReader(t, dir)
	if rounds < 2 {
		t.Errorf("only %d rounds beside the writer", rounds)
	}
}

// checkReader proves each record of sec and asks for what is not there.
func checkReader(t *testing.T, dir string) {
	t.Helper()
	r, err := OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	covered, durable, err := r.Size("sec")
	if err != nil || covered != durable || covered == 0 {
		t.Fatalf("Size = %d, %d, %v", covered, durable, err)
	}
	for seq := range covered {
		proof, err := r.Prove("sec", seq, covered)
		if err != nil {
			t.Fatal(err)
		}
		p, err := CheckProof(proof, []string{testVkey(t)})
		if err != nil || p.Seq != seq || p.Size != covered {
			t.Fatalf("L-140: proof of %d: %+v, %v", seq, p, err)
		}
		raw, err := r.Get("sec", seq)
		if err != nil || string(raw) != string(p.Raw) {
			t.Fatalf("Get(%d) = %q, %v", seq, raw, err)
		}
	}
	refusals := []struct {
		name string
		do   func() error
		want error
	}{
		{"record beyond the end", func() error { _, err := r.Get("sec", durable); return err }, ErrNotFound},
		{"log of another month", func() error { _, err := r.Get("ops-1999-01", 0); return err }, ErrNotFound},
		{"no log", func() error { _, err := r.Get("opus", 0); return err }, ErrFormat},
		{"proof beyond the checkpoint", func() error { _, err := r.Prove("sec", covered, 0); return err }, ErrUncovered},
		{"proof for another size", func() error { _, err := r.Prove("sec", 0, covered-1); return err }, ErrNotFound},
		{"proof under another key", func() error {
			proof, err := r.Prove("sec", 0, 0)
			if err != nil {
				return err
			}
			_, err = CheckProof(proof, nil)
			return err
		}, ErrSignature},
	}
	for _, tt := range refusals {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.do(); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}

// TestPruned is L-174: what is pruned on purpose is not corruption.
func TestPruned(t *testing.T) {
	fsys := newSimFS()
	l, err := Open("sim", testSigner(), simOptions(fsys))
	if err != nil {
		t.Fatal(err)
	}
	produce(l, 2, 400, "p", &acknowledged{pos: map[string]string{}})
	log := l.ops.logName()
	prune := Record{Action: LogPrune, Phase: PhaseIntent, Actor: System(), Change: &Change{Kind: ChangeLog, Object: log},
		Trees: []Tree{{Log: log, Origin: l.origin(l.ops), Size: 256, First: new(int64(0))}}}
	pos, err := appendOne(l, Sec, prune)
	if err != nil {
		t.Fatal(err)
	}
	prune.Phase, prune.Outcome, prune.Ref = PhaseOutcome, OutcomeOK, pos.ID
	if _, err := appendOne(l, Sec, prune); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	m, err := readManifest(fsys)
	if err != nil {
		t.Fatal(err)
	}
	m.Logs[1].MinIndex = 256
	if err := m.write(fsys); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/tile/entries/000", "/tile/0/000"} {
		if err := fsys.Remove(m.Logs[1].Dir + name); err != nil {
			t.Fatal(err)
		}
	}
	r := &Reader{fsys}
	if _, err := r.Get(log, 255); !errors.Is(err, ErrPruned) {
		t.Errorf("pruned record: %v", err)
	}
	if _, err := r.Prove(log, 255, 0); !errors.Is(err, ErrPruned) {
		t.Errorf("proof of a pruned record: %v", err)
	}
	if _, err := r.Get(log, 256); err != nil {
		t.Errorf("first record that stays: %v", err)
	}
	if proof, err := r.Prove(log, 300, 0); err != nil {
		t.Error(err)
	} else if _, err := CheckProof(proof, []string{testVkey(t)}); err != nil {
		t.Error(err)
	}
}

// TestCopy: a copy of the tiles alone is read without manifest and daemon.
func TestCopy(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, testSigner(), testOptions())
	if err != nil {
		t.Fatal(err)
	}
	produce(l, 2, 40, "c", &acknowledged{pos: map[string]string{}})
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	clone := t.TempDir()
	for _, sub := range []string{"sec", "ops"} {
		if err := os.CopyFS(filepath.Join(clone, sub), os.DirFS(filepath.Join(dir, sub))); err != nil {
			t.Fatal(err)
		}
	}
	report, err := Verify(clone, []string{testVkey(t)}, VerifyOptions{})
	if err != nil || !report.OK() {
		t.Fatalf("%v, %v", err, report.Findings)
	}
	r, err := OpenReader(clone)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sec", report.Logs[1].Log} {
		n := uint64(0)
		for e, err := range r.Records(name, 0) {
			if err != nil || !e.Covered {
				t.Fatal(e, err)
			}
			n++
		}
		if covered, _, err := r.Size(name); err != nil || covered != n {
			t.Errorf("%s has %d of %d records, %v", name, n, covered, err)
		}
	}
	if _, err := OpenReader(t.TempDir()); !errors.Is(err, ErrNotFound) {
		t.Errorf("empty directory: %v", err)
	}
	if _, err := Verify(dir, []string{"nonsense"}, VerifyOptions{}); !errors.Is(err, ErrFormat) {
		t.Errorf("bad vkey: %v", err)
	}
	report, err = Verify(dir, nil, VerifyOptions{})
	if err != nil || report.OK() {
		t.Errorf("without a vkey nothing is proved: %+v, %v", report, err)
	}
	report, err = Verify(dir, []string{testVkey(t)}, VerifyOptions{Logs: []string{"ops-1999-01"}})
	if err != nil || report.OK() {
		t.Errorf("a log that is not there: %+v, %v", report, err)
	}
}
