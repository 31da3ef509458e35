package hsm_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

func TestOpenRefuses(t *testing.T) {
	good := softhsmtest.Config(t)
	plain := filepath.Join(t.TempDir(), "plain.so")
	if err := os.WriteFile(plain, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		change func(*hsm.Config)
		want   error
		says   string
	}{
		{"no module", func(c *hsm.Config) { c.Module = "" }, hsm.ErrConfig, "path"},
		{"relative module", func(c *hsm.Config) { c.Module = "libsofthsm2.so" }, hsm.ErrConfig, "absolute"},
		{"missing module", func(c *hsm.Config) { c.Module = "/nowhere/libsofthsm2.so" }, hsm.ErrModule, "/nowhere/libsofthsm2.so"},
		{"file that is no library", func(c *hsm.Config) { c.Module = plain }, hsm.ErrModule, plain},
		{"library that is no module", func(c *hsm.Config) { c.Module = libc(t) }, hsm.ErrModule, "C_GetFunctionList"},
		{"no label", func(c *hsm.Config) { c.TokenLabel = "" }, hsm.ErrConfig, "label"},
		{"missing token", func(c *hsm.Config) { c.TokenLabel = "other" }, hsm.ErrToken, `"keyd-test"`},
		{"PIN and no PIN", func(c *hsm.Config) { c.NoPIN = true }, hsm.ErrConfig, "either"},
		{"neither PIN nor no PIN", func(c *hsm.Config) { c.PIN = nil }, hsm.ErrConfig, "either"},
		{"empty PIN", func(c *hsm.Config) { c.PIN = pin("") }, hsm.ErrPIN, "empty"},
		{"no PIN to be had", func(c *hsm.Config) {
			c.PIN = func() (secret.Bytes, error) { return secret.Bytes{}, os.ErrNotExist }
		}, os.ErrNotExist, "get the PIN"},
		{"prefix", func(c *hsm.Config) { c.Prefix = "two words" }, hsm.ErrConfig, "prefix"},
		{"sessions", func(c *hsm.Config) { c.Sessions = -1 }, hsm.ErrConfig, "sessions"},
		{"cache", func(c *hsm.Config) { c.CacheKeys = -1 }, hsm.ErrConfig, "room"},
		{"deadline", func(c *hsm.Config) { c.Deadline = -1 }, hsm.ErrConfig, "negative"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg := good
			test.change(&cfg)
			token, err := hsm.Open(cfg)
			if err == nil {
				_ = token.Close()
			}
			if info, err := hsm.Look(cfg); (err == nil) != errors.Is(test.want, hsm.ErrPIN) && !errors.Is(test.want, os.ErrNotExist) {
				t.Errorf("Look: %+v, %v", info, err)
			}
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("Open: %v\nwant %v, saying %q", err, test.want, test.says)
			}
		})
	}
}

func pin(digits string) func() (secret.Bytes, error) {
	return func() (secret.Bytes, error) { return secret.From([]byte(digits)), nil }
}

// libc is a library without C_GetFunctionList.
func libc(t *testing.T) string {
	t.Helper()
	for _, pattern := range []string{"/lib/*/libc.so.6", "/lib64/libc.so.6"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
	}
	t.Fatal("no libc found")
	return ""
}

func TestAmbiguousToken(t *testing.T) {
	cfg := softhsmtest.SoftHSM().Config(t)
	err := hsm.InitToken(cfg.Module, cfg.TokenLabel, secret.From([]byte("12345678")), secret.From([]byte("12345678")))
	if !errors.Is(err, hsm.ErrExists) {
		t.Errorf("a second token of the label: %v, want %v", err, hsm.ErrExists)
	}
	if err := hsm.InitTwin(cfg.Module, cfg.TokenLabel); err != nil {
		t.Fatal(err)
	}
	token, err := hsm.Open(cfg)
	if err == nil {
		_ = token.Close()
	}
	if !errors.Is(err, hsm.ErrToken) || !strings.Contains(err.Error(), "2 tokens are labelled") {
		t.Errorf("Open: %v, want %v for two tokens", err, hsm.ErrToken)
	}
}

