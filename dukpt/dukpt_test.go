package dukpt_test

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"keyd.dev/keyd/dukpt"
	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/internal/vectors"
	"pgregory.net/rapid"
)

func TestVectors(t *testing.T) {
	t.Run("dukpt_tdes", func(t *testing.T) { vectors.TDESDUKPT(t, softkey.Load) })
	t.Run("dukpt_aes", func(t *testing.T) { vectors.AESDUKPT(t, softkey.Load) })
}

func TestParseKSN(t *testing.T) {
	tdes := func(s string) (fmt.Stringer, error) { return dukpt.ParseTDESKSN(s) }
	short := func(s string) (fmt.Stringer, error) { return dukpt.ParseShortTDESKSN(s) }
	aes := func(s string) (fmt.Stringer, error) { return dukpt.ParseAESKSN(s) }
	for _, c := range []struct {
		name  string
		parse func(string) (fmt.Stringer, error)
		text  string
		want  string // "" for refused
	}{
		{"20 digits", tdes, "FFFF9876543210E00001", "FFFF9876543210E00001"},
		{"lower case", tdes, "ffff9876543210e00001", "FFFF9876543210E00001"},
		{"filled with F", tdes, "FFFFFFFFFFFFFFE00001", "FFFFFFFFFFFFFFE00001"},
		{"counter not valid, still a serial number", tdes, "FFFF9876543210FFFFFF", "FFFF9876543210FFFFFF"},
		{"short form of 16", short, "9876543210E00001", "FFFF9876543210E00001"},
		{"24 digits", aes, "123456789012345600000001", "123456789012345600000001"},
		{"TDES from short form", tdes, "9876543210E00001", ""},
		{"TDES from 24", tdes, "123456789012345600000001", ""},
		{"TDES odd", tdes, "FFFF9876543210E0000", ""},
		{"TDES empty", tdes, "", ""},
		{"TDES letter G", tdes, "FFFF9876543210E0000G", ""},
		{"TDES blank inside", tdes, "FFFF9876543210E 0001", ""},
		{"TDES two-byte character", tdes, "FFFF9876543210E000é", ""},
		{"short form from 20", short, "FFFF9876543210E00001", ""},
		{"AES from 20", aes, "FFFF9876543210E00001", ""},
		{"AES prefix 0x", aes, "0x3456789012345600000001", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.parse(c.text)
			if c.want == "" {
				if !errors.Is(err, dukpt.ErrKSN) {
					t.Errorf("%q: %v, want %v", c.text, err, dukpt.ErrKSN)
				}
				return
			}
			if err != nil || got.String() != c.want {
				t.Errorf("%q: %s, %v; want %s", c.text, got, err, c.want)
			}
		})
	}
}

func TestKSNFromBytes(t *testing.T) {
	for n := range 16 {
		_, tdes := dukpt.TDESKSNFromBytes(make([]byte, n))
		_, aes := dukpt.AESKSNFromBytes(make([]byte, n))
		if (tdes == nil) != (n == 10) || tdes != nil && !errors.Is(tdes, dukpt.ErrKSN) {
			t.Errorf("TDES from %d bytes: %v", n, tdes)
		}
		if (aes == nil) != (n == 12) || aes != nil && !errors.Is(aes, dukpt.ErrKSN) {
			t.Errorf("AES from %d bytes: %v", n, aes)
		}
	}
}

