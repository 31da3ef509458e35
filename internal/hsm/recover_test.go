package hsm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// initialised makes a token with keyd's own keys.
func initialised(t *testing.T) hsm.Config {
	t.Helper()
	cfg := softhsmtest.Config(t)
	token, err := hsm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	if err := hsm.NewManager(token).Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// bubble runs f with a token whose module can be made to fail, under a clock
// that moves only when all is quiet.
func bubble(t *testing.T, change func(*hsm.Config), f func(*testing.T, *hsm.Token, *hsm.Faulty)) {
	t.Helper()
	cfg := initialised(t)
	if change != nil {
		change(&cfg)
	}
	synctest.Test(t, func(t *testing.T) {
		token, faulty, err := hsm.OpenFaulty(cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer token.Close()
		f(t, token, faulty)
	})
}

// users are one of each thing that must survive the loss of a session.
type users struct {
	pin, data keys.Key
	derived   keys.Derived
	signer    crypto.Signer
}

func newUsers(t *testing.T, token *hsm.Token) users {
	t.Helper()
	m := hsm.NewManager(token)
	b := imported(t, m, template("P0", keys.AES128, 'B'), unhex(t, clear32)[:16])
	kek := imported(t, m, template("K0", keys.AES128, 'B'), unhex(t, clear32)[:16])
	u := users{pin: must(token.Load(t.Context(), b))(t).Key, data: must(token.System("data"))(t), signer: must(token.Signer())(t)}
	base := must(token.Load(t.Context(), kek))(t).Key
	u.derived = must(base.Derive(make([]byte, 16), keys.Spec{Algorithm: keys.AES128, Can: keys.CanEncrypt}))(t)
	return u
}

// work uses all of them, and checks what they give against the first time.
func (u users) work(t *testing.T, want *[3][]byte) {
	t.Helper()
	zero := make([]byte, 16)
	for i, k := range []keys.Key{u.pin, u.data, u.derived} {
		got, err := k.Encrypt(nil, zero)
		if err != nil {
			t.Errorf("user %d: %v", i, err)
			continue
		}
		if want[i] == nil {
			want[i] = got
		} else if !bytes.Equal(want[i], got) {
			t.Errorf("user %d enciphers as another key", i)
		}
	}
	hash, message := crypto.Hash(0), zero
	if _, ok := u.signer.Public().(*ecdsa.PublicKey); ok {
		hash, message = crypto.SHA256, make([]byte, 32)
	}
	if _, err := u.signer.Sign(nil, message, hash); err != nil { // it verifies what it returns
		t.Errorf("signer: %v", err)
	}
}

func TestLostSessions(t *testing.T) {
	tests := []struct {
		name   string
		retain bool
		lose   func(*hsm.Token) error
		logins uint64
	}{
		{"keeper", true, (*hsm.Token).LoseKeeper, 1},
		{"keeper, PIN not kept", false, (*hsm.Token).LoseKeeper, 1},
		{"all sessions and the login", true, (*hsm.Token).LoseAll, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(c *hsm.Config) { c.RetainPIN = test.retain }, func(t *testing.T, token *hsm.Token, _ *hsm.Faulty) {
				u := newUsers(t, token)
				var want [3][]byte
				u.work(t, &want)
				epochs := token.Stats().Epochs
				for range 3 {
					if err := test.lose(token); err != nil {
						t.Fatal(err)
					}
					u.work(t, &want)
					if err := token.Check(t.Context()); err != nil {
						t.Errorf("Check: %v", err)
					}
					if test.logins == 1 && token.Stats().Logins != 1 {
						t.Errorf("%d logins, want 1", token.Stats().Logins)
					}
				}
				s := token.Stats()
				if s.Epochs != epochs+3 || s.Reloads != 0 {
					t.Errorf("%d epochs after %d, want 3 more; %d reloads", s.Epochs, epochs, s.Reloads)
				}
				if test.logins == 2 && s.Logins != 4 {
					t.Errorf("%d logins, want 4", s.Logins)
				}
			})
		})
	}
}

