package profile

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/iso8583"
)

// TestBuiltin: both are read by the loader of users' files, and ascii87 describes
// the dialect that the simulators speak.
func TestBuiltin(t *testing.T) {
	for _, name := range Names() {
		p, err := Find(name)
		if err != nil {
			t.Fatal(err)
		}
		if p.Name != name || p.Dialect.Name() != name || p.Source != "built in" {
			t.Errorf("%s is called %s, its dialect %s, from %s", name, p.Name, p.Dialect.Name(), p.Source)
		}
	}
	p, err := Builtin("ascii87")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(iso8583.ASCII87().Spec(), p.Dialect.Spec()); diff != "" {
		t.Errorf("ascii87.toml is not the dialect of the simulators (-code +file):\n%s", diff)
	}
}
