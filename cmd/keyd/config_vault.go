package main

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"keyd.dev/keyd/internal/credentials"
	"keyd.dev/keyd/internal/credentials/vault"
)

type vaultConfig struct {
	Address         string `toml:"address,omitempty" comment:"https://host:port of Vault; default none; keyd runs without it."`
	CA              string `toml:"ca,omitempty" comment:"Who may sign Vault's certificate, PEM; default none."`
	Namespace       string `toml:"namespace,omitempty" comment:"Namespace of Vault Enterprise; default none."`
	Auth            string `toml:"auth,omitempty" comment:"How to log in: certificate, approle, kubernetes or token_file; default none; a wrapped PIN needs none."`
	AuthMount       string `toml:"auth_mount,omitempty" comment:"Where that method is mounted below auth/; default none; that is cert for certificate, else the method's name."`
	Role            string `toml:"role,omitempty" comment:"Name of the role: needed for approle and kubernetes; default none."`
	RoleID          string `toml:"role_id,omitempty" comment:"Role id, for approle; it is no secret; default none."`
	WrappedSecretID string `toml:"wrapped_secret_id,omitempty" comment:"File with the wrapping token of a single-use secret id, for approle; read again at each login; default none."`
	Cert            string `toml:"cert,omitempty" comment:"Client certificate for auth = \"certificate\": a PEM file, or vault:NAME of a [[vault_certificate]], which is fetched by approle at first; default none."`
	Key             string `toml:"key,omitempty" comment:"Its key, PEM; default none."`
	TokenFile       string `toml:"token_file,omitempty" comment:"File with a token that Vault Agent keeps, for token_file; read again at each use; default none."`
	PodToken        string `toml:"service_account_token,omitempty" comment:"File of the service account's token, for kubernetes; default none; that is where Kubernetes puts it."`
	WrappedPINFrom  string `toml:"wrapped_pin_from,omitempty" comment:"Path of the request that wraps the PIN of vault-wrapped:, secret/data/keyd/token say; another one's token is refused; default none."`
	WrappedPINField string `toml:"wrapped_pin_field,omitempty" comment:"Field of the PIN in what it wraps; default pin."`
	Dir             string `toml:"dir,omitempty" comment:"Folder of the certificates that Vault signed, with their keys; default vault beside the database."`
}

type issuedConfig struct {
	Name       string   `toml:"name" comment:"Name by which api, switch, upstream and vault use it: cert = \"vault:NAME\"."`
	Role       string   `toml:"role" comment:"MOUNT/ROLE of the PKI engine, pki/keyd-api say; the request goes to MOUNT/sign/ROLE."`
	CommonName string   `toml:"common_name" comment:"Common name."`
	DNS        []string `toml:"dns,omitempty" comment:"DNS names; default none."`
	IP         []string `toml:"ip,omitempty" comment:"IP addresses; default none."`
	URI        []string `toml:"uri,omitempty" comment:"URIs; default none."`
	TTL        duration `toml:"ttl,omitempty" comment:"Life to ask for; default none; that is the life of the role."`
}

// issuedPrefix begins a cert that Vault signs.
const issuedPrefix = "vault:"

func isIssued(cert string) bool { return strings.HasPrefix(cert, issuedPrefix) }

func (v *vaultConfig) fillDefaults() {
	def(&v.WrappedPINField, "pin")
	if v.Auth == string(vault.MethodKubernetes) {
		def(&v.PodToken, vault.DefaultPodToken)
	}
}

func (v *vaultConfig) paths() []*string {
	return []*string{&v.CA, &v.WrappedSecretID, &v.Cert, &v.Key, &v.TokenFile, &v.PodToken, &v.Dir}
}

// files are the pair of a certificate and its key: as configured, or the file
// that holds both where Vault signs it.
func (c *config) files(cert, key string) (string, string) {
	name, ok := strings.CutPrefix(cert, issuedPrefix)
	if !ok {
		return cert, key
	}
	file := filepath.Join(c.Vault.Dir, name+".pem")
	return file, file
}

