package profile

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/tomlfile"
)

var (
	nameForm   = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	codeForm   = regexp.MustCompile(`^[0-9A-Z]{2}$`)
	digitsForm = regexp.MustCompile(`^[0-9]*$`)
)

// check collects what is wrong with a file.
type check struct {
	name  string
	lines tomlfile.Lines
	own   *file // as it is written
	file  *file // with what it has from its base
	found []string
}

// want notes a fault at a key unless ok: message.NAME.may, field.DE.form, the
// others as they are written.
func (c *check) want(ok bool, key, format string, args ...any) {
	if !ok {
		c.found = append(c.found, fmt.Sprintf("%s:%d: %s: %s", c.name, c.line(key), key, fmt.Sprintf(format, args...)))
	}
}

// line is the line of a key, else of its table, else of the base that it is from.
func (c *check) line(key string) int {
	table, rest, _ := strings.Cut(key, ".")
	at := -1
	switch id, _, _ := strings.Cut(rest, "."); table {
	case "message":
		at = slices.IndexFunc(c.own.Messages, func(m message) bool { return m.Name == id })
	case "field":
		at = slices.IndexFunc(c.own.Fields, func(d field) bool { return fmt.Sprint(d.DE) == id })
	}
	if at >= 0 {
		_, rest, _ = strings.Cut(rest, ".")
		key = fmt.Sprintf("%s[%d].%s", table, at, rest)
	}
	if n, ok := c.lines[key]; ok {
		return n
	}
	if i := strings.LastIndexByte(key, '.'); i > 0 {
		if n, ok := c.lines[key[:i]]; ok {
			return n
		}
	}
	return c.lines.Of("base")
}

// profile checks the file and makes the profile.
func (f *file) profile(name, source string, text []byte, own *file) (*Profile, error) {
	c := &check{name: name, lines: tomlfile.LinesOf(text), file: f, own: own}
	c.general()
	c.codes()
	c.macs()
	c.messages()
	c.fields()
	c.reversals()
	dialect, err := iso8583.New(f.spec())
	c.dialect(err)
	if len(c.found) > 0 {
		slices.Sort(c.found)
		return nil, &Refused{slices.Compact(c.found)}
	}
	p := &Profile{
		Name: f.Name, About: f.About, Source: source, Text: text, Dialect: dialect, MAC: map[Scheme]MAC{}, MAKSize: f.MAKLength,
		Original: Original(f.Original),
		Rules:    Rules{DE61Always: f.DE61 == "always", Reasons: f.Reasons, Reason: f.Reason, Types: f.Types},
		Codes: Codes{
			MACError: f.MACError, Timeout: f.Timeout, BadUpstream: f.BadUpstream, Approvals: f.Approvals, BareRefusals: *f.Bare,
			requestByRow: map[string]string{}, adviceByRow: map[string]string{},
		},
	}
	if f.DE3 != "same" && f.DE3 != "" {
		p.Rules.DE3 = f.DE3
	}
	for scheme, a := range f.schemes() {
		p.MAC[scheme] = a.mac(dialect.MACForm())
	}
	for row, own := range f.Rows {
		if own.Request != "" {
			p.Codes.requestByRow[row] = own.Request
		}
		if own.Advice != "" {
			p.Codes.adviceByRow[row] = own.Advice
		}
	}
	return p, nil
}

func (c *check) general() {
	f := c.file
	c.want(nameForm.MatchString(f.Name), "name", "%q is not 1 to 32 of a-z, 0-9 and -, beginning with a letter", f.Name)
	c.want(f.About != "", "about", "says in a line whose terminals these are; it is empty")
	c.want(f.Original == string(ByDE90) || f.Original == string(ByBatch), "original", "%q is neither %q nor %q", f.Original, ByDE90, ByBatch)
	c.want(f.DE61 == "" || f.DE61 == "void_only" || f.DE61 == "always", "reversal_de61", `%q is neither "void_only" nor "always"`, f.DE61)
	c.want(f.DE3 == "" || f.DE3 == "same" || len(f.DE3) == 6 && digitsForm.MatchString(f.DE3), "reversal_de3", `%q is neither "same" nor six digits`, f.DE3)
}

