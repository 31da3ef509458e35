package blockmode

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"keyd.dev/keyd/internal/secret"
)

func unhex(tb testing.TB, text string) []byte {
	tb.Helper()
	raw, err := hex.DecodeString(text)
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

// The keys, initial vector and message of NIST SP 800-38A, annex F.
const (
	key128  = "2b7e151628aed2a6abf7158809cf4f3c"
	key192  = "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b"
	key256  = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"
	vector  = "000102030405060708090a0b0c0d0e0f"
	message = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)

// TestPublished: the examples of NIST SP 800-38A, annexes F.1 to F.4.
func TestPublished(t *testing.T) {
	for _, c := range []struct {
		name  string
		mode  Mode
		key   string
		bytes int // of the message
		want  string
	}{
		{"F.1.1 ECB-AES128", ECB, key128, 64, "3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf43b1cd7f598ece23881b00e3ed0306887b0c785e27e8ad3f8223207104725dd4"},
		{"F.2.1 CBC-AES128", CBC, key128, 64, "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b273bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7"},
		{"F.2.5 CBC-AES256", CBC, key256, 64, "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b"},
		{"F.3.1 CFB1-AES128", CFB1, key128, 2, "68b3"},
		{"F.3.3 CFB1-AES192", CFB1, key192, 2, "9359"},
		{"F.3.5 CFB1-AES256", CFB1, key256, 2, "9029"},
		{"F.3.7 CFB8-AES128", CFB8, key128, 18, "3b79424c9c0dd436bace9e0ed4586a4f32b9"},
		{"F.3.9 CFB8-AES192", CFB8, key192, 18, "cda2521ef0a905ca44cd057cbf0d47a0678a"},
		{"F.3.11 CFB8-AES256", CFB8, key256, 18, "dc1f1a8520a64db55fcc8ac554844e889700"},
		{"F.3.13 CFB128-AES128", CFB128, key128, 64, "3b3fd92eb72dad20333449f8e83cfb4ac8a64537a0b3a93fcde3cdad9f1ce58b26751f67a3cbb140b1808cf187a4f4dfc04b05357c5d1c0eeac4c66f9ff7f2e6"},
		{"F.3.17 CFB128-AES256", CFB128, key256, 64, "dc7e84bfda79164b7ecd8486985d386039ffed143b28b1c832113c6331e5407bdf10132415e54b92a13ed0a8267ae2f975a385741ab9cef82031623d55b1e471"},
		{"CFB is CFB128 on blocks of 16", CFB, key128, 64, "3b3fd92eb72dad20333449f8e83cfb4ac8a64537a0b3a93fcde3cdad9f1ce58b26751f67a3cbb140b1808cf187a4f4dfc04b05357c5d1c0eeac4c66f9ff7f2e6"},
		{"F.4.1 OFB-AES128", OFB, key128, 64, "3b3fd92eb72dad20333449f8e83cfb4a7789508d16918f03f53c52dac54ed8259740051e9c5fecf64344f7a82260edcc304c6528f659c77866a510d9c1d6ae5e"},
		{"F.4.5 OFB-AES256", OFB, key256, 64, "dc7e84bfda79164b7ecd8486985d38604febdc6740d20b3ac88f6ad82a4fb08d71ab47a086e86eedf39d1c5bba97c4080126141d67f37be8538f5a8be740e484"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := secret.NewAES(unhex(t, c.key))
			if err != nil {
				t.Fatal(err)
			}
			iv, plain, want := unhex(t, vector), unhex(t, message)[:c.bytes], unhex(t, c.want)
			if c.mode == ECB {
				iv = nil
			}
			got, err := Encrypt(k, c.mode, iv, plain)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("enciphered: %x, %v; want %x", got, err, want)
			}
			back, err := Decrypt(k, c.mode, iv, want)
			if err != nil || !bytes.Equal(back, plain) {
				t.Errorf("deciphered: %x, %v; want %x", back, err, plain)
			}
		})
	}
}

// failer is what a test and a property of one have in common.
type failer interface {
	Helper()
	Fatal(args ...any)
}

