package hsm_test

import (
	"crypto"
	"crypto/ed25519"
	"errors"
	"testing"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/keys"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// TestRotateLog is the token's part of L-57: the new pair signs, the old ones
// stay, and a restart finds them in their order.
func TestRotateLog(t *testing.T) {
	token := softhsmtest.SoftHSM().Token(t)
	first := must(token.Signer())(t).Public().(ed25519.PublicKey)
	second := must(hsm.NewManager(token).RotateLog(t.Context()))(t).Public().(ed25519.PublicKey)
	third := must(hsm.NewManager(token).RotateLog(t.Context()))(t).Public().(ed25519.PublicKey)
	all := must(token.LogSigners())(t)
	if len(all) != 3 {
		t.Fatalf("%d pairs, want 3", len(all))
	}
	for i, want := range []ed25519.PublicKey{third, second, first} {
		got := all[i].Public().(ed25519.PublicKey)
		if !got.Equal(want) {
			t.Errorf("pair %d is another", i)
		}
		if sig := must(all[i].Sign(nil, []byte("m"), crypto.Hash(0)))(t); !ed25519.Verify(got, []byte("m"), sig) {
			t.Errorf("pair %d: its signature does not verify", i)
		}
	}
	if newest := must(token.Signer())(t).Public().(ed25519.PublicKey); !newest.Equal(third) || first.Equal(second) || second.Equal(third) {
		t.Error("the newest pair is not the one that signs")
	}
	if _, missing, err := hsm.NewManager(token).Exists(t.Context()); err != nil || len(missing) > 0 {
		t.Errorf("the token lacks %q, %v", missing, err)
	}
}

// TestReplaceLog is the token's part of L-57 for a key that was lost: nobody signs
// with an older key in its place, and a new pair comes after all that there is.
func TestReplaceLog(t *testing.T) {
	type half struct {
		label string
		class uint
	}
	private := func(label string) half { return half{label, pkcs11.CKO_PRIVATE_KEY} }
	public := func(label string) half { return half{label, pkcs11.CKO_PUBLIC_KEY} }
	for name, test := range map[string]struct {
		pairs int // before
		lost  []half
		held  int  // whole pairs that are left
		gone  bool // the newest is not whole
	}{
		"L-57 the private half":       {1, []half{private("keyd-log")}, 0, true},
		"L-57 the public half":        {1, []half{public("keyd-log")}, 0, true},
		"L-57 the whole pair":         {1, []half{private("keyd-log"), public("keyd-log")}, 0, true},
		"L-57 of the newest of two":   {2, []half{private("keyd-log-2")}, 1, true},
		"L-57 a pair that is retired": {2, []half{private("keyd-log"), public("keyd-log")}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			token := softhsmtest.SoftHSM().Token(t)
			m := hsm.NewManager(token)
			for range test.pairs - 1 {
				must(m.RotateLog(t.Context()))(t)
			}
			before := must(token.LogSigners())(t)
			for _, h := range test.lost {
				if n := must(m.LoseLog(t.Context(), h.label, h.class))(t); n != 1 {
					t.Fatalf("%q: %d objects", h.label, n)
				}
			}
			held, err := token.LogSigners()
			if len(held) != test.held || errors.Is(err, keys.ErrNoKey) != test.gone || !test.gone && err != nil {
				t.Fatalf("%d pairs, %v", len(held), err)
			}
			if _, err := m.RotateLog(t.Context()); test.gone && !errors.Is(err, keys.ErrNoKey) {
				t.Errorf("a lost pair is rotated: %v", err)
			}
			if _, err := token.Signer(); (err != nil) != test.gone {
				t.Errorf("Signer: %v", err)
			}
			made := must(m.ReplaceLog(t.Context()))(t)
			after := must(token.LogSigners())(t)
			if want := test.held + 1; test.gone && len(after) != want || !after[0].Public().(ed25519.PublicKey).Equal(made.Public()) {
				t.Fatalf("%d pairs, want %d, the new one first", len(after), want)
			}
			for _, old := range before {
				if old.Public().(ed25519.PublicKey).Equal(made.Public()) {
					t.Error("the new pair is an old one")
				}
			}
			sig := must(made.Sign(nil, []byte("m"), crypto.Hash(0)))(t)
			if !ed25519.Verify(made.Public().(ed25519.PublicKey), []byte("m"), sig) {
				t.Error("its signature does not verify")
			}
			if _, missing, err := m.Exists(t.Context()); err != nil || len(missing) > 0 {
				t.Errorf("the token lacks %q, %v", missing, err)
			}
			if next := must(m.RotateLog(t.Context()))(t); next.Public().(ed25519.PublicKey).Equal(made.Public()) {
				t.Error("no rotation after it")
			}
		})
	}
}
