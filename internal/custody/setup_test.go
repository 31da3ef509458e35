package custody_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/store"
	"keyd.dev/keyd/keys"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// room is a Custody over a real token, a real database and a real log.
type room struct {
	*custody.Custody
	log   *audit.Log
	db    *store.DB
	token *hsm.Token
	dir   string
}

// The callers of the tests.
var (
	custodian = custody.SystemCaller("test-custodian", custody.RoleCustodian)
	app       = caller("app", custody.RoleApplication, "*")
	admin     = caller("admin", custody.RoleAdmin, "*")
)

func caller(name string, role custody.Role, patterns ...string) custody.Caller {
	return custody.Caller{
		Client: custody.Client{Name: name, URI: "keyd://client/" + name, Roles: []custody.Role{role}, Keys: patterns},
		Kind:   audit.ActorSwitch,
		Addr:   "127.0.0.1:4711",
		Conn:   "c-1",
	}
}

func newRoom(t testing.TB, change func(*custody.Config)) *room {
	t.Helper()
	return newRoomOver(t, softhsmtest.Token(t), change)
}

func newRoomOver(t testing.TB, token *hsm.Token, change func(*custody.Config)) *room {
	t.Helper()
	dir := t.TempDir()
	anchor := softhsmtest.Anchor(t, token)
	if err := store.Found(t.Context(), anchor); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), store.Config{Path: filepath.Join(dir, "keyd.db"), Purpose: store.Serve, Anchor: anchor,
		Sealer: func(id [16]byte) (store.Sealer, error) { return custody.NewRowSealer(token, id) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	tokens, err := custody.NewTokener(token)
	if err != nil {
		t.Fatal(err)
	}
	log := openLog(t, filepath.Join(dir, "audit"), token, tokens)
	cfg := custody.Config{
		Token: token, Maker: hsm.NewManager(token), Keeper: hsm.NewManager(token), Store: db, Log: log,
		Clock: time.Now, Serial: token.Info().Serial,
	}
	cfg.Exchange = custody.Exchange{Token: hsm.NewManager(token), Store: db}
	if change != nil {
		change(&cfg)
	}
	c, err := custody.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &room{Custody: c, log: log, db: db, token: token, dir: dir}
}

func openLog(t testing.TB, dir string, token interface{ Signer() (crypto.Signer, error) }, tokens audit.Tokener) *audit.Log {
	t.Helper()
	signer, err := token.Signer()
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.Open(dir, signer, audit.Options{Site: "test", Node: "n1", SegmentSize: 8 << 20, Tokener: tokens})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close(context.Background()) })
	return log
}

// key imports a key of the API's test table.
func (r *room) key(t *testing.T, alias string, a keys.Attributes, value string, policy map[string]string) {
	t.Helper()
	raw, err := hex.DecodeString(value)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.ImportClear(t.Context(), custodian, "setup", custody.ImportClear{
		Attributes: a, Policy: policy, Value: secret.From(raw), Alias: alias,
	}); err != nil {
		t.Fatalf("import %s: %v", alias, err)
	}
}

func attributes(u keys.Usage, a keys.Algorithm, m keys.Mode) keys.Attributes {
	return keys.Attributes{Usage: u, Algorithm: a, Mode: m, Exportability: keys.Exportable}
}

// act runs one act and commits it.
func (r *room) act(t *testing.T, who custody.Caller, work func(*custody.Act) error) error {
	t.Helper()
	a, err := r.Begin(t.Context(), who, "test-1")
	if err != nil {
		return err
	}
	defer a.Close()
	failed := work(a)
	receipt, err := a.Commit(t.Context())
	if err != nil || !receipt.Valid() {
		t.Fatalf("commit: %v", err)
	}
	return failed
}

// records ends the log, so that all of it can be read, and returns every record
// of one of its parts.
func (r *room) records(t *testing.T, log string) []string {
	t.Helper()
	if err := r.log.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	reader, err := audit.OpenReader(filepath.Join(r.dir, "audit"))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for entry, err := range reader.Records(log, 0) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(entry.Raw))
	}
	return all
}

func unhex(t *testing.T, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// certificate is what Identify looks at.
func certificate(t *testing.T, uri, dns string) *x509.Certificate {
	t.Helper()
	cert := &x509.Certificate{}
	if uri != "" {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		cert.URIs = []*url.URL{u}
	}
	if dns != "" {
		cert.DNSNames = []string{dns}
	}
	return cert
}
