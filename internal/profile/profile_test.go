package profile

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/tomlfile"
)

// TestBuiltin: both are read by the loader of users' files, and ascii87 describes
// the dialect that the simulators speak.
func TestBuiltin(t *testing.T) {
	for _, name := range Names() {
		p, err := Find(name)
		if err != nil {
			t.Fatal(err)
		}
		if p.Name != name || p.Dialect.Name() != name || p.Source != "built in" {
			t.Errorf("%s is called %s, its dialect %s, from %s", name, p.Name, p.Dialect.Name(), p.Source)
		}
	}
	p, err := Builtin("ascii87")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(iso8583.ASCII87().Spec(), p.Dialect.Spec()); diff != "" {
		t.Errorf("ascii87.toml is not the dialect of the simulators (-code +file):\n%s", diff)
	}
}

// own is a profile of a user's with a base.
func own(base, rest string) string {
	return "name = \"own\"\nbase = \"" + base + "\"\nabout = \"test\"\n" + rest
}

// TestRefused: what is wrong with a file is said with file, line and key. The
// lines of own come first, so that the rest begins at 4; what is from the base is
// said at line 2.
func TestRefused(t *testing.T) {
	const bareReversal = `
[[message]]
name = "reversal"
types = ["0400"]
mac = "%s"
must = [2, 3, 4, 11, 22, 25, 39, 41, 42, 49, 60]
answer_must = [11, 12, 13, 37, 39, 41]
`
	tests := []struct {
		name, text string
		want       []string // each a part of a line
	}{
		{"M-06 class 4 without a MAC", own("unionpay", fmt.Sprintf(bareReversal, "none")), []string{"f.toml:8: message.reversal.mac: 0400 could come without a MAC"}},
		{"A-07.T3 an optional MAC", own("unionpay", fmt.Sprintf(bareReversal, "optional")), []string{"f.toml:8: message.reversal.mac: 0400 could come without", "message.reversal.mac: only network management"}},
		{"A-07.T3 mac_required does not mend it", own("unionpay", "mac_required = [\"0400\"]\n"+fmt.Sprintf(bareReversal, "none")), []string{"message.reversal.mac: 0400 could come without"}},
		{"A-07.T3 no algorithm", own("unionpay", "[mac.tmk]\nalgorithm = \"\"\n"), []string{"f.toml:5: mac.tmk.algorithm: \"\" is not one of"}},
		{"A-07.T3 no scheme", "name = \"x\"\nabout = \"y\"\n", []string{"f.toml:1: mac: names no key scheme", "f.toml:1: mac.format: \"\" is not one of", "message: no message has type 0400"}},
		{"A-08 free text in a reversal", own("unionpay", `
[[message]]
name = "reversal"
types = ["0400"]
must = [2, 3, 4, 11, 22, 25, 39, 41, 42, 49, 60]
may = [59]
answer_must = [11, 12, 13, 37, 39, 41]
`), []string{"f.toml:9: message.reversal.may: field 59 is free text"}},
		{"U-55 cup_ecb with 8 bytes", own("unionpay", "[mac]\nformat = \"raw_8\"\n"), []string{"f.toml:5: mac.format: cup_ecb makes 4 bytes"}},
		{"padding 3", own("unionpay", "[mac]\nformat = \"raw_8\"\n[mac.tmk]\nalgorithm = \"x9_9\"\npadding = 3\n"), []string{"mac.tmk.padding: 3 is neither 1, zeros, nor 2"}},
		{"padding of CMAC", own("ascii87", "[mac.tdes-dukpt]\nalgorithm = \"cmac\"\npadding = 2\n"), []string{"mac.tdes-dukpt.padding: cmac has a padding of its own"}},
		{"A-08 padding of cup_ecb", own("unionpay", "[mac.tmk]\nalgorithm = \"cup_ecb\"\npadding = 2\n"), []string{"mac.tmk.padding: cup_ecb has a padding of its own"}},
		{"another variant", own("ascii87", "[mac.aes-dukpt]\nalgorithm = \"cmac\"\nvariant = \"2004\"\n"), []string{`mac.aes-dukpt.variant: "2004" is neither "split" nor "both"`}},
		{"variant of a master key", own("unionpay", "[mac.tmk]\nalgorithm = \"cup_ecb\"\nvariant = \"both\"\n"), []string{"mac.tmk.variant: is of DUKPT"}},
		{"CMAC with DES", own("unionpay", "[mac]\nformat = \"raw_8\"\n[mac.tmk]\nalgorithm = \"cmac\"\n"), []string{"mak_length: cmac needs a key of 16 bytes"}},
		{"a reason that is none", own("ascii87", "reversal_reason_default = \"reversed\"\n"), []string{`reversal_reason_default: "reversed" is not two digits`}},
		{"U-85 SM4", own("unionpay", "[mac.tmk]\nalgorithm = \"sm4_cbc\"\n"), []string{"mac.tmk.algorithm: \"sm4_cbc\" needs a mechanism of the HSM's own"}},
		{"U-45 length of the MAC key", own("unionpay", "[mac.tmk]\nalgorithm = \"x9_19\"\n"), []string{"f.toml:2: mak_length: x9_19 needs a key of 16 bytes"}},
		{"an approval in place of a refusal", own("ascii87", "[decision_codes.D-13]\nadvice = \"00\"\n"), []string{"f.toml:5: decision_codes.D-13.advice: \"00\" would approve what the row refuses"}},
		{"a request of D-10 approved", own("ascii87", "[decision_codes.D-10]\nrequest = \"00\"\n"), []string{"decision_codes.D-10.request: \"00\" would approve"}},
		{"a row that accepts", own("ascii87", "[decision_codes.D-21]\nrequest = \"12\"\n"), []string{"f.toml:4: decision_codes.D-21: this row has no code of a profile's own"}},
		{"a MAC error that approves", own("ascii87", "mac_error_code = \"00\"\n"), []string{"f.toml:4: mac_error_code: \"00\" is an approval"}},
		{"approvals without 00", own("ascii87", "approval_codes = [\"10\"]\n"), []string{"f.toml:4: approval_codes: lacks 00"}},
		{"the name of a profile that keyd brings", "name = \"ascii87\"\n", []string{"f.toml:1: name: \"ascii87\" is a profile that keyd brings"}},
		{"a base that is none", "name = \"x\"\nbase = \"visa\"\n", []string{"f.toml:2: base: \"visa\" is none of"}},
		{"a form that is none", own("ascii87", "[[field]]\nde = 35\nname = \"track\"\nform = \"q..37\"\n"), []string{"f.toml:7: field.35.form: \"q..37\" is no form"}},
		{"a field that is not described", own("ascii87", "[[message]]\nname = \"network\"\ntypes = [\"0800\"]\nmac = \"optional\"\nmust = [7, 11, 41, 42, 70, 99]\nanswer_must = [11, 39, 41]\n"), []string{"f.toml:8: message.network.must: field 99 is not described"}},
		{"an unknown key", own("ascii87", "mac_errorcode = \"A0\"\n"), []string{"f.toml:4: unknown key \"mac_errorcode\"; did you mean \"mac_error_code\"?"}},
		{"no TOML", "name = ", []string{"f.toml:1"}},
		{"DE 90 of any length", own("ascii87", "[[field]]\nde = 90\nname = \"original\"\nform = \"n..42\"\n"), []string{"f.toml:7: field.90.form: \"n..42\" is not n42, as which"}},
		{"DE 7 of any length", own("ascii87", "[[field]]\nde = 7\nname = \"time\"\nform = \"n..10\"\necho = true\n"), []string{"f.toml:7: field.7.form: \"n..10\" is not n10"}},
		{"DE 3 of any length", own("unionpay", "[[field]]\nde = 3\nname = \"type\"\nform = \"n..6\"\necho = true\n"), []string{"f.toml:7: field.3.form: \"n..6\" is not n6"}},
		{"DE 49 of any length", own("unionpay", "[[field]]\nde = 49\nname = \"currency\"\nform = \"an..3\"\n"), []string{"f.toml:7: field.49.form: \"an..3\" is not n3 or an3"}},
		{"DE 95 without its shape", own("ascii87", "[[field]]\nde = 95\nname = \"rest\"\nform = \"an42\"\n"), []string{"f.toml:4: field.95.shape: \"\" is not \"replacement_amount\""}},
		{"a batch that no field holds", own("unionpay", "[[field]]\nde = 60\nname = \"batch\"\nform = \"n...8\"\n"), []string{"f.toml:4: field.60.min: the field begins with 11 digits"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("f.toml", []byte(tt.text))
			var refused *Refused
			if !errors.As(err, &refused) || !errors.Is(err, ErrProfile) {
				t.Fatalf("%v", err)
			}
			for _, want := range tt.want {
				if !slices.ContainsFunc(refused.Lines, func(line string) bool { return strings.Contains(line, want) }) {
					t.Errorf("no line has %q:\n%s", want, strings.Join(refused.Lines, "\n"))
				}
			}
		})
	}
}