func TestWrongPIN(t *testing.T) {
	softhsmtest.Each(t, wrongPIN)
}

func wrongPIN(t *testing.T, m softhsmtest.Module) {
	cfg := m.Config(t)
	wrong := cfg
	wrong.PIN = pin("99999999")
	token, faulty, err := hsm.OpenFaulty(wrong, nil)
	if err == nil {
		_ = token.Close()
	}
	if !errors.Is(err, hsm.ErrPIN) || strings.Contains(err.Error(), "99999999") {
		t.Errorf("C-02 wrong PIN: %v, want %v without the PIN", err, hsm.ErrPIN)
	}
	if n := faulty.Count("C_Login"); n != 1 {
		t.Errorf("C-02 wrong PIN was tried %d times, want once", n)
	}
	remembers := m.Name == softhsmtest.SoftHSM().Name // softokn counts no tries
	if info, err := hsm.Look(cfg); err != nil || info.PINCountLow != remembers || info.PIN != nil {
		t.Errorf("C-02 Look: %+v, %v", info, err)
	}
	// The token itself remembers; the right PIN still works, so it is not locked.
	again := softhsmtest.Open(t, cfg)
	if again.Info().PINCountLow != remembers {
		t.Errorf("C-02 the token shows that a wrong PIN was given: %t, want %t", !remembers, remembers)
	}
}

func TestPINFlags(t *testing.T) {
	cfg := softhsmtest.Config(t)
	tests := []struct {
		name string
		flag hsm.Flags
		also func(*hsm.Config)
		ok   bool
	}{
		{"C-02 count low", pkcs11.CKF_USER_PIN_COUNT_LOW, func(*hsm.Config) {}, true},
		{"C-02 final try", pkcs11.CKF_USER_PIN_FINAL_TRY, func(*hsm.Config) {}, false},
		{"C-02 final try permitted", pkcs11.CKF_USER_PIN_FINAL_TRY, func(c *hsm.Config) { c.FinalTry = true }, true},
		{"C-02 locked", pkcs11.CKF_USER_PIN_LOCKED, func(c *hsm.Config) { c.FinalTry = true }, false},
		{"C-02 to be changed", pkcs11.CKF_USER_PIN_TO_BE_CHANGED, func(*hsm.Config) {}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg := cfg
			test.also(&cfg)
			token, faulty, err := hsm.OpenFaulty(cfg, func(call string) error {
				if call == "C_GetTokenInfo" {
					return test.flag
				}
				return nil
			})
			if err == nil {
				_ = token.Close()
			}
			if test.ok != (err == nil) || err != nil && !errors.Is(err, hsm.ErrPIN) {
				t.Errorf("Open: %v, want success: %t", err, test.ok)
			}
			if tried := faulty.Count("C_Login"); tried > 0 != test.ok {
				t.Errorf("%d logins, want any: %t", tried, test.ok)
			}
		})
	}
}

func TestSelfTestFails(t *testing.T) {
	cfg := softhsmtest.Config(t)
	_, _, err := hsm.OpenFaulty(cfg, func(call string) error {
		if call == "one-part" {
			return pkcs11.Error(pkcs11.CKR_MECHANISM_INVALID)
		}
		return nil
	})
	if !errors.Is(err, hsm.ErrSelfTest) {
		t.Errorf("Open: %v, want %v", err, hsm.ErrSelfTest)
	}
}

// TestWrongAnswers has the module compute wrongly, by one mechanism at a time.
func TestWrongAnswers(t *testing.T) {
	cfg := softhsmtest.Config(t)
	for name, mech := range map[string]uint{
		"TDES": pkcs11.CKM_DES3_CBC, "AES": pkcs11.CKM_AES_ECB, "AES CMAC": pkcs11.CKM_AES_CMAC, "HMAC-SHA-256": pkcs11.CKM_SHA256_HMAC,
		"HMAC-SHA-384": pkcs11.CKM_SHA384_HMAC, "ECDSA": pkcs11.CKM_ECDSA,
	} {
		t.Run(name, func(t *testing.T) {
			token, err := hsm.OpenWrong(cfg, mech)
			if err == nil {
				_ = token.Close()
			}
			if !errors.Is(err, hsm.ErrSelfTest) {
				t.Errorf("Open: %v, want %v", err, hsm.ErrSelfTest)
			}
		})
	}
}

