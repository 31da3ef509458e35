package isoswitch

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/iso8583"
)

// Door is what a request must keep to before it is looked at any further; each
// refusal is a policy and no row of the decision table. Nothing of it ever
// refuses a reversal, and a void meets types and entry modes alone. Zero values permit.
type Door struct {
	Zone       string   // IANA name of the time zone of the hours; UTC
	Hours      []string // when requests are taken, "08:00-22:00"; always
	Cutover    []string // when new requests get 90, for the day changes; never
	Types      []string // first two digits of DE 3 that are taken; all of the dialect
	EntryModes []string // DE 22, ? for any digit; [DefaultEntryModes]
	RefuseSkew bool     // refuse what has another time than keyd by more than Timers.ClockSkew; else it is told
	CheckDigit bool     // refuse a PAN whose check digit is wrong
	Rules      []Rule   // what besides holds for some terminals or merchants
}

// Rule holds for the terminals and merchants that fit, beside the switch's own
// rules and all others that fit: a rule can only narrow.
type Rule struct {
	Name       string
	Terminals  []string // TIDs, * and ? as wild cards; all
	Merchants  []string // MIDs, likewise
	MaxAmount  int64    // minor units; 0 is no limit
	Hours      []string
	Types      []string
	EntryModes []string
}

// DefaultEntryModes are the PAN entry modes of ISO 8583:1987 and those that are in
// use beside them: unknown, manual, magnetic stripe, bar code, optical, chip,
// contactless, stored, fallback, electronic commerce. The third digit tells of
// the PIN.
func DefaultEntryModes() []string {
	return []string{"00?", "01?", "02?", "03?", "04?", "05?", "07?", "10?", "79?", "80?", "81?", "82?", "90?", "91?", "95?"}
}

// door is a Door that was checked.
type door struct {
	Door
	hours, cutover windows
	rules          []rule
}

type rule struct {
	Rule
	hours windows
}

// open checks the rules. It returns [ErrConfig], naming the rule.
func (d Door) open() (*door, error) {
	if len(d.EntryModes) == 0 {
		d.EntryModes = DefaultEntryModes()
	}
	if _, err := time.LoadLocation(d.Zone); err != nil {
		return nil, fmt.Errorf("%w: time zone %q: %w", ErrConfig, d.Zone, err)
	}
	all := Rule{Hours: d.Hours, Types: d.Types, EntryModes: d.EntryModes}
	checked := &door{Door: d}
	var err error
	if checked.hours, err = all.check(d.Zone); err != nil {
		return nil, err
	}
	if checked.cutover, err = parseWindows(d.Zone, d.Cutover); err != nil {
		return nil, err
	}
	for _, r := range d.Rules {
		hours, err := r.check(d.Zone)
		if err != nil {
			return nil, fmt.Errorf("rule %q: %w", r.Name, err)
		}
		checked.rules = append(checked.rules, rule{r, hours})
	}
	return checked, nil
}

// Check returns [ErrConfig] for rules that cannot be kept.
func (d Door) Check() error {
	_, err := d.open()
	return err
}

// Check returns [ErrConfig] for a rule that cannot be kept.
func (r Rule) Check() error {
	_, err := r.check("")
	return err
}

// entryMode is a pattern of DE 22.
var entryMode = regexp.MustCompile(`^[0-9?]{3}$`)

func (r Rule) check(zone string) (windows, error) {
	for _, kind := range r.Types {
		if !slices.Contains(processingTypes(), kind) {
			return windows{}, fmt.Errorf("%w: processing codes %q are not of the dialect; there are %s", ErrConfig, kind, strings.Join(processingTypes(), ", "))
		}
	}
	for _, mode := range r.EntryModes {
		if !entryMode.MatchString(mode) {
			return windows{}, fmt.Errorf("%w: entry mode %q is not three digits, ? for any", ErrConfig, mode)
		}
	}
	for _, pattern := range slices.Concat(r.Terminals, r.Merchants) {
		if _, err := path.Match(pattern, "T"); err != nil || pattern == "" {
			return windows{}, fmt.Errorf("%w: %q is no pattern of a TID or MID", ErrConfig, pattern)
		}
	}
	if r.MaxAmount < 0 || r.MaxAmount > 999_999_999_999 {
		return windows{}, fmt.Errorf("%w: the greatest amount must be 0 to 999999999999 minor units", ErrConfig)
	}
	return parseWindows(zone, r.Hours)
}

// fits reports whether the rule holds for a terminal.
func (r Rule) fits(t Terminal) bool {
	return matches(r.Terminals, t.TID) && matches(r.Merchants, t.MID)
}

// matches reports whether one of the patterns fits; none at all fits everything.
func matches(patterns []string, text string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool {
		ok, _ := path.Match(p, text) // a pattern that is none was refused before
		return ok
	})
}

// windows are times of day in a time zone.
type windows struct {
	zone *time.Location
	list []window
}

