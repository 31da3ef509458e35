package hsm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"os"
	"testing"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/keys"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

func kek(id string, a keys.Algorithm) keys.Block {
	return keys.Block{
		ID: keys.ID(id), Version: 1, CreatedMs: 1,
		Attributes: keys.Attributes{Usage: keys.UsageKEK, Algorithm: a, Mode: keys.ModeBoth, Exportability: keys.NonExportable},
	}
}

const (
	exchangeID = "exchange000000000000000000000001"
	zmkValue   = "A4795D7338988CC757946BFEBC8F1089"
)

// TestUnder: a stored key-encryption key, which may not encipher data, does so
// for an exchange, also with a mask, and does not leave keyd for that.
func TestUnder(t *testing.T) {
	m := hsm.NewManager(softhsmtest.Token(t))
	block, err := m.Import(t.Context(), kek(exchangeID, keys.TDES2), secret.From(unhex(t, zmkValue)))
	if err != nil {
		t.Fatal(err)
	}
	data := unhex(t, "F1799DF10D51EA89")
	for _, c := range []struct {
		name string
		mask []byte
	}{
		{"itself", nil},
		{"a Thales variant", []byte{8: 0xA6, 15: 0}},
		{"a variant of key block versions A and C", bytes.Repeat([]byte{'E'}, 16)},
	} {
		t.Run(c.name, func(t *testing.T) {
			value := unhex(t, zmkValue)
			for i := range c.mask {
				value[i] ^= c.mask[i]
			}
			soft, err := softkey.New(keys.TDES2, value)
			if err != nil {
				t.Fatal(err)
			}
			k, err := m.Under(t.Context(), block, c.mask, keys.CanDecrypt)
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			got, err := k.Decrypt(nil, data)
			want, wrong := soft.Decrypt(nil, data)
			if err != nil || wrong != nil || !bytes.Equal(got, want) {
				t.Errorf("got %X, %v, want %X, %v", got, err, want, wrong)
			}
			if _, err := k.Encrypt(nil, data); !errors.Is(err, keys.ErrForbidden) {
				t.Errorf("it enciphers: %v", err)
			}
		})
	}
	forged := *block
	forged.Attributes.Mode = keys.ModeAny
	if _, err := m.Under(t.Context(), &forged, nil, keys.CanDecrypt); !errors.Is(err, keys.ErrBlockMAC) {
		t.Errorf("a forged block: %v", err)
	}
	if _, err := m.Under(t.Context(), &forged, make([]byte, 16), keys.CanDecrypt); !errors.Is(err, keys.ErrBlockMAC) {
		t.Errorf("a forged block with a mask: %v", err)
	}
	if _, err := m.Under(t.Context(), block, make([]byte, 8), keys.CanDecrypt); !errors.Is(err, keys.ErrAttributes) {
		t.Errorf("a short mask: %v", err)
	}
}

// TestInitialKeyOfAES: the value of section 16 of the API.
func TestInitialKeyOfAES(t *testing.T) {
	m := hsm.NewManager(softhsmtest.Token(t))
	template := kek(exchangeID, keys.AES128)
	template.Attributes.Usage, template.Attributes.Mode = keys.UsageBDK, keys.ModeDerive
	block, err := m.Import(t.Context(), template, secret.From(unhex(t, "FEDCBA9876543210F1F1F1F1F1F1F1F1")))
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.InitialKey(t.Context(), block, unhex(t, "01018001000200801234567890123456"))
	if err != nil || !got.Equal(secret.From(unhex(t, "1273671EA26AC29AFA4D1084127652A1"))) {
		t.Errorf("initial key: %v, %v", got.Len(), err)
	}
}

