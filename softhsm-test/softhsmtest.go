// Package softhsmtest gives tests a real PKCS#11 token to throw away.
//
// A module and its configuration belong to the process: tests that use a token
// do not run in parallel with each other, which testing's Setenv enforces.
package softhsmtest

import (
	"os"
	"testing"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
)

// The label and the PINs of the tokens.
const (
	Label   = "keyd-test"
	SOPIN   = "12345678"
	UserPIN = "2468013579"
)

// Make makes a SoftHSM token below dir and returns how to open it. The caller's
// process is bound to dir from now on: SOFTHSM2_CONF is set. For a TestMain;
// tests call [Config].
func Make(dir string) (hsm.Config, error) {
	conf, err := hsm.WriteSoftHSMConfig(dir)
	if err != nil {
		return hsm.Config{}, err
	}
	if err := os.Setenv("SOFTHSM2_CONF", conf); err != nil {
		return hsm.Config{}, err
	}
	module, err := hsm.FindSoftHSM()
	if err != nil {
		return hsm.Config{}, err
	}
	if err := hsm.InitToken(module, Label, secret.From([]byte(SOPIN)), secret.From([]byte(UserPIN))); err != nil {
		return hsm.Config{}, err
	}
	return hsm.Config{Module: module, TokenLabel: Label, PIN: PIN, RetainPIN: true}, nil
}

// PIN yields the user PIN of the tokens.
func PIN() (secret.Bytes, error) { return secret.From([]byte(UserPIN)), nil }

// Config makes a token for the test and returns how to open it. Where the
// module is missing the test fails, and says what to install.
func Config(tb testing.TB) hsm.Config {
	tb.Helper()
	m, err := chosen()
	if err != nil {
		tb.Fatal(err)
	}
	return m.Config(tb)
}

// Token makes a token, initialised with keyd's own keys, and opens it until
// the end of the test.
func Token(tb testing.TB) *hsm.Token {
	tb.Helper()
	m, err := chosen()
	if err != nil {
		tb.Fatal(err)
	}
	return m.Token(tb)
}

// Open opens a token until the end of the test.
func Open(tb testing.TB, cfg hsm.Config) *hsm.Token {
	tb.Helper()
	t, err := hsm.Open(cfg)
	if err != nil {
		tb.Fatalf("open the token: %v", err)
	}
	tb.Cleanup(func() { _ = t.Close() })
	return t
}
