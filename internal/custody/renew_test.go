package custody_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/custody"
)

// officeSettings are the settings that an office begins with.
func officeSettings(change func(*custody.Settings)) custody.Settings {
	s := custody.Settings{Clients: officeClients(), Validity: 15 * time.Minute, Wait: 24 * time.Hour}
	if change != nil {
		change(&s)
	}
	return s
}

// without is a list of clients but one.
func without(list []custody.Client, name string) []custody.Client {
	var out []custody.Client
	for _, c := range list {
		if c.Name != name {
			out = append(out, c)
		}
	}
	return out
}

func of(name string, roles ...custody.Role) custody.Client {
	return custody.Client{Name: name, URI: "keyd://client/" + name, Roles: roles, Keys: []string{"*"}}
}

func (o *office) rolesOf(t *testing.T, name string) []custody.Role {
	t.Helper()
	client, err := o.Identify(certificate(t, "keyd://client/"+name, ""))
	if errors.Is(err, custody.ErrDenied) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return client.Roles
}

// TestRenewMakesNoAdministrator: who can write the configuration alone gets
// nothing that takes two persons.
func TestRenewMakesNoAdministrator(t *testing.T) {
	admin, auditor := custody.RoleAdmin, custody.RoleAuditor
	tests := []struct {
		name   string
		before func(*custody.Settings) // another beginning
		change func(*custody.Settings)
		held   []string
		roles  map[string][]custody.Role // afterwards
	}{
		{"a new client", nil, func(s *custody.Settings) {
			s.Clients = append(s.Clients, of("mallory", admin))
		}, []string{"mallory"}, map[string][]custody.Role{"mallory": nil}},
		{"a client that was something else", nil, func(s *custody.Settings) {
			s.Clients = append(without(s.Clients, "eve"), of("eve", admin))
		}, []string{"eve"}, map[string][]custody.Role{"eve": {auditor}}},
		{"the name of an administrator for another certificate", nil, func(s *custody.Settings) {
			stolen := of("anna", admin)
			stolen.URI = "keyd://client/mallory"
			s.Clients = append(without(s.Clients, "anna"), stolen)
		}, []string{"anna"}, map[string][]custody.Role{"mallory": nil, "anna": nil}},
		{"an administrator who may do more of it", func(s *custody.Settings) {
			few := of("few", admin)
			few.Operations = []custody.Operation{custody.OpCreateKey}
			s.Clients = append(without(s.Clients, "few"), few)
		}, nil, []string{"few"}, nil},
		{"in two steps", func(s *custody.Settings) {
			s.Clients = []custody.Client{of("app", custody.RoleApplication)}
		}, func(s *custody.Settings) {
			s.Clients = []custody.Client{of("mallory", admin), of("trudy", admin)}
		}, []string{"mallory", "trudy"}, map[string][]custody.Role{"mallory": nil, "trudy": nil}},
		{"the same administrators", nil, nil, nil, map[string][]custody.Role{"anna": {admin}}},
		{"one fewer, and another application", nil, func(s *custody.Settings) {
			s.Clients = append(without(s.Clients, "lee"), of("shop", custody.RoleApplication))
		}, nil, map[string][]custody.Role{"lee": nil, "shop": {custody.RoleApplication}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := newOffice(t)
			if tt.before != nil {
				if held, err := o.Renew(t.Context(), officeSettings(tt.before)); err != nil || held != nil {
					t.Fatal(held, err)
				}
			}
			foreseen, err := o.Rehearse(t.Context(), officeSettings(tt.change))
			if err != nil {
				t.Fatal(err)
			}
			held, err := o.Renew(t.Context(), officeSettings(tt.change))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(held, foreseen); diff != "" {
				t.Errorf("rehearsed (-renewed +rehearsed):\n%s", diff)
			}
			if diff := cmp.Diff(tt.held, held); diff != "" {
				t.Errorf("held (-want +got):\n%s", diff)
			}
			for name, want := range tt.roles {
				if diff := cmp.Diff(want, o.rolesOf(t, name)); diff != "" {
					t.Errorf("roles of %s (-want +got):\n%s", name, diff)
				}
			}
		})
	}
}

