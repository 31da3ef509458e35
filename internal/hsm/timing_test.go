package hsm_test

import (
	"sync"
	"testing"
	"time"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/keys"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// TestTiming: each use of a key is told with its kind and times that fit in the
// caller's own.
func TestTiming(t *testing.T) {
	var mu sync.Mutex
	seen := make(map[hsm.Kind]hsm.Timing)
	cfg := softhsmtest.Config(t)
	cfg.Observe = func(c hsm.Timing) {
		mu.Lock()
		defer mu.Unlock()
		seen[c.Kind] = c
	}
	tok := softhsmtest.Open(t, cfg)
	if err := hsm.NewManager(tok).Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	pin := generated(t, tok, keys.UsagePIN, keys.TDES2, keys.ModeBoth)
	mac := generated(t, tok, keys.UsageCMAC, keys.AES128, keys.ModeMAC)
	block := make([]byte, 8)
	for _, c := range []struct {
		kind hsm.Kind
		use  func() error
	}{
		{hsm.KindEncrypt, func() error { _, err := pin.Encrypt(nil, block); return err }},
		{hsm.KindDecrypt, func() error { _, err := pin.Decrypt(nil, block); return err }},
		{hsm.KindSign, func() error { _, err := mac.CMAC(block); return err }},
		{hsm.KindOther, func() error { return tok.Random(block) }},
	} {
		mu.Lock()
		clear(seen)
		mu.Unlock()
		start := time.Now()
		if err := c.use(); err != nil {
			t.Fatalf("%v: %v", c.kind, err)
		}
		took := time.Since(start)
		mu.Lock()
		got, ok := seen[c.kind]
		mu.Unlock()
		if !ok || got.Inside <= 0 || got.Wait < 0 || got.Wait+got.Inside > took {
			t.Errorf("%v: told %+v (%v) of %v", c.kind, got, ok, took)
		}
	}
	s := tok.Stats()
	if s.Sessions < 1 || s.Busy != 0 || s.Waiting != 0 {
		t.Errorf("at rest: %d sessions, %d busy, %d waiting", s.Sessions, s.Busy, s.Waiting)
	}
}

func generated(t *testing.T, tok *hsm.Token, u keys.Usage, a keys.Algorithm, m keys.Mode) keys.Key {
	t.Helper()
	block, _, err := hsm.NewManager(tok).Generate(t.Context(), template(u, a, m))
	if err != nil {
		t.Fatal(err)
	}
	l, err := tok.Load(t.Context(), block)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Release)
	return l.Key
}
