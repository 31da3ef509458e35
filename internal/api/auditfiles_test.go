package api_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/api"
	"keyd.dev/keyd/internal/credentials"
	"keyd.dev/keyd/internal/custody"
)

// revoker takes the certificates of all open connections back when it is set.
type revoker struct{ atomic.Bool }

// Recheck implements api.Peers.
func (r *revoker) Recheck(*tls.ConnectionState, credentials.Seen) (credentials.Seen, error) {
	if r.Load() {
		return credentials.Seen{}, credentials.ErrRevoked
	}
	return credentials.Seen{}, nil
}

// archive is a bench whose log is served to auditors.
type archive struct {
	*bench
	log     custody.Log
	revoked revoker
}

func newArchive(t *testing.T) *archive {
	t.Helper()
	a := &archive{}
	a.bench = newBench(t, func(c *custody.Config) { a.log = c.Log })
	handler, err := api.New(api.Config{Custody: a.custody, Log: slog.New(slog.DiscardHandler), Peers: &a.revoked})
	if err != nil {
		t.Fatal(err)
	}
	reader, err := audit.OpenReader(a.logDir)
	if err != nil {
		t.Fatal(err)
	}
	cert := a.serverCertificate(t)
	server, err := api.Server(handler, &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: a.roots})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(api.AuditPath, handler.Beside(handler.AuditFiles(reader)))
	mux.Handle("/", handler)
	server.Handler = mux
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() { _ = server.Close(); <-done })
	a.url = "https://" + listener.Addr().String()
	return a
}

// post sends a body to a path or, with a target, to an operation.
func (a *archive) post(t *testing.T, client *http.Client, path, target, body string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, a.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if target != "" {
		r.Header.Set("X-Amz-Target", "KeydControlPlane."+target)
	}
	return a.do(t, client, r)
}

// reading opens a reading and returns its id.
func (a *archive) reading(t *testing.T, client *http.Client) string {
	t.Helper()
	got := a.post(t, client, "/", "GetAuditLog", `{"Command":"ls","Filter":"action=log.read"}`)
	var answer struct{ Reading string }
	if err := json.Unmarshal(got.body, &answer); err != nil || got.status != http.StatusOK || len(answer.Reading) != 26 {
		t.Fatalf("GetAuditLog: %d %s", got.status, got.body)
	}
	return answer.Reading
}

// files asks for files of a log.
func (a *archive) files(t *testing.T, client *http.Client, reading, log string, paths ...string) answer {
	t.Helper()
	body, err := json.Marshal(map[string]any{"Reading": reading, "Log": log, "Files": paths})
	if err != nil {
		t.Fatal(err)
	}
	return a.post(t, client, api.AuditPath, "", string(body))
}

