package hsm_test

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/keys"
)

// TestDeadline hangs one call: its caller is answered at the deadline, the
// others go on in a new session, and the token is unfit until it comes back.
func TestDeadline(t *testing.T) {
	bubble(t, nil, func(t *testing.T, token *hsm.Token, faulty *hsm.Faulty) {
		k := must(token.System("data"))(t)
		block := bytes.Repeat([]byte{5}, 16)
		good := must(k.Encrypt(nil, block))(t)
		release := hang(faulty, 1, "one-part")
		before := time.Now()
		_, err := k.Encrypt(nil, block)
		if !errors.Is(err, keys.ErrUnavailable) || time.Since(before) != 2*time.Second {
			t.Errorf("Encrypt: %v after %v, want %v after 2s", err, time.Since(before), keys.ErrUnavailable)
		}
		for range 10 {
			if got := must(k.Encrypt(nil, block))(t); !bytes.Equal(got, good) {
				t.Error("another result beside a stuck call")
			}
		}
		if err := token.Check(t.Context()); !errors.Is(err, keys.ErrUnavailable) {
			t.Errorf("Check beside a stuck call: %v, want %v", err, keys.ErrUnavailable)
		}
		if s := token.Stats(); s.Abandoned != 1 || s.Stuck != 1 {
			t.Errorf("abandoned %d, stuck %d; want 1 and 1", s.Abandoned, s.Stuck)
		}
		release()
		synctest.Wait()
		if err := token.Check(t.Context()); err != nil {
			t.Errorf("Check after the call came back: %v", err)
		}
		if s := token.Stats(); s.Stuck != 0 || s.Epochs != 1 {
			t.Errorf("stuck %d, epochs %d; want 0 and 1", s.Stuck, s.Epochs)
		}
	})
}

// hang makes the next n calls of a kind hang until release.
func hang(faulty *hsm.Faulty, n int, kind string) (release func()) {
	held := make(chan struct{})
	var mu sync.Mutex
	faulty.Set(func(call string) error {
		mu.Lock()
		hang := call == kind && n > 0
		if hang {
			n--
		}
		mu.Unlock()
		if hang {
			<-held
		}
		return nil
	})
	return sync.OnceFunc(func() { close(held) })
}

// TestAllStuck hangs as many calls as there are sessions: the token is down at
// once for all, the module is not finalised under them, and it is back by
// itself when they return.
func TestAllStuck(t *testing.T) {
	bubble(t, nil, func(t *testing.T, token *hsm.Token, faulty *hsm.Faulty) {
		u := newUsers(t, token)
		var want [3][]byte
		u.work(t, &want)
		release := hang(faulty, 2, "one-part")
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				// Chained, so that they do not share a call.
				if _, err := u.data.Encrypt(make([]byte, 16), make([]byte, 16)); !errors.Is(err, keys.ErrUnavailable) {
					t.Errorf("Encrypt: %v, want %v", err, keys.ErrUnavailable)
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		before := time.Now()
		if _, err := u.data.Encrypt(nil, make([]byte, 16)); !errors.Is(err, keys.ErrUnavailable) || time.Since(before) > 0 {
			t.Errorf("Encrypt while down: %v after %v", err, time.Since(before))
		}
		time.Sleep(10 * time.Minute)
		if n := faulty.Count("C_Finalize"); n != 0 {
			t.Errorf("the module was finalised %d times under stuck calls", n)
		}
		release()
		time.Sleep(time.Minute)
		if err := token.Check(t.Context()); err != nil {
			t.Errorf("Check after the calls came back: %v", err)
		}
		u.work(t, &want)
	})
}

// TestKeeperStuck hangs the keeper in a load.
func TestKeeperStuck(t *testing.T) {
	bubble(t, nil, func(t *testing.T, token *hsm.Token, faulty *hsm.Faulty) {
		b := imported(t, hsm.NewManager(token), template("P0", keys.AES128, 'B'), unhex(t, clear32)[:16])
		release := hang(faulty, 1, "C_UnwrapKey")
		if _, err := token.Load(t.Context(), b); !errors.Is(err, keys.ErrUnavailable) {
			t.Errorf("Load: %v, want %v", err, keys.ErrUnavailable)
		}
		l, err := token.Load(t.Context(), b)
		if err != nil {
			t.Fatalf("Load with a new keeper: %v", err)
		}
		must(l.Key.Encrypt(nil, make([]byte, 16)))(t)
		l.Release()
		release()
		synctest.Wait()
		if s := token.Stats(); s.Stuck != 0 || s.Epochs != 2 {
			t.Errorf("stuck %d, epochs %d; want 0 and 2", s.Stuck, s.Epochs)
		}
		if err := token.Check(t.Context()); err != nil {
			t.Errorf("Check: %v", err)
		}
	})
}

// TestQueue lets more callers wait than there are sessions: who finds none in
// time is told so, and nothing counts as stuck but what is. All deadlines are at
// one moment, at which the stuck session is replaced: some may just make it.
func TestQueue(t *testing.T) {
	bubble(t, func(c *hsm.Config) { c.Sessions = 1; c.KeepAlive = time.Hour }, func(t *testing.T, token *hsm.Token, faulty *hsm.Faulty) {
		release := hang(faulty, 1, "C_GenerateRandom")
		defer release()
		errs := make(chan error, 8)
		began := time.Now()
		for range cap(errs) {
			go func() { errs <- token.Random(make([]byte, 8)) }()
		}
		served := uint64(0)
		for range cap(errs) {
			err := <-errs
			if err == nil {
				served++
			} else if !errors.Is(err, keys.ErrUnavailable) {
				t.Errorf("Random: %v, want %v", err, keys.ErrUnavailable)
			}
			if waited := time.Since(began); waited != 2*time.Second {
				t.Errorf("answered after %v, want 2s", waited)
			}
		}
		if s := token.Stats(); s.Abandoned != 1 || s.Late+s.Abandoned+served > 8 || served == 8 {
			t.Errorf("abandoned %d, late %d, served %d", s.Abandoned, s.Late, served)
		}
		release()
		synctest.Wait()
	})
}

// TestCloseWhileStuck closes a token under a call that never returns.
func TestCloseWhileStuck(t *testing.T) {
	bubble(t, nil, func(t *testing.T, token *hsm.Token, faulty *hsm.Faulty) {
		release := hang(faulty, 1, "C_GenerateRandom")
		if err := token.Random(make([]byte, 8)); !errors.Is(err, keys.ErrUnavailable) {
			t.Errorf("Random: %v", err)
		}
		if err := token.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if n := faulty.Count("C_Finalize"); n != 0 {
			t.Error("the module was finalised under a stuck call")
		}
		release()
		synctest.Wait()
		_ = faulty.Finalize()
	})
}
