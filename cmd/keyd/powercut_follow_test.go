package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/sim"
)

// followed is TestPowerCut where no file system can be mounted: strace follows
// the calls of a daemon while one terminal works, and before each answer all that
// was written to the logs of database and audit log must have been synced.
func followed(t *testing.T) {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Fatalf("neither can a file system be mounted nor is strace there: %v", err)
	}
	trace := filepath.Join(t.TempDir(), "trace")
	k := newKillable(t)
	k.under = []string{path, "-D", "-f", "-q", "-yy", "-s", "0", "-e", "trace=write,writev,pwrite64,pwritev,fsync,fdatasync,syncfs,sendto,sendmsg", "-o", trace}
	k.start()
	s := &powered{t: t, k: k, salesOnly: true}
	s.issuer = &killIssuer{t: t, dev: k.dev.Load(), addr: k.dev.Load().Issuer.Addr, path: filepath.Join(t.TempDir(), "issuer.jsonl"), log: k.said}
	s.issuer.serve(quietRules())
	k.linked()
	fixed := k.dev.Load().Terminals[3]
	terminal, err := sim.NewTerminal(sim.TerminalConfig{TID: fixed.TID, MID: fixed.MID, BDK: k.dev.Load().TestKeys[fixed.BDK], KSN: fixed.KSN}, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.terminals = []*sim.Terminal{terminal}
	s.sell(t.Context(), 5*time.Second)
	s.issuer.stop()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	text := untilStill(ctx, trace)
	_, port, err := net.SplitHostPort(k.dev.Load().SwitchAddr)
	if err != nil {
		t.Fatal(err)
	}
	answers, early := unsyncedAnswers(strings.NewReader(text), port)
	t.Logf("%d answers were given, %d writes to the switch's connections were followed, %d of them early: %q", len(s.answered), answers, len(early), early[:min(5, len(early))])
	if len(s.answered) == 0 || answers < len(s.answered) {
		t.Errorf("too little was followed:\n%s", tail(text, 2000))
	}
	// What the node itself writes meanwhile, a heartbeat say, may be under way.
	if len(early) > len(s.answered)/20 {
		t.Errorf("%d of %d answers left before what they tell was synced: %q", len(early), answers, early)
	}
}

// untilStill reads a file once it grows no more.
func untilStill(ctx context.Context, path string) string {
	before := -1
	for {
		text, _ := os.ReadFile(path)
		if len(text) == before || ctx.Err() != nil {
			return string(text)
		}
		before = len(text)
		wait(ctx, 300*time.Millisecond)
	}
}

var (
	calledRE  = regexp.MustCompile(`^(\d+) +(\w+)\(\d+<(.+?)>[,) ]`)
	resumedRE = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>`)
)

// unsyncedAnswers goes through a trace and returns how many writes there were to
// connections of a local port, and before which of them something was written to
// a log and not synced.
func unsyncedAnswers(trace io.Reader, port string) (answers int, early []string) {
	writes := make(map[string]int) // unsynced, by file
	type syncing struct {
		file  string
		since int
	}
	under := make(map[string]syncing) // by thread
	lines := bufio.NewScanner(trace)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if m := resumedRE.FindStringSubmatch(line); m != nil {
			if s, ok := under[m[1]]; ok && strings.HasSuffix(m[2], "sync") {
				delete(under, m[1])
				if strings.HasSuffix(line, "= 0") {
					writes[s.file] -= s.since
				}
			}
			continue
		}
		m := calledRE.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		thread, call, what := m[1], m[2], m[3]
		log := strings.HasSuffix(what, "keyd.db-wal") || strings.Contains(what, "/audit/wal/")
		switch {
		case log && strings.HasSuffix(call, "sync") && strings.Contains(line, "<unfinished"):
			under[thread] = syncing{what, writes[what]}
		case log && strings.HasSuffix(call, "sync"):
			writes[what] = 0
		case log:
			writes[what]++
		case strings.HasPrefix(what, "TCP") && strings.Contains(what, ":"+port+"->"):
			answers++
			for file, n := range writes {
				if n > 0 {
					early = append(early, fmt.Sprintf("line %d: %d writes to %s", answers, n, filepath.Base(file)))
				}
			}
		}
	}
	slices.Sort(early)
	return answers, early
}

// TestUnsyncedAnswers: an answer that left before a sync is found in a trace.
func TestUnsyncedAnswers(t *testing.T) {
	const (
		write   = "12 pwrite64(7</d/keyd.db-wal>, \"\"..., 4096, 0) = 4096\n"
		started = "12 fdatasync(7</d/keyd.db-wal> <unfinished ...>\n"
		ended   = "12 <... fdatasync resumed>)           = 0\n"
		failed  = "12 <... fdatasync resumed>)           = -1 EIO (Input/output error)\n"
		synced  = "12 fdatasync(7</d/keyd.db-wal>) = 0\n"
		audited = "13 pwrite64(9</d/audit/wal/1.seg>, \"\"..., 400, 0) = 400\n"
		answer  = "14 write(20<TCP:[127.0.0.1:7000->127.0.0.1:50000]>, \"\"..., 200) = 200\n"
		other   = "14 write(21<TCP:[127.0.0.1:9000->127.0.0.1:50001]>, \"\"..., 200) = 200\n"
	)
	for _, tt := range []struct {
		name, trace string
		answers     int
		early       []string
	}{
		{"synced before", write + synced + answer, 1, nil},
		{"synced in two steps", write + started + other + ended + answer, 1, nil},
		{"not synced", write + answer, 1, []string{"line 1: 1 writes to keyd.db-wal"}},
		{"still syncing", write + started + answer + ended, 1, []string{"line 1: 1 writes to keyd.db-wal"}},
		{"the sync failed", write + started + failed + answer, 1, []string{"line 1: 1 writes to keyd.db-wal"}},
		{"written while it synced", write + started + write + ended + answer, 1, []string{"line 1: 1 writes to keyd.db-wal"}},
		{"the record not synced", write + audited + synced + answer, 1, []string{"line 1: 1 writes to 1.seg"}},
		{"another connection", write + other, 0, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answers, early := unsyncedAnswers(strings.NewReader(tt.trace), "7000")
			if answers != tt.answers {
				t.Errorf("%d answers, want %d", answers, tt.answers)
			}
			if diff := cmp.Diff(tt.early, early); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestAnswersWaitForTheSync follows a daemon's calls also where a file system can
// be mounted, so that the way in its place is known to work.
func TestAnswersWaitForTheSync(t *testing.T) { followed(t) }
