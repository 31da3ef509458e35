package hsm_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"sync"
	"testing"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/softhsm-test"
)

// standingToken is a token of the module with room for so many operations that
// stand open, and keys of both ciphers in it.
func standingToken(t *testing.T, m softhsmtest.Module, most int) (*hsm.Token, []twin) {
	t.Helper()
	cfg := m.Config(t)
	cfg.Standing = most
	token := softhsmtest.Open(t, cfg)
	if err := hsm.NewManager(token).Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !token.Info().Can(hsm.Standing) {
		t.Fatal("the module was found unable to keep an operation open")
	}
	return token, twins(t, token)
}

// oneUse compares one use of a key with software: ECB and CBC, both ways, 1 to 24
// blocks, fresh initial vectors.
func oneUse(w twin, n int) error {
	size := w.soft.BlockSize()
	text := make([]byte, size*(1+n%24))
	_, _ = rand.Read(text)
	var iv []byte
	if n%2 == 1 && !w.bdk {
		iv = make([]byte, size)
		_, _ = rand.Read(iv)
	}
	own, soft := w.token.Key.Encrypt, w.soft.Encrypt
	if n%3 == 2 && !w.bdk {
		own, soft = w.token.Key.Decrypt, w.soft.Decrypt
	}
	before := bytes.Clone(text)
	got, err := own(iv, text)
	if err != nil {
		return err
	}
	want, err := soft(iv, before)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) || !bytes.Equal(text, before) {
		return fmt.Errorf("%s, use %d: not the answer of this key to this text", w.name, n)
	}
	return nil
}

// TestStanding: uses that go through operations which stand open, of more keys
// and ways than there is room for, by many at once, get the answers of their
// keys.
func TestStanding(t *testing.T) {
	softhsmtest.Each(t, func(t *testing.T, m softhsmtest.Module) {
		token, kinds := standingToken(t, m, 5)
		var all sync.WaitGroup
		for worker := range 8 {
			all.Go(func() {
				for n := range 600 {
					if err := oneUse(kinds[(worker+n/7)%len(kinds)], n*7+worker); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		if open := token.StandingOpen(); open != 5 {
			t.Errorf("%d operations stand open, want 5", open)
		}
	})
}

// TestStandingNone: without room nothing stands open.
func TestStandingNone(t *testing.T) {
	token, kinds := standingToken(t, softhsmtest.SoftHSM(), 0)
	for n := range 100 {
		if err := oneUse(kinds[0], 3*n); err != nil {
			t.Fatal(err)
		}
	}
	if open := token.StandingOpen(); open != 0 {
		t.Errorf("%d operations stand open", open)
	}
}

// TestStandingDestroyed: what stands open with a key ends with the key: no
// session of the module holds its value any more.
func TestStandingDestroyed(t *testing.T) {
	softhsmtest.Each(t, func(t *testing.T, m softhsmtest.Module) {
		token, kinds := standingToken(t, m, 8)
		for n := range 100 {
			if err := oneUse(kinds[0], 6*n); err != nil { // ECB
				t.Fatal(err)
			}
		}
		sessions, alive := token.StandingSessions()
		if len(sessions) != 1 || !alive(sessions[0]) {
			t.Fatalf("operations stand open in the sessions %v", sessions)
		}
		kinds[0].token.Release()
		if err := hsm.NewManager(token).Destroy(t.Context(), keys.ID(fmt.Sprintf("%032d", 0))); err != nil {
			t.Fatal(err)
		}
		if open := token.StandingOpen(); open != 0 || alive(sessions[0]) {
			t.Errorf("%d operations stand open, its session is alive: %t", open, alive(sessions[0]))
		}
		if _, err := kinds[0].token.Key.Encrypt(nil, make([]byte, 8)); err == nil {
			t.Error("a destroyed key was used")
		}
	})
}

// TestStandingLost: an operation whose session is gone is no reason to fail, and
// another takes its place.
func TestStandingLost(t *testing.T) {
	softhsmtest.Each(t, func(t *testing.T, m softhsmtest.Module) {
		token, kinds := standingToken(t, m, 8)
		for round := range 3 {
			for n := range 100 {
				if err := oneUse(kinds[1], 6*n); err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
			}
			if lost, err := token.LoseStanding(); err != nil || lost != 1 {
				t.Fatalf("round %d: %d sessions lost, %v", round, lost, err)
			}
		}
	})
}
