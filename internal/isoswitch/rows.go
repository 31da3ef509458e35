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
	codeUnreachable = "91"
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
	reverseWhole         // D-21
	reversePart          // D-26
)

// accepts reports whether the effect is that of an accepted reversal.
func (e effect) accepts() bool { return e >= addTombstone }

// ruling returns the row of the decision table for this dialect (section 10,
// column 87, and W-09 where that leaves a choice). Of the two codes the first
// answers a request and the second an advice.
func ruling(row string, advice bool) verdict {
	v := verdict{rule: row}
	codes := func(request, ofAdvice string) verdict {
		v.code = request
		if advice {
			v.code = ofAdvice
		}
		return v
	}
	switch row {
	case "D-01":
		v.reason = audit.ReasonFormatError
		return codes(codeFormat, codeFormat)
	case "D-02":
		v.reason = audit.ReasonUnknownTerminal
		return codes(codeTerminal, codeTerminal)
	case "D-03":
		v.reason, v.alert = audit.ReasonMACMissing, audit.AlertSecurity
		return codes(codeSecurity, codeSecurity)
	case "D-04":
		v.reason, v.alert = audit.ReasonMACInvalid, audit.AlertSecurity
		return codes(codeSecurity, codeSecurity)
	case "D-05":
		v.reason = audit.ReasonHSMUnavailable
		return codes(codeCannot, codeCannot)
	case "D-06":
		v.reason, v.alert = audit.ReasonKSNReplay, audit.AlertSecurity
		return codes(codeSecurity, codeSecurity)
	case "D-07":
		v.effect = repeatAnswer
		return v
	case "D-08":
		v.effect = waitForAnswer
		return codes("", codeApproved)
	case "D-09":
		v.reason, v.alert = audit.ReasonReversalTampered, audit.AlertSecurity
		return codes(codeDuplicate, codeDuplicate)
	case "D-10":
		v.reason, v.effect = audit.ReasonOriginalUnknown, addTombstone
		return codes(codeNoOriginal, codeApproved)
	case "D-11":
		v.reason = audit.ReasonOriginalUnknown
		return codes(codeNoOriginal, codeNoOriginal)
	case "D-13":
		v.reason, v.alert = audit.ReasonPANMismatch, audit.AlertFraud
		return codes(codePAN, codePAN)
	case "D-14":
		v.reason = audit.ReasonAmountMismatch
		return codes(codeOriginalSum, codeOriginalSum)
	case "D-15":
		v.reason = audit.ReasonAttributeMismatch
		return codes(codeNoOriginal, codeNoOriginal)
	case "D-16":
		v.reason = audit.ReasonOriginalDeclined
		return codes(codeInvalid, codeApproved)
	case "D-17":
		v.reason = audit.ReasonNotReversible
		return codes(codeInvalid, codeInvalid)
	case "D-18":
		v.effect = reverseLater
		return codes("", codeApproved)
	case "D-19":
		v.effect = joinRunning
		return codes(codeApproved, codeApproved)
	case "D-20":
		v.effect = voidLocally
		return codes(codeApproved, codeApproved)
	case "D-21":
		v.effect = reverseWhole
		return codes(codeApproved, codeApproved)
	case "D-22":
		v.reason = audit.ReasonAlreadyReversed
		return codes(codeState, codeApproved)
	case "D-23", "D-24":
		v.reason = audit.ReasonRelationWrong
		return codes(codeState, codeState)
	case "D-25":
		v.reason = audit.ReasonBatchClosed
		return codes(codeState, codeApproved)
	case "D-26":
		v.effect = reversePart
		return codes(codeApproved, codeApproved)
	case "D-27":
		v.reason = audit.ReasonPartialInvalid
		return codes(codeAmount, codeAmount)
	case "D-28":
		v.reason = audit.ReasonReversalOfReversal
		return codes(codeInvalid, codeInvalid)
	case "D-34":
		v.reason = audit.ReasonAgeExceeded
		return codes(codeState, codeApproved)
	case "D-35":
		v.reason, v.alert = audit.ReasonVelocity, audit.AlertFraud
		return codes(codeTerminal, codeTerminal)
	}
	// A row that the table lacks refuses.
	return verdict{rule: row, code: codeCannot, reason: audit.ReasonInternal}
}
