package hsm

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"testing"
)

// raw is the RSA decryption alone.
func raw(t testing.TB, key *rsa.PrivateKey, cryptogram []byte) []byte {
	t.Helper()
	em := new(big.Int).Exp(new(big.Int).SetBytes(cryptogram), key.D, key.N)
	return em.FillBytes(make([]byte, key.Size()))
}

// TestOpenOAEP: what crypto/rsa enciphers is opened, for every length of message,
// and no changed byte of the encoded block is.
func TestOpenOAEP(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA512} {
		for n := range key.Size() - 2*hash.Size() - 1 {
			want := bytes.Repeat([]byte{1, 0, 7}, n)[:n]
			cryptogram, err := rsa.EncryptOAEP(hash.New(), rand.Reader, &key.PublicKey, want, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, ok := openOAEP(hash, raw(t, key, cryptogram))
			if !ok || !bytes.Equal(got.Reveal(), want) {
				t.Fatalf("%v, %d bytes: not opened", hash, n)
			}
		}
		cryptogram, err := rsa.EncryptOAEP(hash.New(), rand.Reader, &key.PublicKey, []byte("0123456789abcdef"), nil)
		if err != nil {
			t.Fatal(err)
		}
		em := raw(t, key, cryptogram)
		for i := range em {
			bad := bytes.Clone(em)
			bad[i] ^= 1
			// The seed's mask is made of the whole masked rest, so each byte of it counts.
			if got, ok := openOAEP(hash, bad); ok {
				t.Fatalf("%v: byte %d changed, opened with %d bytes", hash, i, got.Len())
			}
		}
	}
}

// FuzzOpenOAEP: no encoded block makes it panic, and it opens only what has the form.
func FuzzOpenOAEP(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 66))
	f.Add(make([]byte, 256))
	f.Fuzz(func(t *testing.T, em []byte) {
		for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA512} {
			got, ok := openOAEP(hash, bytes.Clone(em))
			if ok && (em[0] != 0 || got.Len() > len(em)-2*hash.Size()-2) {
				t.Errorf("%v: opened %d bytes out of %d", hash, got.Len(), len(em))
			}
			if !ok && got.Len() != 0 {
				t.Error("bytes with a refusal")
			}
		}
	})
}