// codes checks the values of DE 39. None may turn a refusal into an approval.
func (c *check) codes() {
	f := c.file
	c.want(f.Bare != nil, "answer_without_mac", "says whether a refusal for which there is no key goes without a MAC, true, or ends the connection, false; it is missing")
	for key, code := range map[string]string{
		"mac_error_code": f.MACError, "timeout_answer": f.Timeout, "bad_upstream_mac_answer": f.BadUpstream,
	} {
		c.want(codeForm.MatchString(code), key, "%q is not two digits or upper-case letters", code)
		c.want(!slices.Contains(f.Approvals, code), key, "%q is an approval", code)
	}
	c.want(slices.Contains(f.Approvals, "00"), "approval_codes", "lacks 00")
	c.want(slices.Contains(f.Incomplete, f.MACError), "incomplete_codes", "lacks %s, the mac_error_code", f.MACError)
	c.want(slices.Contains(f.Incomplete, "30"), "incomplete_codes", "lacks 30, which answers a message that cannot be read")
	c.want(f.Reason == "" || codeForm.MatchString(f.Reason), "reversal_reason_default", "%q is not two digits or upper-case letters", f.Reason)
	for key, list := range map[string][]string{"approval_codes": f.Approvals, "incomplete_codes": f.Incomplete, "reversal_reasons": f.Reasons} {
		for _, code := range list {
			c.want(codeForm.MatchString(code), key, "%q is not two digits or upper-case letters", code)
		}
	}
	for _, code := range f.Incomplete {
		c.want(!slices.Contains(f.Approvals, code), "incomplete_codes", "%q is an approval", code)
	}
	for _, row := range slices.Sorted(maps.Keys(f.Rows)) {
		c.row(row, f.Rows[row])
	}
}

// row checks the codes of a row of the decision table.
func (c *check) row(row string, own rowCodes) {
	at := "decision_codes." + row
	may, known := configurable()[row]
	c.want(known, at, "this row has no code of a profile's own; those that may have one are %s", strings.Join(slices.Sorted(maps.Keys(configurable())), ", "))
	for key, code := range map[string]string{".request": own.Request, ".advice": own.Advice} {
		if code == "" {
			continue
		}
		c.want(codeForm.MatchString(code), at+key, "%q is not two digits or upper-case letters", code)
		approves := slices.Contains(c.file.Approvals, code)
		c.want(!approves || key == ".advice" && may, at+key, "%q would approve what the row refuses", code)
	}
}

// configurable are the rows that may have another code, and whether an advice may
// be told there that it is done. Reversals section 10. The rows that accept are
// not among them.
func configurable() map[string]bool {
	return map[string]bool{
		"D-01": false, "D-02": false, "D-05": false, "D-10": true, "D-11": true, "D-13": false, "D-14": false, "D-15": false,
		"D-16": true, "D-17": false, "D-22": true, "D-23": false, "D-24": false, "D-25": true, "D-27": false, "D-28": false,
		"D-34": true, "D-35": false,
	}
}

func (f *file) schemes() map[Scheme]*algorithm {
	all := map[Scheme]*algorithm{TDESDUKPT: f.MAC.TDESDUKPT, AESDUKPT: f.MAC.AESDUKPT, Master: f.MAC.Master}
	maps.DeleteFunc(all, func(_ Scheme, a *algorithm) bool { return a == nil })
	return all
}

// algorithmsOf are the algorithms that the keys of a scheme can make.
func algorithmsOf(s Scheme) []Algorithm {
	switch s {
	case TDESDUKPT:
		return []Algorithm{X919, CMAC}
	case AESDUKPT:
		return []Algorithm{CMAC}
	}
	return []Algorithm{CUPECB, X99, CBCMAC3DES, X919, CMAC}
}

func (c *check) macs() {
	f := c.file
	schemes := f.schemes()
	c.want(len(schemes) > 0, "mac", "names no key scheme: one or more of [mac.tdes-dukpt], [mac.aes-dukpt], [mac.tmk]")
	dukpt := f.MAC.TDESDUKPT != nil || f.MAC.AESDUKPT != nil
	c.want(!dukpt || f.KSN.Field != 0, "ksn.field", "names no field; DUKPT terminals need one")
	for _, s := range slices.Sorted(maps.Keys(schemes)) {
		at, a := "mac."+string(s)+".algorithm", Algorithm(schemes[s].Algorithm)
		switch {
		case strings.HasPrefix(string(a), "sm4"):
			c.want(false, at, "%q needs a mechanism of the HSM's own, which keyd does not use", a)
		default:
			c.want(slices.Contains(algorithmsOf(s), a), at, "%q is not one of %q: every terminal's messages have a MAC", a, algorithmsOf(s))
		}
		c.macDetails(strings.TrimSuffix(at, ".algorithm"), s, schemes[s])
		c.want(a != CUPECB || iso8583.MACForm(f.MAC.Format).Bytes() == 4, "mac.format", "cup_ecb makes 4 bytes; %q carries 8", f.MAC.Format)
	}
	if f.MAC.Master == nil {
		c.want(f.MAKLength == 0, "mak_length", "is of terminals with a master key, [mac.tmk]")
		return
	}
	a := Algorithm(f.MAC.Master.Algorithm)
	c.want(f.MAKLength == 8 || f.MAKLength == 16, "mak_length", "%d is neither 8 nor 16", f.MAKLength)
	c.want(a != X99 || f.MAKLength == 8, "mak_length", "x9_9 is DES, with a key of 8 bytes")
	c.want(a != CBCMAC3DES && a != X919 && a != CMAC || f.MAKLength == 16, "mak_length", "%s needs a key of 16 bytes", a)
}

