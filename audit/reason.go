package audit

// Reason says why an outcome is not ok; with ok it names the decision.
type Reason uint8

// The values of [Reason]; zero means absent.
const (
	_ Reason = iota
	ReasonFormatError
	ReasonUnexpectedResponse
	ReasonUnknownTerminal
	ReasonTerminalLink
	ReasonMACMissing
	ReasonMACInvalid
	ReasonMACLength
	ReasonMACPolicy
	ReasonKSNReplay
	ReasonKSNGap
	ReasonKSNDevice
	ReasonKeyUnknown
	ReasonKeyState
	ReasonKeyUsage
	ReasonKeyExpired
	ReasonKeyExhausted
	ReasonKeyLost
	ReasonKCVMismatch
	ReasonCustodyDenied
	ReasonHSMUnavailable
	ReasonHSMError
	ReasonReversalTampered
	ReasonOriginalUnknown
	ReasonForeignOriginal
	ReasonPANMismatch
	ReasonAmountMismatch
	ReasonAttributeMismatch
	ReasonOriginalDeclined
	ReasonNotReversible
	ReasonAlreadyReversed
	ReasonRelationWrong
	ReasonBatchClosed
	ReasonPartialInvalid
	ReasonReversalOfReversal
	ReasonUpstreamUnknown
	ReasonUpstreamDeclined
	ReasonUpstreamSilent
	ReasonUpstreamMACInvalid
	ReasonAnswerUndelivered
	ReasonAgeExceeded
	ReasonVelocity
	ReasonDuplicate
	ReasonPINFormat
	ReasonPINBlock
	ReasonCertUnknown
	ReasonCertExpired
	ReasonCertRevoked
	ReasonRoleDenied
	ReasonQuorumMissing
	ReasonSamePerson
	ReasonSignatureBad
	ReasonLocked
	ReasonRateLimited
	ReasonProfileDenied
	ReasonQueueFull
	ReasonLogUnavailable
	ReasonDiskCritical
	ReasonUnsignedLimit
	ReasonTimeout
	ReasonCancelled
	ReasonExpired
	ReasonCrash
	ReasonRollback
	ReasonConfigInvalid
	ReasonInternal
)

var reasonNames = [...]string{
	"", "format_error", "unexpected_response", "unknown_terminal", "terminal_link", "mac_missing",
	"mac_invalid", "mac_length", "mac_policy", "ksn_replay", "ksn_gap", "ksn_device", "key_unknown",
	"key_state", "key_usage", "key_expired", "key_exhausted", "key_lost", "kcv_mismatch",
	"custody_denied", "hsm_unavailable", "hsm_error", "reversal_tampered", "original_unknown",
	"foreign_original", "pan_mismatch", "amount_mismatch", "attribute_mismatch", "original_declined",
	"not_reversible", "already_reversed", "relation_wrong", "batch_closed", "partial_invalid",
	"reversal_of_reversal", "upstream_unknown", "upstream_declined", "upstream_silent",
	"upstream_mac_invalid", "answer_undelivered", "age_exceeded", "velocity", "duplicate",
	"pin_format", "pin_block", "cert_unknown", "cert_expired", "cert_revoked", "role_denied",
	"quorum_missing", "same_person", "signature_bad", "locked", "rate_limited", "profile_denied",
	"queue_full", "log_unavailable", "disk_critical", "unsigned_limit", "timeout", "cancelled",
	"expired", "crash", "rollback", "config_invalid", "internal",
}

// String returns the value as it stands in records.
func (e Reason) String() string { return name(reasonNames[:], uint8(e)) }
