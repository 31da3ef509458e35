package iso8583

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moov-io/iso8583"
	"pgregory.net/rapid"
)

// tester is what testing.T and rapid.T have in common.
type tester interface {
	Helper()
	Error(...any)
	Errorf(string, ...any)
	Fatal(...any)
	Fatalf(string, ...any)
}

// checkAccepted demands of a message that Parse accepts that every byte of it
// is accounted for: the MAC input and the MAC are the message, and the fields
// write back to the same bytes.
func checkAccepted(t tester, m *Message) {
	t.Helper()
	raw := m.Raw()
	mac, macErr := m.MAC()
	_, ksnErr := m.KSN()
	if macErr == nil && string(m.MACInput())+fmt.Sprintf("%X", mac) != string(raw) {
		t.Error("the MAC input and the MAC are not the message")
	}
	if macErr != nil && m.MACInput() != nil {
		t.Error("a MAC input without a MAC")
	}
	whole := macErr == nil || errors.Is(macErr, ErrMACAbsent)
	if !whole || errors.Is(ksnErr, ErrKSNMalformed) {
		return
	}
	b := m.dialect.Build(m.MTI(), m.Side())
	for de := range texts(m) {
		if de != 64 && de != 128 {
			b.Copy(m, de)
		}
	}
	if macErr != nil {
		packed, err := b.pack(b.fields)
		// A second bitmap that announces nothing is legal without a MAC.
		empty := m.Raw()[4] >= '8' && m.present[1] == 0
		if err != nil || string(packed) != string(raw) && !empty {
			t.Errorf("a message without a MAC does not write back: %v", err)
		}
		return
	}
	u, err := b.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if string(u.Seal(mac)) != string(raw) {
		t.Error("the message does not write back as it came")
	}
}

