package mac_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/internal/vectors"
	"keyd.dev/keyd/mac"
	"pgregory.net/rapid"
)

func TestVectors(t *testing.T) {
	vectors.MAC(t, softkey.Load)
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tdes(t testing.TB, key string) mac.Cipher {
	t.Helper()
	c, err := mac.NewTDES(unhex(t, key))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestPublished are the values of the tables V4, V5, V8 and V9 that the vector
// files lack.
func TestPublished(t *testing.T) {
	const (
		psec = "7CA110454A1A6E570131D9619DC1376E"
		m1   = "Now is the time for all "
		m2   = "Now is the time for it"
		two  = "0123456789ABCDEFFEDCBA9876543210"
	)
	alg1 := func(key string) func([]byte, mac.Padding) ([]byte, error) {
		return func(msg []byte, p mac.Padding) ([]byte, error) { return mac.Algorithm1(tdes(t, key), msg, p) }
	}
	alg3 := func(key string) func([]byte, mac.Padding) ([]byte, error) {
		return func(msg []byte, p mac.Padding) ([]byte, error) {
			left, full, err := mac.NewAlgorithm3(unhex(t, key))
			if err != nil {
				t.Fatal(err)
			}
			return mac.Algorithm3(left, full, msg, p)
		}
	}
	for _, c := range []struct {
		name    string
		compute func([]byte, mac.Padding) ([]byte, error)
		msg     string
		padding mac.Padding
		want    string
	}{
		{"V4.2", alg1("0123456789ABCDEF"), m1, mac.Padding1, "70A30640CC76DD8B"},
		{"V4.3", alg1("0123456789ABCDEF"), m1, mac.Padding2, "10E1F0F108341B6D"},
		{"V4.4", alg1("0123456789ABCDEF"), m2, mac.Padding1, "E45B3AD2B7CC0856"},
		{"V4.5", alg1("0123456789ABCDEF"), m2, mac.Padding2, "A924C72136149211"},
		{"V4.6", alg1(psec), "Hello World !!!!", mac.Padding1, "862304D33AF01096"},
		{"V4.6 no padding", alg1(psec), "Hello World !!!!", mac.NoPadding, "862304D33AF01096"},
		{"V5.1", alg3(psec), "Hello World !!!!", mac.Padding1, "F09B856213BAB83B"},
		{"V5.2", alg3("46B0AA84C9AB2CC87FBD7C736E515C06"), "\x12\x12\x34\xFF", mac.Padding1, "C17E5FB74EAD74B8"},
		{"V5.3", alg3("46B0AA84C9AB2CC87FBD7C736E515C06"), "\x12\x12\x34\xFF\x12\x12\x34\xFF", mac.Padding1, "B55B59567EFF9530"},
		{"V5.4", alg3(two), m1, mac.Padding1, "A1C72E74EA3FA9B6"},
		{"V5.7", alg3(two), m2, mac.Padding2, "5A692CE64F404145"},
		{"V8.1 request", alg3("042666B4918430A368DE9628D03984C9"), "4012345678909D987", mac.Padding1, "9CCC78173FC4FB64"},
		{"V8.3 response", alg3("0DF3D942D5CA56E547676D07526BADFA"), "4012345678909D987", mac.Padding1, "BAD4CC9CC2AE326C"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.compute([]byte(c.msg), c.padding)
			if err != nil || !bytes.Equal(got, unhex(t, c.want)) {
				t.Errorf("%X, %v; want %s", got, err, c.want)
			}
		})
	}
}

// The messages of the UnionPay notes, from the MTI to the last byte before DE 64.
const (
	sale0200 = "0200702004C020C0981116622424290000011300000000000001000000040302100012336224242900000113D2806201" +
		"3949031010313030303031393835303130303038323431303030323031353623B72AC5781BA141260000000000000000" +
		"1322000024000600"
	reversal0400 = "04007020048002C080111662242429000001130000000000000100000004030210003938313030303031393835303130" +
		"3030383234313030303230313536001322000024000600"
	answer0410 = "0410303800800AC080110000000000000100000004031015301121003131323131303030303430333030313030303031" +
		"3938353031303030383234313030303230313536001322000024000600"
	// V11 and V12: the reversal with two bytes changed, so that the XOR stays.
	forgedAmount = "04007020048002C080111662242429000001130000000900000100000004030210003938313030303031393835303130" +
		"3030383234313930303230313536001322000024000600"
	forgedBatch = "04007020048002C080111662242429000001130000000000000900000004030210003938313030303031393835303130" +
		"3030383234313030303230313536001322080024000600"
	published830 = "08300000000002C000153030363730303436343238393733373031373933323330303200110000000137200277319F06" +
		"05A0000003339F220103DF050832303234313233319F0605A0000003339F220104DF050832303234313233319F0605A0" +
		"000003339F220102DF050832303231313233319F0605A0000000039F220107DF050832303137313233319F0605A00000" +
		"00039F220108DF050832303233313233319F0605A0000000039F220109DF050832303233313233319F0605A000000065" +
		"9F220110DF050832303232313233319F0605A0000000659F220112DF050832303232313233319F0605A0000000659F22" +
		"0114DF050832303232313233319F0605A0000000049F220104DF050832303137313233319F0605A0000000049F220105" +
		"DF050832303231313233319F0605A0000000049F220106DF05083230323131323331"
	published200 = "0200302004C020C0981100000000000000005100183402100006324392260009942820D1312101120084393136363838" +
		"303134303030303030303030303030303031313536ACF46E73838A82F92600000000000000000822000001"
)

// TestUnionPay are the published and worked values of the UnionPay dialect,
// sections 11 and 12. The forgeries must pass: nothing but what the messages say
// can refuse them.
func TestUnionPay(t *testing.T) {
	const mak = "5BB5C72CD00B7338"
	for _, c := range []struct{ name, key, msg, want string }{
		{"V7 sale", mak, sale0200, "2C2E2012"},
		{"V7 reversal, single length", mak, reversal0400, "3F8161EA"},
		{"V7 single length as K1‖K1", mak + mak, reversal0400, "3F8161EA"},
		{"V7 answer", mak, answer0410, "88A9321C"},
		{"A-08.T1 V11 forged amount", mak, forgedAmount, "3F8161EA"},
		{"V12 forged batch", mak, forgedBatch, "3F8161EA"},
		{"11.4 double length", "55036372B17543ECB173730768B8D6C4", reversal0400, "2726D08A"},
		{"V1", "2222222222222222", "1234567890ABCDEFABCDEF1234567890", "E267B6E2"},
		{"V2", "55036372B17543ECB173730768B8D6C4", published830, "5FE058DB"},
		{"V3", "C24A8FB57AA20123", published200, "8A9E91B8"},
		{"API example, double length", "AB73C9416D41E936E82AAC11053BCEDD", "3230313630393133323031363039313332303136303931333230313630393133", "30271C74"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := mac.UnionPay(tdes(t, c.key), unhex(t, c.msg))
			if err != nil || string(got[:]) != c.want {
				t.Errorf("%s, %v; want %s", got[:], err, c.want)
			}
			whole, err := mac.UnionPayWhole(tdes(t, c.key), unhex(t, c.msg))
			if text := fmt.Sprintf("%X", whole); err != nil || len(whole) != 8 || text[:8] != c.want {
				t.Errorf("the whole result is %s, %v; want %s and four more bytes", text, err, c.want)
			}
		})
	}
	if whole, err := mac.UnionPayWhole(tdes(t, mak), unhex(t, reversal0400)); err != nil || fmt.Sprintf("%X", whole) != "3F8161EA19E566DD" {
		t.Errorf("11.2 E2: %X, %v", whole, err)
	}
}

