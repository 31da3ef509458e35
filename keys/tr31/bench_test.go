package tr31

import (
	"crypto/rand"
	"testing"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/keys"
)

// BenchmarkBlock seals and opens a two-key TDES PIN key under a KBPK of each
// family, all in software.
func BenchmarkBlock(b *testing.B) {
	for _, under := range []keys.Algorithm{keys.TDES2, keys.AES256} {
		kbpk, err := softkey.New(under, []byte("0123456789abcdefghijklmnopqrstuv")[:under.KeyBytes()])
		if err != nil {
			b.Fatal(err)
		}
		value := secret.From([]byte("fedcba9876543210"))
		header := NewHeader(keys.Attributes{Usage: keys.UsagePIN, Algorithm: keys.TDES2, Mode: keys.ModeBoth, Exportability: keys.Exportable}, under)
		text, err := Seal(kbpk, under, header, value, rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		b.Run("seal under "+under.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Seal(kbpk, under, header, value, rand.Reader); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("open under "+under.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				block, err := Parse(text)
				if err != nil {
					b.Fatal(err)
				}
				key, err := block.Open(kbpk, under, Policy{})
				if err != nil {
					b.Fatal(err)
				}
				key.Clear()
			}
		})
	}
}
