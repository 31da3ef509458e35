package hsm_test

import (
	"testing"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/keys"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// template returns what Generate and Import take.
func template(u keys.Usage, a keys.Algorithm, m keys.Mode) keys.Block {
	return keys.Block{
		ID: "zyxwvutsrqponmlkjihgfedcba987654", Version: 1, CreatedMs: 1,
		Attributes: keys.Attributes{Usage: u, Algorithm: a, Mode: m, Exportability: keys.Exportable},
	}
}

func benchKey(b *testing.B, u keys.Usage, a keys.Algorithm, m keys.Mode) (*hsm.Token, *keys.Block, keys.Key) {
	tok := softhsmtest.Token(b)
	block, _, err := hsm.NewManager(tok).Generate(b.Context(), template(u, a, m))
	if err != nil {
		b.Fatal(err)
	}
	l, err := tok.Load(b.Context(), block)
	if err != nil {
		b.Fatal(err)
	}
	return tok, block, l.Key
}

func BenchmarkEncrypt(b *testing.B) {
	_, _, k := benchKey(b, keys.UsagePIN, keys.TDES2, keys.ModeBoth)
	src := make([]byte, 8)
	b.Run("TDES block", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := k.Encrypt(nil, src); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("TDES block parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(4)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := k.Encrypt(nil, src); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

func BenchmarkCMAC(b *testing.B) {
	_, _, k := benchKey(b, keys.UsageCMAC, keys.AES128, keys.ModeMAC)
	msg := make([]byte, 256)
	b.Run("AES 256 bytes", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := k.CMAC(msg); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("AES 256 bytes parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(4)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := k.CMAC(msg); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// BenchmarkInitialKey is what TDES DUKPT asks of the token for one transaction.
func BenchmarkInitialKey(b *testing.B) {
	tok, block, _ := benchKey(b, keys.UsageBDK, keys.TDES2, keys.ModeDerive)
	serial := make([]byte, 8)
	initialKey := func() error {
		l, err := tok.Load(b.Context(), block)
		if err != nil {
			return err
		}
		defer l.Release()
		if _, err = l.Key.Encrypt(nil, serial); err != nil {
			return err
		}
		_, err = l.Companion.Encrypt(nil, serial)
		return err
	}
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := initialKey(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.SetParallelism(4)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := initialKey(); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

func BenchmarkLoadResident(b *testing.B) {
	tok, block, _ := benchKey(b, keys.UsagePIN, keys.TDES2, keys.ModeBoth)
	b.ReportAllocs()
	for b.Loop() {
		l, err := tok.Load(b.Context(), block)
		if err != nil {
			b.Fatal(err)
		}
		l.Release()
	}
}
