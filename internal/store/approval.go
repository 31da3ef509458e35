package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"keyd.dev/keyd/internal/custody"
)

const (
	// approvalLife is how long closed requests are kept; the audit log has what
	// became of them for good.
	approvalLife  = 90 * 24 * time.Hour
	mostApprovals = 1000
)

func readApproval(r scanner) (custody.Approval, error) {
	var a custody.Approval
	var principal, asker, second string
	var record []byte
	err := r.Scan(&a.Ref, &principal, &a.Operation, &a.Object, digest{&a.Request}, &asker, instant{&a.Asked}, instant{&a.Deadline},
		&a.State, &second, instant{&a.Decided}, instant{&a.Until}, &record)
	if err != nil {
		return a, err
	}
	if copy(a.Record[:], record) != len(a.Record) {
		return a, fmt.Errorf("%w: request %s: the id of a record has %d bytes", ErrCorrupt, a.Ref, len(record))
	}
	if err := errors.Join(json.Unmarshal([]byte(asker), &a.Asker), json.Unmarshal([]byte(second), &a.Second)); err != nil {
		return a, fmt.Errorf("%w: request %s: %w", ErrCorrupt, a.Ref, err)
	}
	return a, nil
}

// approvalValues are a request's in the order of the table.
func approvalValues(a custody.Approval) ([]any, error) {
	asker, err := json.Marshal(a.Asker)
	if err != nil {
		return nil, err
	}
	second, err := json.Marshal(a.Second)
	if err != nil {
		return nil, err
	}
	return []any{
		a.Asker.Name, string(a.Operation), a.Object, a.Request[:], string(asker), nanos(a.Asked), nanos(a.Deadline),
		string(a.State), string(second), nanos(a.Decided), nanos(a.Until), a.Record[:],
	}, nil
}

// AddApproval implements [custody.ApprovalStore]. Requests that were closed long
// ago go.
func (db *DB) AddApproval(ctx context.Context, a custody.Approval) error {
	err := db.Change(ctx, nil, func(ch *Change) error {
		if ch.has(approvalTable, a.Ref) {
			return custody.ErrConflict
		}
		ref := func(r scanner) (ref string, err error) { err = r.Scan(&ref); return ref, err }
		old, err := collect(ch.s, ref, `SELECT ref FROM approval
			WHERE asked <= ? AND state NOT IN ('WAITING', 'APPROVED') ORDER BY asked LIMIT ?`,
			nanos(db.clock().Add(-approvalLife)), mostSwept)
		if err != nil {
			return err
		}
		for _, ref := range old {
			ch.delete(approvalTable, ref)
		}
		values, err := approvalValues(a)
		if err != nil {
			return err
		}
		return ch.insert(approvalTable, a.Ref, values, func(err error) error {
			if taken(err) {
				return custody.ErrConflict
			}
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("store: add request for approval %s: %w", a.Ref, err)
	}
	return nil
}

// Approval implements [custody.ApprovalStore].
func (db *DB) Approval(ctx context.Context, ref string) (custody.Approval, error) {
	var a custody.Approval
	err := db.readRegistered(ctx, func(s *session, g reading) (err error) {
		a, err = one(g, s, approvalTable, ref, readApproval)
		return err
	})
	return a, noApproval(err)
}

// OpenApproval implements [custody.ApprovalStore].
func (db *DB) OpenApproval(ctx context.Context, principal string, op custody.Operation, object string, request [32]byte) (custody.Approval, error) {
	var open []custody.Approval
	err := db.readRegistered(ctx, func(s *session, g reading) (err error) {
		open, err = collect(s, of(g, approvalTable, readApproval), approvalTable.selects()+`WHERE principal = ? AND operation = ?
			AND object = ? AND body = ? AND state IN ('WAITING', 'APPROVED')`, principal, string(op), object, request[:])
		return err
	})
	if err == nil && len(open) == 0 {
		err = sql.ErrNoRows
	}
	if err != nil {
		return custody.Approval{}, noApproval(err)
	}
	return open[0], nil
}

func noApproval(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		err = custody.ErrNoApproval
	}
	if err != nil {
		return fmt.Errorf("store: request for approval: %w", err)
	}
	return nil
}

// Approvals implements [custody.ApprovalStore]. A limit below 1, or above 1000,
// is 1000.
func (db *DB) Approvals(ctx context.Context, q custody.ApprovalQuery) ([]custody.Approval, error) {
	if q.Limit < 1 || q.Limit > mostApprovals {
		q.Limit = mostApprovals
	}
	var all []custody.Approval
	err := db.viewRegistered(ctx, func(s *session, g reading) (err error) {
		all, err = collect(s, of(g, approvalTable, readApproval),
			approvalTable.selects()+"WHERE NOT ? OR state IN ('WAITING', 'APPROVED') ORDER BY asked DESC, ref LIMIT ?", q.Open, q.Limit)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store: requests for approval: %w", err)
	}
	return all, nil
}

// ChangeApproval implements [custody.ApprovalStore].
func (db *DB) ChangeApproval(ctx context.Context, was custody.ApprovalState, a custody.Approval) error {
	err := db.Change(ctx, nil, func(ch *Change) error {
		there, err := find(ch, approvalTable, a.Ref, readApproval)
		if err != nil {
			return noApproval(err)
		}
		if there.State != was {
			return custody.ErrConflict
		}
		values, err := approvalValues(a)
		if err != nil {
			return err
		}
		return ch.update(approvalTable, a.Ref, values, nil)
	})
	if err != nil {
		return fmt.Errorf("store: change request for approval %s: %w", a.Ref, err)
	}
	return nil
}
