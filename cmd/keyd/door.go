package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// doorFlags say which daemon a command talks to and as whom. Commands that
// change anything go through the same door as every other client: mutual TLS,
// a role, a record.
type doorFlags struct {
	URL  string `placeholder:"URL" env:"KEYD_URL" help:"The daemon's API, https://host:port."`
	CA   string `name:"ca" placeholder:"FILE" env:"KEYD_CA" help:"CA of the daemon's certificate, PEM."`
	Cert string `placeholder:"FILE" env:"KEYD_CERT" help:"Your client certificate, PEM."`
	Key  string `placeholder:"FILE" env:"KEYD_KEY" help:"Its key, PEM."`
	Dev  string `placeholder:"DIR" help:"In place of these four: the folder of a development daemon."`
	As   string `placeholder:"NAME" help:"With --dev: the client to be."`

	ServerName string `kong:"-"` // in the daemon's certificate, where the URL does not say it
}

// doorTimeout bounds one call, for those that take long inside the token.
const doorTimeout = 5 * time.Minute

// door is a connection to a daemon's API under one identity.
type door struct {
	url    string
	client *http.Client
}

// open reads the files that the flags name.
func (f *doorFlags) open() (*door, error) {
	d := *f
	if f.Dev != "" {
		if err := d.fromDev(); err != nil {
			return nil, err
		}
	}
	for flag, value := range map[string]string{"--url": d.URL, "--ca": d.CA, "--cert": d.Cert, "--key": d.Key} {
		if value == "" {
			return nil, usageError("%s is missing: name the daemon by --url, --ca, --cert and --key, or a development daemon by --dev and --as", flag)
		}
	}
	if !strings.HasPrefix(d.URL, "https://") {
		return nil, usageError("--url=%s: the daemon speaks https", d.URL)
	}
	own, err := tls.LoadX509KeyPair(d.Cert, d.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the client certificate: %w", err)
	}
	authorities, err := os.ReadFile(d.CA)
	if err != nil {
		return nil, fmt.Errorf("reading the CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("reading the CA: %s holds no certificate", d.CA)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, Certificates: []tls.Certificate{own}, ServerName: d.ServerName}
	return &door{url: strings.TrimSuffix(d.URL, "/"), client: &http.Client{
		Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true},
		Timeout:   doorTimeout,
		// No daemon sends its clients elsewhere, and what they send is for it alone.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// fromDev fills the flags in from dev.json.
func (f *doorFlags) fromDev() error {
	text, err := os.ReadFile(filepath.Join(f.Dev, "dev.json"))
	if err != nil {
		return advise(fmt.Errorf("reading what `keyd dev` wrote: %w", err), "--dev is the folder of a development daemon that runs")
	}
	var report devReport
	if err := json.Unmarshal(text, &report); err != nil {
		return fmt.Errorf("reading %s/dev.json: %w", f.Dev, err)
	}
	client, ok := report.Clients[f.As]
	if !ok {
		return usageError("--as=%q is no client of %s/dev.json", f.As, f.Dev)
	}
	f.URL, f.CA, f.Cert, f.Key = report.APIURL, report.CACert, client.Cert, client.Key
	return nil
}

// refusedError is the daemon's answer to a request that it did not carry out.
type refusedError struct {
	Type    string `json:"__type"`
	Message string `json:"Message"`
}

func (e *refusedError) Error() string {
	return "the daemon refused: " + harmless(e.Type) + ": " + harmless(e.Message)
}

// aws calls an operation of the AWS control plane, "StopKeyUsage" for example.
func (d *door) aws(ctx context.Context, operation string, body, out any) error {
	return d.call(ctx, "PaymentCryptographyControlPlane."+operation, body, out)
}

// own calls an operation that only keyd has, "RotateKey" for example.
func (d *door) own(ctx context.Context, operation string, body, out any) error {
	return d.call(ctx, "KeydControlPlane."+operation, body, out)
}

// call sends a request and decodes the answer into out, unless it is nil. It
// returns a [refusedError] where the daemon has answered and refused.
func (d *door) call(ctx context.Context, target string, body, out any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	answer, err := d.post(ctx, "/", http.Header{"Content-Type": {"application/x-amz-json-1.0"}, "X-Amz-Target": {target}}, text)
	if err != nil {
		return err
	}
	if answer.code != http.StatusOK {
		return refusedBy(answer.status, answer.body)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer.body, out); err != nil {
		return fmt.Errorf("the daemon's answer is not what was expected; are command and daemon of one version? %w", err)
	}
	return nil
}

// doorAnswer is what the daemon sent back.
type doorAnswer struct {
	code   int
	status string // code and words
	header http.Header
	body   []byte
}

// post sends one request. An answer of any status is one.
func (d *door) post(ctx context.Context, path string, header http.Header, body []byte) (doorAnswer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url+path, bytes.NewReader(body))
	if err != nil {
		return doorAnswer{}, err
	}
	req.Header = header
	resp, err := d.client.Do(req)
	if err != nil {
		return doorAnswer{}, fmt.Errorf("calling the daemon: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return doorAnswer{}, fmt.Errorf("calling the daemon: %w", err)
	}
	return doorAnswer{resp.StatusCode, resp.Status, resp.Header, text}, nil
}

// approvalNeeded begins the message of a request that waits for a second
// person. Section 5.1 of the API.
const approvalNeeded = "approval required: "

func refusedBy(status string, answer []byte) error {
	refused := new(refusedError)
	if json.Unmarshal(answer, refused) != nil || refused.Type == "" {
		return errors.New("the daemon answered " + status)
	}
	if ref, ok := strings.CutPrefix(refused.Message, approvalNeeded); ok {
		return advise(refused, "a second administrator runs `keyd approve %s`; then give this command again, unchanged", ref)
	}
	return refused
}
