package profile

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"reflect"
	"slices"

	"github.com/pelletier/go-toml/v2"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/tomlfile"
)

//go:embed ascii87.toml unionpay.toml
var builtin embed.FS

// Names lists the profiles that keyd brings.
func Names() []string { return []string{"ascii87", "unionpay"} }

// Find returns the profile of a name that keyd brings, or else of the file. It
// returns [ErrUnknown] for what is neither, and [Refused] for a file that is not
// valid.
func Find(nameOrFile string) (*Profile, error) {
	if slices.Contains(Names(), nameOrFile) {
		return Builtin(nameOrFile)
	}
	text, err := os.ReadFile(nameOrFile)
	if err != nil {
		return nil, fmt.Errorf("%w: %q is none of %q, and as a file: %w", ErrUnknown, nameOrFile, Names(), err)
	}
	return Parse(nameOrFile, text)
}

// Builtin returns a profile that keyd brings, or [ErrUnknown].
func Builtin(name string) (*Profile, error) {
	f, text, err := builtinFile(name)
	if err != nil {
		return nil, err
	}
	return f.profile(name+".toml", "built in", text, f)
}

func builtinFile(name string) (*file, []byte, error) {
	if !slices.Contains(Names(), name) {
		return nil, nil, fmt.Errorf("%w: %q; there are %q", ErrUnknown, name, Names())
	}
	text, err := builtin.ReadFile(name + ".toml")
	if err != nil {
		return nil, nil, err
	}
	var f file
	return &f, text, f.decode(name+".toml", text)
}

// Parse reads the profile of a file. It returns [Refused] with all that is wrong
// with it.
func Parse(name string, text []byte) (*Profile, error) {
	var own file
	if err := own.decode(name, text); err != nil {
		return nil, err
	}
	lines := tomlfile.LinesOf(text)
	refused := func(key, why string) error {
		return &Refused{[]string{fmt.Sprintf("%s:%d: %s: %s", name, lines.Of(key), key, why)}}
	}
	if slices.Contains(Names(), own.Name) {
		return nil, refused("name", fmt.Sprintf("%q is a profile that keyd brings; take another name", own.Name))
	}
	if own.Base == "" {
		return own.profile(name, name, text, &own)
	}
	base, _, err := builtinFile(own.Base)
	if err != nil {
		return nil, refused("base", fmt.Sprintf("%q is none of %q", own.Base, Names()))
	}
	if err := base.overlay(name, text); err != nil {
		return nil, err
	}
	return base.profile(name, name, text, &own)
}

// file is a profile as it is written.
type file struct {
	Name  string `toml:"name"`
	Base  string `toml:"base,omitempty"`
	About string `toml:"about"`

	Wire   string `toml:"wire"`
	TPDU   int    `toml:"tpdu_len"`
	Swap   bool   `toml:"tpdu_swap"`
	ANI    int    `toml:"ani_len"`
	Header int    `toml:"header_len"`

	Original string `toml:"original"`
	DE3      string `toml:"reversal_de3"`
	DE61     string `toml:"reversal_de61"`

	MACError    string   `toml:"mac_error_code"`
	Timeout     string   `toml:"timeout_answer"`
	BadUpstream string   `toml:"bad_upstream_mac_answer"`
	Approvals   []string `toml:"approval_codes"`
	Incomplete  []string `toml:"incomplete_codes"`
	Bare        *bool    `toml:"answer_without_mac"`
	Reasons     []string `toml:"reversal_reasons"`
	Reason      string   `toml:"reversal_reason_default,omitempty"`
	MACRequired []string `toml:"mac_required"`
	MAKLength   int      `toml:"mak_length"`

	Rows  map[string]rowCodes `toml:"decision_codes"`
	KSN   ksnSource           `toml:"ksn"`
	MAC   macFile             `toml:"mac"`
	Types []Type              `toml:"reversible_type"`

	Messages []message `toml:"message"`
	Fields   []field   `toml:"field"`
}

// rowCodes are the codes of a row of the decision table.
type rowCodes struct {
	Request string `toml:"request"`
	Advice  string `toml:"advice"`
}

// ksnSource is where the KSN is. Mac-and-DUKPT section 4.
type ksnSource struct {
	Field int `toml:"field"`
	Fill  int `toml:"fill"` // digits that a shorter one is filled to with F on the left
}

type macFile struct {
	Format    string     `toml:"format"`
	TDESDUKPT *algorithm `toml:"tdes-dukpt"`
	AESDUKPT  *algorithm `toml:"aes-dukpt"`
	Master    *algorithm `toml:"tmk"`
}

