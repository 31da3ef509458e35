package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/credentials/vault"
)

// goodVault follows goodConfig and passes every check.
const goodVault = `
[vault]
address = "https://vault.example:8200"
ca = "vault-ca.pem"
auth = "approle"
role = "keyd"
role_id = "f00"
wrapped_secret_id = "secret-id"
[[vault_certificate]]
name = "api"
role = "pki/keyd"
common_name = "keyd.example"
dns = ["keyd.example"]
ip = ["127.0.0.1"]
uri = ["keyd://node/n1"]
`

func vaultText(edits ...string) string {
	text := strings.Replace(goodConfig, "cert = \"server.pem\"\nkey = \"server.key\"", `cert = "vault:api"`, 1) + goodVault
	return strings.NewReplacer(edits...).Replace(text)
}

func TestConfigVault(t *testing.T) {
	cfg, err := loadText(t, vaultText())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(cfg.path)
	cert, key := cfg.files(cfg.API.Cert, cfg.API.Key)
	wanted := cfg.wanted()[0]
	got := []any{cert, key, cfg.Vault.CA, wanted.Mount, wanted.Role, wanted.File, wanted.URI[0].String(), cfg.login()}
	want := []any{
		dir + "/vault/api.pem", dir + "/vault/api.pem", dir + "/vault-ca.pem", "pki", "keyd", dir + "/vault/api.pem", "keyd://node/n1",
		vault.Login{Method: vault.MethodAppRole, Role: "keyd", RoleID: "f00", WrappedSecretID: dir + "/secret-id"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the configuration as it is used (-want +got):\n%s", diff)
	}
	t.Run("C-09 login by a certificate of Vault's own, the first by AppRole", func(t *testing.T) {
		cfg, err := loadText(t, vaultText(`auth = "approle"`, "auth = \"certificate\"\nauth_mount = \"pods\"\ncert = \"vault:api\""))
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Dir(cfg.path)
		want := vault.Login{
			Method: vault.MethodCertificate, Mount: "pods", Cert: dir + "/vault/api.pem", Key: dir + "/vault/api.pem",
			First: &vault.Login{Method: vault.MethodAppRole, Role: "keyd", RoleID: "f00", WrappedSecretID: dir + "/secret-id"},
		}
		if diff := cmp.Diff(want, cfg.login()); diff != "" {
			t.Errorf("login (-want +got):\n%s", diff)
		}
	})
}

func TestConfigVaultRefused(t *testing.T) {
	for _, tt := range []struct{ name, old, new, want string }{
		{"C-09 plain HTTP", "https://vault.example:8200", "http://vault.example:8200", "vault.address"},
		{"C-09 no CA", `ca = "vault-ca.pem"`, "", "vault.ca: needs"},
		{"C-09 a method that is not known", `"approle"`, `"userpass"`, `vault.auth: "userpass" is not`},
		{"C-09 AppRole without a role id", `role_id = "f00"`, "", "vault.role_id: is needed"},
		{"C-09 AppRole without a secret id", `wrapped_secret_id = "secret-id"`, "", "vault.wrapped_secret_id: is needed"},
		{"C-09 certificate without a key", `auth = "approle"`, "auth = \"certificate\"\ncert = \"c.pem\"", "vault.key: needs"},
		{"C-09 certificate of Vault without a first login", "auth = \"approle\"\nrole = \"keyd\"\nrole_id = \"f00\"\nwrapped_secret_id = \"secret-id\"",
			"auth = \"certificate\"\ncert = \"vault:api\"", "vault.role_id: the first certificate"},
		{"C-05 a certificate that is not defined", `"vault:api"`, `"vault:other"`, `api.cert: "vault:other": there is no [[vault_certificate]]`},
		{"C-05 a key beside a certificate of Vault", `cert = "vault:api"`, "cert = \"vault:api\"\nkey = \"k.pem\"", "api.key: stands beside"},
		{"C-05 a name that leaves the folder", "name = \"api\"", "name = \"../api\"", "vault_certificate[0].name"},
		{"C-05 a role without an engine", `role = "pki/keyd"`, `role = "keyd"`, "vault_certificate[0].role"},
		{"C-05 no IP address", `"127.0.0.1"]`, `"localhost"]`, "vault_certificate[0].ip"},
		{"C-05 no address", `address = "https://vault.example:8200"`, "", "vault_certificate: needs vault.address"},
		{"C-01 a PIN of Vault without Vault", goodVault, "", `token.pin_source: needs vault.address`},
		{"C-01 a wrapped PIN from anywhere", "vault:secret/keyd/token#pin", "vault-wrapped:/run/keyd/pin", "vault.wrapped_pin_from"},
		{"C-11 transit without a key", "[audit]", "[backup]\ntransit = \"transit\"\n[audit]", "backup.transit"},
		{"C-11 custodians without a wrap", "[audit]", "[backup]\ncustodians = [\"age1\"]\n[audit]", "backup.custodians: are for the wrap"},
		{"C-11 a custodian without a public key", "[audit]", "[backup]\ntransit = \"transit/k\"\ncustodians = [\"age1x\"]\n[audit]", `backup.custodians: "age1x" is not`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(vaultText(`"file:/run/keyd/pin"`, `"vault:secret/keyd/token#pin"`), tt.old, tt.new, 1)
			_, err := loadText(t, text)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}
