package hsm_test

import (
	"bytes"
	"runtime"
	"sync"
	"testing"
	"time"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/keys"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// TestFewObjects uses many cached keys of which few may stand in the token,
// from several goroutines: each gives the same as before, whether its object
// stood or was brought back.
func TestFewObjects(t *testing.T) {
	softhsmtest.Each(t, func(t *testing.T, module softhsmtest.Module) {
		cfg := module.Config(t)
		const held, standing = 60, 8
		cfg.CacheKeys, cfg.Objects = held, standing
		token := softhsmtest.Open(t, cfg)
		m := hsm.NewManager(token)
		if err := m.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		list := make([]keys.Wanted, held)
		for i := range list {
			list[i] = wanted(i, keys.UsageMACAlg1, keys.TDES2, keys.ModeMAC)
		}
		made, err := m.GenerateBatch(t.Context(), list)
		if err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		for worker := range 4 {
			group.Go(func() {
				for round := range 3 * held {
					k := made[(round*7+worker*13)%held]
					loaded, err := token.Load(t.Context(), k.Block)
					if err != nil {
						t.Error(err)
						return
					}
					got, err := loaded.Key.Encrypt(nil, keys.PrintData(keys.TDES2))
					if err != nil || !bytes.Equal(got, k.Print) {
						t.Errorf("key %s: another result, or %v", k.Block.ID, err)
					}
					loaded.Release()
				}
			})
		}
		group.Wait()
		s := token.Stats()
		if s.Held != held || s.Misses != held {
			t.Errorf("%d keys held after %d misses, want %d and %d", s.Held, s.Misses, held, held)
		}
		for end := time.Now().Add(10 * time.Second); s.Made-s.Destroyed > standing && time.Now().Before(end); s = token.Stats() {
			runtime.Gosched() // objects are destroyed behind the back of who needs the room
		}
		if stand := s.Made - s.Destroyed; stand > standing {
			t.Errorf("%d objects stand, want at most %d", stand, standing)
		}
		if s.Made <= held {
			t.Errorf("%d objects made for %d keys, of which %d may stand", s.Made, held, standing)
		}
	})
}
