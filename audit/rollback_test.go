package audit

import (
	"context"
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestStartRules is L-198: each rule of L-61 broken alone refuses the start and is
// the one that is named; (g) has TestAnchorFindsOlderCopy.
func TestStartRules(t *testing.T) {
	older, log := closedLog(t, 400)
	const ops = "ops/2026-12"
	edit := func(name string, change func([]byte) []byte) func(*testing.T, *simFS) {
		return func(t *testing.T, s *simFS) {
			t.Helper()
			f := s.names[name]
			if f == nil {
				t.Fatalf("no file %s", name)
			}
			f.data = change(slices.Clone(f.data))
		}
	}
	body := func(t *testing.T, s *simFS, change func(*Checkpoint)) {
		t.Helper()
		next := nextName(shardNamed(t, ops))
		c, err := parseBody(string(s.names[next].data))
		if err != nil {
			t.Fatal(err)
		}
		change(&c)
		s.names[next].data = []byte(c.body())
	}
	for _, c := range []struct {
		rule, name string
		change     func(*testing.T, *simFS)
	}{
		{"L-61(a)", "a log that the manifest does not list", edit("manifest.json", dropLastLog)},
		{"L-61(a)", "a manifest that is gone", func(_ *testing.T, s *simFS) { delete(s.names, manifestName) }},
		{"L-29", "L-61(b) a frame changed in the write-ahead log", edit("wal/"+lastSegment(t, log), flipAt(headerSize+frameHeader+20))},
		{"L-61(c)", "a checkpoint under no configured key", edit(ops+"/checkpoint", func(msg []byte) []byte {
			at := strings.LastIndexByte(strings.TrimSuffix(string(msg), "\n"), ' ') + 1
			sig, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(msg[at:])))
			if err != nil {
				t.Fatal(err)
			}
			sig[len(sig)-1] ^= 1
			return append(msg[:at], base64.StdEncoding.EncodeToString(sig)+"\n"...)
		})},
		{"L-61(d)", "tiles with another root", func(t *testing.T, s *simFS) {
			c, err := unverifiedCheckpoint(s.names[ops+"/checkpoint"].data)
			if err != nil {
				t.Fatal(err)
			}
			name := ops + "/" + tilePath(0, c.Size/tileWidth, int(c.Size%tileWidth))
			s.names[name].data = flipAt(40)(slices.Clone(s.names[name].data))
		}},
		{"L-61(e)", "a write-ahead log that ends below the checkpoint", edit("wal/"+lastSegment(t, log), cutLastFrame)},
		{"L-61(f)", "another root at the size that was noted", func(t *testing.T, s *simFS) {
			body(t, s, func(c *Checkpoint) { c.Root[0] ^= 1 })
		}},
		{"L-61(f)", "a noted size that the log does not reach", func(t *testing.T, s *simFS) {
			body(t, s, func(c *Checkpoint) { c.Size += 1000 })
		}},
		{"L-61(h)", "sec recorded another root of ops", wrongAnchor},
		{"L-61(i)", "a write-ahead log that begins behind the tiles", func(t *testing.T, s *simFS) {
			restore(older, "sec/", "ops/", "state/", "manifest.json")(t, s)
			maps.DeleteFunc(s.names, func(n string, _ *simFile) bool { return strings.HasPrefix(n, ops) })
		}},
	} {
		t.Run("L-198 "+c.rule+" "+c.name, func(t *testing.T) {
			bad := log.snapshot()
			c.change(t, bad)
			before := bad.snapshot()
			o := simOptions(bad)
			o.Clock = func() time.Time { return time.Date(2026, 12, 1, 2, 0, 0, 0, time.UTC) }
			l, err := Open("sim", testSigner(), o)
			if err == nil {
				_ = l.Close(context.Background())
				t.Fatal("L-65: Open took it")
			}
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrSignature) || !strings.Contains(err.Error(), c.rule) {
				t.Errorf("Open = %v, want it to name %s", err, c.rule)
			}
			for name, f := range before.names {
				if now := bad.names[name]; strings.HasSuffix(name, "/checkpoint") && now != nil && string(now.data) != string(f.data) {
					t.Errorf("%s was changed by a start that was refused", name)
				}
			}
		})
	}
}

func shardNamed(t *testing.T, dir string) Shard {
	t.Helper()
	shard := shardOf(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC))
	if shard.dir() != dir {
		t.Fatalf("%s is not %s", shard.dir(), dir)
	}
	return shard
}

// wrongAnchor adds to sec, in order and signed, a root that ops never had: what an
// older or another copy of ops alone looks like.
func wrongAnchor(t *testing.T, s *simFS) {
	t.Helper()
	o := simOptions(s)
	o.Clock = func() time.Time { return time.Date(2026, 12, 1, 1, 30, 0, 0, time.UTC) }
	l, err := Open("sim", testSigner(), o)
	if err != nil {
		t.Fatal(err)
	}
	shard := shardNamed(t, "ops/2026-12")
	c, ok := l.tiles.lastPublished(shard)
	if !ok {
		t.Fatal("ops has no checkpoint")
	}
	c.Root[5] ^= 1
	if err := l.own(Sec, Record{Action: LogCheckpoint, Trees: []Tree{treeOf(c, shard)}}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}
