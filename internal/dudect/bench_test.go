package dudect_test

import (
	"crypto/rand"
	"testing"

	"keyd.dev/keyd/internal/dudect"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/mac"
	"keyd.dev/keyd/pin"
)

// sink keeps the compiler from leaving work out.
var sink bool

// leaky compares as nobody may: it stops at the first difference.
//
//go:noinline
func leaky(a, b []byte) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// judge fails the benchmark when an operation leaks, or when the control beside
// it does not.
func judge(b *testing.B, t, control float64) {
	b.Helper()
	b.ReportMetric(t, "t")
	b.ReportMetric(control, "t-control")
	b.ReportMetric(0, "ns/op")
	if control < dudect.Threshold {
		b.Fatalf("the leaky control was not found out (t = %.1f): the measurement is worth nothing", control)
	}
	if t > dudect.Threshold {
		b.Errorf("the time depends on the input: t = %.1f, at most %d", t, dudect.Threshold)
	}
}

// BenchmarkTimingMAC is A-05.T2: a wrong first byte and a wrong last byte take
// the same time to be refused.
func BenchmarkTimingMAC(b *testing.B) {
	full := make([]byte, 16)
	first, last := make([]byte, 16), make([]byte, 16)
	first[0], last[15] = 1, 1
	for b.Loop() {
		control := dudect.T(20_000, 200, first, last, func(in []byte) { sink = leaky(full, in) })
		t := dudect.T(50_000, 50, first, last, func(in []byte) { sink = mac.Verify(full, in, 16) == nil })
		judge(b, t, control)
	}
}

// BenchmarkTimingCheckValue is the same for check values.
func BenchmarkTimingCheckValue(b *testing.B) {
	var want, first, last keys.KCV
	first[0], last[2] = 1, 1
	for b.Loop() {
		control := dudect.T(50_000, 400, first, last, func(in keys.KCV) { sink = leaky(want[:], in[:]) })
		t := dudect.T(50_000, 200, first, last, func(in keys.KCV) { sink = want.Equal(in) })
		judge(b, t, control)
	}
}

// BenchmarkTimingPIN compares blocks with different faults, and a good block
// with a bad one, through a whole translation. The control decides by the first
// fault that it finds.
func BenchmarkTimingPIN(b *testing.B) {
	key, err := secret.NewTDES([]byte("0123456789abcdef"))
	if err != nil {
		b.Fatal(err)
	}
	pan, err := pin.ParsePAN("4012345678909")
	if err != nil {
		b.Fatal(err)
	}
	side := pin.Side{Format: pin.Format0, PAN: pan}
	good := block(b, key, &side, [8]byte{})
	control := block(b, key, &side, [8]byte{0x30}) // control nibble 3
	digit := block(b, key, &side, [8]byte{0, 0x0A ^ 0x01})
	filler := block(b, key, &side, [8]byte{0, 0, 0, 0, 0, 0, 0, 0x01})
	translate := func(in []byte) {
		_, err := pin.Translate(key, &side, in, key, &side, rand.Reader)
		sink = err == nil
	}
	// The control looks at the block first and spares itself the rest.
	hasty := func(in []byte) {
		if leaky(control, in) {
			return
		}
		translate(in)
	}
	for b.Loop() {
		leak := dudect.T(20_000, 1, control, good, hasty)
		worst := max(
			dudect.T(20_000, 1, control, digit, translate),
			dudect.T(20_000, 1, control, filler, translate),
			dudect.T(20_000, 1, good, control, translate),
		)
		judge(b, worst, leak)
	}
}

// block is an enciphered block of PIN 1234 with a fault mixed into its clear form.
func block(b *testing.B, key secret.Cipher, side *pin.Side, fault [8]byte) []byte {
	b.Helper()
	p, err := pin.ParsePIN([]byte("1234"))
	if err != nil {
		b.Fatal(err)
	}
	field, err := pin.Encode(side, &p, rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	clear := append([]byte(nil), field.Bytes()...)
	for i := range clear {
		clear[i] ^= fault[i]
	}
	sealed, err := key.Encrypt(nil, clear)
	if err != nil {
		b.Fatal(err)
	}
	return sealed
}
