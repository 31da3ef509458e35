package audit

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The environment variable that makes the test binary a victim of TestKill.
const victimDir = "KEYD_AUDIT_TEST_VICTIM"

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		victim(dir)
		return
	}
	os.Exit(m.Run())
}

// victim appends with 64 producers and says what was acknowledged, until it is
// killed.
func victim(dir string) {
	l, err := Open(dir, testSigner(), victimOptions())
	if err != nil {
		fmt.Println("error", err)
		return
	}
	fmt.Println("open")
	var group sync.WaitGroup
	for p := range 64 {
		group.Go(func() {
			for i := 0; ; i++ {
				if err := victimTurn(l, i, fmt.Sprintf("%d.%d.%d", os.Getpid(), p, i)); err != nil {
					fmt.Println("error", err)
					return
				}
			}
		})
	}
	group.Wait()
}

// victimOptions has checkpoints often, so that kills fall into them too.
func victimOptions() Options {
	o := testOptions()
	o.CheckpointInterval = 100 * time.Millisecond
	return o
}

// victimTurn appends what a node would: mostly one record of ops, now and then
// several, one of sec, or an intent and then its outcome.
func victimTurn(l *Log, i int, corr string) error {
	id, n, r := Ops, 1, benchRecord()
	switch {
	case i%10 == 0:
		id, r = Sec, secRecord()
	case i%10 == 3:
		n = 3
	case i%10 == 7:
		id, n = Sec, 2
		r = Record{Action: KeyCreate, Phase: PhaseIntent, Actor: System(), Change: &Change{Kind: ChangeKey, Object: "zpk/x"}}
		r.Keys = []Key{{Role: KeyRoleTarget, ID: "zpk/x", Version: 1}}
	}
	r.Corr = corr
	t, err := l.Reserve(context.Background(), id, n)
	if err != nil {
		return err
	}
	defer t.Release()
	rs := []Record{r, r, r}[:n]
	if r.Phase == PhaseIntent {
		pos, err := victimAppend(t, r)
		if err != nil {
			return err
		}
		r.Phase, r.Outcome, r.Ref = PhaseOutcome, OutcomeOK, pos[0].ID
		rs = []Record{r}
	}
	_, err = victimAppend(t, rs...)
	return err
}

func victimAppend(t *Ticket, rs ...Record) ([]Pos, error) {
	pos, err := t.Append(rs...)
	for _, p := range pos {
		fmt.Printf("ack %v %s\n", p, rs[0].Corr)
	}
	return pos, err
}

const (
	killsInMakeTest = 6 // KEYD_AUDIT_KILLS=200, or `make kills`, for all of L-191
	killsInOneLog   = 8 // then a new log, so that reading it all stays cheap
)

// TestKill is L-191: a process is killed again and again while 64 producers
// append, while it opens the log, and while it recovers from a kill; this process
// keeps what it acknowledged. After each kill the log as it lies there verifies,
// opens by itself, has every acknowledged record, and verifies again.
// KEYD_AUDIT_KILLS says how often, KEYD_AUDIT_KILL_SEED gives the dice of a run.
func TestKill(t *testing.T) {
	usual := uint64(killsInMakeTest)
	if underRace {
		usual /= 2
	}
	rounds := int(number(t, "KEYD_AUDIT_KILLS", usual))
	seed := number(t, "KEYD_AUDIT_KILL_SEED", randomSeed())
	t.Logf("KEYD_AUDIT_KILLS=%d KEYD_AUDIT_KILL_SEED=%d", rounds, seed)
	t.Run("L-13 L-191 no acknowledged record is lost", func(t *testing.T) {
		k := kills{root: t.TempDir(), dice: prng(seed)}
		begun := time.Now()
		for round := 0; round < rounds && !t.Failed(); round++ {
			k.round(t, round)
			if t.Failed() {
				t.Errorf("in round %d", round) // the state of the first failure is the one to look at
			}
		}
		t.Logf("%d kills, %d under load, %d records acknowledged, none lost, in %v", rounds, k.loads, k.total, time.Since(begun).Round(time.Millisecond))
		if k.loads < rounds/3 {
			t.Errorf("only %d of %d kills were under load", k.loads, rounds)
		}
	})
}

// kills is a run of kills.
type kills struct {
	root, dir    string
	dice         prng
	acks         *acknowledged
	total, loads int
}

// round kills a victim, perhaps another while it recovers, and lets the log recover.
func (k *kills) round(t *testing.T, round int) {
	t.Helper()
	if round%killsInOneLog == 0 {
		if err := os.RemoveAll(k.dir); err != nil {
			t.Fatal(err)
		}
		k.acks, k.dir = &acknowledged{pos: map[string]string{}}, filepath.Join(k.root, strconv.Itoa(round))
	}
	before := len(k.acks.pos)
	killVictim(t, k.dir, k.acks, killAt(&k.dice, round))
	if k.dice.below(3) == 0 {
		killVictim(t, k.dir, k.acks, kill{opening: true, after: time.Duration(k.dice.below(60)) * time.Millisecond})
	}
	recovered(t, k.dir, k.acks)
	if n := len(k.acks.pos) - before; n > 0 {
		k.total, k.loads = k.total+n, k.loads+1
	}
}

// kill says when a victim is killed: so long after it began to open the log, or
// after so many acknowledgements and a moment more.
type kill struct {
	opening bool
	acks    int
	after   time.Duration
}

