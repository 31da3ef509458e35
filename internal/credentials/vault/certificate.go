package vault

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Wanted is a certificate that Vault's PKI engine is to sign. The names are
// asked for in the request, and looked for in what comes back.
type Wanted struct {
	Name       string // in logs and metrics
	Mount      string // of the PKI engine
	Role       string // of the engine
	CommonName string
	DNS        []string
	IP         []net.IP
	URI        []*url.URL
	TTL        time.Duration // 0: the role's
	File       string        // where the pair is kept; absolute
}

// Certificate keeps one certificate that Vault signs: the last good pair on
// disk, renewed at two thirds of its life. The key is made here and never
// leaves but to that file. C-05.
type Certificate struct {
	wanted Wanted
	client *Client
	leaf   atomic.Pointer[x509.Certificate]
	wake   chan struct{}
}

// NewCertificate reads the pair that was kept, if there is a good one.
func NewCertificate(client *Client, wanted Wanted) (*Certificate, error) {
	if wanted.Mount == "" || wanted.Role == "" || !filepath.IsAbs(wanted.File) || wanted.CommonName == "" {
		return nil, fmt.Errorf("%w: certificate %q needs an engine, a role, a common name and a file", ErrConfig, wanted.Name)
	}
	c := &Certificate{wanted: wanted, client: client, wake: make(chan struct{}, 1)}
	pair, err := tls.LoadX509KeyPair(wanted.File, wanted.File)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c, nil
	case err != nil:
		// What is not readable is as good as absent, and is written anew.
		client.cfg.Log.Warn("vault: the certificate that was kept is of no use", "certificate", wanted.Name, "file", wanted.File, "err", err)
		return c, nil
	}
	if err := wanted.fits(pair.Leaf); err != nil {
		client.cfg.Log.Warn("vault: the certificate that was kept is not the one wanted now", "certificate", wanted.Name, "err", err)
		return c, nil
	}
	c.leaf.Store(pair.Leaf)
	return c, nil
}

// Good says whether the pair on disk can be used now. One that has ended cannot,
// and nothing is put in its place but what Vault signs.
func (c *Certificate) Good() bool {
	leaf := c.leaf.Load()
	return leaf != nil && time.Now().Before(leaf.NotAfter)
}

// Leaf is the certificate on disk; nil when there is none.
func (c *Certificate) Leaf() *x509.Certificate { return c.leaf.Load() }

// Name is the certificate's, in logs and metrics.
func (c *Certificate) Name() string { return c.wanted.Name }

// File is where certificate, chain and key stand together, in PEM.
func (c *Certificate) File() string { return c.wanted.File }

// Wake ends the wait before the next try.
func (c *Certificate) Wake() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run renews the certificate until ctx ends, and calls renewed after each time.
// A renewal that fails is tried again with back-off; the pair in use stays.
func (c *Certificate) Run(ctx context.Context, renewed func()) {
	b, due := newBackoff(), c.due()
	for {
		if !pause(ctx, max(0, time.Until(due)), c.wake) {
			return
		}
		if time.Now().Before(due) {
			due = c.due()
			if time.Now().Before(due) {
				continue
			}
		}
		err := c.Obtain(ctx)
		switch {
		case err == nil:
			b.reset()
			due = c.due()
			renewed()
		case ctx.Err() == nil:
			wait := c.client.waitAfter(b, err)
			c.client.cfg.Log.Error("vault: the certificate was not renewed", "certificate", c.wanted.Name, "cause", Cause(err), "again_in", wait.String(), "err", err)
			c.client.alarm(err)
			due = time.Now().Add(wait)
		}
	}
}

// due is when the certificate is renewed: two thirds into the life that it
// really has, or up to a twentieth of it sooner.
func (c *Certificate) due() time.Time {
	leaf := c.leaf.Load()
	if leaf == nil {
		return time.Now()
	}
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	late := leaf.NotBefore.Add(life * 2 / 3)
	return late.Add(jitter(life/4) - life/4)
}

