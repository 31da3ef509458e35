package isoswitch

import (
	"errors"
	"strings"
	"testing"

	"keyd.dev/keyd/internal/profile"
)

func ownProfile(t *testing.T, text string) *profile.Profile {
	t.Helper()
	p, err := profile.Parse("test.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestServes: a profile whose terminals would only be refused is refused at the
// start, with a reason.
func TestServes(t *testing.T) {
	const base = "name = \"own\"\nbase = \"ascii87\"\nabout = \"test\"\n"
	unionpay, err := profile.Builtin("unionpay")
	if err != nil {
		t.Fatal(err)
	}
	ascii, err := profile.Builtin("ascii87")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		p    *profile.Profile
		want string // "" is served
	}{
		{"ascii87", ascii, ""},
		{"own codes", ownProfile(t, base+"timeout_answer = \"98\"\n"), ""},
		{"packed, with DUKPT", ownProfile(t, base+"wire = \"bcd\"\ntpdu_len = 5\nheader_len = 6\n"), ""},
		{"by batch, with a master key", unionpay, ""},
		{"no local time", ownProfile(t, base+`
[[message]]
name = "financial"
types = ["0100", "0200", "0220"]
must = [2, 3, 4, 7, 11, 22, 25, 41, 42, 49]
answer_must = [11, 37, 39, 41]
`), "message financial lacks field 12"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Serves(tt.p)
			if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// TestSpoken: only a row's standard code is replaced, and twice is as once.
func TestSpoken(t *testing.T) {
	s := speech{ownProfile(t, `
name = "own"
base = "ascii87"
about = "test"
mac_error_code = "A0"
incomplete_codes = ["30", "A0"]
[decision_codes.D-02]
request = "97"
[decision_codes.D-16]
advice = "12"
`)}
	tests := []struct {
		name   string
		v      verdict
		advice bool
		want   string
	}{
		{"D-03", ruling("D-03", false), false, "A0"},
		{"D-04 locked", verdict{rule: "D-04", code: codeSecurity}, false, "A0"},
		{"D-06", ruling("D-06", true), true, "A0"},
		{"D-02 terminal", ruling("D-02", false), false, "97"},
		{"D-02 merchant", verdict{rule: "D-02", code: codeMerchant}, false, "03"},
		{"D-02 advice has none of its own", ruling("D-02", true), true, "58"},
		{"D-16 request", ruling("D-16", false), false, "12"},
		{"D-16 advice", ruling("D-16", true), true, "12"},
		{"D-21", ruling("D-21", false), false, "00"},
		{"D-07 the stored code", verdict{rule: "D-07", code: "58"}, false, "58"},
		{"no row: the issuer's", verdict{code: "63"}, false, "63"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			once := s.spoken(tt.v, tt.advice)
			if again := s.spoken(once, tt.advice); once.code != tt.want || again.code != tt.want {
				t.Errorf("%s, and again %s, want %s", once.code, again.code, tt.want)
			}
		})
	}
}

// TestProfileTypes: a list of reversible types narrows what moves money, and a
// fixed DE 3 takes the place of the original's.
func TestProfileTypes(t *testing.T) {
	p := policy{profile: ownProfile(t, `
name = "own"
base = "ascii87"
about = "test"
reversal_de3 = "190000"
[[reversible_type]]
mti = "0200"
de3 = "000000"
`).Rules}
	for _, tt := range []struct {
		name string
		txn  Txn
		want bool
	}{
		{"D-21 listed", Txn{MTI: "0200", Processing: "000000"}, true},
		{"D-17 another type of message", Txn{MTI: "0100", Processing: "000000"}, false},
		{"D-17 a refund", Txn{MTI: "0200", Processing: "200000"}, false},
		{"D-17 a balance inquiry", Txn{MTI: "0200", Processing: "310000"}, false},
	} {
		if got := p.mayReverse(&tt.txn); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
		if got := p.reversedProcessing(&tt.txn); got != "190000" {
			t.Errorf("%s: DE 3 %s", tt.name, got)
		}
	}
}
