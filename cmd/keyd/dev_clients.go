package main

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"

	"github.com/pelletier/go-toml/v2"
)

// devClients are the principals of a development daemon (W-12).
func devClients() []clientConfig {
	client := func(name string, keys []string, roles ...string) clientConfig {
		return clientConfig{Name: name, URI: "keyd://client/" + name, Roles: append([]string{}, roles...), Keys: keys}
	}
	all := []string{"*"}
	return []clientConfig{
		client("switch", all, "application"),
		client("admin", all, "admin"),
		client("admin-2", all, "admin"),
		client("operator", all, "operator"),
		client("custodian-1", nil, "custodian"),
		client("custodian-2", nil, "custodian"),
		client("custodian-3", nil, "custodian"),
		client("auditor", nil, "auditor"),
		client("terminal", nil, "terminal"),
		client("nobody", nil),
	}
}

// addClients gives a folder of an earlier version the clients that it lacks.
// The configuration comes first: a client whose certificate is there was added
// before, and stays away when somebody took it out.
func (d *devDir) addClients(config string) error {
	var missing []clientConfig
	for _, c := range devClients() {
		if _, err := os.Stat(d.file("pki", c.Name+".pem")); errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, c)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if err := configureClients(config, missing); err != nil {
		return fmt.Errorf("adding clients to %s: %w", config, err)
	}
	ca, err := openDevCA(d.file("pki"))
	if err != nil {
		return advise(fmt.Errorf("opening the CA: %w", err), "it signs the certificates of new clients; put it back, or begin with a new folder")
	}
	var errs []error
	for _, c := range missing {
		errs = append(errs, ca.issueClient(c))
	}
	return errors.Join(errs...)
}

// configureClients appends those that a configuration does not have.
func configureClients(path string, clients []clientConfig) error {
	cfg, err := loadConfig(path)
	if err != nil {
		return err
	}
	var more struct {
		Client []clientConfig `toml:"client"`
	}
	for _, c := range clients {
		known := func(k clientConfig) bool { return k.Name == c.Name || k.URI == c.URI }
		if !slices.ContainsFunc(cfg.Client, known) {
			more.Client = append(more.Client, c)
		}
	}
	if len(more.Client) == 0 {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	block, err := toml.Marshal(&more)
	if err != nil {
		return err
	}
	return writeFile(path, slices.Concat(text, []byte("\n"), block), 0o600)
}

// openDevCA opens the CA that newDevCA made.
func openDevCA(dir string) (*devCA, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key"))
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s/ca.key is no ECDSA key", dir)
	}
	return &devCA{dir: dir, cert: pair.Leaf, key: key}, nil
}

// issueClient signs the certificate of a client.
func (ca *devCA) issueClient(c clientConfig) error {
	uri, err := url.Parse(c.URI)
	if err != nil {
		return err
	}
	return ca.issue(c.Name, &x509.Certificate{
		URIs: []*url.URL{uri}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}