// TestRenewUndoesNoChangeOfRoles: what two persons took away stays away, whatever
// the client is called in the configuration now.
func TestRenewUndoesNoChangeOfRoles(t *testing.T) {
	o := newOffice(t)
	q := custody.SetRoles{Client: "lee"}
	_, err := o.SetRoles(t.Context(), o.someone(t, "anna", "r"), "t", q)
	if _, err := o.Approve(t.Context(), o.someone(t, "raj", "a"), "t", custody.PendingRef(err)); err != nil {
		t.Fatal(err)
	}
	if _, err := o.SetRoles(t.Context(), o.someone(t, "anna", "r"), "t", q); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*custody.Settings){
		"the same file": nil,
		"another name": func(s *custody.Settings) {
			renamed := of("lee", custody.RoleAdmin)
			renamed.Name = "lee-2"
			s.Clients = append(without(s.Clients, "lee"), renamed)
		},
	} {
		if _, err := o.Renew(t.Context(), officeSettings(change)); err != nil {
			t.Fatal(err)
		}
		if roles := o.rolesOf(t, "lee"); len(roles) != 0 {
			t.Errorf("%s: lee has %v again", name, roles)
		}
	}
}

// TestRenewAllOrNothing: settings that cannot be change nothing.
func TestRenewAllOrNothing(t *testing.T) {
	one := func(s *custody.Settings) {
		s.Clients = without(without(without(s.Clients, "raj"), "lee"), "few")
	}
	tests := []struct {
		name  string
		spoil func(*custody.Settings)
		want  error
	}{
		{"one administrator is left", one, custody.ErrConflict},
		{"two clients of one identity", func(s *custody.Settings) { s.Clients = append(s.Clients, of("app")) }, nil},
		{"roles that nobody may have together", func(s *custody.Settings) {
			s.Clients = append(without(s.Clients, "app"), of("app", custody.RoleApplication, custody.RoleCustodian))
		}, nil},
		{"a list without aliases", func(s *custody.Settings) { s.CryptogramExport = []string{"*"} }, nil},
		{"an unknown format", func(s *custody.Settings) { s.LegacyPIN = []string{"iso9"} }, nil},
		{"an approval for a year", func(s *custody.Settings) { s.Validity = 365 * 24 * time.Hour }, nil},
		{"a negative quota", func(s *custody.Settings) { s.Quotas.Keys = -1 }, nil},
		{"a profile without a name", func(s *custody.Settings) { s.Profiles = []custody.TerminalProfile{{}} }, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := newOffice(t)
			_, err := o.Renew(t.Context(), officeSettings(func(s *custody.Settings) {
				s.Clients = append(s.Clients, of("shop", custody.RoleApplication))
				tt.spoil(s)
			}))
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if o.rolesOf(t, "shop") != nil || o.rolesOf(t, "raj") == nil {
				t.Error("something has changed")
			}
		})
	}
}

// TestRenewWhileAtWork: requests and changes of roles go on meanwhile; run it with
// -race.
func TestRenewWhileAtWork(t *testing.T) {
	o := newOffice(t)
	done := make(chan struct{})
	var work sync.WaitGroup
	for range 4 {
		work.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := o.Identify(certificate(t, "keyd://client/app", "")); err != nil {
					t.Errorf("a client that never left: %v", err)
					return
				}
				_, _ = o.CreateKey(t.Context(), o.someone(t, "ops", "x"), "t", custody.CreateKey{Tags: map[string]string{"keyd:pin-format": "eci2"}})
				_, _ = o.SetRoles(t.Context(), o.someone(t, "anna", "r"), "t", custody.SetRoles{Client: "few"})
			}
		})
	}
	for n := range 100 {
		if _, err := o.Renew(t.Context(), officeSettings(func(s *custody.Settings) {
			s.Malformed.PerMinute = 10 + n
			if n%2 == 0 {
				s.Clients = append(s.Clients, of("shop", custody.RoleApplication))
				s.LegacyPIN = []string{"eci2"}
			}
		})); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	work.Wait()
}