// Obtain makes a key, has Vault sign it, checks the answer and puts the pair on
// disk, whole or not at all.
func (c *Certificate) Obtain(ctx context.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making a key for the certificate %s: %w", c.wanted.Name, err)
	}
	leaf, chain, err := c.sign(ctx, key)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding the key of the certificate %s: %w", c.wanted.Name, err)
	}
	bundle := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	clear(der)
	defer func() { clear(bundle) }()
	bundle = append(bundle, chain...)
	if err := replaceFile(c.wanted.File, bundle); err != nil {
		return fmt.Errorf("keeping the certificate %s: %w", c.wanted.Name, err)
	}
	c.leaf.Store(leaf)
	c.client.cfg.Log.Info("vault: certificate signed", "certificate", c.wanted.Name, "serial", leaf.SerialNumber.String(), "until", leaf.NotAfter.UTC())
	return nil
}

// sign sends the request for a signature, never the key, and returns the leaf
// and the PEM of leaf and chain.
func (c *Certificate) sign(ctx context.Context, key *ecdsa.PrivateKey) (*x509.Certificate, []byte, error) {
	w := &c.wanted
	what := "signing the certificate " + w.Name + " with " + w.Mount + "/sign/" + w.Role
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: w.CommonName}, DNSNames: w.DNS, IPAddresses: w.IP, URIs: w.URI,
	}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", what, err)
	}
	body := map[string]any{
		"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})), "format": "pem", "common_name": w.CommonName,
		"alt_names": strings.Join(w.DNS, ","), "ip_sans": join(w.IP), "uri_sans": join(w.URI),
	}
	if w.TTL > 0 {
		body["ttl"] = w.TTL.String()
	}
	answer, err := c.client.authorised(ctx, request{operation: "sign", what: what, path: w.Mount + "/sign/" + w.Role, body: body, tell: true})
	if err != nil {
		return nil, nil, err
	}
	if answer == nil {
		return nil, nil, fmt.Errorf("%s: %w: it is empty", what, ErrAnswer)
	}
	leaf, chain, err := chainOf(answer.Data)
	if err == nil && !key.PublicKey.Equal(leaf.PublicKey) {
		err = fmt.Errorf("%w: the certificate is for another key", ErrAnswer)
	}
	if err == nil {
		err = w.fits(leaf)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", what, err)
	}
	return leaf, chain, nil
}

func join[T fmt.Stringer](names []T) string {
	texts := make([]string, 0, len(names))
	for _, n := range names {
		texts = append(texts, n.String())
	}
	return strings.Join(texts, ",")
}

// chainOf reads the leaf and puts the chain behind it, without the root: who
// checks the certificate has that.
func chainOf(data map[string]any) (*x509.Certificate, []byte, error) {
	text, _ := data["certificate"].(string)
	leaf, err := parsePEM(text)
	if err != nil {
		return nil, nil, err
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})
	above, _ := data["ca_chain"].([]any)
	if len(above) == 0 {
		above = []any{data["issuing_ca"]}
	}
	for _, one := range above {
		text, _ := one.(string)
		ca, err := parsePEM(text)
		if err != nil {
			return nil, nil, err
		}
		if ca.CheckSignatureFrom(ca) != nil {
			chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})...)
		}
	}
	return leaf, chain, nil
}

func parsePEM(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, fmt.Errorf("%w: no certificate in PEM in it", ErrAnswer)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	return cert, nil
}

// fits refuses a certificate without a name that was asked for: a role may drop
// some in silence.
func (w *Wanted) fits(leaf *x509.Certificate) error {
	if !time.Now().Before(leaf.NotAfter) {
		return fmt.Errorf("%w: the certificate ended at %s", ErrAnswer, leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	var missing []string
	for _, name := range w.DNS {
		if !slices.Contains(leaf.DNSNames, name) {
			missing = append(missing, name)
		}
	}
	for _, ip := range w.IP {
		if !slices.ContainsFunc(leaf.IPAddresses, ip.Equal) {
			missing = append(missing, ip.String())
		}
	}
	for _, uri := range w.URI {
		if !slices.ContainsFunc(leaf.URIs, func(u *url.URL) bool { return u.String() == uri.String() }) {
			missing = append(missing, uri.String())
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: the certificate lacks the names %s; the role must allow them, and use_csr_sans must be on", ErrAnswer, strings.Join(missing, ", "))
	}
	return nil
}

// replaceFile writes a file of mode 0600 beside the old one and puts it in its
// place, durable.
func replaceFile(path string, text []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // of mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, derr := os.Open(dir)
	if derr != nil {
		return nil // in its place; only the folder's durability is not known
	}
	return errors.Join(d.Sync(), d.Close())
}
