package hsm_test

import (
	"errors"
	"testing"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// TestOnSoftokn runs all tests of this package once more, on softokn.
func TestOnSoftokn(t *testing.T) { softhsmtest.Again(t) }

// TestSoftoknWithoutPIN opens a database that has none.
func TestSoftoknWithoutPIN(t *testing.T) {
	module := must(hsm.FindSoftokn())(t)
	reserved := must(hsm.SoftoknReserved(t.TempDir(), softhsmtest.Label))(t)
	cfg := hsm.Config{Module: module, Reserved: reserved, TokenLabel: softhsmtest.Label, NoPIN: true}
	if err := hsm.InitSoftokn(cfg, secret.Bytes{}); err != nil {
		t.Fatal(err)
	}
	token := softhsmtest.Open(t, cfg)
	if err := hsm.NewManager(token).Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := token.Check(t.Context()); err != nil {
		t.Error(err)
	}
	checkECDSA(t, token)
}

func TestSoftoknPlaces(t *testing.T) {
	t.Setenv(hsm.SoftoknVar, "/nowhere/libsoftokn3.so")
	if path, err := hsm.FindSoftokn(); !errors.Is(err, hsm.ErrModule) {
		t.Errorf("FindSoftokn: %q, %v, want %v", path, err, hsm.ErrModule)
	}
	for _, bad := range []string{"a'b", `a"b`, `a\b`} {
		if text, err := hsm.SoftoknReserved(bad, "label"); !errors.Is(err, hsm.ErrConfig) {
			t.Errorf("SoftoknReserved of %q: %q, %v, want %v", bad, text, err, hsm.ErrConfig)
		}
	}
}
