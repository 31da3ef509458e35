package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyd.dev/keyd/internal/sim"
)

// wantNothing fails where a canary stands below one of these folders, or where the
// search finds not even what is planted there.
func wantNothing(t *testing.T, s *search, secrets []hidden, roots ...string) {
	t.Helper()
	planted := filepath.Join(roots[len(roots)-1], "planted-canary")
	if err := os.WriteFile(planted, append(make([]byte, 4099), secrets[0].value...), 0o600); err != nil {
		t.Fatal(err)
	}
	sure, total := false, 0
	for _, root := range roots {
		found, files, err := s.below(root, func(path string) bool { return filepath.Base(path) == "dev.json" })
		if err != nil {
			t.Fatal(err)
		}
		total += files
		for _, where := range found {
			if strings.HasPrefix(where, planted+": ") {
				sure = true
				continue
			}
			t.Errorf("L-94 %s", where)
		}
	}
	if !sure {
		t.Error("the search does not find what is planted")
	}
	if err := os.Remove(planted); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files searched", total)
}

// spentCanaries are what spend sent, as the search takes it.
func spentCanaries(t *testing.T, cards []string, secrets map[string][]byte) []hidden {
	t.Helper()
	var all []hidden
	for _, pan := range cards {
		all = append(all, hiddenText("PAN", pan), hiddenText("track 2", pan+"=30122010000012300"))
		all = append(all, clearPIN(t, testPIN, pan)...)
	}
	for name, value := range secrets {
		if strings.HasPrefix(name, "PIN block") {
			all = append(all, hidden{"enciphered " + name, value, false})
		}
	}
	for _, key := range testKeys() {
		all = append(all, hiddenHex(t, "key "+key.alias, key.value))
	}
	return all
}

// TestCanariesInWhatLeaves is L-94 of all that is made of the log: lists, stories,
// exports and
// reports in every form, proofs, each command that reads, after sales,
// reversals and forgeries of cards that are in none of it. Index and archive are of
// larger logs: the scripts audit_search and audit_archive are searched for theirs.
func TestCanariesInWhatLeaves(t *testing.T) {
	k := newKillable(t)
	k.start()
	issuer := newKillIssuer(t, k)
	issuer.serve(sim.DefaultRules())
	k.linked()
	sent := make(map[string][]byte)
	cards := []string{"4012888888881881", "5105105105105100"}
	for n, tid := range []string{"T0000001", "T0000002"} {
		spend(t, k, tid, sim.Card{PAN: cards[n], PIN: testPIN}, sent)
	}
	out := t.TempDir()
	save := func(name string, text []byte) {
		t.Helper()
		if len(text) == 0 {
			t.Errorf("%s: nothing was made", name)
		}
		if err := os.WriteFile(filepath.Join(out, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	save("metrics.txt", []byte(scrape(t, k)))
	log := filepath.Join(k.dir, "audit")
	commands := [][]string{
		{"ls", "--limit", "0"},
		{"ls", "--limit", "0", "--json"},
		{"find", "--term", "T0000001"},
		{"find", "--key", aliasZPK, "--json"},
		{"verify", "--vkey", filepath.Join(k.dir, devVkey)},
		{"index"},
		{"get", "sec:0"},
		{"prove", "sec:0"},
	}
	for format, more := range map[string][]string{"jsonl": {"--proofs"}, "tiles": nil, "rfc5424": {"--pen", "32473"}} {
		commands = append(commands, append([]string{"export", "--format", format, "-o", filepath.Join(out, "export-"+format)}, more...))
	}
	for _, report := range []string{"daily", "refusals", "access", "time"} {
		for _, format := range []string{"text", "csv", "html", "json"} {
			commands = append(commands, []string{"report", report, "--format", format, "--since", "24h"})
		}
	}
	for n, args := range commands {
		words := 1
		if args[0] == "report" {
			words = 2
		}
		whole := append(append([]string{"audit"}, args[:words]...), append([]string{"--dir", log}, args[words:]...)...)
		text, err := keydCommand(t.Context(), whole...).CombinedOutput()
		if err != nil {
			t.Errorf("keyd %q: %v\n%s", whole, err, tail(string(text), 1000))
		}
		save(fmt.Sprintf("%02d-%s.txt", n, strings.Join(args[:words], "-")), text)
	}
	k.stop()
	issuer.stop()
	secrets := spentCanaries(t, cards, sent)
	s := newSearch(secrets)
	said := filepath.Join(out, "said")
	if err := os.Mkdir(said, 0o700); err != nil {
		t.Fatal(err)
	}
	save("said/keyd.said", []byte(k.output()))
	wantNothing(t, s, secrets, k.dir, out)
}

// TestCanariesInACrash is L-94 of crash output: a daemon at work under the most
// that Go can print of a crash, ended by SIGQUIT and by SIGABRT, and with cores
// allowed by whoever started it. It prints the stacks of all goroutines, of which
// none shows a canary, and leaves no core.
func TestCanariesInACrash(t *testing.T) {
	t.Setenv("GOTRACEBACK", "crash")
	work := t.TempDir()
	for name, signal := range map[string]syscall.Signal{"SIGQUIT": syscall.SIGQUIT, "SIGABRT": syscall.SIGABRT} {
		t.Run("L-94 "+name, func(t *testing.T) {
			k := newKillable(t)
			prlimit, err := exec.LookPath("prlimit")
			if err != nil {
				t.Fatalf("this test needs prlimit of util-linux: %v", err)
			}
			k.under = []string{prlimit, "--core=" + hardCore(t), "env", "--chdir=" + work}
			k.start()
			issuer := newKillIssuer(t, k)
			issuer.serve(sim.DefaultRules())
			k.linked()
			sent := make(map[string][]byte)
			pan := "4012888888881881"
			spend(t, k, "T0000001", sim.Card{PAN: pan, PIN: testPIN}, sent)
			crash(t, k, signal)
			issuer.stop()
			if text := k.output(); !strings.Contains(text, "goroutine ") {
				t.Errorf("there is no crash output:\n%s", tail(text, 1000))
			}
			secrets := spentCanaries(t, []string{pan}, sent)
			wantNothing(t, newSearch(secrets), secrets, filepath.Dir(k.said.Name()), work)
			if cores, err := filepath.Glob(filepath.Join(work, "core*")); err != nil || cores != nil {
				t.Errorf("a core was left: %q, %v", cores, err)
			}
		})
	}
}

// hardCore is the most that this process may allow for cores.
func hardCore(t *testing.T) string {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max == ^uint64(0) {
		return "unlimited"
	}
	return fmt.Sprint(limit.Max)
}

// crash ends a daemon in the middle of requests by a signal at which Go prints
// what it knows.
func crash(t *testing.T, k *killable, signal syscall.Signal) {
	t.Helper()
	stop := make(chan struct{})
	done := make(chan struct{})
	config, err := devTLS(k.dev.Load(), "switch")
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: config}}
	url := k.dev.Load().APIURL + "/mac/generate"
	served := make(chan struct{}, 1)
	go func() {
		defer close(done)
		for {
			resp, err := client.Post(url, "application/json", strings.NewReader(crowdMAC))
			if err != nil {
				return
			}
			_ = resp.Body.Close()
			select {
			case served <- struct{}{}:
			case <-stop:
				return
			default:
			}
		}
	}()
	<-served
	if err := k.proc.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	select {
	case <-k.ended:
	case <-time.After(killableStop):
		t.Error("the daemon does not end")
		k.kill()
	}
	close(stop)
	<-done
	client.CloseIdleConnections()
}
