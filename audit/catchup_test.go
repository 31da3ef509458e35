package audit

import (
	"context"
	"testing"
)

// laterFS shows a log as it was, and from the first look at the write-ahead log
// on as it is by then.
type laterFS struct {
	fileSystem
	later *simFS
	moved bool
}

func (f *laterFS) ReadDir(name string) ([]string, error) {
	if name == "wal" && !f.moved {
		f.fileSystem, f.moved = f.later, true
	}
	return f.fileSystem.ReadDir(name)
}

// TestLogGrowsWhileVerified is L-33 and L-141: a node removes segments that its
// newer checkpoints cover while somebody verifies. That is no gap: the check goes
// on to those checkpoints. A checkpoint that is not signed, or that does not go on
// from what was verified, is found there too.
func TestLogGrowsWhileVerified(t *testing.T) {
	fsys := newSimFS()
	l, err := Open("sim", testSigner(), simOptions(fsys))
	if err != nil {
		t.Fatal(err)
	}
	acks := &acknowledged{pos: map[string]string{}}
	produce(l, 2, 60, "before", acks)
	eventually(t, "a checkpoint over the first records", func() bool { return l.Stats().Unsigned == 0 })
	first := fsys.now()
	produce(l, 4, 300, "after", acks)
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	scan, err := scanWAL(fsys, nil)
	if err != nil {
		t.Fatal(err)
	}
	ops := l.ops
	had, now := mustSize(t, first, ops.logName()), mustSize(t, fsys, ops.logName())
	if scan.first[ops] <= had {
		t.Fatalf("the write-ahead log begins at %d, the first checkpoint ends at %d: nothing is missing between", scan.first[ops], had)
	}
	sign := func(t *testing.T, s *simFS, c Checkpoint) {
		t.Helper()
		msg, err := signCheckpoint(c, testSigner())
		if err != nil {
			t.Fatal(err)
		}
		s.names[ops.dir()+"/checkpoint"].data = msg
	}
	newest, err := unverifiedCheckpoint(fsys.names[ops.dir()+"/checkpoint"].data)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, s *simFS)
		rule   string
	}{
		{"as the node left it", func(*testing.T, *simFS) {}, ""},
		{"a record behind the first checkpoint changed", func(t *testing.T, s *simFS) {
			if err := s.flip(ops.dir()+"/"+tilePath(bundleLevel, had/tileWidth+1, 0), 700); err != nil {
				t.Fatal(err)
			}
		}, "L-141"},
		{"a tile behind the first checkpoint changed", func(t *testing.T, s *simFS) {
			if err := s.flip(ops.dir()+"/"+tilePath(0, had/tileWidth+1, 0), 700); err != nil {
				t.Fatal(err)
			}
		}, "L-141"},
		{"another root", func(t *testing.T, s *simFS) { sign(t, s, Checkpoint{newest.Origin, newest.Size, Hash{1}}) }, "L-141"},
		{"another root of the same size", func(t *testing.T, s *simFS) { sign(t, s, Checkpoint{newest.Origin, had, Hash{1}}) }, "L-54"},
		{"a smaller one", func(t *testing.T, s *simFS) { sign(t, s, Checkpoint{newest.Origin, had - 1, Hash{1}}) }, "L-54"},
		{"a signature changed", func(t *testing.T, s *simFS) {
			name := ops.dir() + "/checkpoint"
			if err := s.flip(name, len(s.names[name].data)-9); err != nil {
				t.Fatal(err)
			}
		}, "L-61(c)"},
	} {
		t.Run("L-141 "+tt.name, func(t *testing.T) {
			later := fsys.snapshot()
			tt.change(t, later)
			report, err := verify(&laterFS{fileSystem: first, later: later}, "sim", []string{testVkey(t)}, VerifyOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if tt.rule == "" {
				if !report.OK() || len(report.Logs) != 2 || report.Logs[1].Size != now {
					t.Errorf("%v, %+v; want a log of %d records", report.Findings, report.Logs, now)
				}
				return
			}
			if report.OK() || report.Findings[0].Rule != tt.rule {
				t.Errorf("%v, want %s first", report.Findings, tt.rule)
			}
		})
	}
}
