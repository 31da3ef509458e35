package audit

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestKeysInOrder: section 7.2 lists keys by their roles; who records them need
// not know the order, and two keys of one role stay as they were given.
func TestKeysInOrder(t *testing.T) {
	given := []Key{{Role: KeyRoleTarget, ID: "t"}, {Role: KeyRoleOut, ID: "o1"}, {Role: KeyRoleKEK, ID: "k"}, {Role: KeyRoleOut, ID: "o2"}}
	var got []string
	for _, k := range inOrder(given) {
		got = append(got, k.ID)
	}
	if diff := cmp.Diff([]string{"o1", "o2", "k", "t"}, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if given[0].ID != "t" {
		t.Error("the caller's record was changed")
	}
	for _, a := range []Action{KeyCreate, KeyDistribute, PINTranslate} {
		if !a.NamesKeys() {
			t.Errorf("%s names no keys", a)
		}
	}
	for _, a := range []Action{AdminApprove, RoleChange, TerminalChange, LogRead, Action(0)} {
		if a.NamesKeys() {
			t.Errorf("%s names keys", a)
		}
	}
}
