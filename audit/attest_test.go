package audit_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"testing"

	"keyd.dev/keyd/audit"
)

func TestAttest(t *testing.T) {
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	nist, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const domain = "keyd test v1"
	for name, signer := range map[string]crypto.Signer{"Ed25519": edwards, "ECDSA": nist} {
		t.Run(name, func(t *testing.T) {
			message := []byte("audit.example/n1/sec\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")
			sig, err := audit.Attest(signer, domain, message)
			if err != nil {
				t.Fatal(err)
			}
			vkey, err := audit.Vkey("audit.example/n1/sec", signer.Public())
			if err != nil {
				t.Fatal(err)
			}
			if err := audit.VerifyAttestation(vkey, domain, message, sig); err != nil {
				t.Error(err)
			}
			if err := audit.VerifyAttestation(vkey, "keyd test v2", message, sig); !errors.Is(err, audit.ErrSignature) {
				t.Errorf("another domain: %v", err)
			}
			if err := audit.VerifyAttestation(vkey, domain, message[1:], sig); !errors.Is(err, audit.ErrSignature) {
				t.Errorf("another message: %v", err)
			}
			if err := audit.VerifyAttestation("nonsense", domain, message, sig); !errors.Is(err, audit.ErrFormat) {
				t.Errorf("no vkey: %v", err)
			}
		})
	}
	for _, bad := range []string{"", "audit.example/n1/sec", "line\nbreak here"} {
		if _, err := audit.Attest(edwards, bad, nil); !errors.Is(err, audit.ErrConfig) {
			t.Errorf("domain %q: %v", bad, err)
		}
	}
}
