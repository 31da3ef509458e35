package custody_test

import (
	"errors"
	"testing"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// TestForgeriesUseNoKeyUp: messages whose MAC is wrong bring no terminal nearer to
// the end of its key (M-14), and the limit holds among them all the same.
func TestForgeriesUseNoKeyUp(t *testing.T) {
	const most = 10
	r := newRegistry(t, softhsmtest.Token(t), custody.TerminalProfile{
		Name: "short-8", Master: keys.TDES2, Working: keys.TDES2, MAC: keys.UsageMACAlg1, MACBytes: 8,
		Algorithm: custody.CUPECB, MaxMessages: most, MaxAge: time.Hour,
	})
	u := r.fielded(t, 1, "short-8", custody.CUPECB, masterKey(1))
	u.signIn(t, r.WithoutMaker(), "003")
	forge := func(times int) {
		t.Helper()
		for range times {
			q := u.now(t, r, []byte("0400, forged"), 4)
			q.MAC[0] ^= 1
			if err := r.verify(t, q); !errors.Is(err, custody.ErrMAC) {
				t.Fatalf("a forgery: %v", err)
			}
		}
	}
	forge(3 * most)
	for n := range most {
		if err := r.verify(t, u.now(t, r, []byte("0200"), 4)); err != nil {
			t.Fatalf("message %d: %v", n+1, err)
		}
		if n < most-1 {
			forge(3)
		}
	}
	if view, err := r.GetTerminal(t.Context(), admin, "g", u.tid); err != nil || view.Messages != most {
		t.Errorf("%d messages are counted (%v), want %d", view.Messages, err, most)
	}
	if err := r.verify(t, u.now(t, r, []byte("0200"), 4)); !errors.Is(err, custody.ErrSignIn) {
		t.Errorf("message %d: %v, want %v", most+1, err, custody.ErrSignIn)
	}
}