type algorithm struct {
	Algorithm string `toml:"algorithm"`
	Padding   int    `toml:"padding,omitempty"` // of ISO 9797-1: 1 (default), 2
	Variant   string `toml:"variant,omitempty"` // of a DUKPT key: "split" (default), "both"
}

func (a *algorithm) mac(form iso8583.MACForm) MAC {
	return MAC{Algorithm: Algorithm(a.Algorithm), Padding: max(1, a.Padding), Both: a.Variant == "both", Bytes: form.Bytes()}
}

type message struct {
	Name       string   `toml:"name"`
	Types      []string `toml:"types"`
	MAC        string   `toml:"mac"` // "required" (default), "none", "optional"
	Must       []int    `toml:"must"`
	May        []int    `toml:"may"`
	OneOf      []int    `toml:"one_of"`
	AnswerMust []int    `toml:"answer_must"`
	AnswerMay  []int    `toml:"answer_may"`
}

type field struct {
	DE       int    `toml:"de"`
	Name     string `toml:"name"`
	Form     string `toml:"form"`
	Want     string `toml:"want"`
	Min      int    `toml:"min"`
	Lengths  []int  `toml:"lengths"`
	Align    string `toml:"align"` // "left" (default), "right"
	Echo     bool   `toml:"echo"`
	Terminal bool   `toml:"terminal"`
	Excludes int    `toml:"excludes"`
	Shape    string `toml:"shape"`
}

// decode reads the text over what f holds already. An unknown key is refused.
func (f *file) decode(name string, text []byte) error {
	dec := toml.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(f); err != nil {
		return &Refused{tomlfile.Complaints(name, err, reflect.TypeFor[file]())}
	}
	return nil
}

// overlay reads a file whose base f is: keys replace those of the base, messages
// with the same name and fields with the same number too; others are added.
func (f *file) overlay(name string, text []byte) error {
	messages, fields, rows := f.Messages, f.Fields, f.Rows
	f.Messages, f.Fields, f.Rows = nil, nil, nil
	if err := f.decode(name, text); err != nil {
		return err
	}
	f.Messages = merge(messages, f.Messages, func(m message) string { return m.Name })
	f.Fields = merge(fields, f.Fields, func(d field) int { return d.DE })
	for row, codes := range rows {
		if _, own := f.Rows[row]; !own {
			if f.Rows == nil {
				f.Rows = map[string]rowCodes{}
			}
			f.Rows[row] = codes
		}
	}
	return nil
}

func merge[E any, K comparable](base, own []E, key func(E) K) []E {
	out := slices.Clone(base)
	for _, e := range own {
		at := slices.IndexFunc(base, func(b E) bool { return key(b) == key(e) })
		if at < 0 {
			out = append(out, e)
			continue
		}
		out[at] = e
	}
	return out
}

// spec is the dialect that the file describes.
func (f *file) spec() iso8583.Spec {
	s := iso8583.Spec{
		Name: f.Name, Wire: iso8583.Wire(f.Wire), MAC: iso8583.MACForm(f.MAC.Format),
		Head: iso8583.Head{TPDU: f.TPDU, ANI: f.ANI, Header: f.Header, Swap: f.Swap},
		KSN:  f.KSN.Field, KSNFill: f.KSN.Fill, Incomplete: f.Incomplete,
	}
	for _, m := range f.Messages {
		s.Messages = append(s.Messages, f.messageSpec(m))
	}
	for _, d := range f.Fields {
		s.Fields = append(s.Fields, iso8583.FieldSpec{
			DE: d.DE, Name: d.Name, Form: d.Form, Want: d.Want, Min: d.Min, Lengths: d.Lengths, Right: d.Align == "right",
			Echo: d.Echo, Terminal: d.Terminal, Excludes: d.Excludes, Shape: iso8583.ShapeName(d.Shape),
		})
	}
	return s
}

func (f *file) messageSpec(m message) iso8583.MessageSpec {
	s := iso8583.MessageSpec{
		Name: m.Name, Must: m.Must, May: m.May, OneOf: m.OneOf, AnswerMust: m.AnswerMust, AnswerMay: m.AnswerMay,
		NoMAC: m.MAC == "none", MayMAC: m.MAC == "optional",
	}
	for _, mti := range m.Types {
		s.Types = append(s.Types, iso8583.MTI(mti))
		if required := slices.Contains(f.MACRequired, mti); required && !iso8583.MACNeeded(iso8583.MTI(mti).Class()) {
			s.NoMAC, s.MayMAC = false, false
		}
	}
	return s
}