// TestWrappingPair: keys come in by RSA-OAEP, in the token where the module
// has the hash and the key is AES.
func TestWrappingPair(t *testing.T) {
	m := hsm.NewManager(softhsmtest.Token(t))
	const name = "import-token-pair0001"
	public, err := m.MakeWrappingPair(t.Context(), name, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.MakeWrappingPair(t.Context(), name, 2048); !errors.Is(err, hsm.ErrExists) {
		t.Errorf("a second pair of the name: %v", err)
	}
	if found, err := m.WrappingPair(t.Context(), name); err != nil || !found.Equal(public) || found.N.BitLen() != 2048 {
		t.Errorf("found another: %v", err)
	}
	onSoftHSM := os.Getenv(softhsmtest.ModuleVar) != softhsmtest.Softokn().Name
	for _, c := range []struct {
		name      string
		algorithm keys.Algorithm
		hash      crypto.Hash
		value     string
		unseen    bool // by softokn
		token     bool // policy
		want      error
	}{
		{name: "TDES_2KEY SHA-256", algorithm: keys.TDES2, hash: crypto.SHA256, value: zmkValue},
		{name: "TDES_2KEY SHA-512", algorithm: keys.TDES2, hash: crypto.SHA512, value: zmkValue},
		{name: "TDES_3KEY SHA-256", algorithm: keys.TDES3, hash: crypto.SHA256, value: "7C89D6CB3D45E549C16D76585416A18A7AB9649DE91F1C9E"},
		{name: "AES_128 SHA-256", algorithm: keys.AES128, hash: crypto.SHA256, value: "66F69CA1D7F33E1B10B8798DDA30361F", unseen: true},
		{name: "AES_128 SHA-512", algorithm: keys.AES128, hash: crypto.SHA512, value: "66F69CA1D7F33E1B10B8798DDA30361F", unseen: true},
		{name: "too long for AES_128", algorithm: keys.AES128, hash: crypto.SHA256, value: "66F69CA1D7F33E1B10B8798DDA30361F00", want: keys.ErrMaterial},
		{name: "too short for AES_128", algorithm: keys.AES128, hash: crypto.SHA256, value: "66F69CA1D7F33E1B", want: keys.ErrMaterial},
		{name: "too long for TDES_2KEY", algorithm: keys.TDES2, hash: crypto.SHA256, value: "7C89D6CB3D45E549C16D76585416A18A7AB9649DE91F1C9E", want: keys.ErrMaterial},
		{name: "weak AES", algorithm: keys.AES128, hash: crypto.SHA256, value: "A5A5A5A5A5A5A5A5A5A5A5A5A5A5A5A5", want: keys.ErrMaterial},
		{name: "TDES of equal halves", algorithm: keys.TDES2, hash: crypto.SHA256, value: "7C89D6CB3D45E5497C89D6CB3D45E549", want: keys.ErrMaterial},
		{name: "policy token, TDES", algorithm: keys.TDES2, hash: crypto.SHA256, value: zmkValue, token: true, want: keys.ErrCustody},
	} {
		t.Run(c.name, func(t *testing.T) {
			cryptogram, err := rsa.EncryptOAEP(c.hash.New(), rand.Reader, public, unhex(t, c.value), nil)
			if err != nil {
				t.Fatal(err)
			}
			template := kek(exchangeID, c.algorithm)
			if c.token {
				template.Policy = map[string]string{"keyd:custody": "token"}
			}
			b, inProcess, err := m.ImportOAEP(t.Context(), name, c.hash, cryptogram, template)
			if !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if c.want != nil {
				return
			}
			if inProcess != (onSoftHSM || !c.unseen) {
				t.Errorf("in the process: %v", inProcess)
			}
			want, err := m.Import(t.Context(), kek(exchangeID, c.algorithm), secret.From(unhex(t, c.value)))
			if err != nil || b.Check != want.Check || !bytes.Equal(b.Wrapped, want.Wrapped) || b.MAC != want.MAC {
				t.Errorf("another key came in: check value %v, want %v; %v", b.Check, want.Check, err)
			}
		})
	}
	good, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, unhex(t, zmkValue), nil)
	if err != nil {
		t.Fatal(err)
	}
	labelled, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, unhex(t, zmkValue), []byte("label"))
	if err != nil {
		t.Fatal(err)
	}
	over := bytes.Repeat([]byte{0xFF}, 256)
	for what, bad := range map[string][]byte{
		"damaged": append([]byte{good[0] ^ 1}, good[1:]...), "short": good[1:], "long": append([]byte{0}, good...),
		"with a label": labelled, "above the modulus": over, "empty": {},
	} {
		_, _, err := m.ImportOAEP(t.Context(), name, crypto.SHA256, bad, kek(exchangeID, keys.TDES2))
		if !errors.Is(err, keys.ErrMaterial) {
			t.Errorf("%s: %v, want %v", what, err, keys.ErrMaterial)
		}
	}
	if _, _, err := m.ImportOAEP(t.Context(), name, crypto.SHA512, good, kek(exchangeID, keys.TDES2)); !errors.Is(err, keys.ErrMaterial) {
		t.Errorf("the other hash: %v", err)
	}
	if _, _, err := m.ImportOAEP(t.Context(), name, crypto.SHA256, good, kek(exchangeID, keys.TDES2)); err != nil {
		t.Errorf("after the bad ones, a good one: %v", err)
	}
	for range 2 {
		if err := m.DestroyWrappingPair(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	if _, err := m.WrappingPair(t.Context(), name); !errors.Is(err, keys.ErrNoKey) {
		t.Errorf("after its destruction: %v", err)
	}
	if _, _, err := m.ImportOAEP(t.Context(), name, crypto.SHA256, good, kek(exchangeID, keys.TDES2)); !errors.Is(err, keys.ErrNoKey) {
		t.Errorf("with a destroyed pair: %v", err)
	}
}

// TestIssuer: made once, found again.
func TestIssuer(t *testing.T) {
	m := hsm.NewManager(softhsmtest.Token(t))
	var first crypto.PublicKey
	for i := range 2 {
		signer, err := m.Issuer(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		public, ok := signer.Public().(*ecdsa.PublicKey)
		if !ok {
			t.Fatalf("a key of type %T", signer.Public())
		}
		if i == 0 {
			first = public
		} else if !public.Equal(first) {
			t.Error("the second time another key")
		}
		digest := sha256.Sum256([]byte("certificate"))
		if _, err := signer.Sign(nil, digest[:], crypto.SHA256); err != nil {
			t.Error(err)
		}
	}
}
