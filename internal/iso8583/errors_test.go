package iso8583

import "testing"

func TestFormatErrorText(t *testing.T) {
	d := ASCII87()
	sale := sample("0200", SideTerminal)
	for _, tt := range []struct {
		raw  []byte
		want string
	}{
		{[]byte("0500"), "iso8583: DE 0: unknown message type"},
		{[]byte("0200abcd"), "iso8583: DE 1: malformed bitmap, want 16 or 32 upper-case hex digits"},
		{wire("0200", sale.with(fields{60: "003123"})), "iso8583: DE 60: unknown field"},
		{wire("0200", sale.with(fields{39: "00"})), "iso8583: DE 39: field not allowed in this message"},
		{wire("0200", sale.without(4)), "iso8583: DE 4: mandatory field missing, want n12"},
		{wire("0200", sale.with(fields{2: "XX"})), "iso8583: DE 2: wrong length, want n..19"},
		{wire("0200", sale.with(fields{3: "00000X"})), "iso8583: DE 3: wrong characters or structure, want n6"},
		{append(wire("0200", sale), 0), "iso8583: DE 64: bytes after the last field"},
	} {
		if _, err := d.Parse(tt.raw, SideTerminal); err == nil || err.Error() != tt.want {
			t.Errorf("got  %v\nwant %s", err, tt.want)
		}
	}
}