// TestAdmit is A-08.T4 and U-56: cup_ecb is for TLS or a link marked private, and
// an operator is told.
func TestAdmit(t *testing.T) {
	x919, err := Parse("f.toml", []byte(own("unionpay", "mak_length = 16\n[mac]\nformat = \"raw_8\"\n[mac.tmk]\nalgorithm = \"x9_19\"\n")))
	if err != nil {
		t.Fatal(err)
	}
	legacy, err := Builtin("unionpay")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		p       *Profile
		link    Link
		refused bool
		warned  bool
	}{
		{"A-08.T4 cup_ecb in the open", legacy, Link{}, true, false},
		{"U-56 cup_ecb over TLS", legacy, Link{TLS: true}, false, true},
		{"U-56 cup_ecb on a private link", legacy, Link{Private: true}, false, true},
		{"x9_19 in the open", x919, Link{}, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			warnings, err := tt.p.Admit(tt.link)
			if errors.Is(err, ErrLink) != tt.refused || (len(warnings) > 0) != tt.warned {
				t.Errorf("%q, %v", warnings, err)
			}
		})
	}
}

// TestBase: a profile has what it does not name from its base, messages by their
// name and fields by their number.
func TestBase(t *testing.T) {
	p, err := Parse("f.toml", []byte(own("unionpay", `
tpdu_swap = false
reversal_reasons = ["98"]

[[field]]
de = 23
name = "card sequence number"
form = "n3"
align = "right"

[decision_codes.D-13]
request = "57"
`)))
	if err != nil {
		t.Fatal(err)
	}
	base, err := Builtin("unionpay")
	if err != nil {
		t.Fatal(err)
	}
	want := base.Dialect.Spec()
	want.Name, want.Head.Swap = "own", false
	for i := range want.Fields {
		if want.Fields[i].DE == 23 {
			want.Fields[i].Right = true
		}
	}
	if diff := cmp.Diff(want, p.Dialect.Spec()); diff != "" {
		t.Errorf("dialect (-want +got):\n%s", diff)
	}
	if code, _ := p.Codes.Row("D-13", false); code != "57" {
		t.Errorf("D-13: %q", code)
	}
	if code, _ := p.Codes.Row("D-02", true); code != "97" {
		t.Errorf("D-02 of the base: %q", code)
	}
	if !p.Rules.KnownReason("98") || p.Rules.KnownReason("06") {
		t.Errorf("reasons %q", p.Rules.Reasons)
	}
}