func TestKSNParts(t *testing.T) {
	tdes, err := dukpt.ParseTDESKSN("FFFF9876543210FFFFFF")
	if err != nil {
		t.Fatal(err)
	}
	aes, err := dukpt.ParseAESKSN("1234567890ABCDEF80000001")
	if err != nil {
		t.Fatal(err)
	}
	got := []string{
		fmt.Sprintf("%06X", tdes.Counter()), tdes.Device().String(), fmt.Sprintf("%X", dukpt.InitialKeyData(tdes)),
		fmt.Sprintf("%08X", aes.Counter()), aes.Device().String(), fmt.Sprintf("%X", aes.InitialKeyID()),
	}
	want := []string{
		"1FFFFF", "FFFF9876543210E00000", "FFFF9876543210E0",
		"80000001", "1234567890ABCDEF00000000", "1234567890ABCDEF",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestCounterValidity(t *testing.T) {
	tdes := func(counter uint32) error {
		return dukpt.TDESKSN{0xFF, 6: 0xFF, 7: 0xE0 | byte(counter>>16), 8: byte(counter >> 8), 9: byte(counter)}.Valid()
	}
	aes := func(counter uint32) error {
		return dukpt.AESKSN{8: byte(counter >> 24), 9: byte(counter >> 16), 10: byte(counter >> 8), 11: byte(counter)}.Valid()
	}
	for _, c := range []struct {
		name    string
		valid   func(uint32) error
		counter uint32
		want    bool
	}{
		{"M-25 TDES zero", tdes, 0, false},
		{"M-25 TDES one", tdes, 1, true},
		{"M-25 TDES ten ones", tdes, 0x1FF800, true},
		{"M-25 TDES eleven ones", tdes, 0x1FFC00, false},
		{"M-25 TDES all ones", tdes, 0x1FFFFF, false},
		{"M-25 AES zero", aes, 0, false},
		{"M-25 AES sixteen ones", aes, 0xFFFF0000, true},
		{"M-25 AES seventeen ones", aes, 0xFFFF8000, false},
		{"M-25 AES update counter", aes, 0xFFFFFFFF, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.valid(c.counter)
			if (err == nil) != c.want || err != nil && !errors.Is(err, dukpt.ErrCounter) {
				t.Errorf("%X: %v, want valid: %t", c.counter, err, c.want)
			}
		})
	}
}

// TestNextVisitsEveryCounter counts a device through its whole life and
// compares with the counters of at most ten one bits, one by one.
func TestNextVisitsEveryCounter(t *testing.T) {
	k, err := dukpt.ParseTDESKSN("FFFF9876543210E00000")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for counter := uint32(1); counter < 1<<21; counter++ {
		if bits.OnesCount32(counter) > 10 {
			continue
		}
		if k, err = k.Next(); err != nil || k.Counter() != counter {
			t.Fatalf("after %d: %s, %v; want counter %06X", n, k, err, counter)
		}
		n++
	}
	if _, err = k.Next(); !errors.Is(err, dukpt.ErrExhausted) {
		t.Errorf("after the last: %v, want %v", err, dukpt.ErrExhausted)
	}
	if n != 1<<20-1 {
		t.Errorf("%d transactions, want %d", n, 1<<20-1)
	}
}

func TestNextAES(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := dukpt.AESKSN(rapid.SliceOfN(rapid.Byte(), 12, 12).Draw(t, "ksn"))
		next, err := k.Next()
		if k.Counter() != 0 && k.Valid() != nil {
			if !errors.Is(err, dukpt.ErrCounter) {
				t.Fatalf("from %s: %v, want %v", k, err, dukpt.ErrCounter)
			}
			return
		}
		if err != nil {
			t.Fatalf("from %s: %v", k, err)
		}
		if next.Valid() != nil || next.Counter() <= k.Counter() || next.Device() != k.Device() {
			t.Fatalf("from %s: %s", k, next)
		}
		for skipped := k.Counter() + 1; skipped < next.Counter() && skipped-k.Counter() < 1000; skipped++ {
			if bits.OnesCount32(skipped) <= 16 {
				t.Fatalf("from %s: %s skips %08X", k, next, skipped)
			}
		}
	})
	last, err := dukpt.ParseAESKSN("1234567890123456FFFF0000")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := last.Next(); !errors.Is(err, dukpt.ErrExhausted) {
		t.Errorf("after the last: %v, want %v", err, dukpt.ErrExhausted)
	}
}

func TestRefusedCountersHaveNoKey(t *testing.T) {
	var ik [16]byte
	aesIK, err := dukpt.NewKey(dukpt.AES128, ik[:])
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"FFFF9876543210E00000", "FFFF9876543210FFFFFF"} {
		k, err := dukpt.ParseTDESKSN(text)
		if err != nil {
			t.Fatal(err)
		}
		if key, err := dukpt.Walk(&ik, k); !errors.Is(err, dukpt.ErrCounter) || key != [16]byte{} {
			t.Errorf("M-25 %s: %v, want %v and no key", text, err, dukpt.ErrCounter)
		}
	}
	for _, text := range []string{"123456789012345600000000", "1234567890123456FFFFFFFF", "1234567890123456FFFF8000"} {
		k, err := dukpt.ParseAESKSN(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dukpt.AESWalk(&aesIK, k); !errors.Is(err, dukpt.ErrCounter) {
			t.Errorf("M-25 %s: %v, want %v", text, err, dukpt.ErrCounter)
		}
	}
}