// killAt draws the moment of a kill; the first in a run is under load.
func killAt(dice *prng, round int) kill {
	if round > 0 && dice.below(5) == 0 {
		return kill{opening: true, after: time.Duration(dice.below(150)) * time.Millisecond}
	}
	most := []uint64{20, 400, 3000}[dice.below(3)]
	return kill{acks: 1 + int(dice.below(most)), after: time.Duration(dice.below(3000)) * time.Microsecond}
}

// killVictim runs a victim until its time has come.
func killVictim(t *testing.T, dir string, acks *acknowledged, when kill) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimDir+"="+dir, "GOMAXPROCS=2")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	end := func() {
		once.Do(func() {
			time.AfterFunc(when.after, func() {
				if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
					t.Error(err)
				}
			})
		})
	}
	if when.opening {
		end()
	}
	readAcks(t, out, acks, func(n int) {
		if !when.opening && n >= when.acks {
			end()
		}
	})
	end()
	if err := cmd.Wait(); err == nil {
		t.Error("the victim ended by itself")
	}
}

// readAcks notes what a victim acknowledges until it is gone, and tells of each
// how many there were.
func readAcks(t *testing.T, out io.Reader, acks *acknowledged, told func(int)) {
	t.Helper()
	n := 0
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		switch {
		case len(f) == 3 && f[0] == "ack":
			acks.pos[f[1]] = f[2]
			n++
			told(n)
		case len(f) > 0 && f[0] == "error":
			t.Errorf("victim: %s", lines.Text())
		}
	}
}

// recovered checks the log that a kill left, lets it recover, and checks it again.
func recovered(t *testing.T, dir string, acks *acknowledged) {
	t.Helper()
	switch _, err := os.Stat(filepath.Join(dir, manifestName)); {
	case err != nil: // killed before there was a log
	case len(acks.pos) == 0 && empty(t, dir):
		refusedAsEmpty(t, dir)
	default:
		verified(t, dir, "before recovery")
	}
	l, err := Open(dir, testSigner(), testOptions())
	if err != nil {
		t.Fatalf("L-61: the log does not open by itself: %v", err)
	}
	if _, err := appendOne(l, Ops, benchRecord()); err != nil {
		t.Errorf("the log does not go on: %v", err)
	}
	checkAcks(t, osFS(dir), acks)
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	covered := uint64(0)
	for _, l := range verified(t, dir, "after recovery").Logs {
		covered += l.Size
	}
	if covered < uint64(len(acks.pos)) {
		t.Errorf("%d records covered, %d acknowledged", covered, len(acks.pos))
	}
}

// empty reports whether a log has neither a record nor a checkpoint: its process
// was killed between making the directory and the first record.
func empty(t *testing.T, dir string) bool {
	t.Helper()
	records := 0
	if err := walkWAL(osFS(dir), func(*frame) bool { records++; return true }); err != nil {
		t.Fatal(err)
	}
	_, err := os.Stat(filepath.Join(dir, "sec", "checkpoint"))
	return records == 0 && errors.Is(err, fs.ErrNotExist)
}

// refusedAsEmpty: a log without a record could be one that was emptied, so that an
// auditor is told so, though it opens.
func refusedAsEmpty(t *testing.T, dir string) {
	t.Helper()
	report, err := Verify(dir, []string{testVkey(t)}, VerifyOptions{})
	if err != nil || !slices.ContainsFunc(report.Findings, func(f Finding) bool { return f.Rule == "L-61(c)" && f.Where == "sec/checkpoint" }) {
		t.Errorf("L-141 an empty log: %v, %v", err, report.Findings)
	}
}

// TestKillBeforeTheFirstRecord is L-191 at the one moment at which a log has nothing
// that could verify.
func TestKillBeforeTheFirstRecord(t *testing.T) {
	dir := t.TempDir()
	o, err := testOptions().withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	l := &Log{o: o, fsys: osFS(dir)}
	if _, err := l.create(); err != nil {
		t.Fatal(err)
	}
	if !empty(t, dir) {
		t.Fatal("a new log is not empty")
	}
	recovered(t, dir, &acknowledged{pos: map[string]string{}})
	if empty(t, dir) {
		t.Error("a log that was open is empty")
	}
}

func verified(t *testing.T, dir, when string) Report {
	t.Helper()
	report, err := Verify(dir, []string{testVkey(t)}, VerifyOptions{})
	if err != nil || !report.OK() {
		t.Fatalf("L-141 %s: %v, %v", when, err, report.Findings)
	}
	return report
}

// TestKillFindsALoss: an acknowledgement of a record that is not there fails the
// check after a kill.
func TestKillFindsALoss(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, testSigner(), testOptions())
	if err != nil {
		t.Fatal(err)
	}
	pos, err := appendOne(l, Sec, secRecord())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ at, corr string }{
		"a record beyond the end":    {"sec:100", "x"},
		"another record in its seat": {pos.String(), "other"},
	} {
		t.Run("L-191 "+name, func(t *testing.T) {
			if missing := lost(t, osFS(dir), &acknowledged{pos: map[string]string{c.at: c.corr}}); len(missing) != 1 {
				t.Errorf("lost = %q", missing)
			}
		})
	}
}

// number is a whole number from the environment, or the usual one.
func number(t testing.TB, name string, usual uint64) uint64 {
	t.Helper()
	text, ok := os.LookupEnv(name)
	if !ok {
		return usual
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || n == 0 {
		t.Fatalf("%s=%q must be a number above 0", name, text)
	}
	return n
}

func randomSeed() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails; it ends the process instead
	return binary.BigEndian.Uint64(b[:])>>1 | 1
}
