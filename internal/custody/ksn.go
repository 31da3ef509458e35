package custody

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/dukpt"
	"keyd.dev/keyd/keys"
)

// KSNKind is a kind of use of a key serial number: one transaction may have one
// of each.
type KSNKind uint8

// The kinds, as they are stored.
const (
	KSNPIN KSNKind = iota + 1
	KSNMAC
	KSNData
)

// KSNUse is one use of what a terminal sent under a key serial number.
type KSNUse struct {
	BDK     keys.ID
	Device  string // the serial number with its counter bits zero, upper-case hex
	Counter uint32
	Kind    KSNKind
	// Request tells one delivery of a request from another request: the digest
	// of who asked for what under which invocation id. Zero: it had none.
	Request [32]byte
	At      time.Time
}

// KSNStore keeps which key serial numbers were used under guarded BDKs. It is
// safe for concurrent use. Both methods return [ErrKSN] for a use that may not
// be: its counter is below the highest of the device, or equal to it and its
// kind was seen with it. A use that was accepted before, with the same request
// within [KSNMemory], may be again.
type KSNStore interface {
	// CheckKSN looks, and changes nothing.
	CheckKSN(ctx context.Context, use KSNUse) error
	// SpendKSN notes the use. It is durable when it returns.
	SpendKSN(ctx context.Context, use KSNUse) error
}

// KSNMemory is how long a delivery of a request is known as the one before:
// clients repeat a call within seconds.
const KSNMemory = time.Hour

// unspent refuses a key serial number that was used before, where the BDK's
// policy guards them. It is asked before a key is used, so that a replay is no
// oracle. Section 17, row 8 of the API.
func (a *Act) unspent(ctx context.Context, bdk KeyRecord, d *DUKPT, kind KSNKind) error {
	if !a.guards(bdk, d) {
		return nil
	}
	return a.guarded(ctx, bdk, d, kind, a.c.book.store.CheckKSN)
}

// spend notes that a key serial number was used, durably, before the result
// leaves. Of two that race one is refused here. What was refused, or did not
// verify, spends nothing.
func (a *Act) spend(ctx context.Context, bdk KeyRecord, d *DUKPT, kind KSNKind) error {
	if !a.guards(bdk, d) {
		return nil
	}
	return a.guarded(ctx, bdk, d, kind, a.c.book.store.SpendKSN)
}

// guards reports whether the guard is on. The switch core has rules of its own,
// by which it knows a repeat of a message from a replay (M-20 to M-25).
func (a *Act) guards(bdk KeyRecord, d *DUKPT) bool {
	return d != nil && bdk.Block.Policy[TagKSNGuard] == guardMonotonic && !a.caller.Has(RoleSwitch)
}

// guarded has the store look at the use, or note it. A use that it refuses is
// recorded.
func (a *Act) guarded(ctx context.Context, bdk KeyRecord, d *DUKPT, kind KSNKind, do func(context.Context, KSNUse) error) error {
	use := KSNUse{BDK: bdk.Block.ID, Kind: kind, Request: a.delivery(), At: a.c.clock()}
	if err := use.serial(d.KSN); err != nil {
		return err
	}
	err := do(ctx, use)
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrKSN) {
		a.Note(audit.Record{
			Action:  audit.KSNRefuse,
			Outcome: audit.OutcomeRefused,
			Reason:  audit.ReasonKSNReplay,
			Keys:    []audit.Key{keyEntry(audit.KeyRoleBDK, bdk)},
			KSN:     ksnText(d.KSN),
		})
	}
	return storeError("looking at the key serial number", err)
}

// NoteKSN adds the record of a key serial number that the caller refused by rules
// of its own. It names the key that the number is of; a key that is not there has
// no version to name, and its refusal is recorded all the same.
func (a *Act) NoteKSN(ctx context.Context, bdk Ref, r audit.Record) {
	r.Action = audit.KSNRefuse
	if k, err := a.c.book.find(ctx, bdk); err == nil {
		r.Keys = []audit.Key{keyEntry(audit.KeyRoleBDK, k)}
	}
	a.Note(r)
}

// serial takes the serial number apart. One that is not valid has been, or will
// be, refused by the derivation.
func (u *KSNUse) serial(ksn []byte) error {
	var device []byte
	switch len(ksn) {
	case len(dukpt.TDESKSN{}):
		k := dukpt.TDESKSN(ksn)
		of := k.Device()
		device, u.Counter = of[:], k.Counter()
	case len(dukpt.AESKSN{}):
		k := dukpt.AESKSN(ksn)
		of := k.InitialKeyID()
		device, u.Counter = of[:], k.Counter()
	default:
		return fmt.Errorf("%w: a key serial number has 10 or 12 bytes", ErrRequest)
	}
	u.Device = strings.ToUpper(hex.EncodeToString(device))
	return nil
}

// delivery is what all deliveries of one call have in common, zero for a caller
// that gives its calls no ids.
func (a *Act) delivery() (digest [32]byte) {
	if a.caller.Invocation == "" {
		return digest
	}
	h := sha256.New()
	for _, part := range []string{a.caller.Name, a.caller.Invocation} {
		h.Write([]byte{byte(len(part) >> 8), byte(len(part))})
		h.Write([]byte(part))
	}
	h.Write(a.caller.Request[:])
	h.Sum(digest[:0])
	return digest
}
