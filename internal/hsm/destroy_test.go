package hsm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/keys"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// objectsOf is how many objects of the key the token shows.
func objectsOf(t *testing.T, m *hsm.Manager, id keys.ID) int {
	t.Helper()
	n, err := m.Objects(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestDestroy: the objects of a key are looked for after they were destroyed,
// and those of other keys stay.
func TestDestroy(t *testing.T) {
	token := softhsmtest.Token(t)
	m := hsm.NewManager(token)
	value := unhex(t, clear32)[:16]
	other := template("P0", keys.AES128, 'B')
	other.ID = "other000000000000000000000000000"
	kept := loaded(t, token, imported(t, m, other, value))
	for i, tt := range []struct {
		name string
		tmpl keys.Block
		want int // objects
		use  func(t *testing.T, b *keys.Block)
	}{
		{"one object", template("P0", keys.AES128, 'B'), 1, func(*testing.T, *keys.Block) {}},
		{"with its companion", template("B0", keys.TDES2, 'X'), 2, func(*testing.T, *keys.Block) {}},
		{"with a derived key", template("B0", keys.AES128, 'X'), 2, func(t *testing.T, b *keys.Block) {
			l, err := token.Derived(t.Context(), b, make([]byte, 16), keys.Spec{Algorithm: keys.AES128, Can: keys.CanEncrypt})
			if err != nil {
				t.Fatal(err)
			}
			l.Release()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.tmpl.ID = keys.ID(fmt.Sprintf("%032d", i))
			b := imported(t, m, tt.tmpl, value)
			l, err := token.Load(t.Context(), b)
			if err != nil {
				t.Fatal(err)
			}
			tt.use(t, b)
			l.Release()
			if n := objectsOf(t, m, b.ID); n != tt.want {
				t.Fatalf("%d objects before, want %d", n, tt.want)
			}
			if err := m.Destroy(t.Context(), b.ID); err != nil {
				t.Fatal(err)
			}
			if n := objectsOf(t, m, b.ID); n != 0 {
				t.Errorf("%d objects after", n)
			}
		})
	}
	if _, err := kept.Key.Encrypt(nil, make([]byte, 16)); err != nil {
		t.Errorf("another key: %v", err)
	}
}

// TestDestroyInUse: a key in use is waited for, and no longer than a use takes.
func TestDestroyInUse(t *testing.T) {
	cfg := softhsmtest.Config(t)
	cfg.Deadline = 200 * time.Millisecond
	token := softhsmtest.Open(t, cfg)
	m := hsm.NewManager(token)
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := imported(t, m, template("P0", keys.AES128, 'B'), unhex(t, clear32)[:16])
	l, err := token.Load(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	start := time.Now()
	if err := m.Destroy(t.Context(), b.ID); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < cfg.Deadline {
		t.Errorf("the user was waited for %v, want %v", took, cfg.Deadline)
	}
	if n := objectsOf(t, m, b.ID); n != 0 {
		t.Errorf("%d objects after", n)
	}
	if _, err := l.Key.Encrypt(nil, make([]byte, 16)); err == nil {
		t.Error("a destroyed key enciphers")
	}
	if _, err := token.Load(t.Context(), b); !errors.Is(err, keys.ErrNoKey) {
		t.Errorf("its old block: %v, want %v", err, keys.ErrNoKey)
	}
}

// TestDestroyLie: a module that says it destroyed the object and keeps it, and
// one that refuses, are found out.
func TestDestroyLie(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault error
	}{{"a lie", hsm.ErrLie}, {"a refusal", errors.New("refused")}} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := softhsmtest.Config(t)
			cfg.Deadline = 100 * time.Millisecond
			token, module, err := hsm.OpenFaulty(cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = token.Close() })
			m := hsm.NewManager(token)
			if err := m.Init(t.Context()); err != nil {
				t.Fatal(err)
			}
			b := imported(t, m, template("P0", keys.AES128, 'B'), unhex(t, clear32)[:16])
			l, err := token.Load(t.Context(), b)
			if err != nil {
				t.Fatal(err)
			}
			l.Release()
			module.Set(func(call string) error {
				if call == "C_DestroyObject" {
					return tt.fault
				}
				return nil
			})
			if err := m.Destroy(t.Context(), b.ID); !errors.Is(err, keys.ErrNotDestroyed) {
				t.Fatalf("got %v, want %v", err, keys.ErrNotDestroyed)
			}
			module.Set(nil)
			if err := m.Destroy(t.Context(), b.ID); err != nil {
				t.Errorf("the next try: %v", err)
			}
		})
	}
}

