package custody

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// Permit refuses, with a record, what no role of the caller has: [ErrDenied].
func (c *Custody) Permit(ctx context.Context, caller Caller, corr string, op Operation) error {
	if caller.may(op) {
		return nil
	}
	return c.refuse(ctx, caller, corr, op, fmt.Errorf("%w: no role of the caller has %s", ErrDenied, op))
}

// Intended makes the intent of a step durable, works, and makes the outcome
// durable: for those whose records are of other kinds than changes of keys.
// Actor, source and request id are filled in. Errors are those of work, and
// [ErrUnavailable].
func (c *Custody) Intended(ctx context.Context, caller Caller, corr string, r audit.Record, work func(*audit.Record) error) error {
	r.Actor = actorSec(caller)
	r.Src = audit.Source{Addr: caller.Addr, Conn: caller.Conn}
	r.Corr = corr
	return c.intended(ctx, r, work)
}

// reasoned is an error that knows the log's word for itself.
type reasoned struct {
	why audit.Reason
	err error
}

func (r *reasoned) Error() string { return r.err.Error() }
func (r *reasoned) Unwrap() error { return r.err }

// Reasoned gives an error of another room the log's word for it.
func Reasoned(why audit.Reason, err error) error { return &reasoned{why, err} }

// ReasonOf is the log's word for an error.
func ReasonOf(err error) audit.Reason {
	var r *reasoned
	if errors.As(err, &r) {
		return r.why
	}
	return reason(err)
}

// ClearKey is a key in the clear, on its way into components. The caller clears
// the value.
type ClearKey struct {
	ID         keys.ID
	Attributes keys.Attributes
	Check      keys.KCV
	CheckBy    keys.CheckMethod
	Value      secret.Bytes
}

// ExportClear lets a key out in the clear, for a ceremony that makes components
// of it: the caller has the quorum of one. It returns [ErrDenied], [ErrNoKey],
// [ErrKeyState], [ErrKeyUse] for a key that is not exportable, [ErrCustody] or
// [ErrUnavailable].
func (c *Custody) ExportClear(ctx context.Context, caller Caller, corr string, ref Ref) (ClearKey, error) {
	if err := c.exchanging(); err != nil {
		return ClearKey{}, err
	}
	if err := c.quorum(caller); err != nil {
		return ClearKey{}, c.refuse(ctx, caller, corr, OpExportKey, err)
	}
	k, err := c.leaving(ctx, caller, ref, false)
	if err != nil {
		return ClearKey{}, c.refuse(ctx, caller, corr, OpExportKey, err)
	}
	r := c.changeRecord(caller, corr, audit.KeyExport, audit.ChangeKey, keyName(k))
	r.Approvals = caller.Quorum
	r.Keys = []audit.Key{keyEntrySec(audit.KeyRoleTarget, k.Block, keyName(k))}
	out := ClearKey{ID: k.Block.ID, Attributes: k.Block.Attributes, Check: k.Block.Check, CheckBy: k.Block.CheckBy}
	err = c.intended(ctx, r, func(r *audit.Record) error {
		var err error
		if out.Value, err = c.exchange.Token.Export(ctx, k.Block); err != nil {
			return tokenError("exporting a key", err)
		}
		r.Custody = audit.CustodyProcess
		return nil
	})
	if err != nil {
		out.Value.Clear()
		return ClearKey{}, err
	}
	return out, nil
}

// Exportable reports why ExportClear would refuse, before anybody is asked for
// anything. Errors are those of ExportClear; nothing is recorded.
func (c *Custody) Exportable(ctx context.Context, caller Caller, ref Ref) error {
	if err := c.exchanging(); err != nil {
		return err
	}
	_, err := c.leaving(ctx, caller, ref, false)
	return err
}

// IdentifyAmong returns the client of a verified certificate in a table that is
// of no custody yet: for the ceremony that makes a new node. It returns
// [ErrDenied] for a certificate that no client has, and the faults of the table.
func IdentifyAmong(list []Client, cert *x509.Certificate) (Client, error) {
	table, err := newClients(list, nil)
	if err != nil {
		return Client{}, err
	}
	return (&Custody{clients: table}).Identify(cert)
}
