package iso8583

import "slices"

// Side is the end of the switch that a message travels on; it chooses the
// field table.
type Side uint8

// The sides.
const (
	SideTerminal Side = iota + 1 // between a terminal and keyd
	SideUpstream                 // between keyd and the acquirer host (W-08)
)

// Dialect is a set of message types and fields. It is immutable, and safe for
// concurrent use.
type Dialect struct {
	name    string
	spec    Spec
	packed  bool // WireBCD
	wide    bool // there are fields above 64, and so may be a second bitmap
	head    Head
	mac     MACForm
	types   map[MTI]messageType
	columns []column
	rows    [129]*row // by field number
	table   []*row    // the same, in order
	foreign map[int]shape

	ksn, ksnFill int
	incomplete   []string
}

type messageType struct {
	mti  MTI
	kind kind
}

// column is the fields of a group of messages: of its requests or its answers.
type column struct {
	spec   MessageSpec
	answer bool
	oneOf  []int
}

// Name returns the name of the dialect, as the configuration writes it.
func (d *Dialect) Name() string { return d.name }

// Spec returns what the dialect was made of. The caller must not change it.
func (d *Dialect) Spec() Spec { return d.spec }

// MACForm returns the form of the MAC field.
func (d *Dialect) MACForm() MACForm { return d.mac }

// HasField reports whether the messages of the type may have field de.
func (d *Dialect) HasField(mti MTI, de int, s Side) bool {
	t, ok := d.types[mti]
	r := d.described(de)
	return ok && r != nil && r.presence(t.kind, s) != never
}

// firstMissing returns the first mandatory field that has lacks, or 0. code is
// DE 39 where it could be read.
func (d *Dialect) firstMissing(k kind, s Side, has bitmap, code string) int {
	for _, r := range d.table {
		if r.presence(k, s) != must || has.has(r.de) {
			continue
		}
		if d.mayLack(k, code) && r.de != 11 && r.de != 39 && r.de != 41 {
			continue
		}
		return r.de
	}
	if one := d.columns[k].oneOf; len(one) > 0 && !slices.ContainsFunc(one, has.has) {
		return one[0]
	}
	return 0
}

// mayLack reports whether an answer may lack echo fields: it answers a message
// that could not be read whole (W-01, W-18).
func (d *Dialect) mayLack(k kind, code string) bool {
	return d.columns[k].answer && slices.Contains(d.incomplete, code)
}

// bitmap has bit de for each field that is present; bit 1, the secondary
// bitmap's, is at its place too.
type bitmap [2]uint64

func (b bitmap) has(de int) bool {
	return de >= 1 && de <= 128 && b[(de-1)/64]>>(63-(de-1)%64)&1 == 1
}

func (b *bitmap) set(de int) { b[(de-1)/64] |= 1 << (63 - (de-1)%64) }

// macPlace returns the field that the MAC stands in: DE 128 when another field
// above 64 is present, else DE 64 (W-04, M-05). It is 0 when a secondary bitmap
// is announced that no other field needs: DE 64 offends M-05 there, and DE 128
// W-04.
func (b bitmap) macPlace() int {
	others := b[1] &^ 1
	switch {
	case others != 0:
		return 128
	case b.has(1):
		return 0
	}
	return 64
}

// bitmapForm is what a complaint says is wanted.
func (d *Dialect) bitmapForm() string {
	switch {
	case d.packed && d.wide:
		return "8 or 16 bytes"
	case d.packed:
		return "8 bytes, bit 1 not set"
	case d.wide:
		return "16 or 32 upper-case hex digits"
	}
	return "16 upper-case hex digits, bit 1 not set"
}
