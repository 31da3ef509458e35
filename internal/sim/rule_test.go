package sim

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseRule(t *testing.T) {
	tests := []struct {
		text string
		want Rule // zero: refused
	}{
		{"99=silent", Rule{Suffix: "99", Code: "00", Silent: true}},
		{"=approve", Rule{Code: "00"}},
		{"7=decline:51", Rule{Suffix: "7", Code: "51"}},
		{"95=delay:3s", Rule{Suffix: "95", Code: "00", Delay: 3 * time.Second}},
		{"reversal:93=wrong-mac", Rule{Reversal: true, Suffix: "93", Code: "00", WrongMAC: true}},
		{"0=twice", Rule{Suffix: "0", Code: "00", Twice: true}},
		{"reversal:=close", Rule{Reversal: true, Code: "00", Close: true}},
		{"99", Rule{}},
		{"9x=silent", Rule{}},
		{"1234567890123=silent", Rule{}},
		{"99=explode", Rule{}},
		{"99=decline:5", Rule{}},
		{"99=delay:-1s", Rule{}},
		{"99=delay:soon", Rule{}},
	}
	for _, test := range tests {
		t.Run(test.text, func(t *testing.T) {
			got, err := ParseRule(test.text)
			if (err == nil) != (test.want.Code != "") {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestBookSurvives: the last line of a killed issuer may be torn.
func TestBookSurvives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "book")
	b, err := openBook(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []Entry{{STAN: "000001", DateTime: "1122000000", Amount: 100, State: "approved"}, {STAN: "000002", DateTime: "1122000001", State: "declined"}} {
		b.add(&e)
		if err := b.write(&e); err != nil {
			t.Fatal(err)
		}
	}
	changed := *b.entries[bookKey{"000001", "1122000000"}]
	changed.State, changed.Effective = "reversed", 1
	if err := b.write(&changed); err != nil {
		t.Fatal(err)
	}
	if _, err := b.file.WriteString(`{"stan":"0000`); err != nil {
		t.Fatal(err)
	}
	if err := b.close(); err != nil {
		t.Fatal(err)
	}
	again, err := openBook(path) // after the kill
	if err != nil {
		t.Fatal(err)
	}
	if err := again.write(&Entry{STAN: "000003", DateTime: "1122000002"}); err != nil {
		t.Fatal(err)
	}
	if err := again.close(); err != nil {
		t.Fatal(err)
	}
	got, err := ReadBook(path)
	if err != nil || len(got) != 3 || got[0].State != "reversed" || got[1].State != "declined" {
		t.Errorf("read %+v, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("not a book\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadBook(path); err == nil {
		t.Error("something that is no book was read")
	}
}
