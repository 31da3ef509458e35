package audit

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
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
	l, err := Open(dir, testSigner(), testOptions())
	if err != nil {
		fmt.Println("error", err)
		return
	}
	var group sync.WaitGroup
	for p := range 64 {
		group.Go(func() {
			for i := 0; ; i++ {
				id, r := Ops, benchRecord()
				if i%10 == 0 {
					id, r = Sec, Record{Action: AuthAccept, Outcome: OutcomeOK, Actor: Actor{ID: "switch-a", Kind: ActorSwitch, Authn: AuthnMTLS}}
				}
				r.Corr = fmt.Sprintf("%d.%d.%d", os.Getpid(), p, i)
				t, err := l.Reserve(context.Background(), id, 1)
				if err != nil {
					fmt.Println("error", err)
					return
				}
				pos, err := t.Append(r)
				t.Release()
				if err != nil {
					fmt.Println("error", err)
					return
				}
				fmt.Printf("ack %v %s\n", pos[0], r.Corr)
			}
		})
	}
	group.Wait()
}

// TestKill is L-191: a process that is killed while 64 producers append loses
// no acknowledged record.
func TestKill(t *testing.T) {
	rounds := 3
	dir := t.TempDir()
	acks := &acknowledged{pos: map[string]string{}}
	for round := range rounds {
		t.Run(fmt.Sprintf("L-191 round %d", round), func(t *testing.T) {
			killVictim(t, dir, acks, 3000*(round+1))
			report, err := Verify(dir, []string{testVkey(t)}, VerifyOptions{})
			if err != nil || !report.OK() {
				t.Fatalf("before recovery: %v, %v", err, report.Findings)
			}
			l, err := Open(dir, testSigner(), testOptions())
			if err != nil {
				t.Fatal(err)
			}
			checkAcks(t, osFS(dir), acks)
			if err := l.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			report, err = Verify(dir, []string{testVkey(t)}, VerifyOptions{})
			if err != nil || !report.OK() {
				t.Fatalf("after recovery: %v, %v", err, report.Findings)
			}
			covered := uint64(0)
			for _, l := range report.Logs {
				covered += l.Size
			}
			if covered < uint64(len(acks.pos)) {
				t.Errorf("%d records covered, %d acknowledged", covered, len(acks.pos))
			}
		})
	}
}

func killVictim(t *testing.T, dir string, acks *acknowledged, n int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for i := 0; lines.Scan(); i++ {
		f := strings.Fields(lines.Text())
		switch {
		case len(f) == 3 && f[0] == "ack":
			acks.pos[f[1]] = f[2]
		case len(f) > 0 && f[0] == "error":
			t.Errorf("victim: %s", lines.Text())
		}
		if i == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the victim ended by itself")
	}
}