func TestEnforcement(t *testing.T) {
	t.Run("softhsm", func(t *testing.T) {
		cfg := softhsmtest.SoftHSM().Config(t)
		cfg.RequireEnforcement = true
		token := softhsmtest.Open(t, cfg)
		if found := token.Info().Findings; len(found) > 0 {
			t.Errorf("SoftHSM does not enforce: %q", found)
		}
	})
	t.Run("softokn", func(t *testing.T) {
		cfg := softhsmtest.Softokn().Config(t)
		want := []string{"wraps a key that is not extractable", "derives from a key that may not"}
		if d := cmp.Diff(want, softhsmtest.Open(t, cfg).Info().Findings); d != "" {
			t.Errorf("findings (-want +got):\n%s", d)
		}
		cfg.RequireEnforcement = true
		strict, err := hsm.Open(cfg)
		if err == nil {
			_ = strict.Close()
		}
		if !errors.Is(err, hsm.ErrSelfTest) {
			t.Errorf("Open with enforcement required: %v, want %v", err, hsm.ErrSelfTest)
		}
	})
}

func TestSecondOpen(t *testing.T) {
	cfg := softhsmtest.Config(t)
	first := softhsmtest.Open(t, cfg)
	if err := hsm.NewManager(first).Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := softhsmtest.Open(t, cfg)
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	// The one that did not start the module must not have stopped it.
	if err := first.Check(t.Context()); err != nil {
		t.Errorf("the first token after the second closed: %v", err)
	}
}

func TestUninitialised(t *testing.T) {
	token := softhsmtest.Open(t, softhsmtest.Config(t))
	if err := token.Check(t.Context()); !errors.Is(err, keys.ErrNoKey) {
		t.Errorf("Check: %v, want %v", err, keys.ErrNoKey)
	}
	if _, err := token.System("data"); !errors.Is(err, keys.ErrNoKey) {
		t.Errorf("System: %v, want %v", err, keys.ErrNoKey)
	}
	if _, err := token.Signer(); !errors.Is(err, keys.ErrNoKey) {
		t.Errorf("Signer: %v, want %v", err, keys.ErrNoKey)
	}
	b := template(keys.UsagePIN, keys.AES128, keys.ModeBoth)
	if _, _, err := hsm.NewManager(token).Generate(t.Context(), b); !errors.Is(err, keys.ErrNoKey) {
		t.Errorf("Generate: %v, want %v", err, keys.ErrNoKey)
	}
	b.LMK, b.Wrapped = 1, make([]byte, 24)
	if _, err := token.Load(t.Context(), &b); !errors.Is(err, keys.ErrNoKey) {
		t.Errorf("Load: %v, want %v", err, keys.ErrNoKey)
	}
}

func TestClosed(t *testing.T) {
	token := softhsmtest.Token(t)
	k, err := token.System("data")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := token.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := k.Encrypt(nil, make([]byte, 16)); !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("Encrypt after Close: %v, want %v", err, keys.ErrUnavailable)
	}
	if err := token.Check(t.Context()); !errors.Is(err, hsm.ErrClosed) {
		t.Errorf("Check after Close: %v, want %v", err, hsm.ErrClosed)
	}
}

func TestRandom(t *testing.T) {
	token := softhsmtest.Token(t)
	var a, b [32]byte
	for _, p := range [][]byte{a[:], b[:], nil} {
		if err := token.Random(p); err != nil {
			t.Fatal(err)
		}
	}
	if a == b || a == [32]byte{} {
		t.Error("the generator repeats itself")
	}
}
