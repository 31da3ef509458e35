package custody_test

import (
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/store"
	"keyd.dev/keyd/keys"
)

// wall is a clock that a test sets.
type wall struct{ ns atomic.Int64 }

func newWall() *wall {
	w := new(wall)
	w.ns.Store(time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC).UnixNano())
	return w
}

func (w *wall) now() time.Time        { return time.Unix(0, w.ns.Load()) }
func (w *wall) pass(by time.Duration) { w.ns.Add(int64(by)) }

// office is a room under dual control, with persons in it.
type office struct {
	*room
	clock *wall
}

func officeClients() []custody.Client {
	client := func(name string, role custody.Role, patterns ...string) custody.Client {
		return custody.Client{Name: name, URI: "keyd://client/" + name, Roles: []custody.Role{role}, Keys: patterns}
	}
	return []custody.Client{
		client("anna", custody.RoleAdmin, "*"), client("raj", custody.RoleAdmin, "*"), client("lee", custody.RoleAdmin, "*"),
		client("few", custody.RoleAdmin, "alias/few/*"), client("app", custody.RoleApplication, "*"),
		client("ops", custody.RoleOperator, "*"), client("eve", custody.RoleAuditor),
		client("c1", custody.RoleCustodian), client("c2", custody.RoleCustodian),
	}
}

func newOffice(t *testing.T, changes ...func(*custody.Config)) *office {
	t.Helper()
	o := &office{clock: newWall()}
	o.room = newRoom(t, func(c *custody.Config) {
		c.Clients, c.Clock = officeClients(), o.clock.now
		c.DualControl = custody.DualControl{On: true, Validity: 15 * time.Minute, Wait: 24 * time.Hour}
		for _, change := range changes {
			change(c)
		}
	})
	return o
}