// TestKeepAlive finds a lost keeper although nobody uses a key.
func TestKeepAlive(t *testing.T) {
	bubble(t, nil, func(t *testing.T, token *hsm.Token, _ *hsm.Faulty) {
		if err := token.LoseAll(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if s := token.Stats(); s.Epochs != 2 || s.Logins != 2 {
			t.Errorf("%d epochs, %d logins; want 2 and 2", s.Epochs, s.Logins)
		}
	})
}

// TestLoginLost loses the login where the PIN is not kept: nobody may ask for
// it again, and service ends until an operator acts.
func TestLoginLost(t *testing.T) {
	var states []error
	change := func(c *hsm.Config) {
		c.RetainPIN = false
		c.OnState = func(err error) { states = append(states, err) }
	}
	bubble(t, change, func(t *testing.T, token *hsm.Token, faulty *hsm.Faulty) {
		k := must(token.System("data"))(t)
		if err := token.LoseAll(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			_, err := k.Encrypt(nil, make([]byte, 16))
			if !errors.Is(err, keys.ErrUnavailable) {
				t.Errorf("C-03 Encrypt: %v, want %v", err, keys.ErrUnavailable)
			}
			time.Sleep(time.Hour)
		}
		if err := token.Check(t.Context()); !errors.Is(err, hsm.ErrPIN) {
			t.Errorf("C-03 Check: %v, want %v", err, hsm.ErrPIN)
		}
		if n := faulty.Count("C_Login"); n != 1 {
			t.Errorf("C-03 %d logins, want the first alone", n)
		}
		synctest.Wait()
		if len(states) != 1 || !errors.Is(states[0], hsm.ErrPIN) {
			t.Errorf("C-03 told %v, want one %v", states, hsm.ErrPIN)
		}
	})
}

// TestWrongPINAgain has the token refuse the PIN at the second login: there is
// no third, and the module is not loaded anew because of it.
func TestWrongPINAgain(t *testing.T) {
	bubble(t, nil, func(t *testing.T, token *hsm.Token, faulty *hsm.Faulty) {
		faulty.Set(func(call string) error {
			if call == "C_Login" {
				return pkcs11.Error(pkcs11.CKR_PIN_INCORRECT)
			}
			return nil
		})
		if err := token.LoseAll(); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			if err := token.Check(t.Context()); !errors.Is(err, keys.ErrUnavailable) {
				t.Errorf("C-02 Check: %v, want %v", err, keys.ErrUnavailable)
			}
			time.Sleep(time.Hour)
		}
		if n, reloads := faulty.Count("C_Login"), faulty.Count("C_Finalize"); n != 2 || reloads != 0 {
			t.Errorf("C-02 %d logins and %d reloads, want 2 and 0", n, reloads)
		}
	})
}

