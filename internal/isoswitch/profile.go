package isoswitch

import (
	"fmt"
	"slices"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/profile"
)

// speech is what the terminals of a listener speak and are answered. The dialect of
// the link upstream is Config.Dialect, whatever the terminals speak.
type speech struct{ *profile.Profile }

// Serves returns [ErrConfig] for a profile whose terminals the switch could not
// serve: each message would be refused, and the first customer would find out.
func Serves(p *profile.Profile) error {
	switch {
	case !delivers(p):
		return fmt.Errorf("%w: profile %s: the answer to an 0800 with field 60 needs field 62, in which a terminal with a master key gets its keys", ErrConfig, p.Name)
	}
	if _, err := p.Admit(profile.Link{TLS: true}); err != nil { // the listener demands it
		return fmt.Errorf("%w: profile %s: %w", ErrConfig, p.Name, err)
	}
	for _, m := range p.Dialect.Spec().Messages {
		for _, mti := range m.Types {
			if de := lacks(p, mti, m); de != 0 {
				return fmt.Errorf("%w: profile %s: message %s lacks field %d, without which a %s cannot go upstream or be answered", ErrConfig, p.Name, m.Name, de, mti)
			}
		}
	}
	return nil
}

// lacks returns a field that the work on a message needs and its description does
// not demand, or 0.
func lacks(p *profile.Profile, mti iso8583.MTI, m iso8583.MessageSpec) int {
	needs, back := []int{7, 11, 41, 42}, []int{11, 39, 41}
	if p.Original == profile.ByBatch { // what these need besides, the profile was checked for
		needs = []int{11, 41, 42, 60}
		if iso8583.MACNeeded(mti.Class()) {
			back = append(back, 12, 13, 37)
		}
		mti = ""
	}
	switch mti.Class() {
	case '1', '2':
		needs, back = append(needs, 2, 3, 4, 12, 13, 22, 25, 49), append(back, 37)
	case '4':
		needs, back = append(needs, 2, 3, 4, 12, 13, 22, 25, 49, 90), append(back, 37)
		if p.Rules.Reason == "" {
			needs = append(needs, 39)
		}
	case '8': // what is asked stands in DE 70, or in DE 60
		if needs = []int{11, 41, 42}; !slices.Contains(m.Must, 60) {
			needs = append(needs, 70)
		}
	}
	for _, de := range needs {
		if !slices.Contains(m.Must, de) {
			return de
		}
	}
	for _, de := range back {
		if !slices.Contains(m.AnswerMust, de) && !slices.Contains(m.AnswerMay, de) {
			return de
		}
	}
	return 0
}

// spoken is a verdict with the code that the profile's terminals know it by. Only
// a row's standard code is replaced, so that what a stage has chosen for one
// question, and what was stored, stays.
func (p speech) spoken(v verdict, advice bool) verdict {
	if v.rule == "" || v.code != ruling(v.rule, advice).code {
		return v
	}
	if own, ok := p.Codes.Row(v.rule, advice); ok {
		v.code = own
	}
	if v.code == codeSecurity {
		v.code = p.Codes.MACError
	}
	return v
}

// silence is DE 39 for a terminal when upstream gives no answer in time.
func (p speech) silence() string { return p.Codes.Timeout }

// distrusted is DE 39 for a terminal when upstream's answer is not authentic.
func (p speech) distrusted() string { return p.Codes.BadUpstream }

// approves reports whether DE 39 is an approval (section 9).
func (p speech) approves(code string) bool { return slices.Contains(p.Codes.Approvals, code) }

// judges is the policy with what the profile demands of reversals.
func (p speech) judges(by policy) policy {
	by.profile = p.Rules
	return by
}

// reason is DE 39 of a reversal, or what the profile takes it for.
func (r *request) reason() string { return orDefault(r.msg.Text(39), r.speech.Rules.Reason) }

// noteReason tells the operator of a reversal whose reason no terminal of the
// profile gives. It is accepted all the same (U-59).
func (s *Switch) noteReason(r *request) {
	if reason := r.reason(); !r.speech.Rules.KnownReason(reason) {
		s.log.Warn("a reversal has a reason that its profile does not list", "corr", r.corr, "reason", reason)
	}
}

// reversedProcessing is DE 3 that a reversal of an original must have: the
// original's, or the one that the profile fixes.
func (p policy) reversedProcessing(o *Txn) string { return orDefault(p.profile.DE3, o.Processing) }

// mayReverse reports whether the original is of a type that can be reversed.
func (p policy) mayReverse(o *Txn) bool {
	listed, known := p.profile.Reversible(profile.Type{
		MTI: o.MTI, DE3: o.Processing, DE25: o.Condition, DE60: type60Of(iso8583.MTI(o.MTI), o.Processing, o.Condition),
	})
	return reversible(o.Processing) && (listed || !known)
}

// has reports whether a profile's terminals may have their keys so.
func has(p *profile.Profile, scheme Scheme) bool {
	_, ok := p.MAC[profile.Scheme(scheme)]
	return ok
}

// macBytes is how many bytes of a MAC the messages of a terminal carry.
func (p speech) macBytes(t Terminal) int { return min(t.MACBytes, p.Dialect.MACForm().Bytes()) }