// login is how the client logs in. By a certificate that Vault itself signs, it
// is AppRole that fetches the first.
func (c *config) login() vault.Login {
	v := &c.Vault
	role := vault.Login{Method: vault.MethodAppRole, Mount: v.AuthMount, Role: v.Role, RoleID: v.RoleID, WrappedSecretID: v.WrappedSecretID}
	l := vault.Login{Method: vault.Method(v.Auth), Mount: v.AuthMount, Role: v.Role}
	switch l.Method {
	case vault.MethodAppRole:
		return role
	case vault.MethodCertificate:
		l.Cert, l.Key = c.files(v.Cert, v.Key)
		if v.RoleID != "" {
			l.Role, l.Mount, role.Mount, l.First = "", v.AuthMount, "", &role
		}
	case vault.MethodKubernetes:
		l.TokenOfPod = v.PodToken
	case vault.MethodTokenFile:
		l.TokenFile = v.TokenFile
	}
	return l
}

var (
	issuedName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)
	vaultPath  = regexp.MustCompile(`^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)+$`)
)

// vault checks the section, and all that needs it.
func (k *configCheck) vault(c *config) {
	v := &c.Vault
	if v.Address == "" {
		k.want(len(c.Issued) == 0, "vault_certificate", "needs vault.address")
		k.want(c.Backup.Transit == "", "backup.transit", "needs vault.address")
		source, err := credentials.ParsePINSource(c.Token.PINSource, c.Token.InsecureAllowEnvPIN)
		k.want(err != nil || !source.NeedsVault(), "token.pin_source", "needs vault.address")
		k.want(v.Auth == "", "vault.auth", "needs vault.address")
		return
	}
	u, err := url.Parse(v.Address)
	k.want(err == nil && u.Scheme == "https" && u.Host != "" && strings.Trim(u.Path, "/") == "", "vault.address", "%q must be https://host:port", v.Address)
	k.want(v.CA != "", "vault.ca", "needs the CA file that Vault's certificate is checked against")
	k.vaultLogin(c)
	k.vaultPIN(c)
	names := make(map[string]bool)
	for i := range c.Issued {
		at, one := fmt.Sprintf("vault_certificate[%d]", i), &c.Issued[i]
		k.want(!names[one.Name], at+".name", "%q stands twice", one.Name)
		names[one.Name] = true
		k.issued(at, one)
	}
	k.want(len(c.Issued) == 0 || v.Auth != "", "vault.auth", "needs a way to log in, so that Vault signs certificates")
	for key, pair := range map[string][2]string{
		"api": {c.API.Cert, c.API.Key}, "switch": {c.Switch.Cert, c.Switch.Key}, "vault": {v.Cert, v.Key},
	} {
		k.usesIssued(key, pair, names)
	}
	k.usesIssued("hook", [2]string{c.Hook.Cert, c.Hook.Key}, names)
	for i := range c.Upstream {
		for n, l := range c.Upstream[i].ends() {
			k.usesIssued(c.Upstream[i].at(i, n), [2]string{l.Cert, l.Key}, names)
		}
	}
}

func (k *configCheck) vaultLogin(c *config) {
	v := &c.Vault
	needs := map[string][]string{
		"": {}, "certificate": {"cert"}, "approle": {"role", "role_id", "wrapped_secret_id"}, "kubernetes": {"role"}, "token_file": {"token_file"},
	}
	given := map[string]string{"cert": v.Cert, "role": v.Role, "role_id": v.RoleID, "wrapped_secret_id": v.WrappedSecretID, "token_file": v.TokenFile}
	keys, known := needs[v.Auth]
	k.want(known, "vault.auth", "%q is not certificate, approle, kubernetes or token_file", v.Auth)
	for _, name := range keys {
		k.want(given[name] != "", "vault."+name, "is needed for auth = %q", v.Auth)
	}
	if v.Auth == "certificate" {
		k.want(isIssued(v.Cert) || v.Key != "", "vault.key", "needs the key of vault.cert, PEM")
		k.want(!isIssued(v.Cert) || v.RoleID != "" && v.Role != "" && v.WrappedSecretID != "", "vault.role_id",
			"the first certificate of %s is fetched by approle: give role, role_id and wrapped_secret_id too", v.Cert)
	}
}

