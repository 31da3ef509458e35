package custody_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

// TestNote: the record by which a message was accepted has the use of the key that
// verified it, as section 8 of the log has it in its examples; and whatever becomes
// of the message, no verification is without a record. Decision 0057.
func TestNote(t *testing.T) {
	r := withKeys(t, newRoom(t, nil))
	verify := func(a *custody.Act, last byte) {
		mac := unhex(t, "9CCC78173FC4FB64")
		mac[7] ^= last
		_, _ = a.VerifyMAC(t.Context(), custody.VerifyMAC{ // what it returns is the tests' of VerifyMAC
			Key: ref("alias/bdk-tdes"), DUKPT: &custody.DUKPT{KSN: unhex(t, "FFFF9876543210E00001"), Variant: custody.Request},
			Algorithm: custody.MACAlg3, Message: unhex(t, published), MAC: mac, Length: 8,
		})
	}
	generate := func(a *custody.Act) {
		_, err := a.GenerateMAC(t.Context(), custody.GenerateMAC{
			Key: ref("alias/tak-42"), Algorithm: custody.MACAlg3, Message: make([]byte, 8), Length: 8,
		})
		if err != nil {
			t.Error(err)
		}
	}
	commit := func(a *custody.Act) {
		if _, err := a.Commit(t.Context()); err != nil {
			t.Error(err)
		}
	}
	refusal := func(a *custody.Act) {
		q := custody.Refusal{Reason: audit.ReasonVelocity, PerSecond: 1}
		if _, shared, err := a.ShareRefusal(q); shared || err != nil {
			t.Errorf("shared: %v, %v", shared, err)
		}
		if _, err := a.CommitRefusal(t.Context(), q); err != nil {
			t.Error(err)
		}
	}
	accepted := audit.Record{Action: audit.SaleAccept, Outcome: audit.OutcomeOK, ISO: audit.ISO{MTI: "0200"}, MAC: audit.MAC{Alg: audit.MACAlg3, Len: 8, Verdict: audit.VerdictOK}}
	refused := accepted
	refused.Action, refused.Outcome, refused.Reason = audit.SaleRefuse, audit.OutcomeRefused, audit.ReasonVelocity
	forged := refused
	forged.MAC.Verdict = audit.VerdictBad
	silent := accepted
	silent.MAC = audit.MAC{}
	tests := []struct {
		name string
		act  func(*custody.Act)
		want []string
	}{
		{"L-11 accepted: one record, in the decision's place", func(a *custody.Act) {
			verify(a, 0)
			generate(a)
			a.Note(accepted)
		}, []string{"mac.generate mac token ok", "sale.accept bdk FFFF9876543210E00001 process ok"}},
		{"a second decision takes nothing in", func(a *custody.Act) {
			verify(a, 0)
			a.Note(accepted)
			a.Note(accepted)
		}, []string{"sale.accept bdk FFFF9876543210E00001 process ok", "sale.accept ok"}},
		{"each message its own", func(a *custody.Act) {
			verify(a, 0)
			a.Note(accepted)
			commit(a)
			verify(a, 0)
			a.Note(accepted)
		}, []string{"sale.accept bdk FFFF9876543210E00001 process ok", "sale.accept bdk FFFF9876543210E00001 process ok"}},
		{"refused: two records", func(a *custody.Act) {
			verify(a, 0)
			a.Note(refused)
		}, []string{"mac.verify bdk FFFF9876543210E00001 process ok", "sale.refuse ok"}},
		{"L-14 refused in a flood, with a right MAC: two records", func(a *custody.Act) {
			verify(a, 0)
			a.Note(refused)
			refusal(a)
		}, []string{"mac.verify bdk FFFF9876543210E00001 process ok", "sale.refuse ok"}},
		{"D-04 forged: two records", func(a *custody.Act) {
			verify(a, 1)
			a.Note(forged)
		}, []string{"mac.verify bdk FFFF9876543210E00001 process bad", "sale.refuse bad"}},
		{"a right one, then a forged one: nothing of the first", func(a *custody.Act) {
			verify(a, 0)
			verify(a, 1)
			a.Note(accepted)
		}, []string{"mac.verify bdk FFFF9876543210E00001 process ok", "mac.verify bdk FFFF9876543210E00001 process bad", "sale.accept ok"}},
		{"a decision without a MAC", func(a *custody.Act) {
			verify(a, 0)
			a.Note(silent)
		}, []string{"mac.verify bdk FFFF9876543210E00001 process ok", "sale.accept"}},
		{"durable before the decision", func(a *custody.Act) {
			verify(a, 0)
			commit(a)
			a.Note(accepted)
		}, []string{"mac.verify bdk FFFF9876543210E00001 process ok", "sale.accept ok"}},
		{"no decision", func(a *custody.Act) { verify(a, 0) }, []string{"mac.verify bdk FFFF9876543210E00001 process ok"}},
	}
	for range 10 { // a flood is what comes above ten times the rate
		_ = r.act(t, app, func(a *custody.Act) error { refusal(a); return nil })
	}
	for i, test := range tests {
		a, err := r.BeginTransaction(t.Context(), app, fmt.Sprintf("note-%d", i))
		if err != nil {
			t.Fatal(err)
		}
		test.act(a)
		a.Close() // commits what is left
	}
	got := written(t, r)
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, got[fmt.Sprintf("note-%d", i)]); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
		})
	}
}

// written is what the log of operations has, by request: actions, with the part of
// a key, its serial number, the custody, and what was found of a MAC.
func written(t *testing.T, r *room) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	for _, raw := range r.records(t, opsLog()) {
		var rec struct {
			Corr, Action, KSN, Custody string
			HSM                        struct{ Serial string }
			Dur                        *int `json:"dur_us"`
			Keys                       []struct{ Role string }
			MAC                        struct{ Verdict string }
		}
		if err := json.Unmarshal([]byte(raw), &rec); err != nil {
			t.Fatal(err)
		}
		line := rec.Action
		for _, k := range rec.Keys {
			line += " " + k.Role
			if rec.HSM.Serial == "" || rec.Dur == nil {
				t.Errorf("a use of a key without token or time: %s", raw)
			}
		}
		for _, word := range []string{rec.KSN, rec.Custody, rec.MAC.Verdict} {
			if word != "" {
				line += " " + word
			}
		}
		all[rec.Corr] = append(all[rec.Corr], line)
	}
	return all
}
