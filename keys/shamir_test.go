package keys_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

func share(t testing.TB, index byte, digits string) keys.Share {
	t.Helper()
	raw, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return keys.Share{Index: index, Value: secret.From(raw)}
}

// TestSharesMcGrew: draft-mcgrew-tss-03, section 9.
func TestSharesMcGrew(t *testing.T) {
	want := []byte("test\x00")
	one, two := share(t, 1, "B9FA07E185"), share(t, 2, "F5409B4511")
	for _, shares := range [][]keys.Share{{one, two}, {two, one}} {
		got, err := keys.Join(2, shares)
		if err != nil || !bytes.Equal(got.Reveal(), want) {
			t.Errorf("Join: another secret, %v", err)
		}
	}
	// Those shares follow from the coefficients; these are f(1)-f(0).
	coefficients := bytes.NewReader([]byte{0xB9 ^ 't', 0xFA ^ 'e', 0x07 ^ 's', 0xE1 ^ 't', 0x85})
	made, err := keys.Split(coefficients, secret.From([]byte("test\x00")), 2, 2)
	if err != nil || !made[0].Value.Equal(one.Value) || !made[1].Value.Equal(two.Value) {
		t.Errorf("Split: other shares, %v", err)
	}
}

// TestSharesBlockchainCommons: github.com/BlockchainCommons/bc-shamir,
// split 3 of 5. That scheme puts the secret at x = 255 and begins with
// x = 0; the field and the interpolation are the same.
func TestSharesBlockchainCommons(t *testing.T) {
	tests := []struct {
		name, want string
		shares     []keys.Share
	}{
		{"3 of 5", "0ff784df000c4380a5ed683f7e6e3dcf", []keys.Share{
			share(t, 1, "d43099fe444807c46921a4f33a2a798b"),
			share(t, 2, "d9ad4e3bec2e1a7485698823abf05d36"),
			share(t, 4, "1aa7fe3199bc5092ef3816b074cabdf2"),
		}},
		{"3 of 5, with x = 0", "0ff784df000c4380a5ed683f7e6e3dcf", []keys.Share{
			share(t, 0, "00112233445566778899aabbccddeeff"),
			share(t, 2, "d9ad4e3bec2e1a7485698823abf05d36"),
			share(t, 3, "0d8cf5f6ec337bc764d1866b5d07ca42"),
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := keys.Interpolate(test.shares, 255)
			if hex.EncodeToString(got.Reveal()) != test.want {
				t.Error("another secret")
			}
		})
	}
}

// TestShareField: FIPS 197, 4.2, and every inverse.
func TestShareField(t *testing.T) {
	for _, test := range []struct{ a, b, want byte }{
		{0x57, 0x83, 0xC1}, {0x57, 0x13, 0xFE}, {0x57, 0x02, 0xAE}, {0x57, 0x10, 0x07}, {0, 0xFF, 0}, {1, 0xFF, 0xFF},
	} {
		if got, _ := keys.GF(test.a, test.b); got != test.want {
			t.Errorf("%02X * %02X = %02X, want %02X", test.a, test.b, got, test.want)
		}
	}
	for a := 1; a < 256; a++ {
		_, inverse := keys.GF(byte(a), 0)
		if one, _ := keys.GF(byte(a), inverse); one != 1 {
			t.Errorf("%02X times its inverse is %02X", a, one)
		}
	}
}

// TestSharesAny: any k of n shares give the secret, in any order, and more than
// k are accepted.
func TestSharesAny(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(t, "secret")
		n := rapid.IntRange(2, 20).Draw(t, "n")
		k := rapid.IntRange(2, n).Draw(t, "k")
		shares, err := keys.Split(rand.Reader, secret.From(bytes.Clone(value)), k, n)
		if err != nil {
			t.Fatal(err)
		}
		some := rapid.Permutation(shares).Draw(t, "order")[:rapid.IntRange(k, n).Draw(t, "given")]
		got, err := keys.Join(k, some)
		if err != nil || !bytes.Equal(got.Reveal(), value) {
			t.Fatalf("Join: another secret, %v", err)
		}
		if len(some) == k {
			return
		}
		wrong := rapid.SampledFrom(some).Draw(t, "wrong")
		wrong.Value.Reveal()[0] ^= rapid.ByteRange(1, 255).Draw(t, "flip")
		if _, err := keys.Join(k, some); !errors.Is(err, keys.ErrShareWrong) {
			t.Fatalf("a wrong share among more than enough: %v, want %v", err, keys.ErrShareWrong)
		}
	})
}

