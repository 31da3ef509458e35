package hsm_test

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/mac"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// TestEviction loads more keys than the cache holds from many goroutines; each
// result must be that of the right key.
func TestEviction(t *testing.T) {
	cfg := softhsmtest.Config(t)
	cfg.CacheKeys = 5
	token := softhsmtest.Open(t, cfg)
	m := hsm.NewManager(token)
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, err := token.Objects()
	if err != nil {
		t.Fatal(err)
	}
	const n = 16
	blocks, want := make([]*keys.Block, n), make([][]byte, n)
	zero := make([]byte, 16)
	for i := range n {
		value := unhex(t, clear32)[:16]
		value[0] = byte(i)
		tmpl := template("P0", keys.AES128, 'B')
		tmpl.ID = keys.ID(fmt.Sprintf("%032d", i))
		blocks[i] = imported(t, m, tmpl, value)
		soft, err := mac.NewAES(value)
		if err != nil {
			t.Fatal(err)
		}
		want[i], _ = soft.Encrypt(nil, zero)
	}
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for round := range 200 {
				i := (worker*7 + round*round) % n
				l, err := token.Load(t.Context(), blocks[i])
				if err != nil {
					t.Error(err)
					return
				}
				got, err := l.Key.Encrypt(nil, zero)
				if err != nil || !bytes.Equal(got, want[i]) {
					t.Errorf("key %d enciphers as another: %v", i, err)
				}
				l.Release()
				l.Release() // must not take another's hold away
			}
		})
	}
	wg.Wait()
	s := token.Stats()
	if s.Evictions == 0 || s.Held > 5 || s.Made > s.Misses {
		t.Errorf("evictions %d, held %d, made %d of %d misses", s.Evictions, s.Held, s.Made, s.Misses)
	}
	for _, b := range blocks {
		token.Forget(b.ID)
	}
	eventually(t, func() error {
		after, err := token.Objects()
		if err == nil && after != before {
			err = fmt.Errorf("%d session objects, want %d", after, before)
		}
		if s := token.Stats(); err == nil && (s.Held != 0 || s.Made != s.Destroyed) {
			err = fmt.Errorf("held %d, made %d, destroyed %d", s.Held, s.Made, s.Destroyed)
		}
		return err
	})
}

// eventually gives what happens behind the caller's back a chance: each try
// goes through the module.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	var err error
	for range 1000 {
		if err = try(); err == nil {
			return
		}
	}
	t.Error(err)
}

// TestHeldWhileEvicted uses a key that is out of the cache.
func TestHeldWhileEvicted(t *testing.T) {
	token := softhsmtest.Token(t)
	b := imported(t, hsm.NewManager(token), template("P0", keys.AES128, 'B'), unhex(t, clear32)[:16])
	l, err := token.Load(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	token.Forget(b.ID)
	if _, err := l.Key.Encrypt(nil, make([]byte, 16)); err != nil {
		t.Errorf("a key that is still held: %v", err)
	}
	l.Release()
	eventually(t, func() error {
		if s := token.Stats(); s.Destroyed != 1 {
			_, err := token.Objects()
			return errors.Join(err, fmt.Errorf("destroyed %d, want 1", s.Destroyed))
		}
		return nil
	})
	if _, err := l.Key.Encrypt(nil, make([]byte, 16)); !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("a key that was given back: %v, want %v", err, keys.ErrUnavailable)
	}
}

// TestOneObject loads one block from many goroutines at once.
func TestOneObject(t *testing.T) {
	token := softhsmtest.Token(t)
	b := imported(t, hsm.NewManager(token), template("P0", keys.AES128, 'B'), unhex(t, clear32)[:16])
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			l, err := token.Load(t.Context(), b)
			if err != nil {
				t.Error(err)
				return
			}
			defer l.Release()
			if _, err := l.Key.Encrypt(nil, make([]byte, 16)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s := token.Stats(); s.Made != 1 || s.Hits != 31 {
		t.Errorf("%d objects made, %d hits; want 1 and 31", s.Made, s.Hits)
	}
}

// TestFlat does 20,000 operations and counts objects: SoftHSM loses memory
// with each that is made.
func TestFlat(t *testing.T) {
	token := softhsmtest.Token(t)
	m := hsm.NewManager(token)
	value := unhex(t, clear32)
	bdk := imported(t, m, template("B0", keys.TDES2, 'X'), value[:16])
	aes := imported(t, m, template("B0", keys.AES128, 'X'), value[:16])
	sum := imported(t, m, template("M6", keys.AES128, 'C'), value[:16])
	as := keys.Spec{Algorithm: keys.AES128, Can: keys.CanEncrypt}
	round := func() {
		l := must(token.Load(t.Context(), bdk))(t)
		must(l.Key.Encrypt(nil, value[:8]))(t)
		must(l.Companion.Encrypt(nil, value[:8]))(t)
		l.Release()
		l = must(token.Derived(t.Context(), aes, value[:16], as))(t)
		must(l.Key.Encrypt(nil, value[:16]))(t)
		l.Release()
		l = must(token.Load(t.Context(), sum))(t)
		must(l.Key.CMAC(value))(t)
		l.Release()
	}
	round()
	before, made := must(token.Objects())(t), token.Stats().Made
	for range 5000 {
		round()
	}
	after := must(token.Objects())(t)
	if before != after || token.Stats().Made != made {
		t.Errorf("%d objects before, %d after; %d made meanwhile", before, after, token.Stats().Made-made)
	}
}