// TestUnionPayAlternatives are the other algorithms of section 11.4.
func TestUnionPayAlternatives(t *testing.T) {
	msg := unhex(t, reversal0400)
	left, full, err := mac.NewAlgorithm3(unhex(t, "55036372B17543ECB173730768B8D6C4"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		compute func() ([]byte, error)
		want    string
	}{
		"x9_9":         {func() ([]byte, error) { return mac.Algorithm1(tdes(t, "5BB5C72CD00B7338"), msg, mac.Padding1) }, "9FF15A6490EEE373"},
		"x9_19":        {func() ([]byte, error) { return mac.Algorithm3(left, full, msg, mac.Padding1) }, "1888583BFA973CAA"},
		"cbc_mac_3des": {func() ([]byte, error) { return mac.Algorithm1(full, msg, mac.Padding1) }, "D73E6A0B981E3C70"},
	} {
		if got, err := c.compute(); err != nil || fmt.Sprintf("%X", got) != c.want {
			t.Errorf("%s: %X, %v; want %s", name, got, err, c.want)
		}
	}
}

func TestUnionPayIsLinear(t *testing.T) {
	c := tdes(t, "5BB5C72CD00B7338")
	a, err := mac.UnionPay(c, []byte("AAAAAAAABBBBBBBB"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := mac.UnionPay(c, []byte("BBBBBBBBAAAAAAAA"))
	if err != nil || a != b {
		t.Errorf("A-08 U-56: exchanged blocks give another MAC, so this is not the deployed algorithm: %v", err)
	}
}

func TestPad(t *testing.T) {
	for _, c := range []struct {
		name    string
		msg     string
		padding mac.Padding
		want    string // "" for refused
		err     error
	}{
		{"1, one byte", "AA", mac.Padding1, "AA00000000000000", nil},
		{"1, whole block", "AAAAAAAAAAAAAAAA", mac.Padding1, "AAAAAAAAAAAAAAAA", nil},
		{"2, one byte", "AA", mac.Padding2, "AA80000000000000", nil},
		{"2, seven bytes", "AAAAAAAAAAAAAA", mac.Padding2, "AAAAAAAAAAAAAA80", nil},
		{"2, whole block", "AAAAAAAAAAAAAAAA", mac.Padding2, "AAAAAAAAAAAAAAAA8000000000000000", nil},
		{"none, whole block", "AAAAAAAAAAAAAAAA", mac.NoPadding, "AAAAAAAAAAAAAAAA", nil},
		{"none, seven bytes", "AAAAAAAAAAAAAA", mac.NoPadding, "", mac.ErrPadding},
		{"none, empty", "", mac.NoPadding, "", mac.ErrEmpty},
		{"1, empty", "", mac.Padding1, "", mac.ErrEmpty},
		{"2, empty", "", mac.Padding2, "", mac.ErrEmpty},
		{"no method", "AA", 0, "", mac.ErrPadding},
		{"no method, whole block", "AAAAAAAAAAAAAAAA", 0, "", mac.ErrPadding},
		{"unknown method", "AAAAAAAAAAAAAAAA", 9, "", mac.ErrPadding},
	} {
		t.Run(c.name, func(t *testing.T) {
			msg := unhex(t, c.msg)
			got, err := mac.Pad(msg, 8, c.padding)
			if !errors.Is(err, c.err) || !bytes.Equal(got, unhex(t, c.want)) {
				t.Errorf("%X, %v; want %s, %v", got, err, c.want, c.err)
			}
			if len(got) > 0 && len(msg) > 0 && &got[0] == &msg[0] {
				t.Error("the message itself was padded")
			}
		})
	}
}

func TestEmptyMessage(t *testing.T) {
	c := tdes(t, "0123456789ABCDEFFEDCBA9876543210")
	if _, err := mac.Algorithm1(c, nil, mac.Padding2); !errors.Is(err, mac.ErrEmpty) {
		t.Errorf("algorithm 1: %v, want %v", err, mac.ErrEmpty)
	}
	if _, err := mac.Algorithm3(c, c, nil, mac.Padding2); !errors.Is(err, mac.ErrEmpty) {
		t.Errorf("algorithm 3: %v, want %v", err, mac.ErrEmpty)
	}
	if _, err := mac.UnionPay(c, nil); !errors.Is(err, mac.ErrEmpty) {
		t.Errorf("UnionPay: %v, want %v", err, mac.ErrEmpty)
	}
	if _, err := mac.AS2805(c, c, nil); !errors.Is(err, mac.ErrEmpty) {
		t.Errorf("AS 2805: %v, want %v", err, mac.ErrEmpty)
	}
}

func TestCipherMustFit(t *testing.T) {
	eight := tdes(t, "0123456789ABCDEFFEDCBA9876543210")
	sixteen, err := mac.NewAES(make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	msg := make([]byte, 16)
	if _, err := mac.Algorithm3(sixteen, eight, msg, mac.Padding1); !errors.Is(err, mac.ErrCipher) {
		t.Errorf("algorithm 3, left AES: %v, want %v", err, mac.ErrCipher)
	}
	if _, err := mac.Algorithm3(eight, sixteen, msg, mac.Padding1); !errors.Is(err, mac.ErrCipher) {
		t.Errorf("algorithm 3, full AES: %v, want %v", err, mac.ErrCipher)
	}
	if _, err := mac.UnionPay(sixteen, msg); !errors.Is(err, mac.ErrCipher) {
		t.Errorf("UnionPay, AES: %v, want %v", err, mac.ErrCipher)
	}
	for n := range 40 {
		key := make([]byte, n)
		if _, _, err := mac.NewAlgorithm3(key); (err == nil) != (n == 16) || err != nil && !errors.Is(err, mac.ErrCipher) {
			t.Errorf("algorithm 3 with %d bytes: %v", n, err)
		}
		if _, err := mac.NewTDES(key); (err == nil) != (n == 8 || n == 16 || n == 24) || err != nil && !errors.Is(err, mac.ErrCipher) {
			t.Errorf("TDES with %d bytes: %v", n, err)
		}
		if _, err := mac.NewAES(key); (err == nil) != (n == 16 || n == 24 || n == 32) || err != nil && !errors.Is(err, mac.ErrCipher) {
			t.Errorf("AES with %d bytes: %v", n, err)
		}
	}
}

// counting counts the calls of a cipher, each of which is one of a token.
type counting struct {
	mac.Cipher
	calls *int
}

func (c counting) Encrypt(iv, src []byte) ([]byte, error) {
	*c.calls++
	return c.Cipher.Encrypt(iv, src)
}

func TestTokenCalls(t *testing.T) {
	var left, full int
	l := counting{tdes(t, "0123456789ABCDEF0123456789ABCDEF"), &left}
	f := counting{tdes(t, "0123456789ABCDEFFEDCBA9876543210"), &full}
	for _, c := range []struct {
		name       string
		run        func() error
		left, full int
	}{
		{"M-31 algorithm 3, long", func() error { _, err := mac.Algorithm3(l, f, make([]byte, 200), mac.Padding1); return err }, 1, 1},
		{"M-31 algorithm 3, one block", func() error { _, err := mac.Algorithm3(l, f, make([]byte, 8), mac.Padding1); return err }, 0, 1},
		{"algorithm 1", func() error { _, err := mac.Algorithm1(f, make([]byte, 200), mac.Padding1); return err }, 0, 1},
		{"CMAC", func() error { _, err := mac.CMAC(f, make([]byte, 200)); return err }, 0, 2},
		{"M-32 UnionPay", func() error { _, err := mac.UnionPay(f, make([]byte, 200)); return err }, 0, 1},
	} {
		left, full = 0, 0
		if err := c.run(); err != nil || left != c.left || full != c.full {
			t.Errorf("%s: %d and %d calls, %v; want %d and %d", c.name, left, full, err, c.left, c.full)
		}
	}
}

// failing is a token that has gone.
type failing struct{ error }

func (f failing) BlockSize() int                      { return 8 }
func (f failing) Encrypt(_, _ []byte) ([]byte, error) { return nil, f.error }

func TestTokenErrors(t *testing.T) {
	gone := failing{errors.New("token gone")}
	good := tdes(t, "0123456789ABCDEFFEDCBA9876543210")
	msg := make([]byte, 24)
	for name, err := range map[string]error{
		"algorithm 1":       second(mac.Algorithm1(gone, msg, mac.Padding1)),
		"algorithm 3, left": second(mac.Algorithm3(gone, good, msg, mac.Padding1)),
		"algorithm 3, full": second(mac.Algorithm3(good, gone, msg, mac.Padding1)),
		"CMAC":              second(mac.CMAC(gone, msg)),
		"UnionPay":          second(mac.UnionPay(gone, msg)),
		"AS 2805":           second(mac.AS2805(gone, good, msg)),
	} {
		if !errors.Is(err, gone.error) || errors.Is(err, mac.ErrMAC) {
			t.Errorf("%s: %v, want %v", name, err, gone.error)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestVerify(t *testing.T) {
	full := unhex(t, "0102030405060708")
	for _, c := range []struct {
		name     string
		received string
		length   int
		want     error
	}{
		{"whole", "0102030405060708", 8, nil},
		{"four bytes", "01020304", 4, nil},
		{"two bytes", "0102", 2, nil},
		{"M-07 message brings more than configured", "0102030405060708", 4, mac.ErrMAC},
		{"M-07 message brings less than configured", "01020304", 8, mac.ErrMAC},
		{"M-07 message brings nothing", "", 4, mac.ErrMAC},
		{"D-03 last byte wrong", "0102030405060709", 8, mac.ErrMAC},
		{"D-03 first byte wrong", "8102030405060708", 8, mac.ErrMAC},
		{"right half", "05060708", 4, mac.ErrMAC},
		{"configured to nothing", "", 0, mac.ErrLength},
		{"configured to one byte", "01", 1, mac.ErrLength},
		{"configured below zero", "", -1, mac.ErrLength},
		{"configured beyond the MAC", "010203040506070800", 9, mac.ErrLength},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := mac.Verify(full, unhex(t, c.received), c.length); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
	short, err := mac.Truncate(full, 4)
	if err != nil || !bytes.Equal(short, full[:4]) || cap(short) != 4 {
		t.Errorf("truncated to %X (capacity %d), %v", short, cap(short), err)
	}
}

func TestHMAC(t *testing.T) {
	// RFC 4231, test case 2.
	for h, want := range map[mac.Hash]string{
		mac.SHA224: "A30E01098BC6DBBF45690F3A7E9E6D0F8BBEA2A39E6148008FD05E44",
		mac.SHA256: "5BDCC146BF60754E6A042426089575C75A003F089D2739839DEC58B964EC3843",
		mac.SHA384: "AF45D2E376484031617F78D2B58A6B1B9C7EF464F5A01B47E42EC3736322445E8E2240CA5E69E2C78B3239ECFAB21649",
		mac.SHA512: "164B7A7BFCF819E2E395FBE73B56E0A387BD64222E831FD610270CD7EA2505549758BF75C05A994A6D034F65F8F0E6FDCAEAB1A34D4A6B4B636E070A38BCE737",
	} {
		got, err := mac.HMAC(h, []byte("Jefe"), []byte("what do ya want for nothing?"))
		if err != nil || !bytes.Equal(got, unhex(t, want)) || len(got) != h.Size() {
			t.Errorf("%s differs from RFC 4231: %v", h, err)
		}
	}
	for _, h := range []mac.Hash{0, 5, 255} {
		if _, err := mac.HMAC(h, nil, nil); !errors.Is(err, mac.ErrHash) || h.Size() != 0 {
			t.Errorf("hash %d: %v, want %v", h, err, mac.ErrHash)
		}
	}
}

// TestAlgorithm3IsRetail compares the two token calls with the definition:
// CBC with DES over all blocks, then D with K2, then E with K1.
func TestAlgorithm3IsRetail(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "key")
		msg := rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "message")
		padding := rapid.SampledFrom([]mac.Padding{mac.Padding1, mac.Padding2}).Draw(t, "padding")
		left, full, err := mac.NewAlgorithm3(key)
		if err != nil {
			t.Fatal(err)
		}
		got, err := mac.Algorithm3(left, full, msg, padding)
		if err != nil {
			t.Fatal(err)
		}
		k1, err := secret.NewTDES(key[:8])
		if err != nil {
			t.Fatal(err)
		}
		k2, err := secret.NewTDES(key[8:])
		if err != nil {
			t.Fatal(err)
		}
		cbc, err := mac.Algorithm1(k1, msg, padding)
		if err != nil {
			t.Fatal(err)
		}
		if cbc, err = k2.Decrypt(nil, cbc); err != nil {
			t.Fatal(err)
		}
		if cbc, err = k1.Encrypt(nil, cbc); err != nil || !bytes.Equal(got, cbc) {
			t.Fatalf("%X, want %X, %v", got, cbc, err)
		}
	})
}

func TestPadding1Collides(t *testing.T) {
	c := tdes(t, "0123456789ABCDEFFEDCBA9876543210")
	one := func(msg string, p mac.Padding) string {
		m, err := mac.Algorithm1(c, []byte(msg), p)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%X", m)
	}
	if one("1234567", mac.Padding1) != one("1234567\x00", mac.Padding1) {
		t.Error("A-09 padding 1 tells a trailing zero, so it is not padding 1")
	}
	if one("1234567", mac.Padding2) == one("1234567\x00", mac.Padding2) {
		t.Error("A-09 padding 2 does not tell a trailing zero")
	}
}

func BenchmarkMAC(b *testing.B) {
	msg := make([]byte, 200)
	left, full, err := mac.NewAlgorithm3(unhex(b, "0123456789ABCDEFFEDCBA9876543210"))
	if err != nil {
		b.Fatal(err)
	}
	aes, err := mac.NewAES(make([]byte, 16))
	if err != nil {
		b.Fatal(err)
	}
	for name, f := range map[string]func() error{
		"algorithm 1": func() error { return second(mac.Algorithm1(full, msg, mac.Padding1)) },
		"algorithm 3": func() error { return second(mac.Algorithm3(left, full, msg, mac.Padding1)) },
		"CMAC TDES":   func() error { return second(mac.CMAC(full, msg)) },
		"CMAC AES":    func() error { return second(mac.CMAC(aes, msg)) },
		"HMAC-SHA256": func() error { return second(mac.HMAC(mac.SHA256, msg[:32], msg)) },
		"UnionPay":    func() error { return second(mac.UnionPay(full, msg)) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