// TestSharesTellNothing: k-1 shares fit every secret, and each equally well:
// for every value of the last coefficient's share there is one.
func TestSharesTellNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := rapid.IntRange(2, 6).Draw(t, "k")
		shares, err := keys.Split(rand.Reader, secret.From([]byte{rapid.Byte().Draw(t, "secret")}), k, k)
		if err != nil {
			t.Fatal(err)
		}
		var seen [256]bool
		for other := range 256 {
			shares[k-1].Value.Reveal()[0] = byte(other)
			got, err := keys.Join(k, shares)
			if err != nil {
				t.Fatal(err)
			}
			seen[got.Reveal()[0]] = true
		}
		for value, ok := range seen {
			if !ok {
				t.Fatalf("with %d of %d shares the secret cannot be %02X", k-1, k, value)
			}
		}
	})
}

// TestWrongShare: the secret of exactly k shares with a wrong one differs, so
// that its check value does.
func TestWrongShare(t *testing.T) {
	value := secret.From(bytes.Repeat([]byte{7}, 32))
	shares, err := keys.Split(rand.Reader, value, 3, 5)
	if err != nil {
		t.Fatal(err)
	}
	shares[4].Value.Reveal()[31] ^= 1
	got, err := keys.Join(3, []keys.Share{shares[0], shares[2], shares[4]})
	if err != nil || got.Equal(value) {
		t.Errorf("the same secret from a wrong share, %v", err)
	}
}

func TestSharesRefused(t *testing.T) {
	a, b := share(t, 1, "0102"), share(t, 2, "0304")
	joins := []struct {
		name   string
		k      int
		shares []keys.Share
		want   error
	}{
		{"none", 2, nil, keys.ErrTooFewShares},
		{"too few", 3, []keys.Share{a, b}, keys.ErrTooFewShares},
		{"one twice", 2, []keys.Share{a, a}, keys.ErrShareTwice},
		{"an index twice", 2, []keys.Share{a, share(t, 1, "0506")}, keys.ErrShareTwice},
		{"index 0", 2, []keys.Share{a, share(t, 0, "0304")}, keys.ErrShareIndex},
		{"lengths", 2, []keys.Share{a, share(t, 2, "030405")}, keys.ErrShareLength},
		{"empty", 2, []keys.Share{share(t, 1, ""), share(t, 2, "")}, keys.ErrShareLength},
		{"threshold 1", 1, []keys.Share{a, b}, keys.ErrShare},
		{"threshold 256", 256, []keys.Share{a, b}, keys.ErrShare},
	}
	for _, test := range joins {
		t.Run("join "+test.name, func(t *testing.T) {
			_, err := keys.Join(test.k, test.shares)
			if !errors.Is(err, test.want) || !errors.Is(err, keys.ErrShare) {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
	for _, test := range []struct{ k, n int }{{1, 5}, {0, 0}, {3, 2}, {2, 256}, {-1, 3}} {
		t.Run(fmt.Sprintf("split %d of %d", test.k, test.n), func(t *testing.T) {
			if _, err := keys.Split(rand.Reader, secret.New(16), test.k, test.n); !errors.Is(err, keys.ErrShare) {
				t.Errorf("%v, want %v", err, keys.ErrShare)
			}
		})
	}
	if _, err := keys.Split(rand.Reader, secret.Bytes{}, 2, 3); !errors.Is(err, keys.ErrShareLength) {
		t.Errorf("an empty secret: %v, want %v", err, keys.ErrShareLength)
	}
	if _, err := keys.Split(strings.NewReader("short"), secret.New(16), 2, 3); !errors.Is(err, io.EOF) {
		t.Errorf("a generator that ends: %v, want %v", err, io.EOF)
	}
}

func TestMostShares(t *testing.T) {
	value := secret.From([]byte("0123456789abcdef0123456789abcdef"))
	shares, err := keys.Split(rand.Reader, value, 255, 255)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := keys.Join(255, shares); err != nil || !got.Equal(value) {
		t.Errorf("255 of 255: %v", err)
	}
}

func TestSharePrintsNothing(t *testing.T) {
	if text := fmt.Sprintf("%v %+v %x", share(t, 1, "AABB"), share(t, 1, "AABB"), share(t, 1, "AABB")); strings.Contains(strings.ToLower(text), "aabb") {
		t.Error("a share prints its value")
	}
}