// TestDocumented loads the example of docs/SWITCH.md.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/SWITCH.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "```toml\n# north.toml")
	example, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatal("docs/SWITCH.md has no example that begins with # north.toml")
	}
	p, err := Parse("north.toml", []byte("# north.toml"+example))
	if err != nil {
		t.Fatal(err)
	}
	if p.MAC[Master] != (MAC{Algorithm: X919, Padding: 1, Bytes: 8}) || p.Codes.Timeout != "68" {
		t.Errorf("%+v, %+v", p.MAC, p.Codes)
	}
}

// TestKeysDocumented: docs/SWITCH.md has a row for every key of a profile.
func TestKeysDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/SWITCH.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range []reflect.Type{reflect.TypeFor[file](), reflect.TypeFor[message](), reflect.TypeFor[field](), reflect.TypeFor[Type](), reflect.TypeFor[ksnSource]()} {
		for i := range typ.NumField() {
			if key := tomlfile.Name(typ.Field(i)); !strings.Contains(string(text), "`"+key+"`") && !strings.Contains(string(text), "."+key+"`") {
				t.Errorf("docs/SWITCH.md does not say what %s is", key)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range Names() {
		p, err := Builtin(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p.Text)
	}
	f.Add([]byte(own("unionpay", "[mac]\nformat = \"raw_8\"\n")))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Parse("f.toml", text)
		if err != nil {
			return
		}
		for _, m := range p.Dialect.Spec().Messages {
			for _, mti := range m.Types {
				if iso8583.MACNeeded(mti.Class()) && (m.NoMAC || m.MayMAC) {
					t.Errorf("%s may go without a MAC", mti)
				}
			}
		}
	})
}
