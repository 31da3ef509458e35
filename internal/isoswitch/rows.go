package isoswitch

import "keyd.dev/keyd/audit"

// The answer codes of DE 39. W-09.
const (
	codeApproved    = "00"
	codeMerchant    = "03"
	codeInvalid     = "12"
	codeAmount      = "13"
	codePAN         = "14"
	codeState       = "22"
	codeNoOriginal  = "25"
	codeFormat      = "30"
	codeNoFunction  = "40"
	codeTerminal    = "58"
	codeLimit       = "61"
	codeSecurity    = "63"
	codeOriginalSum = "64"
	codeTimeout     = "68"
	codeCutover     = "90"
	codeUnreachable = "91"
	codeNoRoute     = "92"
	codeDuplicate   = "94"
	codeCannot      = "96"
)

// verdict is what a row of the decision table says: who decided, what is
// answered, how it is recorded.
type verdict struct {
	rule   string // "D-14"; empty where no row is named
	code   string // DE 39; empty while the answer waits (D-08, D-18)
	effect effect
	reason audit.Reason
	alert  audit.ISOAlert
}

// effect is what an accepted reversal does.
type effect uint8

const (
	noEffect      effect = iota
	repeatAnswer         // the stored answer again (D-07)
	waitForAnswer        // the first of its kind is still in work (D-08)
	addTombstone         // refuse the original should it come (D-10)
	reverseLater         // when the original in flight is finished (D-18)
	joinRunning          // keyd is reversing it already (D-19)
	voidLocally          // it never left (D-20)
	reverseWhole         // D-21, D-29
	reversePart          // D-26
	holdReversal         // until two persons release it (D-25, D-34, D-35)
)

// accepts reports whether the effect is that of an accepted reversal.
func (e effect) accepts() bool { return e >= addTombstone }

// ruling returns the row of the decision table for this dialect (section 10,
// column 87, and W-09 where that leaves a choice). The codes answer a request
// and an advice, in this order.
func ruling(row string, advice bool) verdict {
	is := func(request, ofAdvice string, e effect, why audit.Reason, alert audit.ISOAlert) verdict {
		if advice {
			request = ofAdvice
		}
		return verdict{rule: row, code: request, effect: e, reason: why, alert: alert}
	}
	const security = audit.AlertSecurity
	switch row {
	case "D-01":
		return is(codeFormat, codeFormat, noEffect, audit.ReasonFormatError, 0)
	case "D-02":
		return is(codeTerminal, codeTerminal, noEffect, audit.ReasonUnknownTerminal, 0)
	case "D-03":
		return is(codeSecurity, codeSecurity, noEffect, audit.ReasonMACMissing, security)
	case "D-04":
		return is(codeSecurity, codeSecurity, noEffect, audit.ReasonMACInvalid, security)
	case "D-05":
		return is(codeCannot, codeCannot, noEffect, audit.ReasonHSMUnavailable, 0)
	case "D-06":
		return is(codeSecurity, codeSecurity, noEffect, audit.ReasonKSNReplay, security)
	}
	return rulingOnOriginal(row, is)
}

// rulingOnOriginal has the rows from stage 7 on, which the journal decides.
func rulingOnOriginal(row string, is func(request, advice string, e effect, why audit.Reason, alert audit.ISOAlert) verdict) verdict {
	switch row {
	case "D-07": // the code is the stored one
		return is("", "", repeatAnswer, 0, 0)
	case "D-08":
		return is("", codeApproved, waitForAnswer, 0, 0)
	case "D-09": // 64 and 14 where amount or PAN differ
		return is(codeDuplicate, codeDuplicate, noEffect, audit.ReasonReversalTampered, audit.AlertSecurity)
	case "D-10":
		return is(codeNoOriginal, codeApproved, addTombstone, audit.ReasonOriginalUnknown, 0)
	case "D-11":
		return is(codeNoOriginal, codeNoOriginal, noEffect, audit.ReasonOriginalUnknown, 0)
	case "D-13":
		return is(codePAN, codePAN, noEffect, audit.ReasonPANMismatch, audit.AlertFraud)
	case "D-14":
		return is(codeOriginalSum, codeOriginalSum, noEffect, audit.ReasonAmountMismatch, 0)
	case "D-15":
		return is(codeNoOriginal, codeNoOriginal, noEffect, audit.ReasonAttributeMismatch, 0)
	case "D-16":
		return is(codeInvalid, codeApproved, noEffect, audit.ReasonOriginalDeclined, 0)
	case "D-17":
		return is(codeInvalid, codeInvalid, noEffect, audit.ReasonNotReversible, 0)
	case "D-18":
		return is("", codeApproved, reverseLater, 0, 0)
	case "D-19":
		return is(codeApproved, codeApproved, joinRunning, 0, 0)
	case "D-20":
		return is(codeApproved, codeApproved, voidLocally, 0, 0)
	case "D-21":
		return is(codeApproved, codeApproved, reverseWhole, 0, 0)
	case "D-22":
		return is(codeState, codeApproved, noEffect, audit.ReasonAlreadyReversed, 0)
	case "D-23", "D-24":
		return is(codeState, codeState, noEffect, audit.ReasonRelationWrong, 0)
	case "D-25":
		return is(codeState, codeApproved, noEffect, audit.ReasonBatchClosed, 0)
	case "D-26":
		return is(codeApproved, codeApproved, reversePart, 0, 0)
	case "D-27":
		return is(codeAmount, codeAmount, noEffect, audit.ReasonPartialInvalid, 0)
	case "D-28":
		return is(codeInvalid, codeInvalid, noEffect, audit.ReasonReversalOfReversal, 0)
	case "D-29": // what was voided is valid again
		return is(codeApproved, codeApproved, reverseWhole, 0, 0)
	case "D-34":
		return is(codeState, codeApproved, noEffect, audit.ReasonAgeExceeded, 0)
	case "D-35":
		return is(codeTerminal, codeTerminal, noEffect, audit.ReasonVelocity, audit.AlertFraud)
	}
	// A row that the table lacks refuses.
	return is(codeCannot, codeCannot, noEffect, audit.ReasonInternal, 0)
}