// again is the same office after a restart: another process over the same files.
func (o *office) again(t *testing.T) *custody.Custody {
	t.Helper()
	c, err := custody.New(custody.Config{
		Token: o.token, Maker: hsm.NewManager(o.token), Store: o.db, Log: o.log, Clients: officeClients(), Clock: o.clock.now,
		DualControl: custody.DualControl{On: true, Validity: 15 * time.Minute, Wait: 24 * time.Hour},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// someone is a client on a connection, with the request of this body.
func (o *office) someone(t *testing.T, name, body string) custody.Caller {
	t.Helper()
	client, err := o.Identify(certificate(t, "keyd://client/"+name, ""))
	if err != nil {
		t.Fatal(err)
	}
	return custody.Caller{
		Client: client, Addr: "127.0.0.1:4711", Conn: "api-1", Kind: 1,
		Subject: "CN=" + name, Request: sha256.Sum256([]byte(body)),
	}
}

// ask gives the reference of a request that needs a second person.
func ask(t *testing.T, c *custody.Custody, who custody.Caller) string {
	t.Helper()
	got, err := c.Approved(t.Context(), who, "t", custody.OpDeleteKey, "alias/zmk")
	if !errors.Is(err, custody.ErrApproval) || custody.PendingRef(err) == "" || got != nil {
		t.Fatalf("want a request for approval, got %v, %v", got, err)
	}
	return custody.PendingRef(err)
}

func TestTwoRounds(t *testing.T) {
	o := newOffice(t)
	q := custody.CreateKey{Attributes: attributes(keys.UsageBDK, keys.AES128, keys.ModeDerive), Enabled: true}
	anna := o.someone(t, "anna", "create")
	_, err := o.CreateKey(t.Context(), anna, "t", q)
	ref := custody.PendingRef(err)
	if len(ref) != 10 || !strings.HasSuffix(err.Error(), ref) {
		t.Fatalf("first round: %v", err)
	}
	if list, err := o.db.Keys(t.Context(), custody.KeyQuery{Limit: 5}); err != nil || len(list) != 0 {
		t.Errorf("the first round changed something: %d keys, %v", len(list), err)
	}
	if _, err := o.CreateKey(t.Context(), anna, "t", q); custody.PendingRef(err) != ref {
		t.Errorf("asked again before the decision: %v, want the same reference %s", err, ref)
	}
	a, err := o.Approve(t.Context(), o.someone(t, "raj", "approve"), "t", strings.ToLower(ref[:5]+"-"+ref[5:]))
	if err != nil || a.State != custody.ApprovalApproved || a.Object != "a new key B0 AES_128, mode X, exportability E" {
		t.Fatalf("approve: %+v, %v", a, err)
	}
	if _, err := o.CreateKey(t.Context(), anna, "t", q); err != nil {
		t.Fatalf("second round: %v", err)
	}
	if _, err := o.CreateKey(t.Context(), anna, "t", q); custody.PendingRef(err) == ref || !errors.Is(err, custody.ErrApproval) {
		t.Errorf("third time: %v, want a request of its own", err)
	}
	if _, err := o.CreateKey(t.Context(), anna, "t", custody.CreateKey{Attributes: attributes(keys.UsageCMAC, keys.AES128, keys.ModeMAC)}); err != nil {
		t.Errorf("a MAC key needs no second person: %v", err)
	}
	t.Run("the log tells it", func(t *testing.T) {
		story := []string{
			`"action":"admin.request","actor":{"authn":"local","id":"anna"`, `"action":"admin.execute".*"outcome":"refused".*"reason":"quorum_missing"`,
			`"action":"admin.approve","actor":{"authn":"local","id":"raj"`, `"action":"admin.execute".*"approvals":\[{"id":"raj"`,
			`"action":"key.create".*"approvals":\[{"id":"raj".*"phase":"intent"`, `"action":"key.create".*"approvals":\[{"id":"raj".*"phase":"outcome"`,
		}
		wantInOrder(t, o.records(t, "sec"), story)
		approve, execute := "", ""
		for _, r := range o.records(t, "sec") {
			if strings.Contains(r, `"admin.approve"`) {
				approve = member(r, "id", `,"log"`)
			}
			if strings.Contains(r, `"admin.execute"`) && strings.Contains(r, `"approvals"`) {
				execute = member(r, "ref", "")
			}
		}
		if approve == "" || approve != execute {
			t.Errorf("approvals[].ref %q, want the id %q of admin.approve", execute, approve)
		}
	})
}

func TestWhoMayApprove(t *testing.T) {
	o := newOffice(t)
	twin := func(name string, change func(*custody.Caller)) custody.Caller {
		c := o.someone(t, name, "approve")
		change(&c)
		return c
	}
	tests := []struct {
		name string
		who  custody.Caller
		want error
	}{
		{"who asked", o.someone(t, "anna", "approve"), custody.ErrSamePerson},
		{"another client with a certificate of the same subject", twin("raj", func(c *custody.Caller) { c.Subject = "CN=anna" }), custody.ErrSamePerson},
		{"another client of the same identity", twin("raj", func(c *custody.Caller) { c.URI = "keyd://client/anna" }), custody.ErrSamePerson},
		{"another certificate of the same client", twin("anna", func(c *custody.Caller) { c.Subject, c.URI = "CN=a", "keyd://b" }), custody.ErrSamePerson},
		{"an application", o.someone(t, "app", "approve"), custody.ErrDenied},
		{"an operator", o.someone(t, "ops", "approve"), custody.ErrDenied},
		{"an auditor", o.someone(t, "eve", "approve"), custody.ErrDenied},
		{"a custodian", o.someone(t, "c1", "approve"), custody.ErrDenied},
		{"an administrator of other keys", o.someone(t, "few", "approve"), custody.ErrDenied},
		{"another administrator", o.someone(t, "raj", "approve"), nil},
	}
	ref := ask(t, o.Custody, o.someone(t, "anna", "x"))
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, err := o.Approve(t.Context(), test.who, "t", ref); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
	t.Run("a certificate without a subject tells nobody apart", func(t *testing.T) {
		anna, raj := o.someone(t, "anna", "y"), o.someone(t, "raj", "approve")
		anna.Subject, raj.Subject = "", ""
		if _, err := o.Approve(t.Context(), raj, "t", ask(t, o.Custody, anna)); !errors.Is(err, custody.ErrSamePerson) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("an unknown reference, and none", func(t *testing.T) {
		raj := o.someone(t, "raj", "approve")
		if _, err := o.Approve(t.Context(), raj, "t", "0000000000"); !errors.Is(err, custody.ErrNoApproval) {
			t.Errorf("got %v", err)
		}
		if _, err := o.Approve(t.Context(), raj, "t", "U000000000"); !errors.Is(err, custody.ErrRequest) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("same_person is in the log", func(t *testing.T) {
		wantInOrder(t, o.records(t, "sec"), []string{`"action":"admin.approve","actor":{"authn":"local","id":"anna".*"outcome":"refused".*"reason":"same_person"`})
	})
}

func TestWhatAnApprovalIsGoodFor(t *testing.T) {
	o := newOffice(t)
	anna, raj := o.someone(t, "anna", "x"), o.someone(t, "raj", "approve")
	try := func(who custody.Caller, op custody.Operation, object string) error {
		_, err := o.Approved(t.Context(), who, "t", op, object)
		return err
	}
	approve := func() {
		t.Helper()
		if _, err := o.Approve(t.Context(), raj, "t", ask(t, o.Custody, anna)); err != nil {
			t.Fatal(err)
		}
	}
	approve()
	other := anna
	other.Request = sha256.Sum256([]byte("another body"))
	for name, err := range map[string]error{
		"another body":      try(other, custody.OpDeleteKey, "alias/zmk"),
		"another principal": try(o.someone(t, "lee", "x"), custody.OpDeleteKey, "alias/zmk"),
		"another operation": try(anna, custody.OpExportKey, "alias/zmk"),
		"another object":    try(anna, custody.OpDeleteKey, "alias/zmk-2"),
	} {
		if !errors.Is(err, custody.ErrApproval) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := try(anna, custody.OpDeleteKey, "alias/zmk"); err != nil {
		t.Errorf("the request itself: %v", err)
	}
	t.Run("an approval expires", func(t *testing.T) {
		approve()
		o.clock.pass(15 * time.Minute)
		if err := try(anna, custody.OpDeleteKey, "alias/zmk"); !errors.Is(err, custody.ErrApproval) {
			t.Errorf("after its time: %v", err)
		}
	})
	t.Run("an approval is good until then", func(t *testing.T) {
		approve()
		o.clock.pass(15*time.Minute - time.Second)
		if err := try(anna, custody.OpDeleteKey, "alias/zmk"); err != nil {
			t.Errorf("before its time is over: %v", err)
		}
	})
	t.Run("a clock set back makes none good for longer", func(t *testing.T) {
		approve()
		o.clock.pass(-time.Hour)
		if err := try(anna, custody.OpDeleteKey, "alias/zmk"); !errors.Is(err, custody.ErrApproval) {
			t.Errorf("an hour before the decision: %v", err)
		}
		o.clock.pass(time.Hour)
	})
	t.Run("a request expires", func(t *testing.T) {
		ref := ask(t, o.Custody, anna)
		o.clock.pass(24 * time.Hour)
		if _, err := o.Approve(t.Context(), raj, "t", ref); !errors.Is(err, custody.ErrConflict) {
			t.Errorf("approved after its time: %v", err)
		}
		if again := ask(t, o.Custody, anna); again == ref {
			t.Error("an expired request was filed again under its old reference")
		}
	})
	t.Run("rejected", func(t *testing.T) {
		ref := ask(t, o.Custody, anna)
		if _, err := o.Reject(t.Context(), raj, "t", ref); err != nil {
			t.Fatal(err)
		}
		if _, err := o.Approve(t.Context(), raj, "t", ref); !errors.Is(err, custody.ErrConflict) {
			t.Errorf("approved after it was rejected: %v", err)
		}
	})
	t.Run("an approval taken back", func(t *testing.T) {
		ref := ask(t, o.Custody, anna)
		if _, err := o.Approve(t.Context(), raj, "t", ref); err != nil {
			t.Fatal(err)
		}
		if _, err := o.Reject(t.Context(), o.someone(t, "lee", "r"), "t", ref); err != nil {
			t.Fatal(err)
		}
		if err := try(anna, custody.OpDeleteKey, "alias/zmk"); !errors.Is(err, custody.ErrApproval) {
			t.Errorf("spent after it was taken back: %v", err)
		}
	})
	t.Run("of a second person who lost the role", func(t *testing.T) {
		approve()
		quorum := o.someone(t, "lee", "roles")
		quorum.Quorum = custodians(o)
		if _, err := o.SetRoles(t.Context(), quorum, "t", custody.SetRoles{Client: "raj", Roles: []custody.Role{custody.RoleOperator}}); err != nil {
			t.Fatal(err)
		}
		if err := try(anna, custody.OpDeleteKey, "alias/zmk"); !errors.Is(err, custody.ErrApproval) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a caller whose request has no hash", func(t *testing.T) {
		local := custody.SystemCaller("root", custody.RoleAdmin)
		if err := try(local, custody.OpDeleteKey, "alias/zmk"); !errors.Is(err, custody.ErrDenied) {
			t.Errorf("got %v", err)
		}
	})
}

// TestNamesAreMovedByTwo: one administrator may bring in a PIN key whose value he
// knows, and must not be able to put it where the PINs go.
func TestNamesAreMovedByTwo(t *testing.T) {
	o := newOffice(t)
	made := func(body string) custody.KeyRecord {
		k, err := o.CreateKey(t.Context(), o.someone(t, "anna", body), "t", custody.CreateKey{Attributes: attributes(keys.UsagePIN, keys.AES128, keys.ModeBoth), Enabled: true})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	zone, known := made("one"), made("two")
	const name = "alias/zpk"
	if _, err := o.CreateAlias(t.Context(), o.someone(t, "anna", "name"), "t", custody.Alias{Name: name, Key: zone.Block.ID}, nil); err != nil {
		t.Fatalf("a new name: %v", err)
	}
	anna := o.someone(t, "anna", "move")
	for what, try := range map[string]func() error{
		"moved": func() error {
			_, err := o.UpdateAlias(t.Context(), anna, "t", custody.Alias{Name: name, Key: known.Block.ID}, nil)
			return err
		},
		"emptied": func() error {
			_, err := o.UpdateAlias(t.Context(), o.someone(t, "anna", "empty"), "t", custody.Alias{Name: name}, nil)
			return err
		},
		"taken away": func() error { return o.DeleteAlias(t.Context(), o.someone(t, "anna", "delete"), "t", name, nil) },
		"rotated to it": func() error {
			_, err := o.RotateKey(t.Context(), o.someone(t, "anna", "rotate"), "t",
				custody.RotateKey{Key: custody.Ref{Alias: name}, Successor: custody.Ref{ID: known.Block.ID}})
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			if err := try(); !errors.Is(err, custody.ErrApproval) {
				t.Errorf("got %v, want a request for approval", err)
			}
			if a, err := o.Alias(t.Context(), anna, "t", name); err != nil || a.Key != zone.Block.ID {
				t.Errorf("the name points to %q, %v", a.Key, err)
			}
		})
	}
	t.Run("to the key it names already", func(t *testing.T) {
		if _, err := o.UpdateAlias(t.Context(), o.someone(t, "anna", "same"), "t", custody.Alias{Name: name, Key: zone.Block.ID}, nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("by two", func(t *testing.T) {
		_, err := o.UpdateAlias(t.Context(), anna, "t", custody.Alias{Name: name, Key: known.Block.ID}, nil)
		if _, err := o.Approve(t.Context(), o.someone(t, "raj", "approve"), "t", custody.PendingRef(err)); err != nil {
			t.Fatal(err)
		}
		if _, err := o.UpdateAlias(t.Context(), anna, "t", custody.Alias{Name: name, Key: known.Block.ID}, nil); err != nil {
			t.Fatal(err)
		}
		if a, err := o.Alias(t.Context(), anna, "t", name); err != nil || a.Key != known.Block.ID {
			t.Errorf("the name points to %q, %v", a.Key, err)
		}
	})
}

func TestKeysThatNeedTwo(t *testing.T) {
	o := newOffice(t)
	for _, usage := range keys.Usages() {
		_, err := o.Approved(t.Context(), o.someone(t, "anna", string(usage)), "t", custody.OpExportKey, "alias/x", usage)
		want := usage == keys.UsageKEK || usage == keys.UsageKBPK || usage == keys.UsageBDK
		if errors.Is(err, custody.ErrApproval) != want {
			t.Errorf("usage %s: %v, want a second person: %v", usage, err, want)
		}
	}
	if _, err := o.Approved(t.Context(), o.someone(t, "anna", "mixed"), "t", custody.OpExportKey, "alias/x", keys.UsagePIN, keys.UsageKEK); !errors.Is(err, custody.ErrApproval) {
		t.Errorf("one of two keys carries others: %v", err)
	}
	off, err := custody.New(custody.Config{Token: o.token, Store: o.db, Log: o.log, Clients: officeClients(), Clock: o.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := off.Approved(t.Context(), o.someone(t, "anna", "x"), "t", custody.OpDeleteKey, "alias/zmk"); got != nil || err != nil {
		t.Errorf("with dual control off: %v, %v", got, err)
	}
}

func TestApprovalsSurviveRestarts(t *testing.T) {
	o := newOffice(t)
	anna, raj := o.someone(t, "anna", "x"), o.someone(t, "raj", "approve")
	ref := ask(t, o.Custody, anna)
	second := o.again(t)
	if again := ask(t, second, anna); again != ref {
		t.Errorf("reference %s after a restart, want %s", again, ref)
	}
	if _, err := second.Approve(t.Context(), raj, "t", ref); err != nil {
		t.Fatal(err)
	}
	third := o.again(t)
	if got, err := third.Approved(t.Context(), anna, "t", custody.OpDeleteKey, "alias/zmk"); err != nil || len(got) != 1 || got[0].ID != "raj" {
		t.Fatalf("an approval given before a restart: %v, %v", got, err)
	}
	// Here the process dies, after it spent the approval and before the act.
	if again := ask(t, o.again(t), anna); again == ref {
		t.Error("the approval was good twice")
	}
}

func TestHundredRepeats(t *testing.T) {
	o := newOffice(t)
	q := custody.CreateKey{Attributes: attributes(keys.UsageKEK, keys.AES256, keys.ModeBoth), Enabled: true}
	anna := o.someone(t, "anna", "create")
	_, err := o.CreateKey(t.Context(), anna, "t", q)
	if _, err := o.Approve(t.Context(), o.someone(t, "raj", "a"), "t", custody.PendingRef(err)); err != nil {
		t.Fatal(err)
	}
	var done, refs sync.Map
	var group sync.WaitGroup
	for i := range 100 {
		group.Go(func() {
			k, err := o.CreateKey(t.Context(), anna, fmt.Sprintf("t-%d", i), q)
			if err == nil {
				done.Store(k.Block.ID, true)
			} else {
				refs.Store(custody.PendingRef(err), true)
			}
		})
	}
	group.Wait()
	made, others := 0, 0
	done.Range(func(any, any) bool { made++; return true })
	refs.Range(func(any, any) bool { others++; return true })
	if made != 1 || others != 1 {
		t.Errorf("%d executions of one approval, and %d new references of the other 99", made, others)
	}
}

func TestForgedApproval(t *testing.T) {
	forge := func(t *testing.T, o *office, statement string) {
		t.Helper()
		db, err := sql.Open("sqlite3", filepath.Join(o.dir, "keyd.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	office := func(t *testing.T) (*office, custody.Caller) {
		o := newOffice(t)
		anna := o.someone(t, "anna", "x")
		ask(t, o.Custody, anna)
		return o, anna
	}
	t.Run("approved with a pen in the database", func(t *testing.T) {
		o, anna := office(t)
		forge(t, o, `UPDATE approval SET state = 'APPROVED', decided = asked, until = deadline,
			second = '{"name":"raj","uri":"keyd://client/raj","subject":"CN=raj"}'`)
		if _, err := o.Approved(t.Context(), anna, "t", custody.OpDeleteKey, "alias/zmk"); !errors.Is(err, custody.ErrTampered) {
			t.Errorf("a forged approval: %v", err)
		}
	})
	t.Run("a spent one put back", func(t *testing.T) {
		o, anna := office(t)
		if _, err := o.Approve(t.Context(), o.someone(t, "raj", "a"), "t", ask(t, o.Custody, anna)); err != nil {
			t.Fatal(err)
		}
		forge(t, o, "CREATE TABLE kept AS SELECT * FROM approval")
		if _, err := o.Approved(t.Context(), anna, "t", custody.OpDeleteKey, "alias/zmk"); err != nil {
			t.Fatal(err)
		}
		forge(t, o, "DROP TRIGGER approval_onward; UPDATE approval SET state = (SELECT state FROM kept)")
		if _, err := o.Approved(t.Context(), anna, "t", custody.OpDeleteKey, "alias/zmk"); !errors.Is(err, custody.ErrTampered) {
			t.Errorf("it was good twice: %v", err)
		}
	})
	t.Run("another body under an approval", func(t *testing.T) {
		o, anna := office(t)
		if _, err := o.Approve(t.Context(), o.someone(t, "raj", "a"), "t", ask(t, o.Custody, anna)); err != nil {
			t.Fatal(err)
		}
		other := o.someone(t, "anna", "another body")
		forge(t, o, fmt.Sprintf("DROP TRIGGER approval_written_once; DROP TRIGGER approval_onward; UPDATE approval SET body = x'%x'", other.Request))
		if _, err := o.Approved(t.Context(), other, "t", custody.OpDeleteKey, "alias/zmk"); !errors.Is(err, custody.ErrTampered) {
			t.Errorf("got %v", err)
		}
	})
}

func TestManyRequests(t *testing.T) {
	o := newOffice(t)
	var err error
	for i := range 101 {
		_, err = o.Approved(t.Context(), o.someone(t, "anna", fmt.Sprint(i)), "t", custody.OpDeleteKey, "alias/zmk")
	}
	if !errors.Is(err, custody.ErrConflict) {
		t.Errorf("request 101 of one person: %v", err)
	}
	ask(t, o.Custody, o.someone(t, "lee", "x"))
	o.clock.pass(24 * time.Hour)
	ask(t, o.Custody, o.someone(t, "anna", "later"))
	list, err := o.Approvals(t.Context(), o.someone(t, "ops", ""), "t", false)
	if err != nil || len(list) != 1 {
		t.Errorf("%d open requests after the others expired, %v", len(list), err)
	}
}

func TestApprovalTimes(t *testing.T) {
	r := newRoom(t, nil)
	for _, bad := range []custody.DualControl{{Validity: time.Millisecond}, {Validity: 25 * time.Hour}, {Wait: -1}, {Wait: 31 * 24 * time.Hour}} {
		if _, err := custody.New(custody.Config{Token: r.token, Store: r.db, Log: r.log, Clock: time.Now, DualControl: bad}); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

var _ custody.Store = (*store.DB)(nil)

func TestWhoMayDecideOnAKey(t *testing.T) {
	o := newOffice(t)
	o.key(t, "alias/few/zmk", attributes(keys.UsageKEK, keys.AES128, keys.ModeBoth), "000102030405060708090A0B0C0D0E0F", nil)
	o.key(t, "alias/many/zmk", attributes(keys.UsageKEK, keys.AES128, keys.ModeBoth), "101112131415161718191A1B1C1D1E1F", nil)
	id := func(alias string) string {
		a, err := o.db.Alias(t.Context(), alias)
		if err != nil {
			t.Fatal(err)
		}
		return string(a.Key)
	}
	few, many := id("alias/few/zmk"), id("alias/many/zmk")
	for object, want := range map[string]error{
		"alias/few/zmk (" + few + ")":   nil,
		"alias/many/zmk (" + many + ")": custody.ErrDenied,
		few + " under " + many:          custody.ErrDenied,
		"key " + few:                    nil,
		"alias/few/new":                 nil,
		"alias/many/new":                custody.ErrDenied,
		"a new key K0 AES_256":          nil,
		"terminal/T0000001":             nil,
	} {
		_, err := o.Approved(t.Context(), o.someone(t, "anna", object), "t", custody.OpExportKey, object)
		if _, err := o.Approve(t.Context(), o.someone(t, "few", "a"), "t", custody.PendingRef(err)); !errors.Is(err, want) {
			t.Errorf("an administrator of alias/few/* decides on %q: %v, want %v", object, err, want)
		}
	}
}

func TestLongObjects(t *testing.T) {
	o := newOffice(t)
	long := strings.Repeat("x", 600) + "\x1b[31m"
	_, err := o.Approved(t.Context(), o.someone(t, "anna", "x"), "t", custody.OpExportKey, "\x1b[31m"+long)
	list, listed := o.Approvals(t.Context(), o.someone(t, "raj", ""), "t", false)
	if custody.PendingRef(err) == "" || listed != nil || len(list) != 1 || len(list[0].Object) != 500 || !strings.HasPrefix(list[0].Object, "?[31mx") {
		t.Errorf("got %v, %v, %d requests", err, listed, len(list))
	}
}

func FuzzParseApprovalRef(f *testing.F) {
	for _, seed := range []string{"4FGDS86TZ5", "4fgds-86tz5", "OIL0000000", "", "UUUUUUUUUU", "4FGDS86TZ", "4FGDS86TZ5 "} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ref, ok := custody.ParseApprovalRef(text)
		if !ok {
			return
		}
		if again, ok := custody.ParseApprovalRef(ref); !ok || again != ref || len(ref) != 10 || strings.ContainsAny(ref, "ILOU- ") {
			t.Errorf("%q is read as %q, and that as %q, %v", text, ref, again, ok)
		}
	})
}
