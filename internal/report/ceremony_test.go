package report

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"strings"
	"testing"

	"keyd.dev/keyd/audit"
)

// certificate is one of a person, by its key.
func certificate(t *testing.T, name string, pub, priv any) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, pub, priv)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestL76CeremonySignatures: what custodian and witness signed is checked by their
// certificates; a wrong signature is found, and what cannot be checked is said.
func TestL76CeremonySignatures(t *testing.T) {
	custodian := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	card := certificate(t, "custodian-b", custodian.Public(), custodian)
	witness, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	eye := certificate(t, "officer-1", witness.Public(), witness)
	slow, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sameName := certificate(t, "officer-1", slow.Public(), slow)

	s := newStory(t, "2026-11-21 09:00:00")
	step := func(no int, spoil bool) {
		r := audit.Record{
			Action: audit.CeremonySign, Outcome: audit.OutcomeOK, Corr: "cer-1", ID: s.id(),
			Actor: audit.Actor{ID: "custodian-b", Kind: audit.ActorCustodian, Authn: audit.AuthnCard, Cert: sha256.Sum256(card.Raw), Roles: []string{"custodian"}},
			Cer:   &audit.Cer{ID: "cer-1", Step: audit.StepSign, StepNo: no, M: 2, N: 3, Purpose: "Load <ZMK> & more", Custodian: "custodian-b", Witness: "officer-1"},
		}
		said, err := s.log.Statement(&r)
		if err != nil {
			t.Fatal(err)
		}
		hash := sha256.Sum256(said)
		r.Cer.Sig = ed25519.Sign(custodian, said)
		if r.Cer.WitnessSig, err = ecdsa.SignASN1(rand.Reader, witness, hash[:]); err != nil {
			t.Fatal(err)
		}
		if spoil {
			r.Cer.Sig[3] ^= 1
		}
		s.tell(r)
	}
	step(0, false)
	s.end()
	verdicts := func(certs ...*x509.Certificate) (string, error) {
		t.Helper()
		d, err := Make(t.Context(), s.source(), Args{Kind: Ceremony, Subject: "cer-1", Certs: certs})
		if d == nil {
			t.Fatal(err)
		}
		var all []string
		for _, row := range section(t, d, "Signatures of custodians and witnesses") {
			all = append(all, row.Cells[3]+" "+row.Cells[4])
		}
		return strings.Join(all, ", "), err
	}
	for _, tt := range []struct {
		name  string
		certs []*x509.Certificate
		want  string
	}{
		{"both certificates", []*x509.Certificate{card, eye}, "custodian good, witness good"},
		{"none", nil, "custodian not checked, witness not checked"},
		{"one", []*x509.Certificate{card}, "custodian good, witness not checked"},
		{"a kind of key that is not known", []*x509.Certificate{sameName}, "custodian not checked, witness not checked"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := verdicts(tt.certs...); err != nil || got != tt.want {
				t.Errorf("%s (%v), want %s", got, err, tt.want)
			}
		})
	}
	s.open()
	step(1, true)
	s.end()
	got, err := verdicts(card, eye)
	if want := "custodian good, witness good, custodian BAD, witness good"; got != want || !errors.Is(err, ErrSignature) {
		t.Errorf("%s (%v), want %s", got, err, want)
	}
}

// TestMinutes: the hash of the file is that of the log, or the report fails.
func TestMinutes(t *testing.T) {
	s := newStory(t, "2026-11-21 09:00:00")
	sum := [32]byte{1, 2, 3}
	actor := audit.Actor{ID: "admin", Kind: audit.ActorOperator, Authn: audit.AuthnMTLS}
	s.tell(audit.Record{Action: audit.CeremonyOpen, Outcome: audit.OutcomeOK, Corr: "cer-1", Actor: actor, Cer: &audit.Cer{ID: "cer-1", Step: audit.StepOpen, M: 2, N: 2, Purpose: "x"}},
		audit.Record{Action: audit.AdminExecute, Outcome: audit.OutcomeOK, Corr: "cer-1", Actor: actor, Change: &audit.Change{Kind: audit.ChangeKey, Object: "ceremony/cer-1", After: sum}})
	s.end()
	for _, tt := range []struct {
		name    string
		minutes *Minutes
		bad     bool
	}{
		{"no file", nil, false},
		{"the file", &Minutes{Ceremony: "cer-1", Hash: sum}, false},
		{"another file", &Minutes{Ceremony: "cer-1", Hash: [32]byte{9}}, true},
		{"that of another ceremony", &Minutes{Ceremony: "cer-2", Hash: sum}, true},
		{"a forged one", &Minutes{Err: errors.New("not signed")}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Make(t.Context(), s.source(), Args{Kind: Ceremony, Subject: "cer-1", Minutes: tt.minutes})
			if errors.Is(err, ErrSignature) != tt.bad || err != nil && !tt.bad {
				t.Errorf("%v, want bad %v", err, tt.bad)
			}
		})
	}
}
