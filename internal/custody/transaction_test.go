package custody_test

import (
	"fmt"
	"testing"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// TestTransactionKey: an act for a terminal's message gives what one act for each
// use gives, whatever was remembered; and what it remembers shrinks to the
// answer's key when it waits, and to nothing when it is closed.
func TestTransactionKey(t *testing.T) {
	r := withKeys(t, newRoom(t, nil))
	r.key(t, "alias/bdk-other", attributes(keys.UsageBDK, keys.TDES2, keys.ModeDerive), zpkA, nil)
	first, second := unhex(t, "FFFF9876543210E00001"), unhex(t, "FFFF9876543210E00002")
	message := unhex(t, published)
	seal := func(t *testing.T, a *custody.Act, bdk string, ksn []byte, v custody.Variant) string {
		t.Helper()
		made, err := a.GenerateMAC(t.Context(), custody.GenerateMAC{
			Key: ref(bdk), DUKPT: &custody.DUKPT{KSN: ksn, Variant: v},
			Algorithm: custody.MACAlg3, Message: message, Length: 8,
		})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%X", made.MAC)
	}
	alone := func(bdk string, ksn []byte, v custody.Variant) (mac string) {
		err := r.act(t, app, func(a *custody.Act) error {
			mac = seal(t, a, bdk, ksn, v)
			if a.Remembered() != ([16]byte{}) {
				t.Error("an act that was not asked to remembers a key")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return mac
	}
	a, err := r.BeginTransaction(t.Context(), app, "t")
	if err != nil {
		t.Fatal(err)
	}
	same := func(name, bdk string, ksn []byte, v custody.Variant) {
		t.Helper()
		if got, want := seal(t, a, bdk, ksn, v), alone(bdk, ksn, v); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if got := seal(t, a, "alias/bdk-tdes", first, custody.Request); got != "9CCC78173FC4FB64" {
		t.Errorf("V8.1: %s", got)
	}
	whole := a.Remembered()
	same("the same message", "alias/bdk-tdes", first, custody.Response)
	if a.Remembered() != whole {
		t.Error("the transaction key was derived once more")
	}
	same("another message", "alias/bdk-tdes", second, custody.Request)
	same("another BDK", "alias/bdk-other", second, custody.Request)
	same("back", "alias/bdk-tdes", first, custody.Request)
	a.Suspend()
	if answer := a.Remembered(); answer == whole || answer == ([16]byte{}) {
		t.Error("while it waits, the act does not remember the answer's key alone")
	}
	if err := a.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	narrow := a.Remembered()
	same("the answer", "alias/bdk-tdes", first, custody.Response)
	if a.Remembered() != narrow {
		t.Error("the answer's key was derived once more")
	}
	same("a request after the wait", "alias/bdk-tdes", first, custody.Request)
	if _, err := a.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if a.Remembered() != ([16]byte{}) {
		t.Error("the key outlives the act")
	}
}