// TestL180AuditFiles: files come under a reading that was recorded, to who opened
// it, and nothing else comes to anybody.
func TestL180AuditFiles(t *testing.T) {
	a := newArchive(t)
	auditor := a.client(t, "auditor")
	reading := a.reading(t, auditor)

	t.Run("the manifest, and a file that is not there", func(t *testing.T) {
		got := a.files(t, auditor, reading, "", "manifest.json")
		if got.status != http.StatusOK || got.body[0] != 1 || !strings.Contains(string(got.body), `"wal_id"`) {
			t.Errorf("%d %q", got.status, got.body)
		}
		got = a.files(t, auditor, reading, "ops-1999-01", "tile/0/000", "checkpoint")
		if got.status != http.StatusOK || string(got.body) != strings.Repeat("\x00", 10) {
			t.Errorf("%d %q", got.status, got.body)
		}
	})
	t.Run("two files in order", func(t *testing.T) {
		got := a.files(t, auditor, reading, "sec", "vkey", "tile/63/999")
		size := binary.BigEndian.Uint32(got.body[1:])
		if got.status != http.StatusOK || int(size)+10 != len(got.body) {
			t.Errorf("%d %q", got.status, got.body)
		}
	})

	twin := a.clientWith(t, a.named(t, "spiffe://keyd.test/auditor")) // the same client, another certificate
	refused := []struct {
		name   string
		client *http.Client
		body   string
		status int
		code   string
	}{
		{"an id of another certificate", twin, `{"Reading":"` + reading + `","Log":"sec","Files":["checkpoint"]}`, 403, "denied"},
		{"an id that nobody opened", auditor, `{"Reading":"none","Log":"sec","Files":["checkpoint"]}`, 410, "reading"},
		{"no id", auditor, `{"Log":"sec","Files":["checkpoint"]}`, 410, "reading"},
		{"no files", auditor, `{"Reading":"` + reading + `","Log":"sec","Files":[]}`, 400, "request"},
		{"too many files", auditor, `{"Reading":"` + reading + `","Log":"sec","Files":["vkey"` + strings.Repeat(`,"vkey"`, 32) + `]}`, 400, "request"},
		{"a member that is not known", auditor, `{"Reading":"` + reading + `","Log":"sec","Files":["vkey"],"Dir":"/"}`, 400, "request"},
		{"no JSON", auditor, `checkpoint`, 400, "request"},
		{"a body without end", auditor, `{"Reading":"` + strings.Repeat("x", 20<<10), 400, "request"},
	}
	for _, role := range []string{"admin", "operator", "custodian", "switch-a", "terminal", "nobody"} {
		refused = append(refused, struct {
			name   string
			client *http.Client
			body   string
			status int
			code   string
		}{"as " + role, a.client(t, role), `{"Reading":"` + reading + `","Log":"sec","Files":["checkpoint"]}`, 403, "denied"})
	}
	for _, tt := range refused {
		t.Run(tt.name, func(t *testing.T) {
			got := a.post(t, tt.client, api.AuditPath, "", tt.body)
			if got.status != tt.status || !strings.HasPrefix(string(got.body), `{"code":"`+tt.code+`"`) {
				t.Errorf("%d %s, want %d %s", got.status, got.body, tt.status, tt.code)
			}
		})
	}

	for _, path := range []string{
		"", "manifest.json", "../manifest.json", "wal/wal-0000000000000001", "lock", "../../keyd.db", "/etc/passwd",
		"tile/0/../../../manifest.json", "tile/0/000.p/0", "tile/0/000.p/256", "tile/00/000", "tile/0/0", "tile/64/000",
		"tile/0/x000/000", "tile/entries/000/", "tile/0/000\x00", "checkpoint\n", "./checkpoint", "tile//000", "vkey/..",
	} {
		t.Run(fmt.Sprintf("L-43 path %q", path), func(t *testing.T) {
			got := a.files(t, auditor, reading, "sec", path)
			if got.status != 400 || !strings.HasPrefix(string(got.body), `{"code":"request"`) {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
	}
	for _, log := range []string{"", "..", "wal", "sec/", "ops", "ops-2026-13", "../audit/sec"} {
		t.Run(fmt.Sprintf("L-41 log %q", log), func(t *testing.T) {
			if got := a.files(t, auditor, reading, log, "checkpoint"); got.status != 400 {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
	}

	for _, body := range []string{`{}`, `{"Command":"token"}`, `{"Command":"rm"}`, `{"Command":"ls","Filter":"` + strings.Repeat("x", 1025) + `"}`, `{"Command":"ls","Log":"../../../x"}`} {
		t.Run("no such reading "+body[:min(len(body), 30)], func(t *testing.T) {
			if got := a.post(t, auditor, "/", "GetAuditLog", body); got.status != http.StatusBadRequest {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
	}

	t.Run("a certificate that was revoked meanwhile", func(t *testing.T) {
		a.revoked.Store(true)
		defer a.revoked.Store(false)
		if got := a.files(t, auditor, reading, "sec", "vkey"); got.status != 403 || strings.Contains(string(got.body), "audit.") {
			t.Errorf("%d %s", got.status, got.body)
		}
		if got := a.post(t, auditor, "/", "GetAuditLog", `{"Command":"ls"}`); got.status != http.StatusBadRequest || strings.Contains(string(got.body), "Reading") {
			t.Errorf("%d %s", got.status, got.body)
		}
	})

	t.Run("L-199 a log that takes no record opens no reading", func(t *testing.T) {
		log, ok := a.log.(*audit.Log)
		if !ok {
			t.Fatal("the bench has another log")
		}
		if err := log.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
		got := a.post(t, auditor, "/", "GetAuditLog", `{"Command":"ls"}`)
		if got.status != http.StatusInternalServerError || strings.Contains(string(got.body), "Reading") {
			t.Errorf("%d %s", got.status, got.body)
		}
		denials := 0
		reader, err := audit.OpenReader(a.logDir)
		if err != nil {
			t.Fatal(err)
		}
		for entry, err := range reader.Records("sec", 0) {
			if err != nil {
				t.Fatal(err)
			}
			if raw := string(entry.Raw); strings.Contains(raw, `"action":"auth.deny"`) && strings.Contains(raw, `"object":"GetAuditLog"`) {
				denials++
			}
		}
		if want := 7; denials != want {
			t.Errorf("%d denials are in the log, want %d", denials, want)
		}
	})
}