// plainly is CFB and OFB as SP 800-38A writes them down, bit by bit.
func plainly(tb failer, c Cipher, bits int, output, decipher bool, iv, data []byte) []byte {
	tb.Helper()
	size := 8 * c.BlockSize()
	bit := func(p []byte, i int) byte { return p[i/8] >> (7 - i%8) & 1 }
	var register []byte // one bit each
	for i := range size {
		register = append(register, bit(iv, i))
	}
	out := make([]byte, len(data))
	for at := 0; at < 8*len(data); at += bits {
		in := make([]byte, size/8)
		for i, b := range register {
			in[i/8] |= b << (7 - i%8)
		}
		stream, err := c.Encrypt(nil, in)
		if err != nil {
			tb.Fatal(err)
		}
		for i := range bits {
			plain, key := bit(data, at+i), bit(stream, i)
			out[(at+i)/8] |= (plain ^ key) << (7 - (at+i)%8)
			next := plain ^ key
			if decipher {
				next = plain
			}
			if output {
				next = key
			}
			register = append(register[1:], next)
		}
	}
	return out
}

// TestAgainstTheText: every feedback mode of both ciphers is what the text of
// SP 800-38A says, in both directions.
func TestAgainstTheText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		aes := rapid.Bool().Draw(t, "aes")
		var c secret.Cipher
		var err error
		if aes {
			c, err = secret.NewAES(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "key"))
		} else {
			c, err = secret.NewTDES(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "key"))
		}
		if err != nil {
			t.Fatal(err)
		}
		m := rapid.SampledFrom([]Mode{CFB, CFB1, CFB8, CFB64, CFB128, OFB}).Draw(t, "mode")
		n := rapid.IntRange(1, 4).Draw(t, "blocks") * c.BlockSize()
		iv := rapid.SliceOfN(rapid.Byte(), c.BlockSize(), c.BlockSize()).Draw(t, "iv")
		data := rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "data")
		bits, err := m.segment(c.BlockSize())
		if m == CFB128 && !aes {
			if !errors.Is(err, ErrMode) {
				t.Fatalf("CFB128 on blocks of 8: %v", err)
			}
			return
		}
		got, err := Encrypt(c, m, iv, data)
		if err != nil || !bytes.Equal(got, plainly(t, c, bits, m == OFB, false, iv, data)) {
			t.Fatalf("%s enciphered otherwise: %v", m, err)
		}
		got, err = Decrypt(c, m, iv, data)
		if err != nil || !bytes.Equal(got, plainly(t, c, bits, m == OFB, true, iv, data)) {
			t.Fatalf("%s deciphered otherwise: %v", m, err)
		}
	})
}

// TestRefused: what does not fit is an error, and no call of the cipher.
func TestRefused(t *testing.T) {
	k, err := secret.NewTDES(unhex(t, key128))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		mode Mode
		iv   []byte
		data []byte
		want error
	}{
		{"no mode", 0, nil, make([]byte, 8), ErrMode},
		{"beyond the modes", OFB + 1, nil, make([]byte, 8), ErrMode},
		{"CFB128 on blocks of 8", CFB128, nil, make([]byte, 16), ErrMode},
		{"nothing", CBC, nil, nil, ErrData},
		{"part of a block", CBC, nil, make([]byte, 9), ErrData},
		{"part of a segment", CFB64, nil, make([]byte, 9), ErrData},
		{"ECB with a vector", ECB, make([]byte, 8), make([]byte, 8), ErrVector},
		{"vector of another cipher", CBC, make([]byte, 16), make([]byte, 8), ErrVector},
		{"empty vector", OFB, []byte{}, make([]byte, 8), ErrVector},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Encrypt(k, c.mode, c.iv, c.data); !errors.Is(err, c.want) {
				t.Errorf("Encrypt: %v, want %v", err, c.want)
			}
			if _, err := Decrypt(k, c.mode, c.iv, c.data); !errors.Is(err, c.want) {
				t.Errorf("Decrypt: %v, want %v", err, c.want)
			}
		})
	}
	if _, err := Encrypt(k, CFB1, nil, make([]byte, MostCFB1+1)); !errors.Is(err, ErrData) {
		t.Errorf("CFB1 of too much: %v", err)
	}
	if _, err := Decrypt(k, CFB1, nil, make([]byte, MostCFB1+1)); err != nil {
		t.Errorf("deciphering as much: %v", err)
	}
}

func TestNames(t *testing.T) {
	for _, m := range Modes() {
		if got, err := Parse([]byte(m.String())); err != nil || got != m {
			t.Errorf("%s is read back as %s, %v", m, got, err)
		}
		if m.Forward() != (m != ECB && m != CBC) {
			t.Errorf("%s deciphers with encryption: %v", m, m.Forward())
		}
	}
	for _, word := range []string{"", "cbc", "CFB 8", "CTR"} {
		if _, err := Parse([]byte(word)); !errors.Is(err, ErrMode) {
			t.Errorf("%q: %v", word, err)
		}
	}
}
