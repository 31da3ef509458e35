package keys

import (
	"bytes"
	"encoding/hex"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sampleBlock() *Block {
	return &Block{
		ID:         "0123456789abcdefghijklmnopqrstuv",
		Version:    3,
		LMK:        1,
		Attributes: Attributes{Usage: UsageMACAlg3, Algorithm: TDES2, Mode: ModeMAC, Exportability: Exportable},
		Origin:     External,
		CheckBy:    CheckByZeros,
		Check:      KCV{0x08, 0xD7, 0xB4},
		CreatedMs:  1767225600250,
		Policy:     map[string]string{"keyd:mac-padding": "1", "keyd:custody": "token"},
		Wrapped:    bytes.Repeat([]byte{0xA5}, 24),
		Companion:  bytes.Repeat([]byte{0x5A}, 24),
		MAC:        [16]byte{1, 2, 3},
	}
}

// goldenBlock is sampleBlock as this version stores it. Blocks in databases have
// this form: a later version must read it.
const goldenBlock = "4b444b4201" + "00000001" + "0020" + "303132333435363738396162636465666768696a6b6c6d6e6f70717273747576" +
	"00000003" + "0002" + "4d33" + "01" + "43" + "45" + "45" + "5a" + "08d7b4" + "0000019b76daa8fa" +
	"0026" + "6b6579643a637573746f64793d746f6b656e0a" + "6b6579643a6d61632d70616464696e673d310a" +
	"0018" + "a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5" +
	"0018" + "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a" +
	"01020300000000000000000000000000"

func TestBlockGolden(t *testing.T) {
	raw, err := sampleBlock().MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(goldenBlock, hex.EncodeToString(raw)); diff != "" {
		t.Errorf("the stored form changed (-want +got):\n%s", diff)
	}
	stored, err := hex.DecodeString(goldenBlock)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseBlock(stored)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sampleBlock(), got); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}

// TestBlockMACCoversEverything: two blocks that differ in anything but the MAC
// have different MAC inputs, so that nothing can be exchanged between blocks.
func TestBlockMACCoversEverything(t *testing.T) {
	changes := map[string]func(*Block){
		"id":              func(b *Block) { b.ID = "vutsrqponmlkjihgfedcba9876543210" },
		"version":         func(b *Block) { b.Version++ },
		"LMK":             func(b *Block) { b.LMK++ },
		"usage":           func(b *Block) { b.Attributes.Usage = UsagePIN },
		"algorithm":       func(b *Block) { b.Attributes.Algorithm = TDES3 },
		"mode":            func(b *Block) { b.Attributes.Mode = ModeAny },
		"exportability":   func(b *Block) { b.Attributes.Exportability = NonExportable },
		"origin":          func(b *Block) { b.Origin = Generated },
		"check method":    func(b *Block) { b.CheckBy = CheckByCMAC },
		"check value":     func(b *Block) { b.Check[2] ^= 1 },
		"creation":        func(b *Block) { b.CreatedMs++ },
		"policy value":    func(b *Block) { b.Policy["keyd:custody"] = "any" },
		"policy removed":  func(b *Block) { delete(b.Policy, "keyd:custody") },
		"policy added":    func(b *Block) { b.Policy["keyd:mac-min-bytes"] = "8" },
		"wrapped":         func(b *Block) { b.Wrapped[0] ^= 1 },
		"companion":       func(b *Block) { b.Companion[23] ^= 1 },
		"values swapped":  func(b *Block) { b.Wrapped, b.Companion = b.Companion, b.Wrapped },
		"companion moved": func(b *Block) { b.Wrapped, b.Companion = append(b.Wrapped, b.Companion...), nil },
	}
	seen := map[string]string{string(sampleBlock().MACInput()): "unchanged"}
	for name, change := range changes {
		b := sampleBlock()
		b.Policy = maps.Clone(b.Policy)
		change(b)
		input := string(b.MACInput())
		if other, taken := seen[input]; taken {
			t.Errorf("%s and %s have one MAC input", name, other)
		}
		seen[input] = name
	}
	b := sampleBlock()
	b.MAC[0] ^= 1
	if !bytes.Equal(b.MACInput(), sampleBlock().MACInput()) {
		t.Error("the MAC covers itself")
	}
}

func TestParseBlockRefuses(t *testing.T) {
	good, err := hex.DecodeString(goldenBlock)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string][]byte{
		"empty":            nil,
		"another magic":    append([]byte("KDKB\x02"), good[5:]...),
		"one byte short":   good[:len(good)-1],
		"one byte more":    append(bytes.Clone(good), 0),
		"cut in the id":    good[:20],
		"id of 31":         bytes.Replace(good, []byte{0, 0x20, '0'}, []byte{0, 0x1F}, 1),
		"policy unsorted":  []byte(strings.Replace(string(good), "keyd:custody=token\nkeyd:mac-padding=1\n", "keyd:mac-padding=1\nkeyd:custody=token\n", 1)),
		"policy twice":     []byte(strings.Replace(string(good), "keyd:custody=token\nkeyd:mac-padding=1\n", "keyd:custody=token\nkeyd:custody=toke1\n", 1)),
		"policy no equals": []byte(strings.Replace(string(good), "custody=token", "custody-token", 1)),
	}
	for name, raw := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseBlock(raw); !errors.Is(err, ErrBlock) {
				t.Errorf("got %v, want ErrBlock", err)
			}
		})
	}
}

func FuzzParseBlock(f *testing.F) {
	good, err := hex.DecodeString(goldenBlock)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("KDKB\x01"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := ParseBlock(raw)
		if err != nil {
			return
		}
		again, err := b.MarshalBinary()
		if err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("accepted what does not encode to itself: %v", err)
		}
	})
}
