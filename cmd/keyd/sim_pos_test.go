package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyd.dev/keyd/internal/sim"
)

// TestTerminalsKilled: DUKPT and UnionPay terminals are killed again and again while
// they sell, some of whose answers are lost. When they have sent what they owe, the
// issuer's book has exactly those sales as approved that a terminal printed as
// approved: no reversal was lost, none hit a sale that stands, and no KSN or STAN
// came twice, which would show as a refusal (R-08, A-27, U-57 to U-61).
func TestTerminalsKilled(t *testing.T) {
	dir := t.TempDir()
	r := startDev(t, dir, "--unionpay")
	defer r.stop()
	roll := newDice(randomSeed(t))
	t.Logf("seed %d", roll.state)
	for _, kind := range [][]string{nil, {"--unionpay"}} {
		load := func(ctx context.Context, how ...string) ([]byte, error) {
			args := append([]string{"sim", "pos", "load", "--dir", dir, "--terminals", "3", "--rate", "60", "--lose", "5"}, kind...)
			return keydCommand(ctx, append(args, how...)...).CombinedOutput()
		}
		for range 6 {
			ctx, cancel := context.WithTimeout(t.Context(), roll.between(200*time.Millisecond, 900*time.Millisecond))
			_, err := load(ctx, "--for", "1m") // killed by SIGKILL when ctx ends
			cancel()
			var ended *exec.ExitError
			if !errors.As(err, &ended) && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("the terminals were not killed: %v", err)
			}
		}
		if out, err := load(t.Context(), "--for", "50ms"); err != nil {
			t.Fatalf("the terminals could not go on: %v\n%s", err, out)
		}
	}
	printed, failed := slipsOf(t, dir)
	t.Logf("%d sales printed as approved, %d in the issuer's book, %d reversals given up", len(printed), len(bookOf(t, dir)), failed)
	if len(printed) == 0 {
		t.Fatal("nothing was sold")
	}
	poll(t, "every sale that no terminal printed as approved is reversed", func() bool {
		return len(standing(t, dir, printed)) <= failed
	})
	for _, e := range bookOf(t, dir) {
		if printed[e.RRN] && e.State != "approved" || e.Effective > 1 {
			t.Errorf("%s RRN %s is %s with %d reversals, printed as approved: %v", e.TID, e.RRN, e.State, e.Effective, printed[e.RRN])
		}
	}
}

// slipsOf is what the terminals printed as approved, by RRN, and how many reversals
// they gave up, which may then stand.
func slipsOf(t *testing.T, dir string) (printed map[string]bool, failed int) {
	t.Helper()
	printed = make(map[string]bool)
	folders, err := filepath.Glob(filepath.Join(dir, "pos-*"))
	if err != nil || len(folders) != 6 {
		t.Fatalf("%d folders of terminals, %v", len(folders), err)
	}
	for _, folder := range folders {
		state, err := sim.ReadState(folder)
		if err != nil || state.Pending != nil {
			t.Fatalf("%s owes %+v, %v", folder, state.Pending, err)
		}
		slips, err := sim.ReadSlips(folder)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range slips {
			switch {
			case s.Result == "approved":
				printed[s.RRN] = true
			case s.Result == "reversal failed":
				failed++
			case s.Do == "sale" && s.Result != "unknown", s.Do == "reversal" && !slices.Contains([]string{"00", "25"}, s.Code):
				t.Errorf("%s: %+v", folder, s)
			}
		}
	}
	return printed, failed
}

// bookOf is the issuer's book.
func bookOf(t *testing.T, dir string) []sim.Entry {
	t.Helper()
	entries, err := sim.ReadBook(filepath.Join(dir, devBook))
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// standing are the sales that stand and were not printed.
func standing(t *testing.T, dir string, printed map[string]bool) []string {
	t.Helper()
	var all []string
	for _, e := range bookOf(t, dir) {
		if e.State == "approved" && !printed[e.RRN] {
			all = append(all, strings.Join([]string{e.TID, e.RRN}, " "))
		}
	}
	return all
}

// TestTerminalOwnFile: what is wrong with the file of --terminal is said.
func TestTerminalOwnFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("key.hex", masterKey+"\n")
	write("ca.pem", "no certificate\n")
	const cup = "addr = \"127.0.0.1:1\"\ntid = \"10000198\"\nmid = \"501000824100020\"\nscheme = \"tmk\"\nkey_file = \"key.hex\"\n"
	for _, tt := range []struct{ name, text, want string }{
		{"good, without TLS", cup + "plain = true\n", ""},
		{"no address", strings.Replace(cup, "127.0.0.1:1", "", 1) + "plain = true\n", "addr: host and port"},
		{"short TID", strings.Replace(cup, "10000198", "198", 1) + "plain = true\n", "tid has 8 characters"},
		{"scheme", strings.Replace(cup, "tmk", "rsa", 1) + "plain = true\n", `scheme: "rsa" is none of`},
		{"no key", strings.Replace(cup, "key.hex", "", 1) + "plain = true\n", "key_file: a file with"},
		{"key away", strings.Replace(cup, "key.hex", "other.hex", 1) + "plain = true\n", "key_file: open"},
		{"DUKPT without KSN", strings.Replace(cup, "tmk", "tdes-dukpt", 1) + "plain = true\n", "ksn: that of"},
		{"plain and a CA", cup + "plain = true\nca = \"ca.pem\"\n", "plain is without TLS"},
		{"neither plain nor a CA", cup, "ca: the certificate"},
		{"CA that is none", cup + "ca = \"ca.pem\"\n", "holds no certificate"},
		{"certificate without key", cup + "ca = \"ca.pem\"\ncert = \"c.pem\"\n", "cert and key go together"},
		{"unknown key", cup + "colour = \"red\"\n", `unknown key "colour"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := posFlags{Terminal: write("terminal.toml", tt.text), State: filepath.Join(dir, "state")}
			s, err := f.site()
			switch {
			case tt.want == "":
				if err != nil || s.tls != nil || s.key != masterKey {
					t.Errorf("%v", err)
				}
			case err == nil || !strings.Contains(err.Error(), tt.want):
				t.Errorf("%v, must say %s", err, tt.want)
			}
		})
	}
}

// TestTerminalInherits: a folder takes over what an earlier version kept beside it,
// once, so that no KSN comes twice.
func TestTerminalInherits(t *testing.T) {
	s := posSite{state: filepath.Join(t.TempDir(), "pos-T0000001")}
	if err := os.WriteFile(s.state+".json", []byte(`{"ksn":"FFFF9876543210E00007","stan":6}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.inherit(); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := sim.ReadState(s.state); err != nil || got.KSN != "FFFF9876543210E00007" || got.STAN != 6 {
		t.Errorf("%+v, %v", got, err)
	}
}
