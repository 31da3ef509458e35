//go:build vault

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

// keyd runs a command that must end with a code.
func (v *vaulted) keyd(want int, args ...string) string {
	v.t.Helper()
	out, err := keydCommand(v.t.Context(), args...).CombinedOutput()
	got := exitDone
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		v.must(err)
	}
	if got != want {
		v.t.Errorf("keyd %s: exit code %d, want %d:\n%s", strings.Join(args, " "), got, want, out)
	}
	return string(out)
}

// backup lets the daemon make one, and returns its path and what was printed.
func (v *vaulted) backup() (string, string) {
	v.t.Helper()
	operator := v.dev.Clients["operator"]
	out := v.keyd(exitDone, "backup", "create", "--url", v.dev.APIURL, "--ca", v.dev.CACert, "--cert", operator.Cert, "--key", operator.Key)
	name, _, ok := strings.Cut(out, ":")
	if !ok {
		v.t.Fatalf("backup create printed %q", out)
	}
	return filepath.Join(v.dir, "backups", name), out
}

// identityFile makes a custodian's pair and returns the file and the public key.
func (v *vaulted) identityFile(name string) (string, string) {
	v.t.Helper()
	id, err := age.GenerateX25519Identity()
	v.must(err)
	path := filepath.Join(v.dir, name)
	v.must(os.WriteFile(path, []byte(id.String()+"\n"), 0o600))
	return path, id.Recipient().String()
}

// TestVaultBackup is C-11: Vault's transit engine around backups, custodians as
// the second way, and what is printed of both.
func TestVaultBackup(t *testing.T) {
	t.Parallel()
	v := newVaulted(t)
	pin := filepath.Join(v.dir, "pin")
	v.must(os.WriteFile(pin, []byte(v.pin), 0o600))
	v.set("token", "pin_source", "file:"+pin)
	v.appRole()
	alice, alicePublic := v.identityFile("alice")
	mallory, _ := v.identityFile("mallory")

	v.insert("backup", `transit = "transit/keyd-backup"`)
	v.start()
	_, out := v.backup()
	if !strings.Contains(out, "needs Vault as well: key transit/keyd-backup; without that key nobody can open it") || !strings.Contains(out, "backup.custodians") {
		t.Errorf("C-11: without custodians it prints:\n%s", out)
	}
	v.stop()

	v.insert("backup", `custodians = ["`+alicePublic+`"]`)
	v.secretID()
	v.start()
	file, out := v.backup()
	if !strings.Contains(out, "or any of 1 custodians") {
		t.Errorf("C-11: with a custodian it prints:\n%s", out)
	}
	v.vault.Seal()
	operator := v.dev.Clients["operator"]
	out = v.keyd(exitFailed, "backup", "create", "--url", v.dev.APIURL, "--ca", v.dev.CACert, "--cert", operator.Cert, "--key", operator.Key)
	if left, err := filepath.Glob(filepath.Join(v.dir, "backups", "*")); err != nil || len(left) != 2 {
		t.Errorf("C-11: with Vault sealed, %v is left, and it prints:\n%s", left, out)
	}
	v.vault.Unseal()
	v.stop()

	verify := []string{"backup", "verify", file, "--config", v.config}
	v.secretID()
	if out := v.keyd(exitDone, verify...); !strings.Contains(out, "would restore") {
		t.Errorf("C-11 by Vault: %s", out)
	}
	v.vault.Stop()
	if out := v.keyd(exitFailed, verify...); !strings.Contains(out, "not reachable") {
		t.Errorf("C-11 by a Vault that is away: %s", out)
	}
	if out := v.keyd(exitDone, append(verify, "--identity", alice)...); !strings.Contains(out, "would restore") {
		t.Errorf("C-11 by a custodian: %s", out)
	}
	if out := v.keyd(exitFailed, append(verify, "--identity", mallory)...); !strings.Contains(out, "for other custodians") {
		t.Errorf("C-11 by another custodian: %s", out)
	}
	v.must(os.Chmod(alice, 0o644))
	if out := v.keyd(exitFailed, append(verify, "--identity", alice)...); !strings.Contains(out, "chmod 600") {
		t.Errorf("C-11 an identity that others can read: %s", out)
	}
}

// TestVaultCertificateLogin is C-12 through a daemon: AppRole fetches the first
// certificate, and every start after it logs in by that leaf.
func TestVaultCertificateLogin(t *testing.T) {
	t.Parallel()
	v := newVaulted(t)
	v.vault.Write("auth/cert/certs/keyd", map[string]any{
		"certificate": v.vault.Read("pki/cert/ca").Data["certificate"], "allowed_common_names": "keyd.test", "token_policies": "keyd", "token_ttl": "1h",
	})
	v.set("token", "pin_source", "vault:secret/keyd/token#pin")
	v.appRole()
	v.set("vault", "auth", "certificate")
	v.section("cert = \"vault:login\"\n\n[[vault_certificate]]\nname = \"login\"\nrole = \"pki/keyd\"\ncommon_name = \"keyd.test\"\nttl = \"1h\"\n")
	v.start()
	v.stop()
	v.must(os.Remove(filepath.Join(v.dir, "secret-id")))
	alone := func() bool { return len(v.vault.List("auth/token/accessors")) == 1 }
	v.vault.Poll("C-09 the token of root alone, with no daemon", alone)
	v.start()
	if text := v.out.String(); !strings.Contains(text, `"msg":"vault: logged in","method":"certificate"`) {
		t.Errorf("C-09: the leaf was not the login:\n%s", text)
	}
	if alone() {
		t.Error("C-09: keyd runs, and has no token")
	}
	v.stop()
	v.vault.Poll("C-09 the token of root alone, after keyd ended", alone)
}

// TestVaultEnvironment: C-09, a daemon refuses what would turn its Vault around.
func TestVaultEnvironment(t *testing.T) {
	v := newVaulted(t)
	t.Setenv("VAULT_SKIP_VERIFY", "1")
	if out := v.keyd(exitFailed, "serve", "--config", v.config); !strings.Contains(out, "VAULT_SKIP_VERIFY") {
		t.Errorf("C-09: %s", out)
	}
}
