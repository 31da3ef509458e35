package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/profile"
	"keyd.dev/keyd/internal/sim"
)

// TestSignInAtTheDaemon: a terminal that was registered by command signs in at a
// daemon whose switch speaks unionpay, and `keyd terminal show` knows of it (U-12,
// U-42).
func TestSignInAtTheDaemon(t *testing.T) {
	dir := t.TempDir()
	const tid, mid = "10000198", "501000824100020"
	r := startDev(t, dir, "--no-sim")
	keyd := func(args ...string) string {
		t.Helper()
		var out bytes.Buffer
		if code := run(t.Context(), append(args, "--dev", dir), strings.NewReader(""), &out, &out); code != exitDone {
			t.Fatalf("keyd %s: %d\n%s", strings.Join(args, " "), code, &out)
		}
		return out.String()
	}
	keyd("terminal", "add", "--as", "admin", "--tid", tid, "--mid", mid, "--scheme", "tmk", "--profile", "unionpay", "--tmk", "generate")
	r.stop()
	file := filepath.Join(dir, "keyd.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	spoken := strings.Replace(string(text), "profile = 'ascii87'", "profile = 'unionpay'", 1)
	if spoken == string(text) {
		t.Fatal("the configuration names no profile of the switch")
	}
	if err := os.WriteFile(file, []byte(spoken), 0o600); err != nil {
		t.Fatal(err)
	}
	r = startDev(t, dir, "--no-sim")
	defer r.stop()
	link, err := sim.Dial(t.Context(), r.dev.SwitchAddr, r.tls("terminal"), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	p, err := profile.Builtin("unionpay")
	if err != nil {
		t.Fatal(err)
	}
	for version, form := range []string{"003", "004"} {
		raw, err := p.Dialect.Build(iso8583.NetworkRequest, iso8583.SideTerminal).
			Set(11, "000001").Set(41, tid).Set(42, mid).Set(60, "00000024"+form).PackWithoutMAC()
		if err != nil {
			t.Fatal(err)
		}
		got, err := link.Exchange(raw)
		if err != nil {
			t.Fatal(err)
		}
		m, err := p.Dialect.Parse(got, iso8583.SideTerminal)
		if err != nil {
			t.Fatal(err)
		}
		if want := []int{40, 60}[version]; m.Text(39) != "00" || len(m.Bytes(62)) != want {
			t.Errorf("form %s: %s %s with %d bytes of keys, want 0810 00 with %d", form, m.MTI(), m.Text(39), len(m.Bytes(62)), want)
		}
	}
	if shown := keyd("terminal", "show", tid, "--as", "operator"); !strings.Contains(shown, "TDK") || !strings.Contains(shown, "version 2") {
		t.Errorf("keyd terminal show knows of no second sign-in:\n%s", shown)
	}
}