// checkRefused demands of a FormatError that what could be read is safe to use.
func checkRefused(t tester, err error) {
	t.Helper()
	var fe *FormatError
	if !errors.As(err, &fe) || fe.Partial == nil || fe.Fault == FaultInternal || fe.Fault == 0 {
		t.Fatalf("error %#v", err)
	}
	if fe.DE != 0 && fe.Partial.MTI() == "" {
		t.Errorf("DE %d is blamed and there is no MTI", fe.DE)
	}
	if !fe.Partial.Answerable() {
		return
	}
	raw, err := fe.Partial.Answer("30").PackWithoutMAC()
	if err != nil {
		t.Fatalf("refusal: %v", err)
	}
	if _, err := fe.Partial.dialect.Parse(raw, fe.Partial.Side()); err != nil {
		t.Errorf("the refusal is not of the dialect: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, mti := range allMTIs {
		f.Add(wire(mti, sample(mti, SideTerminal)), true)
		f.Add(wire(mti, sample(mti, SideUpstream)), false)
	}
	f.Add(wire("0200", sample("0200", SideTerminal).with(fields{52: "", 63: "032" + testMAC + testMAC})), true)
	f.Add(wire("0200", sample("0200", SideTerminal).with(fields{36: "0051=2=3", 62: "02X"})), true)
	d := ASCII87()
	f.Fuzz(func(t *testing.T, raw []byte, terminal bool) {
		s := SideUpstream
		if terminal {
			s = SideTerminal
		}
		before := string(raw)
		m, err := d.Parse(raw, s)
		if string(raw) != before {
			t.Error("Parse changed its input")
		}
		if err != nil {
			checkRefused(t, err)
			return
		}
		checkAccepted(t, m)
	})
}

var valueGens = map[int]*rapid.Generator[string]{
	2:  rapid.StringMatching(`[0-9]{1,19}`),
	32: rapid.StringMatching(`[0-9]{1,11}`),
	35: rapid.StringMatching(`[0-9=D]{1,37}`),
	37: rapid.StringMatching(`[0-9A-Za-z]{12}`),
	38: rapid.StringMatching(`[0-9A-Za-z]{6}`),
	39: rapid.StringMatching(`[0-9A-Z]{2}`),
	41: rapid.StringMatching(`[ -~]{8}`),
	42: rapid.StringMatching(`[ -~]{15}`),
	52: rapid.StringMatching(`[0-9A-F]{16}`),
	55: rapid.StringMatching(`([0-9A-F]{2}){1,255}`),
	62: rapid.StringMatching(`[0-9A-F]{20}|[0-9A-F]{24}`),
	63: rapid.StringMatching(`[0-9A-F]{32}`),
	95: rapid.StringMatching(`[0-9]{12}0{30}`),
}

func drawFields(t *rapid.T, d *Dialect, mti string, s Side) map[int]string {
	values := map[int]string{}
	kind := d.types[MTI(mti)].kind
	for de, r := range d.rows {
		if r == nil || r.mac || r.presence(kind, s) == never {
			continue
		}
		if r.presence(kind, s) == may && !rapid.Bool().Draw(t, fmt.Sprintf("has DE %d", de)) {
			continue
		}
		gen, ok := valueGens[de]
		if !ok {
			gen = rapid.StringMatching(fmt.Sprintf(`[0-9]{%d}`, r.spec.Length))
		}
		values[de] = gen.Draw(t, fmt.Sprintf("DE %d", de))
	}
	if _, ok := values[63]; ok {
		delete(values, 52)
	}
	if !MTI(mti).names([]byte(values[3]), []byte(values[25])) {
		delete(values, 90)
	}
	return values
}

// TestBuildThenParse draws messages, and changed ones.
func TestBuildThenParse(t *testing.T) {
	t.Run("R-13 what is built is read, and written back to its bytes", buildThenParse)
}

func buildThenParse(t *testing.T) {
	d := ASCII87()
	spec := moovSpec(d)
	rapid.Check(t, func(t *rapid.T) {
		mti := rapid.SampledFrom(allMTIs).Draw(t, "MTI")
		s := rapid.SampledFrom([]Side{SideTerminal, SideUpstream}).Draw(t, "side")
		values := drawFields(t, d, mti, s)
		b := d.Build(MTI(mti), s)
		for de, v := range values {
			b.Set(de, v)
		}
		u, err := b.Pack()
		if err != nil {
			t.Fatal(err)
		}
		mac := [8]byte(rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "MAC"))
		raw := u.Seal(mac)
		m, err := d.Parse(raw, s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.MAC()
		if err != nil || got != mac || string(m.MACInput()) != string(u.MACInput()) {
			t.Errorf("MAC %X, %v, want %X", got, err, mac)
		}
		read := texts(m)
		theirs := iso8583.NewMessage(spec)
		if err := theirs.Unpack(raw); err != nil {
			t.Fatal(err)
		}
		for de, text := range read {
			if their, err := theirs.GetString(de); err != nil || their != text {
				t.Errorf("DE %d differs from the second opinion: %v", de, err)
			}
		}
		delete(read, 64)
		delete(read, 128)
		if diff := cmp.Diff(values, read); diff != "" {
			t.Errorf("fields (-want +got):\n%s", diff)
		}
		checkChanged(t, d, s, raw)
	})
}

// checkChanged changes, removes or inserts a byte.
func checkChanged(t *rapid.T, d *Dialect, s Side, raw []byte) {
	at := rapid.IntRange(0, len(raw)-1).Draw(t, "at")
	b := rapid.OneOf(rapid.SampledFrom([]byte("0123456789ABCDEFabcdef+- =")), rapid.Byte()).Draw(t, "byte")
	bad := slices.Clone(raw)
	switch rapid.SampledFrom([]string{"change", "remove", "insert"}).Draw(t, "how") {
	case "change":
		bad[at] = b
	case "remove":
		bad = slices.Delete(bad, at, at+1)
	case "insert":
		bad = slices.Insert(bad, at, b)
	}
	m, err := d.Parse(bad, s)
	if err != nil {
		checkRefused(t, err)
		return
	}
	checkAccepted(t, m)
}

func BenchmarkParse(b *testing.B) {
	d := ASCII87()
	raw := wire("0200", sample("0200", SideTerminal))
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Parse(raw, SideTerminal); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBuild(b *testing.B) {
	d := ASCII87()
	values := sample("0200", SideTerminal).without(64).text()
	b.ReportAllocs()
	for b.Loop() {
		m := d.Build(FinancialRequest, SideTerminal)
		for de, v := range values {
			m.Set(de, v)
		}
		u, err := m.Pack()
		if err != nil {
			b.Fatal(err)
		}
		u.Seal([8]byte{1})
	}
}

func BenchmarkAnswer(b *testing.B) {
	d := ASCII87()
	m, err := d.Parse(wire("0200", sample("0200", SideTerminal)), SideTerminal)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		u, err := m.Answer("00").Set(38, "A1B2C3").Pack()
		if err != nil {
			b.Fatal(err)
		}
		u.Seal([8]byte{1})
	}
}

func BenchmarkMoovUnpack(b *testing.B) {
	spec := moovSpec(ASCII87())
	raw := wire("0200", sample("0200", SideTerminal))
	b.ReportAllocs()
	for b.Loop() {
		if err := iso8583.NewMessage(spec).Unpack(raw); err != nil {
			b.Fatal(err)
		}
	}
}