// TestCodes has the module answer each code of a lost session once.
func TestCodes(t *testing.T) {
	codes := map[string]uint{
		"SESSION_HANDLE_INVALID": pkcs11.CKR_SESSION_HANDLE_INVALID, "SESSION_CLOSED": pkcs11.CKR_SESSION_CLOSED,
		"DEVICE_ERROR": pkcs11.CKR_DEVICE_ERROR, "DEVICE_REMOVED": pkcs11.CKR_DEVICE_REMOVED, "DEVICE_MEMORY": pkcs11.CKR_DEVICE_MEMORY,
		"TOKEN_NOT_PRESENT": pkcs11.CKR_TOKEN_NOT_PRESENT, "TOKEN_NOT_RECOGNIZED": pkcs11.CKR_TOKEN_NOT_RECOGNIZED,
		"GENERAL_ERROR": pkcs11.CKR_GENERAL_ERROR, "CRYPTOKI_NOT_INITIALIZED": pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED,
		"USER_NOT_LOGGED_IN": pkcs11.CKR_USER_NOT_LOGGED_IN, "OBJECT_HANDLE_INVALID": pkcs11.CKR_OBJECT_HANDLE_INVALID,
		"KEY_HANDLE_INVALID": pkcs11.CKR_KEY_HANDLE_INVALID, "OPERATION_ACTIVE": pkcs11.CKR_OPERATION_ACTIVE,
	}
	bubble(t, func(c *hsm.Config) { c.Sessions = 1 }, func(t *testing.T, token *hsm.Token, faulty *hsm.Faulty) {
		u := newUsers(t, token)
		var want [3][]byte
		u.work(t, &want)
		for name, code := range codes {
			// A loss sooner than this after the last may find a reload refused.
			time.Sleep(time.Minute)
			opened := faulty.Count("C_OpenSession")
			once := true
			faulty.Set(func(call string) error {
				if call == "one-part" && once {
					once = false
					return pkcs11.Error(code)
				}
				return nil
			})
			u.work(t, &want)
			if once || faulty.Count("C_OpenSession") == opened {
				t.Errorf("%s: no new session", name)
			}
			faulty.Set(nil)
		}
		if n := token.Stats().Reloads; n != 0 {
			t.Errorf("%d reloads where a new session helps", n)
		}
	})
}

// TestBegun has an operation fail after its beginning: its session is not used again.
func TestBegun(t *testing.T) {
	bubble(t, func(c *hsm.Config) { c.Sessions = 1 }, func(t *testing.T, token *hsm.Token, faulty *hsm.Faulty) {
		k := must(token.System("data"))(t)
		block := make([]byte, 16)
		must(k.Encrypt(nil, block))(t)
		for _, begun := range []bool{true, false} {
			faulty.Begun = begun
			opened := faulty.Count("C_OpenSession")
			faulty.Set(func(call string) error {
				if call == "one-part" {
					return pkcs11.Error(pkcs11.CKR_DATA_INVALID)
				}
				return nil
			})
			_, err := k.Encrypt(nil, block)
			var call *hsm.CallError
			if !errors.As(err, &call) || call.Code != pkcs11.CKR_DATA_INVALID || call.Op != "encrypt" {
				t.Errorf("begun %t: %v", begun, err)
			}
			faulty.Set(nil)
			must(k.Encrypt(nil, block))(t)
			if fresh := faulty.Count("C_OpenSession") > opened; fresh != begun {
				t.Errorf("begun %t: new session %t", begun, fresh)
			}
		}
		if e := token.Stats().Epochs; e != 1 {
			t.Errorf("%d epochs, want 1", e)
		}
	})
}

// TestDeviceLost has every session refused for two minutes: the module is
// loaded anew at most once in 30 s, callers get an answer at once, and the
// operators hear of it once.
func TestDeviceLost(t *testing.T) {
	var states []error
	change := func(c *hsm.Config) { c.OnState = func(err error) { states = append(states, err) } }
	bubble(t, change, func(t *testing.T, token *hsm.Token, faulty *hsm.Faulty) {
		u := newUsers(t, token)
		var want [3][]byte
		u.work(t, &want)
		faulty.Set(func(call string) error {
			switch call {
			case "C_OpenSession", "one-part", "C_GetSessionInfo":
				return pkcs11.Error(pkcs11.CKR_DEVICE_REMOVED)
			}
			return nil
		})
		began := time.Now()
		for time.Since(began) < 2*time.Minute {
			before := time.Now()
			if _, err := u.data.Encrypt(nil, make([]byte, 16)); !errors.Is(err, keys.ErrUnavailable) {
				t.Errorf("Encrypt: %v, want %v", err, keys.ErrUnavailable)
			}
			if waited := time.Since(before); waited > 0 {
				t.Errorf("a caller waited %v while the token is down", waited)
			}
			time.Sleep(time.Second)
		}
		if n := token.Stats().Reloads; n < 3 || n > 5 {
			t.Errorf("%d reloads in 2 minutes, want one in 30 s", n)
		}
		faulty.Set(nil)
		time.Sleep(time.Minute)
		u2 := users{u.pin, u.data, u.derived, u.signer}
		u2.work(t, &want)
		synctest.Wait()
		if len(states) != 2 || states[0] == nil || states[1] != nil {
			t.Errorf("told %v, want one loss and one return", states)
		}
	})
}

