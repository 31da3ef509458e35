package softhsmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
)

// ModuleVar names the environment variable with the name of the module that
// [Config] and [Token] use. Unset, it is SoftHSM.
const ModuleVar = "KEYD_TEST_MODULE"

// Module is a PKCS#11 module for tests.
type Module struct {
	Name string
	// Make makes a token below dir and returns how to open it.
	Make func(dir string) (hsm.Config, error)
}

// SoftHSM is the lower bound: what works there works on most HSMs.
func SoftHSM() Module { return Module{"softhsm", Make} }

// Softokn is that of NSS, and differs from SoftHSM in most things in which
// modules may differ.
func Softokn() Module { return Module{"softokn", makeSoftokn} }

// Modules returns the modules on which tests run. All must be installed: a test
// that has one of them fails without it, and says what to install.
func Modules() []Module { return []Module{SoftHSM(), Softokn()} }

// Each runs a test on every module.
func Each(t *testing.T, f func(t *testing.T, m Module)) {
	t.Helper()
	for _, m := range Modules() {
		t.Run(m.Name, func(t *testing.T) { f(t, m) })
	}
}

// Again runs the test program at hand once more, on softokn, for a package
// whose tests get their tokens from [Config] and [Token]. flags are those of the
// program, to choose tests.
func Again(t *testing.T, flags ...string) {
	t.Helper()
	if os.Getenv(ModuleVar) != "" {
		return // this is the second run, or one on a module of somebody's choice
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], append(flags, "-test.timeout=10m")...)
	cmd.Env = append(os.Environ(), ModuleVar+"="+Softokn().Name)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("on %s: %v\n%s", Softokn().Name, err, out)
	}
}

// Config makes a token of the module for the test and returns how to open it.
func (m Module) Config(tb testing.TB) hsm.Config {
	tb.Helper()
	dir := tb.TempDir()
	tb.Setenv("SOFTHSM2_CONF", filepath.Join(dir, "softhsm2.conf"))
	cfg, err := m.Make(dir)
	if err != nil {
		tb.Fatalf("make a token of %s: %v", m.Name, err)
	}
	cfg.Standing = 8 // as the daemon has it
	return cfg
}

// Token makes a token of the module, initialised with keyd's own keys, and
// opens it until the end of the test.
func (m Module) Token(tb testing.TB) *hsm.Token {
	tb.Helper()
	t := Open(tb, m.Config(tb))
	if err := hsm.NewManager(t).Init(tb.Context()); err != nil {
		tb.Fatalf("initialise the token: %v", err)
	}
	return t
}

// chosen is the module of [ModuleVar].
func chosen() (Module, error) {
	name := os.Getenv(ModuleVar)
	if name == "" {
		return SoftHSM(), nil
	}
	for _, m := range Modules() {
		if m.Name == name {
			return m, nil
		}
	}
	return Module{}, fmt.Errorf("no module is called %q; see %s", name, ModuleVar)
}

// makeSoftokn makes a database of NSS with the PIN of the other tokens.
func makeSoftokn(dir string) (hsm.Config, error) {
	module, err := hsm.FindSoftokn()
	if err != nil {
		return hsm.Config{}, err
	}
	reserved, err := hsm.SoftoknReserved(dir, Label)
	if err != nil {
		return hsm.Config{}, err
	}
	cfg := hsm.Config{Module: module, Reserved: reserved, TokenLabel: Label, PIN: PIN, RetainPIN: true}
	return cfg, hsm.InitSoftokn(cfg, secret.From([]byte(UserPIN)))
}