// macDetails checks padding and variant.
func (c *check) macDetails(at string, s Scheme, a *algorithm) {
	padded := slices.Contains([]Algorithm{X99, CBCMAC3DES, X919}, Algorithm(a.Algorithm))
	c.want(a.Padding >= 0 && a.Padding <= 2, at+".padding", "%d is neither 1, zeros, nor 2, a byte 80 and zeros", a.Padding)
	c.want(a.Padding == 0 || padded, at+".padding", "%s has a padding of its own", a.Algorithm)
	c.want(slices.Contains([]string{"", "split", "both"}, a.Variant), at+".variant", `%q is neither "split" nor "both"`, a.Variant)
	c.want(a.Variant == "" || s != Master, at+".variant", "is of DUKPT; a terminal with a master key has one MAC key")
}

// messages checks what New cannot see.
func (c *check) messages() {
	f := c.file
	names := map[string]bool{}
	var types []string
	for _, m := range f.Messages {
		at := "message." + m.Name
		c.want(nameForm.MatchString(strings.ReplaceAll(m.Name, "_", "-")), at+".name", "%q is not 1 to 32 of a-z, 0-9, - and _, beginning with a letter", m.Name)
		c.want(!names[m.Name], at+".name", "stands twice")
		c.want(slices.Contains([]string{"", "required", "none", "optional"}, m.MAC), at+".mac", `%q is neither "required", "none" nor "optional"`, m.MAC)
		names[m.Name] = true
		types = append(types, m.Types...)
		if m.MAC == "optional" {
			c.want(!slices.ContainsFunc(m.Types, func(t string) bool { return iso8583.MTI(t).Class() != '8' }), at+".mac", "only network management, 08xx, may come with or without a MAC")
		}
		c.reversal(at, m)
	}
	for _, mti := range []string{"0200", "0400"} {
		c.want(slices.Contains(types, mti), "message", "no message has type %s, so its terminals could do nothing", mti)
	}
	for _, mti := range f.MACRequired {
		c.want(slices.Contains(types, mti), "mac_required", "no message has type %q", mti)
	}
}

// reversal checks a message of class 1, 2 or 4 for what the switch needs of it.
func (c *check) reversal(at string, m message) {
	class := func(want byte) bool {
		return slices.ContainsFunc(m.Types, func(t string) bool { return iso8583.MTI(t).Class() == want })
	}
	needs := []int{3, 22, 25, 42, 49}
	switch {
	case class('4'):
		if needs = append(needs, 2, 4); c.file.Reason == "" {
			needs = append(needs, 39)
		}
	case !class('1') && !class('2'):
		return
	}
	if c.file.Original == string(ByBatch) {
		needs = append(needs, 60)
	} else {
		needs = append(needs, 7)
		if class('4') {
			needs = append(needs, 90)
		}
	}
	for _, de := range needs {
		c.want(slices.Contains(m.Must, de), at+".must", "lacks field %d", de)
	}
	if !class('4') {
		c.want(slices.Contains(m.Must, 2) || slices.Contains(m.OneOf, 2), at+".must", "lacks field 2, or one_of with it")
		c.want(slices.Contains(m.Must, 4) || slices.Contains(m.May, 4), at+".must", "lacks field 4")
		return
	}
	// What a forger may write freely keeps a linear MAC as it was.
	if f := c.file; f.MAC.Master != nil && Algorithm(f.MAC.Master.Algorithm) == CUPECB {
		for _, de := range []int{48, 58, 59, 62, 63} {
			c.want(!slices.Contains(m.Must, de) && !slices.Contains(m.May, de), at+".may", "field %d is free text, with which who forges a reversal keeps its cup_ecb MAC", de)
		}
	}
}

// reversals checks what a reversal says of its original.
func (c *check) reversals() {
	f := c.file
	for i, t := range f.Types {
		at := fmt.Sprintf("reversible_type[%d]", i)
		mti := iso8583.MTI(t.MTI)
		c.want(t.MTI == "" || mti.IsRequest() && (mti.Class() == '1' || mti.Class() == '2'), at+".mti", "%q is no authorization or financial request", t.MTI)
		for key, part := range map[string]struct {
			text string
			n    int
		}{".de3": {t.DE3, 6}, ".de25": {t.DE25, 2}, ".de60": {t.DE60, 2}} {
			c.want(part.text == "" || len(part.text) == part.n && digitsForm.MatchString(part.text), at+key, "%q is not %d digits", part.text, part.n)
		}
		c.want(t.DE60 == "" || f.Original == string(ByBatch), at+".de60", "only where a reversal names its original by batch")
		c.want(t != Type{}, at, "is empty, and so would fit every transaction")
	}
	for _, d := range f.Fields {
		if d.DE == 60 && f.Original == string(ByBatch) {
			c.want(d.Min >= 11 && strings.HasPrefix(d.Form, "n"), "field.60.min", "the field begins with 11 digits: type, batch, network code")
		}
	}
}

// dialect notes what [iso8583.New] found.
func (c *check) dialect(err error) {
	if err == nil {
		return
	}
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for _, e := range all {
		var s *iso8583.SpecError
		if errors.As(e, &s) {
			c.want(false, s.At, "%s", s.Why)
		}
	}
}
