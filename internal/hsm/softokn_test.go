//go:build softokn

package hsm_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/vectors"
	"keyd.dev/keyd/keys"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// softoknVar names NSS's library, for machines that keep it in an unusual place.
const softoknVar = "KEYD_SOFTOKN"

// TestSoftokn runs the vector files and the fallbacks through NSS softokn, a
// module that differs from SoftHSM in most things that may differ. It is built
// with the tag softokn, for machines that have the library.
func TestSoftokn(t *testing.T) {
	module := os.Getenv(softoknVar)
	if module == "" {
		found, _ := filepath.Glob("/usr/lib*/libsoftokn3.so")
		more, _ := filepath.Glob("/usr/lib/*/libsoftokn3.so")
		if found = append(found, more...); len(found) == 0 {
			t.Fatal("NSS softokn is not installed; install libnss3 (Debian, Ubuntu) or nss-softokn (Fedora), or name libsoftokn3.so in " + softoknVar)
		}
		module = found[0]
	}
	cfg := hsm.Config{
		Module:     module,
		Reserved:   "configdir='sql:" + t.TempDir() + "' certPrefix='' keyPrefix='' secmod='secmod.db' flags=''",
		TokenLabel: "NSS Certificate DB",
		NoPIN:      true,
	}
	if err := hsm.InitNSS(cfg); err != nil {
		t.Fatal(err)
	}
	token := softhsmtest.Open(t, cfg)
	m := hsm.NewManager(token)
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", token.Info())
	if err := token.Check(t.Context()); err != nil {
		t.Error(err)
	}
	every(t, func(t *testing.T, tmpl keys.Block) {
		b, _, err := m.Generate(t.Context(), tmpl)
		if err != nil {
			t.Fatal(err)
		}
		loaded(t, token, b)
	})
	checkECDSA(t, token)
	factory := func(a keys.Algorithm, value []byte) (*keys.Loaded, error) {
		can := keys.CanEncrypt | keys.CanDecrypt | keys.CanMAC | keys.CanDerive
		k, err := m.Hold(secret.From(bytes.Clone(value)), keys.Spec{Algorithm: a, Can: can})
		if err != nil {
			return nil, err
		}
		return keys.NewLoaded(k, nil, func() { _ = k.Close() }), nil
	}
	t.Run("dukpt_tdes", func(t *testing.T) { vectors.TDESDUKPT(t, factory) })
	t.Run("dukpt_aes", func(t *testing.T) { vectors.AESDUKPT(t, factory) })
	t.Run("pin_blocks", func(t *testing.T) { vectors.PINBlocks(t, factory) })
	t.Run("mac", func(t *testing.T) { vectors.MAC(t, factory) })
	t.Run("kcv", func(t *testing.T) { vectors.KCV(t, factory) })
	cfg.RequireEnforcement = true
	_ = token.Close()
	if strict, err := hsm.Open(cfg); !errors.Is(err, hsm.ErrSelfTest) {
		t.Errorf("softokn with enforcement required: %v, want %v", err, hsm.ErrSelfTest)
		if err == nil {
			_ = strict.Close()
		}
	}
}
