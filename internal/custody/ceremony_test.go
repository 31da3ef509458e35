package custody_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// TestReasoned: an error of another room has the log's word that it was given.
func TestReasoned(t *testing.T) {
	cause := errors.New("no")
	err := custody.Reasoned(audit.ReasonSamePerson, cause)
	if !errors.Is(err, cause) || custody.ReasonOf(err) != audit.ReasonSamePerson || custody.ReasonOf(custody.ErrNoKey) != audit.ReasonKeyUnknown {
		t.Errorf("%v has the reason %v", err, custody.ReasonOf(err))
	}
}

// TestClear: keys go in and out in the clear for the quorum of a ceremony
// alone; what was refused, and who stood in for the second person, is in the log.
func TestClear(t *testing.T) {
	people := []custody.Client{admin.Client, caller("one", custody.RoleCustodian).Client, caller("two", custody.RoleCustodian).Client, app.Client}
	r := newRoom(t, func(cfg *custody.Config) { cfg.Clients = people })
	said := func(names ...string) (all []audit.Approval) {
		for _, name := range names {
			all = append(all, audit.Approval{ID: name, At: time.Now()})
		}
		return all
	}
	for name, quorum := range map[string][]audit.Approval{
		"none":              nil,
		"one custodian":     said("one"),
		"one twice":         said("one", "one"),
		"somebody unknown":  said("one", "stranger"),
		"no custodian":      said("one", "app"),
		"the caller itself": said("one", "admin"),
	} {
		t.Run(name, func(t *testing.T) {
			who := admin
			who.Quorum = quorum
			if _, err := r.ImportClear(t.Context(), who, "refused", custody.ImportClear{}); !errors.Is(err, custody.ErrDenied) {
				t.Errorf("import: %v", err)
			}
			if _, err := r.ExportClear(t.Context(), who, "refused", custody.Ref{Alias: "alias/x"}); !errors.Is(err, custody.ErrDenied) {
				t.Errorf("export: %v", err)
			}
		})
	}
	who := admin
	who.Quorum = said("one", "two")
	value := []byte("0123456789abcdef")
	stored, err := r.ImportClear(t.Context(), who, "good", custody.ImportClear{
		Attributes: attributes(keys.UsageKEK, keys.AES128, keys.ModeBoth), Alias: "alias/x",
		Value: secret.From(bytes.Clone(value)), Origin: keys.Generated,
	})
	if err != nil {
		t.Fatal(err)
	}
	if stored.Block.Origin != keys.Generated {
		t.Errorf("origin %c", stored.Block.Origin)
	}
	out, err := r.ExportClear(t.Context(), who, "good", custody.Ref{Alias: "alias/x"})
	if stored.Block.Attributes.Exportability == keys.NonExportable {
		t.Fatal("the test key cannot be exported")
	}
	if err != nil || !bytes.Equal(out.Value.Reveal(), value) {
		t.Fatalf("another value came out: %v", err)
	}
	out.Value.Clear()
	refused, good := 0, 0
	for _, text := range r.records(t, "sec") {
		if strings.Contains(text, `"corr":"refused"`) && strings.Contains(text, `"auth.deny"`) {
			refused++
		}
		if strings.Contains(text, `"corr":"good"`) && strings.Contains(text, `"id":"two"`) && strings.Contains(text, `"outcome":"ok"`) {
			good++
		}
		if strings.Contains(text, "0123456789abcdef\"") || strings.Contains(text, "30313233343536373839616263646566") {
			t.Error("C-14 the value stands in the log")
		}
	}
	if refused != 12 || good != 2 {
		t.Errorf("%d refusals and %d changes with their approvals in the log, want 12 and 2", refused, good)
	}
}