// TestReload has sessions refused until the module is loaded anew.
func TestReload(t *testing.T) {
	bubble(t, nil, func(t *testing.T, token *hsm.Token, faulty *hsm.Faulty) {
		u := newUsers(t, token)
		var want [3][]byte
		u.work(t, &want)
		started := faulty.Count("C_Initialize")
		faulty.Set(func(call string) error {
			if (call == "C_OpenSession" || call == "one-part" || call == "C_GetSessionInfo") && faulty.Count("C_Initialize") == started {
				return pkcs11.Error(pkcs11.CKR_DEVICE_ERROR)
			}
			return nil
		})
		u.work(t, &want)
		s := token.Stats()
		if s.Reloads != 1 || s.Logins != 2 {
			t.Errorf("%d reloads, %d logins; want 1 and 2", s.Reloads, s.Logins)
		}
	})
}

// TestHeldValue loses the session of a value that nobody can bring back.
func TestHeldValue(t *testing.T) {
	bubble(t, nil, func(t *testing.T, token *hsm.Token, _ *hsm.Faulty) {
		m := hsm.NewManager(token)
		k := must(m.Hold(secret.From(unhex(t, clear32)[:16]), keys.Spec{Algorithm: keys.AES128, Can: keys.CanEncrypt}))(t)
		must(k.Encrypt(nil, make([]byte, 16)))(t)
		if err := token.LoseKeeper(); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Encrypt(nil, make([]byte, 16)); !errors.Is(err, keys.ErrUnavailable) {
			t.Errorf("Encrypt: %v, want %v", err, keys.ErrUnavailable)
		}
		if err := k.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := token.Check(t.Context()); err != nil {
			t.Errorf("Check: %v", err)
		}
	})
}

// TestChurn has every handle refused until a new session is opened, again and
// again, while many goroutines work; every result is right or an error, and in
// the end all is well. The module's own sessions are not closed under calls
// that are inside: SoftHSM does not survive that.
func TestChurn(t *testing.T) {
	token, faulty, err := hsm.OpenFaulty(initialised(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	u := newUsers(t, token)
	var want [3][]byte
	u.work(t, &want)
	var n atomic.Uint64
	var lost atomic.Bool
	faulty.Set(func(call string) error {
		switch {
		case call == "C_OpenSession":
			lost.Store(false)
		case lost.Load():
			return pkcs11.Error(pkcs11.CKR_OBJECT_HANDLE_INVALID)
		case call == "one-part" && n.Add(1)%97 == 0:
			return pkcs11.Error(pkcs11.CKR_DEVICE_ERROR)
		}
		return nil
	})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for i, k := range []keys.Key{u.pin, u.data, u.derived} {
					got, err := k.Encrypt(nil, make([]byte, 16))
					if err != nil && !errors.Is(err, keys.ErrUnavailable) {
						t.Errorf("user %d: %v", i, err)
					}
					if err == nil && !bytes.Equal(got, want[i]) {
						t.Errorf("user %d enciphers as another key", i)
					}
				}
			}
		})
	}
	for range 40 {
		lost.Store(true)
		for range 50 {
			_ = token.Random(make([]byte, 8))
		}
	}
	close(stop)
	wg.Wait()
	faulty.Set(nil)
	eventually(t, func() error { return token.Check(t.Context()) })
	u.work(t, &want)
	if s := token.Stats(); s.Epochs < 10 || s.Stuck != 0 {
		t.Errorf("%d epochs, %d stuck", s.Epochs, s.Stuck)
	}
}
