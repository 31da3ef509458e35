package custody

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
)

// describe writes the outcome of err into a record.
func describe(r *audit.Record, err error) {
	if err == nil {
		r.Outcome = audit.OutcomeOK
		return
	}
	r.Outcome = audit.OutcomeRefused
	r.Reason = ReasonOf(err)
	r.RC = returnValue(err)
	if unavailable(err) || r.Reason == audit.ReasonInternal || r.Reason == audit.ReasonHSMError {
		r.Outcome = audit.OutcomeError
	}
}

// returnValue is what the token answered, where that is why; else "".
func returnValue(err error) string {
	var answered interface{ ReturnValue() string }
	if errors.As(err, &answered) {
		return answered.ReturnValue()
	}
	return ""
}

// reason is the one place that maps custody's errors to the log's reasons.
func reason(err error) audit.Reason {
	for _, m := range []struct {
		is  error
		why audit.Reason
	}{
		{ErrMAC, audit.ReasonMACInvalid},
		{ErrPINBlock, audit.ReasonPINBlock},
		{errCheckValue, audit.ReasonKCVMismatch},
		{ErrKeyBlock, audit.ReasonFormatError},
		{ErrTooMany, audit.ReasonRateLimited},
		{ErrQuota, audit.ReasonRateLimited},
		{ErrKSN, audit.ReasonKSNReplay},
		{ErrNoKey, audit.ReasonKeyUnknown},
		{ErrNoAlias, audit.ReasonKeyUnknown},
		{errExpired, audit.ReasonKeyExpired},
		{errRetired, audit.ReasonKeyExpired},
		{errAged, audit.ReasonKeyExpired},
		{errExhausted, audit.ReasonKeyExhausted},
		{ErrKeyState, audit.ReasonKeyState},
		{ErrSignIn, audit.ReasonKeyState},
		{ErrNotDestroyed, audit.ReasonHSMError},
		{ErrConflict, audit.ReasonKeyState},
		{ErrKeyUse, audit.ReasonKeyUsage},
		{ErrCustody, audit.ReasonCustodyDenied},
		{ErrDenied, audit.ReasonRoleDenied},
		{ErrApproval, audit.ReasonQuorumMissing},
		{ErrSamePerson, audit.ReasonSamePerson},
		{ErrAliasExists, audit.ReasonDuplicate},
		{ErrTerminalTaken, audit.ReasonDuplicate},
		{ErrNoTerminal, audit.ReasonUnknownTerminal},
		{ErrNoReversal, audit.ReasonOriginalUnknown},
		{ErrReversalState, audit.ReasonNotReversible},
		{ErrRepeated, audit.ReasonDuplicate},
		{ErrRequest, audit.ReasonFormatError},
		{context.DeadlineExceeded, audit.ReasonTimeout},
		{context.Canceled, audit.ReasonCancelled},
		{ErrTampered, audit.ReasonKCVMismatch},
		{keys.ErrUnavailable, audit.ReasonHSMUnavailable},
		{ErrUnavailable, audit.ReasonHSMUnavailable},
	} {
		if errors.Is(err, m.is) {
			return m.why
		}
	}
	return audit.ReasonInternal
}

// keyEntry is a key in a record of operations.
func keyEntry(role audit.KeyRole, k KeyRecord) audit.Key {
	return audit.Key{
		Role:    role,
		ID:      keyName(k),
		Version: int(k.Block.Version),
		KCV:     k.Block.Check.String(),
	}
}

// keyEntrySec is a key in a record of the log sec, which says more.
func keyEntrySec(role audit.KeyRole, b *keys.Block, name string) audit.Key {
	return audit.Key{
		Role:    role,
		ID:      name,
		Version: int(b.Version),
		KCV:     b.Check.String(),
		Usage:   string(b.Attributes.Usage),
		Algo:    algo(b.Attributes.Algorithm),
	}
}

// keyName is the key's id: an alias may move to another key, the id never does.
func keyName(k KeyRecord) string { return string(k.Block.ID) }

func algo(a keys.Algorithm) audit.Algo {
	switch a {
	case keys.TDES2:
		return audit.AlgoTDES2
	case keys.TDES3:
		return audit.AlgoTDES3
	case keys.AES128:
		return audit.AlgoAES128
	case keys.AES192:
		return audit.AlgoAES192
	case keys.AES256:
		return audit.AlgoAES256
	case keys.HMACSHA224:
		return audit.AlgoHMAC224
	case keys.HMACSHA256:
		return audit.AlgoHMAC256
	case keys.HMACSHA384:
		return audit.AlgoHMAC384
	case keys.HMACSHA512:
		return audit.AlgoHMAC512
	}
	return 0
}

// actorSec is the caller in a record of the log sec.
func actorSec(caller Caller) audit.Actor {
	actor := audit.Actor{ID: caller.Name, Kind: caller.Kind, Authn: audit.AuthnLocal}
	for _, role := range caller.Roles {
		actor.Roles = append(actor.Roles, string(role))
	}
	if raw, err := hex.DecodeString(caller.Cert); err == nil && len(raw) == len(actor.Cert) {
		actor.Authn = audit.AuthnMTLS
		copy(actor.Cert[:], raw)
	}
	return actor
}

// denial is the record of a caller that may not do what it asked for.
func (c *Custody) denial(caller Caller, corr string, op Operation) audit.Record {
	return audit.Record{
		Action:  audit.AuthDeny,
		Outcome: audit.OutcomeRefused,
		Reason:  audit.ReasonRoleDenied,
		Actor:   actorSec(caller),
		Src:     audit.Source{Addr: caller.Addr, Conn: caller.Conn},
		Corr:    corr,
		Change:  &audit.Change{Kind: audit.ChangePeer, Object: string(op)},
	}
}

// Record makes one record durable, in the log of its action: what the daemon
// itself has to say (connections let go, configurations loaded).
func (c *Custody) Record(ctx context.Context, caller Caller, corr string, r audit.Record) error {
	r.Actor = actorSec(caller)
	r.Src = audit.Source{Addr: caller.Addr, Conn: caller.Conn}
	r.Corr = corr
	return c.record(ctx, r)
}

func (c *Custody) record(ctx context.Context, r audit.Record) error { return recordIn(ctx, c.log, r) }

func recordIn(ctx context.Context, log Log, r audit.Record) error {
	ticket, err := log.Reserve(ctx, r.Action.Log(), 1)
	if err != nil {
		return fmt.Errorf("%w: no room in the audit log: %w", ErrUnavailable, err)
	}
	defer ticket.Release()
	if _, err := ticket.Append(r); err != nil {
		return fmt.Errorf("%w: writing the audit log: %w", ErrUnavailable, err)
	}
	return nil
}