// window is from a minute of the day up to, not including, another; over midnight
// where that is not later.
type window struct{ from, to int }

var windowForm = regexp.MustCompile(`^([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-4]):([0-5][0-9])$`)

// parseWindows reads times of day, "08:00-22:00" or "22:00-02:00".
func parseWindows(zone string, texts []string) (windows, error) {
	loc, err := time.LoadLocation(zone)
	if err != nil {
		return windows{}, fmt.Errorf("%w: time zone %q: %w", ErrConfig, zone, err)
	}
	w := windows{zone: loc}
	for _, text := range texts {
		parts := windowForm.FindStringSubmatch(text)
		if parts == nil {
			return windows{}, fmt.Errorf("%w: %q is no time of the day, 08:00-22:00 say", ErrConfig, text)
		}
		var n [4]int
		for i := range n {
			n[i], _ = strconv.Atoi(parts[i+1])
		}
		one := window{from: 60*n[0] + n[1], to: 60*n[2] + n[3]}
		if one.to > 24*60 || one.from == one.to {
			return windows{}, fmt.Errorf("%w: %q does not end after it begins", ErrConfig, text)
		}
		w.list = append(w.list, one)
	}
	return w, nil
}

// has reports whether a moment is in one of the windows.
func (w windows) has(at time.Time) bool {
	at = at.In(w.zone)
	minute := 60*at.Hour() + at.Minute()
	return slices.ContainsFunc(w.list, func(o window) bool {
		if o.from < o.to {
			return o.from <= minute && minute < o.to
		}
		return minute >= o.from || minute < o.to
	})
}

// permits is what the door says to a request, or nil. A void undoes, so that
// neither hours nor amounts stop it.
func (d *door) permits(r *request, k kind, amount int64, skew time.Duration) *verdict {
	m := r.msg
	denied := func(code string) *verdict { return &verdict{code: code, reason: audit.ReasonProfileDenied} }
	mine := []rule{{Rule: Rule{Types: d.Types, EntryModes: d.EntryModes, Hours: d.Hours}, hours: d.hours}}
	for _, one := range d.rules {
		if one.fits(r.terminal) {
			mine = append(mine, one)
		}
	}
	if d.cutover.has(r.at) && !r.advice() && k != voidKind {
		return &verdict{code: codeCutover, reason: audit.ReasonBatchClosed}
	}
	for _, one := range mine {
		switch {
		case len(one.Types) > 0 && !slices.Contains(one.Types, typeOf(m.Text(3))):
			return denied(codeNoFunction)
		case len(one.EntryModes) > 0 && !entryFits(one.EntryModes, m.Text(22)):
			return &verdict{code: codeFormat, reason: audit.ReasonFormatError}
		case k == voidKind:
		case len(one.Hours) > 0 && !one.hours.has(r.at):
			return denied(codeTerminal)
		case one.MaxAmount > 0 && amount > one.MaxAmount:
			return denied(codeLimit)
		}
	}
	if k == voidKind {
		return nil
	}
	if !expiryFits(m) {
		return &verdict{rule: "D-01", code: codeFormat, reason: audit.ReasonFormatError}
	}
	if d.CheckDigit && !checkDigitFits(panOf(m)) {
		return &verdict{code: codePAN, reason: audit.ReasonFormatError}
	}
	if d.RefuseSkew && m.Has(7) && skewed(m, r.at, skew) {
		return &verdict{rule: "D-01", code: codeFormat, reason: audit.ReasonAgeExceeded}
	}
	return nil
}

func entryFits(modes []string, mode string) bool {
	return slices.ContainsFunc(modes, func(pattern string) bool {
		ok, _ := path.Match(pattern, mode)
		return ok
	})
}

// expiryFits reports whether DE 14, where it is, is a year and a month.
func expiryFits(m *iso8583.Message) bool {
	if !m.Has(14) {
		return true
	}
	month := m.Text(14)[2:]
	return "01" <= month && month <= "12"
}

// checkDigitFits is the formula of ISO/IEC 7812-1, annex B.
func checkDigitFits(pan string) bool {
	sum := 0
	for i := range len(pan) {
		digit := int(pan[len(pan)-1-i] - '0')
		if i%2 == 1 {
			if digit *= 2; digit > 9 {
				digit -= 9
			}
		}
		sum += digit
	}
	return sum%10 == 0
}

// skewed reports whether the times of a message are not those of now: DE 7,
// which is in UTC, by more than the tolerance; DE 12 and 13, which are local, by
// more than that from every time zone, or because they are no time at all.
func skewed(m *iso8583.Message, now time.Time, tolerance time.Duration) bool {
	sent, ok := timeOf(m.Text(7), now)
	if !ok || sent.Sub(now).Abs() > tolerance {
		return true
	}
	local, ok := timeOf(m.Text(13)+m.Text(12), now)
	const west, east = -12 * time.Hour, 14 * time.Hour
	ahead := local.Sub(now)
	return !ok || ahead < west-tolerance || ahead > east+tolerance
}
