package ceremony_test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"testing"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/ceremony"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// house is a daemon around an engine that keeps what it is told. What stands
// behind a real one is tested by the scripts of cmd/keyd.
type house struct {
	mu       sync.Mutex
	records  []audit.Record
	imported [][]byte // the keys that were stored
	fail     error    // of the next work
	signer   ed25519.PrivateKey
}

func newHouse(t testing.TB) *house {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &house{signer: key}
}

func (h *house) Identify(*x509.Certificate) (custody.Client, error) {
	return custody.Client{}, custody.ErrDenied
}

func (h *house) Permit(_ context.Context, caller custody.Caller, _ string, op custody.Operation) error {
	for _, role := range custody.Permissions()[op] {
		if caller.Has(role) {
			return nil
		}
	}
	return custody.ErrDenied
}

func (h *house) Note(_ context.Context, caller custody.Caller, corr string, r audit.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.Actor.ID, r.Corr = caller.Name, corr
	h.records = append(h.records, r)
	return nil
}

func (h *house) Step(ctx context.Context, caller custody.Caller, corr string, r audit.Record, work func(*audit.Record) error) error {
	err := work(&r)
	r.Outcome = audit.OutcomeOK
	if err != nil {
		r.Outcome, r.Reason = audit.OutcomeRefused, custody.ReasonOf(err)
	}
	return errors.Join(err, h.Note(ctx, caller, corr, r))
}

func (h *house) Random(p []byte) error { _, err := rand.Read(p); return err }

func (h *house) Attest(domain string, message []byte) ([]byte, string, error) {
	vkey, err := audit.Vkey("audit.example/n1/sec", h.signer.Public())
	if err != nil {
		return nil, "", err
	}
	sig, err := audit.Attest(h.signer, domain, message)
	return sig, vkey, err
}

func (h *house) About() ceremony.About { return ceremony.About{Version: "test", Node: "example/n1"} }

func (h *house) Ready(context.Context, custody.Caller, *ceremony.Script) error { return nil }

func (h *house) Import(_ context.Context, by ceremony.Quorum, k ceremony.NewKey, value secret.Bytes) (ceremony.Made, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail != nil {
		return ceremony.Made{}, h.fail
	}
	if len(by.Approvals) != len(by.Custodians) || len(by.Approvals) < 2 {
		return ceremony.Made{}, fmt.Errorf("%d approvals of %d custodians", len(by.Approvals), len(by.Custodians))
	}
	check, err := keys.CheckClear(k.Attributes.Algorithm, k.CheckBy, value.Reveal())
	if err != nil {
		return ceremony.Made{}, err
	}
	h.imported = append(h.imported, bytes.Clone(value.Reveal()))
	return ceremony.Made{KeyID: "0123456789abcdefghijklmnopqrstuv", Check: check.String()}, nil
}

func (h *house) Export(context.Context, ceremony.Quorum, string) (secret.Bytes, keys.Attributes, keys.CheckMethod, ceremony.Made, error) {
	return secret.Bytes{}, keys.Attributes{}, 0, ceremony.Made{}, custody.ErrNoKey
}

func (h *house) Initial(context.Context, ceremony.Quorum, string, string, []ceremony.Device) (ceremony.Made, error) {
	return ceremony.Made{}, custody.ErrNoKey
}

func (h *house) CheckLMK(_ context.Context, lmk secret.Bytes) (keys.KCV, error) {
	return keys.CheckClear(keys.AES256, keys.CheckByCMAC, lmk.Reveal())
}

func (h *house) SetLMK(context.Context, ceremony.Quorum, secret.Bytes) (ceremony.Made, error) {
	return ceremony.Made{LMK: 2}, nil
}

func (h *house) Destroy(context.Context, ceremony.Quorum, string) (ceremony.Made, error) {
	return ceremony.Made{}, nil
}

func (h *house) SetRoles(context.Context, ceremony.Quorum, string, []string) (ceremony.Made, error) {
	return ceremony.Made{}, nil
}

// outcomes counts the records of an action by their reason, 0 for good ones.
func (h *house) outcomes(action audit.Action, reason audit.Reason) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, r := range h.records {
		if r.Action == action && r.Reason == reason {
			n++
		}
	}
	return n
}

// admin and custodian are callers as the door makes them.
func admin() custody.Caller {
	return custody.Caller{
		Client: custody.Client{Name: "admin", URI: "keyd://client/admin", Roles: []custody.Role{custody.RoleAdmin}, Keys: []string{"*"}},
		Cert:   "00", Subject: "CN=admin",
	}
}

func custodian(name string) custody.Caller {
	sum := sha256.Sum256([]byte(name))
	return custody.Caller{
		Client: custody.Client{Name: name, URI: "keyd://client/" + name, Roles: []custody.Role{custody.RoleCustodian}},
		Cert:   fmt.Sprintf("%x", sum), Subject: "CN=" + name,
	}
}

// sealed seals a component as the custodian's side does, from the definition of
// the form: RFC 9180, and the info of docs/decisions/0026.
func sealed(t testing.TB, at ceremony.Place, value []byte) []byte {
	t.Helper()
	key, err := ecdh.X25519().NewPublicKey(at.Public)
	if err != nil {
		t.Fatal(err)
	}
	to, err := hpke.NewDHKEMPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	info := []byte("keyd ceremony v1")
	for _, part := range []string{at.Ceremony, at.Custodian, "in"} {
		info = append(info, 0, 0, 0, byte(len(part)))
		info = append(info, part...)
	}
	info = append(info, 0, 0, 0, byte(at.Component))
	out, err := hpke.Seal(to, hpke.HKDFSHA256(), hpke.AES256GCM(), info, value)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func public(t testing.TB) []byte {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key.PublicKey().Bytes()
}

func component(t testing.TB) []byte {
	t.Helper()
	value := make([]byte, 16)
	if _, err := rand.Read(value); err != nil {
		t.Fatal(err)
	}
	return value
}

func checkOf(t testing.TB, value []byte) string {
	t.Helper()
	v, err := keys.CheckClear(keys.TDES2, keys.CheckByZeros, value)
	if err != nil {
		t.Fatal(err)
	}
	return v.String()
}