// TestDestroyUnknown: a token that cannot be asked proves nothing, and the key
// may be loaded again.
func TestDestroyUnknown(t *testing.T) {
	token := softhsmtest.Token(t)
	m := hsm.NewManager(token)
	b := imported(t, m, template("P0", keys.AES128, 'B'), unhex(t, clear32)[:16])
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Destroy(ctx, b.ID); err == nil || errors.Is(err, keys.ErrNotDestroyed) {
		t.Errorf("got %v", err)
	}
	loaded(t, token, b)
}

// TestErase: what is kept of a destroyed key is genuine, says what the key was,
// and is no key.
func TestErase(t *testing.T) {
	token := softhsmtest.Token(t)
	m := hsm.NewManager(token)
	b := imported(t, m, template("M3", keys.TDES2, 'C'), unhex(t, clear32)[:16])
	erased, err := m.Erase(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	if len(erased.Wrapped)+len(erased.Companion) != 0 || len(b.Wrapped) == 0 || len(b.Companion) == 0 {
		t.Fatal("the wrapped values: of the old block none, of the new one some")
	}
	if erased.MAC == b.MAC || erased.ID != b.ID || erased.Check != b.Check || erased.Attributes != b.Attributes {
		t.Errorf("got %+v", erased)
	}
	if _, err := token.Load(t.Context(), erased); !errors.Is(err, keys.ErrNoKey) {
		t.Errorf("loading it: %v, want %v", err, keys.ErrNoKey)
	}
	if _, err := m.Seal(t.Context(), erased, nil); err != nil {
		t.Errorf("it is not genuine: %v", err)
	}
	forged := *b
	forged.Check[0] ^= 1
	if _, err := m.Erase(t.Context(), &forged); !errors.Is(err, keys.ErrBlockMAC) {
		t.Errorf("a forged block: %v, want %v", err, keys.ErrBlockMAC)
	}
}

// TestRenew: another version and policy of the same value.
func TestRenew(t *testing.T) {
	token := softhsmtest.Token(t)
	m := hsm.NewManager(token)
	b := imported(t, m, template("P0", keys.AES128, 'B'), unhex(t, clear32)[:16])
	policy := map[string]string{"keyd:predecessor": "x"}
	next, err := m.Renew(t.Context(), b, b.Version+1, policy)
	if err != nil {
		t.Fatal(err)
	}
	if next.Version != b.Version+1 || !bytes.Equal(next.Wrapped, b.Wrapped) {
		t.Errorf("version %d", next.Version)
	}
	if diff := cmp.Diff(policy, next.Policy); diff != "" {
		t.Error(diff)
	}
	loaded(t, token, next)
	if _, err := m.Renew(t.Context(), b, 0, nil); err == nil {
		t.Error("version 0 was taken")
	}
}

// BenchmarkLoadCold is a key that is not in the cache: MAC of the block, unwrap,
// and the end of the one that makes room.
func BenchmarkLoadCold(b *testing.B) {
	cfg := softhsmtest.Config(b)
	cfg.CacheKeys = 16
	token := softhsmtest.Open(b, cfg)
	m := hsm.NewManager(token)
	if err := m.Init(b.Context()); err != nil {
		b.Fatal(err)
	}
	blocks := make([]*keys.Block, 64)
	for i := range blocks {
		tmpl := template("P0", keys.AES128, 'B')
		tmpl.ID = keys.ID(fmt.Sprintf("%032d", i))
		blocks[i] = imported(b, m, tmpl, bytes.Repeat([]byte{byte(i), 77}, 8))
	}
	for i := 0; b.Loop(); i++ {
		l, err := token.Load(b.Context(), blocks[i%len(blocks)])
		if err != nil {
			b.Fatal(err)
		}
		l.Release()
	}
}
