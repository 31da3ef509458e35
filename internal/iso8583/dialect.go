package iso8583

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
	types   map[MTI]messageType
	rows    [129]*row // by field number
	table   []*row    // the same, in order
	foreign map[int]shape
}

type messageType struct {
	mti  MTI
	kind kind
}

// Name returns the name of the dialect, as the configuration writes it.
func (d *Dialect) Name() string { return d.name }

// ASCII87 returns the dialect ascii87: ISO 8583:1987, all in ASCII.
func ASCII87() *Dialect {
	d := &Dialect{name: "ascii87", types: map[MTI]messageType{}, foreign: foreignShapes()}
	for _, m := range []MTI{AuthorizationRequest, FinancialRequest, FinancialAdvice} {
		d.list(m, kindFinancial, kindAnswer)
	}
	for _, m := range []MTI{ReversalRequest, ReversalRepeat, ReversalAdvice, ReversalAdviceRepeat} {
		d.list(m, kindReversal, kindAnswer)
	}
	d.list(NetworkRequest, kindNetwork, kindNetworkAnswer)
	for _, r := range ascii87Rows() {
		if r.unit == 0 {
			r.unit = 1
		}
		if r.min == 0 {
			r.min = 1
			if r.digits() == 0 {
				r.min = r.spec.Length
			}
		}
		d.rows[r.de] = &r
		d.table = append(d.table, &r)
	}
	return d
}

// list enters a request and its answer.
func (d *Dialect) list(m MTI, request, answer kind) {
	d.types[m] = messageType{m, request}
	d.types[m.Response()] = messageType{m.Response(), answer}
}

// ascii87Rows is the table of section 1 of the dialect. The columns are 0200,
// 0400, 0800, answer, 0810; a field in none of them is refused (W-05).
func ascii87Rows() []row {
	return []row{
		{de: 2, form: "n..19", class: classN, spec: ll(19, "PAN"), in: [kinds]presence{must, must, never, must, never}, echo: true},
		{de: 3, form: "n6", class: classN, spec: fixed(6, "processing code"), in: [kinds]presence{must, must, never, must, never}, echo: true},
		{de: 4, form: "n12", class: classN, spec: fixed(12, "amount, minor units"), in: [kinds]presence{must, must, never, must, never}, echo: true},
		{de: 7, form: "n10", class: classN, spec: fixed(10, "transmission date and time"), in: [kinds]presence{must, must, must, must, must}, echo: true},
		{de: 11, form: "n6", class: classN, spec: fixed(6, "STAN"), in: [kinds]presence{must, must, must, must, must}, echo: true},
		{de: 12, form: "n6", class: classN, spec: fixed(6, "local time"), in: [kinds]presence{must, must, never, must, never}, echo: true},
		{de: 13, form: "n4", class: classN, spec: fixed(4, "local date"), in: [kinds]presence{must, must, never, must, never}, echo: true},
		{de: 14, form: "n4", class: classN, spec: fixed(4, "expiry"), in: [kinds]presence{may, may, never, never, never}},
		{de: 22, form: "n3", class: classN, spec: fixed(3, "entry mode"), in: [kinds]presence{must, must, never, never, never}},
		{de: 25, form: "n2", class: classN, spec: fixed(2, "condition code"), in: [kinds]presence{must, must, never, never, never}},
		{de: 32, form: "n..11", class: classN, spec: ll(11, "acquirer"), in: [kinds]presence{may, may, never, may, never}, echo: true},
		{de: 35, form: "z..37", class: classZ, spec: ll(37, "track 2"), in: [kinds]presence{may, never, never, never, never}},
		{de: 37, form: "an12", class: classAN, spec: fixed(12, "RRN"), in: [kinds]presence{may, may, never, must, may}, echo: true},
		{de: 38, form: "an6", class: classAN, spec: fixed(6, "approval code"), in: [kinds]presence{never, may, never, may, never}},
		{de: 39, form: "an2", class: classAN, spec: fixed(2, "answer code or reason"), in: [kinds]presence{never, must, never, must, must}},
		{de: 41, form: "ans8", class: classANS, spec: fixed(8, "TID"), in: [kinds]presence{must, must, must, must, must}, echo: true},
		{de: 42, form: "ans15", class: classANS, spec: fixed(15, "MID"), in: [kinds]presence{must, must, must, must, must}, echo: true},
		{de: 49, form: "n3", class: classN, spec: fixed(3, "currency"), in: [kinds]presence{must, must, never, must, never}, echo: true},
		{de: 52, form: "16 hex digits", class: classHex, spec: fixed(16, "PIN block"), in: [kinds]presence{may, never, never, never, never}},
		{de: 55, form: "b..255 as hex", class: classHex, spec: lllBytes(255, "EMV"), unit: 2, in: [kinds]presence{may, may, never, may, never}},
		{de: 62, form: "20 or 24 hex digits", class: classHex, spec: lll(24, "KSN"), in: [kinds]presence{may, may, may, may, may}, terminalOnly: true, echo: true, ksn: true, min: 20, check: isKSN},
		{de: 63, form: "32 hex digits, without DE 52", class: classHex, spec: lll(32, "PIN block, AES"), in: [kinds]presence{may, never, never, never, never}, terminalOnly: true, min: 32, excludes: 52},
		{de: 64, form: "16 hex digits", class: classHex, spec: fixed(16, "MAC"), in: [kinds]presence{may, may, may, may, may}, mac: true},
		{de: 70, form: "n3", class: classN, spec: fixed(3, "network management code"), in: [kinds]presence{never, never, must, never, must}, echo: true},
		{de: 90, form: "n42", class: classN, spec: fixed(42, "original data elements"), in: [kinds]presence{never, must, never, never, never}},
		{de: 95, form: "n12 and 30 zeros", class: classAN, spec: fixed(42, "replacement amounts"), in: [kinds]presence{never, may, never, never, never}, check: isReplacement},
		{de: 128, form: "16 hex digits", class: classHex, spec: fixed(16, "MAC"), in: [kinds]presence{may, may, may, may, may}, mac: true},
	}
}

// firstMissing returns the first mandatory field that has lacks, or 0. code is
// DE 39 where it could be read.
func (d *Dialect) firstMissing(k kind, s Side, has bitmap, code string) int {
	for _, r := range d.table {
		if r.presence(k, s) != must || has.has(r.de) {
			continue
		}
		if partialEcho(k, code) && r.de != 11 && r.de != 39 && r.de != 41 {
			continue
		}
		return r.de
	}
	return 0
}

// partialEcho reports whether an answer may lack echo fields: 30 and 63 answer
// messages that could not be read whole (W-01, W-18).
func partialEcho(k kind, code string) bool {
	return (k == kindAnswer || k == kindNetworkAnswer) && (code == "30" || code == "63")
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
