package store

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/custody"
)

// anApproval is a request that waits, of this principal and body.
func anApproval(ref, principal string, body byte, asked time.Time) custody.Approval {
	return custody.Approval{
		Ref: ref, Operation: custody.OpDeleteKey, Object: "alias/zmk", Request: hash(body),
		Asker: custody.Person{Name: principal, URI: "keyd://client/" + principal, Subject: "CN=" + principal},
		Asked: asked, Deadline: asked.Add(time.Hour), State: custody.ApprovalWaiting,
	}
}

func approved(a custody.Approval) custody.Approval {
	a.State, a.Second = custody.ApprovalApproved, custody.Person{Name: "raj", URI: "keyd://client/raj", Subject: "CN=raj"}
	a.Decided, a.Until, a.Record = a.Asked.Add(time.Minute), a.Asked.Add(2*time.Minute), [16]byte{1}
	return a
}

func TestApprovalsRoundTrip(t *testing.T) {
	db, ctx := open(t), t.Context()
	a := anApproval("0000000001", "anna", 1, day())
	if err := db.AddApproval(ctx, a); err != nil {
		t.Fatal(err)
	}
	for name, twin := range map[string]custody.Approval{
		"the reference again": anApproval("0000000001", "lee", 2, day()), "the same request open twice": anApproval("0000000002", "anna", 1, day()),
	} {
		if err := db.AddApproval(ctx, twin); !errors.Is(err, custody.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := approved(a)
	if err := db.ChangeApproval(ctx, custody.ApprovalApproved, b); !errors.Is(err, custody.ErrConflict) {
		t.Errorf("from a state that it has not: %v", err)
	}
	if err := db.ChangeApproval(ctx, custody.ApprovalWaiting, b); err != nil {
		t.Fatal(err)
	}
	got, err := db.OpenApproval(ctx, "anna", custody.OpDeleteKey, "alias/zmk", hash(1))
	if diff := cmp.Diff(b, got); err != nil || diff != "" {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
	b.State = custody.ApprovalSpent
	if err := db.ChangeApproval(ctx, custody.ApprovalApproved, b); err != nil {
		t.Fatal(err)
	}
	if _, err := db.OpenApproval(ctx, "anna", custody.OpDeleteKey, "alias/zmk", hash(1)); !errors.Is(err, custody.ErrNoApproval) {
		t.Errorf("a spent one is open: %v", err)
	}
	if _, err := db.Approval(ctx, "0000000009"); !errors.Is(err, custody.ErrNoApproval) {
		t.Errorf("one that never was: %v", err)
	}
	if err := db.AddApproval(ctx, anApproval("0000000002", "anna", 1, day().Add(time.Hour))); err != nil {
		t.Errorf("the same request after that: %v", err)
	}
	list, err := db.Approvals(ctx, custody.ApprovalQuery{})
	open, err2 := db.Approvals(ctx, custody.ApprovalQuery{Open: true})
	if err != nil || err2 != nil || len(list) != 2 || list[0].Ref != "0000000002" || len(open) != 1 {
		t.Errorf("%d in all, %d open, %v, %v", len(list), len(open), err, err2)
	}
}

func TestOldApprovalsGo(t *testing.T) {
	db, ctx := open(t), t.Context()
	old := anApproval("0000000001", "anna", 1, db.clock().Add(-91*24*time.Hour))
	stays := anApproval("0000000002", "anna", 2, old.Asked)
	for _, a := range []custody.Approval{old, stays} {
		if err := db.AddApproval(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	old.State = custody.ApprovalRejected
	if err := db.ChangeApproval(ctx, custody.ApprovalWaiting, old); err != nil {
		t.Fatal(err)
	}
	if err := db.AddApproval(ctx, anApproval("0000000003", "anna", 3, db.clock())); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Approval(ctx, old.Ref); !errors.Is(err, custody.ErrNoApproval) {
		t.Errorf("closed 91 days ago: %v", err)
	}
	if _, err := db.Approval(ctx, stays.Ref); err != nil {
		t.Errorf("open since 91 days: %v", err)
	}
}

// TestApprovalRules: what is closed stays closed, against SQL too.
func TestApprovalRules(t *testing.T) {
	db, ctx := open(t), t.Context()
	for i, state := range []custody.ApprovalState{custody.ApprovalRejected, custody.ApprovalSpent, custody.ApprovalExpired} {
		a := anApproval(fmt.Sprintf("000000000%d", i), "anna", byte(i), day())
		if err := db.AddApproval(ctx, a); err != nil {
			t.Fatal(err)
		}
		was := a.State
		if state == custody.ApprovalSpent {
			a = approved(a)
			if err := db.ChangeApproval(ctx, was, a); err != nil {
				t.Fatal(err)
			}
			was = a.State
		}
		a.State = state
		if err := db.ChangeApproval(ctx, was, a); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.AddApproval(ctx, anApproval("0000000009", "lee", 9, day())); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		"UPDATE approval SET state = 'WAITING' WHERE state = 'REJECTED'",
		"UPDATE approval SET state = 'APPROVED' WHERE state = 'SPENT'",
		"UPDATE approval SET state = 'APPROVED' WHERE state = 'EXPIRED'",
		"UPDATE approval SET state = 'SPENT' WHERE state = 'WAITING'",
		"UPDATE approval SET state = 'APPROVED', body = zeroblob(32) WHERE ref = '0000000009'",
		"UPDATE approval SET state = 'APPROVED', principal = 'x' WHERE ref = '0000000009'",
		"UPDATE approval SET state = 'APPROVED', deadline = deadline + 1 WHERE ref = '0000000009'",
		"DELETE FROM approval WHERE state = 'WAITING'",
		"INSERT INTO approval SELECT 'AAAAAAAAAA', principal, operation, object, zeroblob(32), asker, asked, deadline, 'APPROVED', second, decided, until, record FROM approval LIMIT 1",
		"INSERT INTO approval SELECT 'UUUUUUUUUU', principal, operation, object, zeroblob(32), asker, asked, deadline, 'WAITING', second, decided, until, record FROM approval LIMIT 1",
		"INSERT INTO client_role VALUES ('', 'u', '[]', 1)",
		"INSERT INTO client_role VALUES ('c', 'u', '{}', 1)",
	} {
		err := db.update(ctx, func(s *session) error {
			_, err := s.exec(statement)
			return err
		})
		if !errors.Is(explained(err), ErrRule) && !errors.Is(err, ErrRule) {
			t.Errorf("%s: %v", statement, err)
		}
	}
}

func TestRolesRoundTrip(t *testing.T) {
	db, ctx := open(t), t.Context()
	first := custody.RoleChange{Client: "ops", URI: "keyd://client/ops", Roles: []custody.Role{custody.RoleAuditor}, At: day()}
	second := first
	second.Roles, second.At = []custody.Role{}, day().Add(time.Hour)
	for _, r := range []custody.RoleChange{first, second} {
		if err := db.SetRoles(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	got, err := db.RoleChanges(ctx)
	if diff := cmp.Diff([]custody.RoleChange{second}, got); err != nil || diff != "" {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
}
