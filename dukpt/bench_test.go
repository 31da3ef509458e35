package dukpt_test

import (
	"crypto/rand"
	"fmt"
	"math/bits"
	"testing"

	"keyd.dev/keyd/dukpt"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/pin"
)

// BenchmarkTranslate is all that the process does for one PIN from a TDES DUKPT
// terminal, once the token has given the initial key: walk, PIN key,
// translation to a zone key. Nearly all of it, and two allocations for each one
// bit of the counter, is crypto/des making key schedules.
func BenchmarkTranslate(b *testing.B) {
	zpk, err := secret.NewTDES([]byte("0123456789abcdef"))
	if err != nil {
		b.Fatal(err)
	}
	pan, err := pin.ParsePAN("4012345678909")
	if err != nil {
		b.Fatal(err)
	}
	side := pin.Side{Format: pin.Format0, PAN: pan}
	p, err := pin.ParsePIN([]byte("1234"))
	if err != nil {
		b.Fatal(err)
	}
	ik := [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}
	for _, text := range []string{"FFFF9876543210E00001", "FFFF9876543210E0001F", "FFFF9876543210FFF800"} {
		ksn, err := dukpt.ParseTDESKSN(text)
		if err != nil {
			b.Fatal(err)
		}
		field, err := pin.Encode(&side, &p, nil)
		if err != nil {
			b.Fatal(err)
		}
		block, err := pin.Encipher(pinCipher(b, &ik, ksn), &side, &field)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("%d ones", bits.OnesCount32(ksn.Counter())), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := pin.Translate(pinCipher(b, &ik, ksn), &side, block, zpk, &side, rand.Reader); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func pinCipher(b *testing.B, ik *[16]byte, ksn dukpt.TDESKSN) secret.Cipher {
	b.Helper()
	transaction, err := dukpt.Walk(ik, ksn)
	if err != nil {
		b.Fatal(err)
	}
	key, err := dukpt.WorkingKey(&transaction, dukpt.PIN)
	if err != nil {
		b.Fatal(err)
	}
	c, err := secret.NewTDES(key[:])
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// BenchmarkTranslateAES is the same for an AES DUKPT terminal: walk, PIN key,
// translation from format 4 to a zone key under AES.
func BenchmarkTranslateAES(b *testing.B) {
	zpk, err := secret.NewAES([]byte("0123456789abcdef"))
	if err != nil {
		b.Fatal(err)
	}
	pan, err := pin.ParsePAN("4012345678909")
	if err != nil {
		b.Fatal(err)
	}
	side := pin.Side{Format: pin.Format4, PAN: pan}
	p, err := pin.ParsePIN([]byte("1234"))
	if err != nil {
		b.Fatal(err)
	}
	ik, err := dukpt.NewKey(dukpt.AES128, []byte("fedcba9876543210"))
	if err != nil {
		b.Fatal(err)
	}
	for _, text := range []string{"123456789012345600000001", "12345678901234560000001F", "123456789012345600FFFF00"} {
		ksn, err := dukpt.ParseAESKSN(text)
		if err != nil {
			b.Fatal(err)
		}
		field, err := pin.Encode(&side, &p, rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		block, err := pin.Encipher(pinCipherAES(b, &ik, ksn), &side, &field)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("%d ones", bits.OnesCount32(ksn.Counter())), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := pin.Translate(pinCipherAES(b, &ik, ksn), &side, block, zpk, &side, rand.Reader); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func pinCipherAES(b *testing.B, ik *dukpt.Key, ksn dukpt.AESKSN) secret.Cipher {
	b.Helper()
	transaction, err := dukpt.AESWalk(ik, ksn)
	if err != nil {
		b.Fatal(err)
	}
	key, err := dukpt.AESWorkingKey(&transaction, ksn, dukpt.PIN, dukpt.AES128)
	if err != nil {
		b.Fatal(err)
	}
	c, err := secret.NewAES(key.Bytes())
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// BenchmarkInitialKey derives the initial key of a device: two TDES encryptions,
// or one AES encryption.
func BenchmarkInitialKey(b *testing.B) {
	b.Run("TDES", func(b *testing.B) {
		bdk := [16]byte([]byte("0123456789abcdef"))
		ksn, err := dukpt.ParseTDESKSN("FFFF9876543210E00001")
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			companion := dukpt.Companion(&bdk)
			data := dukpt.InitialKeyData(ksn)
			for _, half := range [][16]byte{bdk, companion} {
				c, err := secret.NewTDES(half[:])
				if err != nil {
					b.Fatal(err)
				}
				if _, err := c.Encrypt(nil, data[:]); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("AES", func(b *testing.B) {
		bdk, err := dukpt.NewKey(dukpt.AES128, []byte("0123456789abcdef"))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := dukpt.AESInitialKey(&bdk, [8]byte{1, 2, 3}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
