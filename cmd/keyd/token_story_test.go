package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/hsm"
)

// TestTokenStory is L-63 and L-138: what becomes of the token stands in sec, from
// its opening to the logout, with its serial number, and nothing scrubbed.
func TestTokenStory(t *testing.T) {
	dir := t.TempDir()
	r := startDev(t, dir, "--no-sim")
	r.stop()
	cfg, err := loadConfig(r.dev.Config)
	if err != nil {
		t.Fatal(err)
	}
	n, err := openNode(t.Context(), cfg, newLogger(io.Discard, "error"), newMetrics())
	if err != nil {
		t.Fatal(err)
	}
	n.story.last.Firmware = "99.9" // it comes back with another
	n.story.told(fmt.Errorf("hsm: token is down: %w", &hsm.CallError{Op: "C_Sign", Code: pkcs11.Error(pkcs11.CKR_DEVICE_REMOVED)}))
	n.story.told(nil)
	n.story.told(errors.New("hsm: the module hangs"))
	if err := n.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, rec := range recordsOf(t, r.dev.AuditDir) {
		if rec.Class == "hsm" || rec.Action == "sys.selftest" {
			got = append(got, fmt.Sprintf("%s %s %s %s", rec.Action, rec.Outcome, rec.Reason, rec.RC))
			if rec.Class == "hsm" && (rec.HSM.Serial == "" || rec.HSM.FW == "") {
				t.Errorf("%s does not say of which token", rec.Action)
			}
		}
	}
	start := []string{"hsm.open ok  ", "hsm.login ok  ", "hsm.info ok  ", "hsm.selftest ok  ", "sys.selftest ok  "}
	want := slices.Concat(start, []string{"hsm.lost error hsm_unavailable CKR_DEVICE_REMOVED", "hsm.back ok  ", "hsm.drift error hsm_error ",
		"hsm.lost error hsm_unavailable ", "hsm.logout ok  "})
	if len(got) < len(want) {
		t.Fatalf("only %q", got)
	}
	if diff := cmp.Diff(want, got[len(got)-len(want):]); diff != "" {
		t.Errorf("L-63 L-138 (-want +got):\n%s", diff)
	}
	actsIn(t, r.dev.AuditDir)
}

// TestTokenDrift: another firmware, or another set of attributes that are not
// enforced, is said to be drift.
func TestTokenDrift(t *testing.T) {
	was := hsm.Info{Firmware: "2.6", Findings: []string{"a"}, Serial: "1", Trials: []hsm.Trial{}}
	for name, test := range map[string]struct {
		change func(*hsm.Info)
		want   bool
	}{
		"the same":                   {func(*hsm.Info) {}, false},
		"another PIN state":          {func(i *hsm.Info) { i.PINCountLow = true }, false},
		"L-63 another firmware":      {func(i *hsm.Info) { i.Firmware = "2.7" }, true},
		"L-63 another library":       {func(i *hsm.Info) { i.Library = "x" }, true},
		"L-63 an attribute is loose": {func(i *hsm.Info) { i.Findings = []string{"a", "b"} }, true},
	} {
		t.Run(name, func(t *testing.T) {
			now := was
			test.change(&now)
			if got := drifted(was, now); got != test.want {
				t.Errorf("drifted: %t, want %t", got, test.want)
			}
		})
	}
}
