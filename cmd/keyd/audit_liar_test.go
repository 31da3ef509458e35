package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyd.dev/keyd/audit"
)

// lyingDaemon serves what a test says under a certificate that the auditor
// trusts, and returns the flags that name it.
func lyingDaemon(t *testing.T, answer http.HandlerFunc) auditDoor {
	t.Helper()
	server := httptest.NewUnstartedServer(answer)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "auditor"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return auditDoor{URL: server.URL, Mirror: filepath.Join(dir, "copy"),
		CA: write("ca", "CERTIFICATE", server.Certificate().Raw), Cert: write("cert", "CERTIFICATE", cert), CertKey: write("key", "PRIVATE KEY", der)}
}

// TestL105DoorGoesNowhereElse: the number of a card goes to the daemon that was
// named and nowhere else, whatever that daemon answers.
func TestL105DoorGoesNowhereElse(t *testing.T) {
	var elsewhere bytes.Buffer
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(&elsewhere, r.Body) }))
	defer other.Close()
	door := lyingDaemon(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	tokens, err := door.cardTokens(t.Context(), strings.NewReader(liarsCard))
	if err == nil || len(tokens) > 0 {
		t.Errorf("%v, %v", tokens, err)
	}
	if elsewhere.Len() > 0 {
		t.Error("the request with the card went to another address")
	}
	if _, err := door.open(&program{ctx: t.Context(), stderr: io.Discard}, auditRead{Command: audit.QueryList}); !errors.Is(err, errUnrecorded) {
		t.Errorf("a reading: %v", err)
	}
}

const liarsCard = "4111111111111111\n"

// TestAnswersOfALiar: what a daemon sends cannot steer the auditor's terminal,
// fill its memory, or be taken for files.
func TestAnswersOfALiar(t *testing.T) {
	const steer = "\x1b]0;owned\x07\x1b[2J"
	door := lyingDaemon(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"__type":"AccessDenied`+"\\u001b[2J"+`","Message":"\u001b]0;owned\u0007\u001b[2J"}`)
	})
	_, err := door.open(&program{ctx: t.Context(), stderr: io.Discard}, auditRead{Command: audit.QueryList})
	if err == nil || strings.ContainsAny(err.Error(), steer[:1]+"\x07") {
		t.Errorf("the message steers a terminal: %q", err)
	}
	row, err := readListed([]byte(`{"log":"sec","seq":1,"ts":"x\u001b[2J","action":"a\nb","actor":{"id":"\u009b2J\u202e"},"keys":[{"id":"k\ty"}]}`), true)
	if err != nil {
		t.Fatal(err)
	}
	var shown bytes.Buffer
	if err := new(auditLsCmd).print(&shown, []listed{row}, false); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(shown.String(), "\x1b\u009b\u202e") || strings.Count(shown.String(), "\n") != 1 {
		t.Errorf("the table steers a terminal: %q", shown.String())
	}

	file := func(there byte, size uint32, data string) string {
		return string(binary.BigEndian.AppendUint32([]byte{there}, size)) + data
	}
	for _, tt := range []struct {
		name, answer string
		want         error
	}{
		{"nothing", "", io.EOF},
		{"a file cut short", file(1, 10, "abc"), io.ErrUnexpectedEOF},
		{"a file larger than any", file(1, 1<<31, ""), audit.ErrFormat},
		{"bytes of a file that is not there", file(0, 3, "abc"), audit.ErrFormat},
		{"neither there nor not", file(2, 0, ""), audit.ErrFormat},
		{"bytes behind the last file", file(1, 3, "abc") + "d", audit.ErrFormat},
	} {
		if files, err := readFiles(strings.NewReader(tt.answer), 1); !errors.Is(err, tt.want) {
			t.Errorf("%s: %q, %v, want %v", tt.name, files, err, tt.want)
		}
	}
}

// TestL181LineCutOff: a line that ends in the middle of an answer is a log that
// is not available, and no verdict about it.
func TestL181LineCutOff(t *testing.T) {
	door := lyingDaemon(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			_, _ = io.WriteString(w, `{"Reading":"AAAAAAAAAAAAAAAAAAAAAAAAAA","Seq":5}`)
			return
		}
		_, _ = w.Write([]byte{1, 0, 0, 1, 0, '{'})
	})
	_, err := door.open(&program{ctx: context.WithoutCancel(t.Context()), stderr: io.Discard}, auditRead{Command: audit.QueryVerify})
	var exit *exitError
	if !errors.As(auditExit(err), &exit) || exit.code != auditExitLog {
		t.Errorf("%v, want exit code %d", err, auditExitLog)
	}
}