func TestWalkFromAStranger(t *testing.T) {
	ik, err := dukpt.NewKey(dukpt.AES128, make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	ksn, err := dukpt.ParseAESKSN("12345678901234560000000D") // 1101
	if err != nil {
		t.Fatal(err)
	}
	for register, want := range map[uint32]bool{0: true, 8: true, 12: true, 13: true, 4: false, 1: false, 9: false, 2: false, 15: false, 16: false} {
		_, err := dukpt.AESWalkFrom(&ik, register, ksn)
		if (err == nil) != want || err != nil && !errors.Is(err, dukpt.ErrCounter) {
			t.Errorf("from register %X: %v, want accepted: %t", register, err, want)
		}
	}
}

// TestDerivationData compares with the data printed for the AES-128 supplement
// of X9.24-3.
func TestDerivationData(t *testing.T) {
	ksn, err := dukpt.ParseAESKSN("123456789012345600000001")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	add := func(s dukpt.Step) { got = append(got, fmt.Sprintf("%X", s.Data())) }
	add(dukpt.InitialKeyStep(ksn.InitialKeyID(), dukpt.AES128))
	for s := range dukpt.Steps(ksn, dukpt.AES128) {
		add(s)
	}
	request, err := dukpt.WorkingKeyStep(ksn, dukpt.AES128, dukpt.MACRequest, dukpt.AES128)
	if err != nil {
		t.Fatal(err)
	}
	add(request)
	long, err := dukpt.WorkingKeyStep(ksn, dukpt.AES128, dukpt.PIN, dukpt.TDES3)
	if err != nil {
		t.Fatal(err)
	}
	add(long)
	want := []string{
		"01018001000200801234567890123456",
		"01018000000200809012345600000001",
		"01012000000200809012345600000001",
		"01011000000100C09012345600000001" + "01021000000100C09012345600000001",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("V10 derivation data (-want +got):\n%s", d)
	}
}

func TestWorkingKeyRefuses(t *testing.T) {
	var key [16]byte
	for _, use := range []dukpt.Use{0, dukpt.DataBoth, dukpt.KeyEncryption, 99} {
		if _, err := dukpt.WorkingKey(&key, use); !errors.Is(err, dukpt.ErrUse) {
			t.Errorf("TDES %s: %v, want %v", use, err, dukpt.ErrUse)
		}
	}
	var ksn dukpt.AESKSN
	for _, c := range []struct {
		name    string
		bdk     dukpt.KeyType
		use     dukpt.Use
		derived dukpt.KeyType
		want    error
	}{
		{"equal", dukpt.AES128, dukpt.PIN, dukpt.AES128, nil},
		{"weaker", dukpt.AES256, dukpt.PIN, dukpt.AES128, nil},
		{"TDES under AES", dukpt.AES128, dukpt.PIN, dukpt.TDES3, nil},
		{"HMAC under AES", dukpt.AES128, dukpt.MACBoth, dukpt.HMAC128, nil},
		{"stronger AES", dukpt.AES128, dukpt.PIN, dukpt.AES192, dukpt.ErrStrength},
		{"stronger HMAC", dukpt.AES192, dukpt.MACBoth, dukpt.HMAC256, dukpt.ErrStrength},
		{"no use", dukpt.AES128, 0, dukpt.AES128, dukpt.ErrUse},
		{"no type", dukpt.AES128, dukpt.PIN, 0, dukpt.ErrUse},
		{"under TDES", dukpt.TDES2, dukpt.PIN, dukpt.TDES2, dukpt.ErrUse},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := dukpt.WorkingKeyStep(ksn, c.bdk, c.use, c.derived); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
	tdes, err := dukpt.NewKey(dukpt.TDES2, key[:])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dukpt.AESInitialKey(&tdes, [8]byte{}); !errors.Is(err, dukpt.ErrUse) {
		t.Errorf("initial key under TDES: %v, want %v", err, dukpt.ErrUse)
	}
	if _, err := dukpt.NewKey(dukpt.AES256, key[:]); !errors.Is(err, dukpt.ErrKeyLength) {
		t.Errorf("AES-256 of 16 bytes: %v, want %v", err, dukpt.ErrKeyLength)
	}
}

func TestUpdateKSN(t *testing.T) {
	ksn := dukpt.UpdateKSN([8]byte{0x12, 0x34})
	if ksn.String() != "1234000000000000FFFFFFFF" || ksn.Valid() == nil {
		t.Errorf("%s, valid: %v", ksn, ksn.Valid())
	}
	n := 0
	for range dukpt.Steps(ksn, dukpt.AES128) {
		n++
	}
	if n != 32 {
		t.Errorf("%d steps, want 32", n)
	}
}

func TestKeyDoesNotPrint(t *testing.T) {
	k, err := dukpt.NewKey(dukpt.AES128, []byte("canary-canary-ca"))
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range strings.Fields("%v %+v %#v %s %q %x %X %d") {
		if got := fmt.Sprintf(verb, k); got != "[secret]" {
			t.Errorf("C-14 %s prints something else than the placeholder", verb)
		}
		if got := fmt.Sprintf(verb, &k); got != "[secret]" {
			t.Errorf("C-14 %s of the pointer prints something else than the placeholder", verb)
		}
	}
	k.Clear()
	for _, b := range k.Bytes() {
		if b != 0 {
			t.Fatal("C-14 a cleared key still has bytes")
		}
	}
}

func FuzzParseKSN(f *testing.F) {
	for _, s := range []string{"FFFF9876543210E00001", "9876543210E00001", "123456789012345600000001", "", "FFFF9876543210E0000G"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if k, err := dukpt.ParseTDESKSN(text); err == nil && k.String() != strings.ToUpper(text) {
			t.Errorf("%q reads as %s", text, k)
		}
		if k, err := dukpt.ParseShortTDESKSN(text); err == nil && k.String() != "FFFF"+strings.ToUpper(text) {
			t.Errorf("%q reads as %s", text, k)
		}
		if k, err := dukpt.ParseAESKSN(text); err == nil && k.String() != strings.ToUpper(text) {
			t.Errorf("%q reads as %s", text, k)
		}
	})
}

func BenchmarkWalk(b *testing.B) {
	for _, text := range []string{"FFFF9876543210E00001", "FFFF9876543210E0001F", "FFFF9876543210FFF800"} {
		k, err := dukpt.ParseTDESKSN(text)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("TDES/%d ones", bits.OnesCount32(k.Counter())), func(b *testing.B) {
			b.ReportAllocs()
			ik := [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}
			for b.Loop() {
				if _, err := dukpt.Walk(&ik, k); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	for _, text := range []string{"123456789012345600000001", "12345678901234560000FFFF"} {
		k, err := dukpt.ParseAESKSN(text)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("AES/%d ones", bits.OnesCount32(k.Counter())), func(b *testing.B) {
			b.ReportAllocs()
			ik, err := dukpt.NewKey(dukpt.AES128, []byte("0123456789ABCDEF"))
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := dukpt.AESWalk(&ik, k); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestResume: a walk in two parts ends where the whole one does, from each stop on
// its way and from none beside it.
func TestResume(t *testing.T) {
	ik := [16]byte{0x6A, 0xC2, 0x92, 0xFA, 0xA1, 0x31, 0x5B, 0x4D, 0x85, 0x8A, 0xB3, 0xA3, 0xD7, 0xD5, 0x93, 0x3A}
	at := func(counter uint32) dukpt.TDESKSN {
		ksn, err := dukpt.TDESKSNFromBytes([]byte{0xFF, 0xFF, 0x98, 0x76, 0x54, 0x32, 0x10, 0xE0 | byte(counter>>16), byte(counter >> 8), byte(counter)})
		if err != nil {
			t.Fatal(err)
		}
		return ksn
	}
	for _, counter := range []uint32{1, 2, 3, 0x155, 0x1FF8, 0x100001, 0x1E0000} {
		want, err := dukpt.Walk(&ik, at(counter))
		if err != nil {
			t.Fatal(err)
		}
		for stop := counter; ; stop &= stop - 1 {
			key := ik
			if stop != 0 {
				if key, err = dukpt.Walk(&ik, at(stop)); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := dukpt.Resume(&key, stop, at(counter)); err != nil || got != want {
				t.Errorf("from %#x to %#x: another key, %v", stop, counter, err)
			}
			if stop == 0 {
				break
			}
		}
	}
	for _, c := range []struct{ stop, counter uint32 }{{1, 3}, {1, 2}, {4, 3}, {8, 0x18}, {2, 0}} {
		if _, err := dukpt.Resume(&ik, c.stop, at(c.counter)); !errors.Is(err, dukpt.ErrCounter) {
			t.Errorf("from %#x to %#x: %v, want %v", c.stop, c.counter, err, dukpt.ErrCounter)
		}
	}
}
