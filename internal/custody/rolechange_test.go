package custody_test

import (
	"database/sql"
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

// custodians are the quorum of a ceremony.
func custodians(o *office) []audit.Approval {
	return []audit.Approval{{ID: "c1", At: o.clock.now()}, {ID: "c2", At: o.clock.now()}}
}

// wantInOrder finds lines that fit the patterns, one after the other.
func wantInOrder(t *testing.T, lines, patterns []string) {
	t.Helper()
	at := 0
	for _, line := range lines {
		if at < len(patterns) && regexp.MustCompile(patterns[at]).MatchString(line) {
			at++
		}
	}
	if at < len(patterns) {
		t.Errorf("the log has no record %s after those before it; it has\n%s", patterns[at], strings.Join(lines, "\n"))
	}
}

// member cuts a string member out of a record, the one before what follows.
func member(line, name, follows string) string {
	m := regexp.MustCompile(`"` + name + `":"([^"]*)"` + follows).FindStringSubmatch(line)
	if m == nil {
		return ""
	}
	return m[1]
}

func TestSetRoles(t *testing.T) {
	o := newOffice(t)
	anna, raj := o.someone(t, "anna", "roles"), o.someone(t, "raj", "a")
	q := custody.SetRoles{Client: "app", Roles: []custody.Role{custody.RoleOperator}}
	app := o.someone(t, "app", "x")
	_, err := o.SetRoles(t.Context(), anna, "t", q)
	a, err := o.Approve(t.Context(), raj, "t", custody.PendingRef(err))
	if err != nil || a.Object != "app = operator" {
		t.Fatalf("%+v, %v", a, err)
	}
	if _, err := o.SetRoles(t.Context(), anna, "t", q); err != nil {
		t.Fatal(err)
	}
	now := o.someone(t, "app", "x")
	if now.Has(custody.RoleApplication) || !now.Has(custody.RoleOperator) || app.Has(custody.RoleOperator) {
		t.Errorf("the next request has roles %v", now.Roles)
	}
	t.Run("it stays after a restart", func(t *testing.T) {
		client, err := o.again(t).Identify(certificate(t, "keyd://client/app", ""))
		if err != nil || !cmp.Equal(client.Roles, q.Roles) {
			t.Errorf("roles %v, %v", client.Roles, err)
		}
	})
	t.Run("the list shows both", func(t *testing.T) {
		list, err := o.Clients(t.Context(), o.someone(t, "ops", ""), "t")
		if err != nil || len(list) != len(officeClients()) {
			t.Fatalf("%d clients, %v", len(list), err)
		}
		for _, c := range list {
			if c.Changed != (c.Name == "app") || c.Changed && !cmp.Equal(c.Configured, []custody.Role{custody.RoleApplication}) {
				t.Errorf("client %+v", c)
			}
		}
	})
	t.Run("the log has before, after and who consented", func(t *testing.T) {
		wantInOrder(t, o.records(t, "sec"), []string{`"action":"role.change".*"id":"anna".*"approvals":\[{"id":"raj".*"after":"[0-9a-f]{64}","before":"[0-9a-f]{64}","kind":"role","object":"client/app".*"outcome":"ok"`})
	})
}

func TestRefusedRoles(t *testing.T) {
	tests := []struct {
		name   string
		client string
		roles  []custody.Role
		want   error
	}{
		{"administers and uses", "app", []custody.Role{custody.RoleAdmin, custody.RoleApplication}, custody.ErrRequest},
		{"custodian and administrator", "c1", []custody.Role{custody.RoleAdmin, custody.RoleCustodian}, custody.ErrRequest},
		{"custodian who uses", "c1", []custody.Role{custody.RoleApplication, custody.RoleCustodian}, custody.ErrRequest},
		{"auditor who changes", "eve", []custody.Role{custody.RoleAdmin, custody.RoleAuditor}, custody.ErrRequest},
		{"unknown role", "app", []custody.Role{"emperor"}, custody.ErrRequest},
		{"the switch's own", "app", []custody.Role{custody.RoleSwitch}, custody.ErrRequest},
		{"unknown client", "nobody", nil, custody.ErrNoClient},
		{"none", "app", nil, nil},
		{"twice the same", "ops", []custody.Role{custody.RoleOperator, custody.RoleOperator}, nil},
	}
	o := newOffice(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			anna := o.someone(t, "anna", "x")
			anna.Quorum = custodians(o)
			if _, err := o.SetRoles(t.Context(), anna, "t", custody.SetRoles{Client: test.client, Roles: test.roles}); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestTheLastAdministrators(t *testing.T) {
	for _, test := range []struct {
		name string
		on   bool
		left int
	}{{"with dual control two stay", true, 2}, {"without, one stays", false, 1}} {
		t.Run(test.name, func(t *testing.T) {
			o := newOffice(t, func(c *custody.Config) { c.DualControl.On = test.on })
			refused := 0
			for _, name := range []string{"few", "lee", "raj", "anna"} {
				anna := o.someone(t, "anna", name)
				if anna.Quorum = nil; test.on {
					anna.Quorum = custodians(o)
				}
				_, err := o.SetRoles(t.Context(), anna, "t", custody.SetRoles{Client: name, Roles: []custody.Role{custody.RoleOperator}})
				if errors.Is(err, custody.ErrConflict) {
					refused++
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if refused != test.left {
				t.Errorf("%d administrators stayed, want %d", refused, test.left)
			}
		})
	}
}

func TestQuorum(t *testing.T) {
	o := newOffice(t)
	person := func(names ...string) []audit.Approval {
		var list []audit.Approval
		for _, name := range names {
			list = append(list, audit.Approval{ID: name, At: o.clock.now()})
		}
		return list
	}
	tests := []struct {
		name   string
		quorum []audit.Approval
		want   error
	}{
		{"two custodians", person("c1", "c2"), nil},
		{"one", person("c1"), custody.ErrDenied},
		{"one of them twice", person("c1", "c1"), custody.ErrDenied},
		{"an administrator among them", person("c1", "raj"), custody.ErrDenied},
		{"somebody unknown", person("c1", "c9"), custody.ErrDenied},
		{"the caller among them", person("c1", "anna"), custody.ErrDenied},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			anna := o.someone(t, "anna", "x")
			anna.Quorum = test.quorum
			got, err := o.Approved(t.Context(), anna, "t", custody.OpDeleteKey, "alias/zmk")
			if !errors.Is(err, test.want) || (err == nil) != (len(got) == 2) {
				t.Errorf("got %v, %v; want %v", got, err, test.want)
			}
		})
	}
}

func TestForgedRoles(t *testing.T) {
	o := newOffice(t)
	db, err := sql.Open("sqlite3", filepath.Join(o.dir, "keyd.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`INSERT INTO client_role VALUES ('app', 'keyd://client/app', '["admin"]', 1)`); err != nil {
		t.Fatal(err)
	}
	_, err = custody.New(custody.Config{Token: o.token, Store: o.db, Log: o.log, Clients: officeClients(), Clock: o.clock.now})
	if !errors.Is(err, custody.ErrTampered) {
		t.Errorf("roles written into the database: %v", err)
	}
}

func TestOperationsNarrowRoles(t *testing.T) {
	r := withKeys(t, newRoom(t, nil))
	verifier := caller("verifier", custody.RoleApplication, "alias/tak-*")
	verifier.Operations = []custody.Operation{custody.OpVerifyMAC}
	verify := func(alias string) error {
		return r.act(t, verifier, func(a *custody.Act) error {
			_, err := a.VerifyMAC(t.Context(), custody.VerifyMAC{Key: ref(alias), Algorithm: custody.MACAlg3, Message: make([]byte, 8), MAC: make([]byte, 8)})
			return err
		})
	}
	generate := func() error {
		return r.act(t, verifier, func(a *custody.Act) error {
			_, err := a.GenerateMAC(t.Context(), custody.GenerateMAC{Key: ref("alias/tak-42"), Algorithm: custody.MACAlg3, Message: make([]byte, 8)})
			return err
		})
	}
	if err := verify("alias/tak-42"); !errors.Is(err, custody.ErrMAC) {
		t.Errorf("the operation that it has: %v", err)
	}
	if err := generate(); !errors.Is(err, custody.ErrDenied) {
		t.Errorf("another operation of its role: %v", err)
	}
	if err := verify("alias/zpk-a"); !errors.Is(err, custody.ErrDenied) {
		t.Errorf("a key outside its patterns: %v", err)
	}
	if _, err := r.Key(t.Context(), verifier, "t", ref("alias/tak-42")); !errors.Is(err, custody.ErrDenied) {
		t.Errorf("reading the key: %v", err)
	}
	bad := verifier.Client
	bad.Operations = []custody.Operation{"Fly"}
	if _, err := custody.New(custody.Config{Token: r.token, Store: r.db, Log: r.log, Clock: time.Now, Clients: []custody.Client{bad}}); err == nil || !strings.Contains(err.Error(), "unknown operation") {
		t.Errorf("an unknown operation: %v", err)
	}
}
