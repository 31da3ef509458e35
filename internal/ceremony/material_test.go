package ceremony_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/ceremony"
)

// TestMaterial is the custody of components in the log: who brought which, when,
// from which bag, and into which it goes; and that the transcript was signed.
func TestMaterial(t *testing.T) {
	e, h := newEngine(t)
	script := strings.Replace(good, `name = "a"`, "name = \"a\"\nbag_out = \"TE-00418823\"\nbag_in = \"TE-00418824\"", 1)
	id, places := opened(t, e, script)
	for _, name := range []string{"a", "b"} {
		value := component(t)
		if _, err := e.Give(t.Context(), custodian(name), id, sealed(t, places[name], value), checkOf(t, value)); err != nil {
			t.Fatal(err)
		}
	}
	now := stageOf(t, e, id)
	for _, name := range []string{"a", "b"} {
		if _, err := e.Confirm(t.Context(), custodian(name), id, "alias/zmk", now.Check); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, r := range h.records {
		if r.Cer != nil && slices.Contains([]audit.Action{audit.CeremonyMaterialOut, audit.CeremonyMaterialIn, audit.CeremonySign}, r.Action) {
			got = append(got, fmt.Sprintf("%v %s %d out=%s in=%s", r.Action, r.Cer.Custodian, r.Cer.Component, r.Cer.BagOut, r.Cer.BagIn))
		}
	}
	want := []string{
		"ceremony.material.out a 1 out=TE-00418823 in=", "ceremony.material.out b 2 out= in=",
		"ceremony.material.in a 1 out= in=TE-00418824", "ceremony.sign  0 out= in=",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the custody of components (-want +got):\n%s", diff)
	}
	for _, number := range []string{"4111111111111111", "a bag", "TE_1"} {
		if _, err := ceremony.Parse([]byte(strings.Replace(script, "TE-00418823", number, 1))); err == nil {
			t.Errorf("%q was taken for the number of a bag", number)
		}
	}
}