func (k *configCheck) vaultPIN(c *config) {
	source, err := credentials.ParsePINSource(c.Token.PINSource, c.Token.InsecureAllowEnvPIN)
	if err != nil || !source.NeedsVault() {
		return
	}
	if strings.HasPrefix(c.Token.PINSource, "vault-wrapped:") {
		k.want(vaultPath.MatchString(c.Vault.WrappedPINFrom), "vault.wrapped_pin_from", "%q must be the path of the request that wraps the PIN, secret/data/keyd/token say", c.Vault.WrappedPINFrom)
		return
	}
	k.want(c.Vault.Auth != "", "vault.auth", "needs a way to log in, so that the PIN can be read")
}

func (k *configCheck) issued(at string, c *issuedConfig) {
	k.want(issuedName.MatchString(c.Name), at+".name", "%q must match [a-z0-9][a-z0-9_-]*", c.Name)
	k.want(vaultPath.MatchString(c.Role), at+".role", "%q must be MOUNT/ROLE, pki/keyd-api say", c.Role)
	k.want(c.CommonName != "", at+".common_name", "needs a common name")
	for _, ip := range c.IP {
		k.want(net.ParseIP(ip) != nil, at+".ip", "%q is not an IP address", ip)
	}
	for _, text := range c.URI {
		u, err := url.Parse(text)
		k.want(err == nil && u.Scheme != "", at+".uri", "%q is not a URI", text)
	}
	k.want(c.TTL >= 0 && c.TTL.std() <= 10*365*24*time.Hour, at+".ttl", "%v is no life of a certificate", c.TTL.std())
}

// usesIssued checks a pair that may be one that Vault signs.
func (k *configCheck) usesIssued(at string, pair [2]string, names map[string]bool) {
	name, ok := strings.CutPrefix(pair[0], issuedPrefix)
	if !ok {
		return
	}
	k.want(names[name], at+".cert", "%q: there is no [[vault_certificate]] of that name", pair[0])
	k.want(pair[1] == "", at+".key", "stands beside a certificate that Vault signs; leave it out, the key is made here")
}

// backupWrap checks the second wrap of backups.
func (k *configCheck) backupWrap(b *backupConfig) {
	k.want(b.Transit == "" || vaultPath.MatchString(b.Transit), "backup.transit", "%q must be MOUNT/KEY, transit/keyd-backup say", b.Transit)
	k.want(b.Transit != "" || len(b.Custodians) == 0, "backup.custodians", "are for the wrap of backup.transit, and there is none")
	for _, text := range b.Custodians {
		_, err := age.ParseX25519Recipient(text)
		k.want(err == nil, "backup.custodians", "%q is not a public key of age, age1…", text)
	}
}

// wanted are the certificates as the client takes them.
func (c *config) wanted() []vault.Wanted {
	var all []vault.Wanted
	for _, one := range c.Issued {
		i := strings.LastIndexByte(one.Role, '/')
		w := vault.Wanted{Name: one.Name, Mount: one.Role[:i], Role: one.Role[i+1:], CommonName: one.CommonName, DNS: slices.Clone(one.DNS), TTL: one.TTL.std()}
		w.File, _ = c.files(issuedPrefix+one.Name, "")
		for _, ip := range one.IP {
			w.IP = append(w.IP, net.ParseIP(ip))
		}
		for _, text := range one.URI {
			if u, err := url.Parse(text); err == nil { // checked before
				w.URI = append(w.URI, u)
			}
		}
		all = append(all, w)
	}
	return all
}
