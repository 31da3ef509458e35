package custody

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// ClientInfo is a client as an administrator sees it.
type ClientInfo struct {
	Client
	Configured []Role // the roles of the configuration, which Roles may replace
	Changed    bool   // the roles are those of a change, not of the configuration
}

// clients is the table of principals: those of the configuration, with the
// roles that were changed since. Every request looks its principal up anew, so
// a change holds at once, on open connections too.
type clients struct {
	mu         sync.RWMutex
	configured map[string]Client // by identity
	changed    map[string]RoleChange
	now        map[string]Client // by identity, the changes applied
	many       []string          // identities with {tid}, each of which is that of many certificates
}

func newClients(list []Client, changes []RoleChange) (*clients, error) {
	t := &clients{
		configured: make(map[string]Client, len(list)),
		changed:    make(map[string]RoleChange),
		now:        make(map[string]Client, len(list)),
	}
	names := make(map[string]bool, len(list))
	for _, client := range list {
		if err := client.check(); err != nil {
			return nil, err
		}
		client.scope, _ = newScope(client.Terminals, client.Merchants) // checked just now
		if strings.Contains(client.URI, ownTID) {
			t.many = append(t.many, client.URI)
		}
		if _, twice := t.configured[client.URI]; twice {
			return nil, fmt.Errorf("custody: two clients have the identity %q", client.URI)
		}
		if names[client.Name] {
			return nil, fmt.Errorf("custody: two clients have the name %q", client.Name)
		}
		names[client.Name] = true
		t.configured[client.URI], t.now[client.URI] = client, client
	}
	for _, change := range changes {
		// A name that was given to another identity since keeps nothing of it.
		client, ok := t.configured[change.URI]
		if !ok || client.Name != change.Client {
			continue
		}
		client.Roles = change.Roles
		if err := client.check(); err != nil {
			return nil, fmt.Errorf("a stored change of roles cannot be: %w", err)
		}
		t.set(client, change)
	}
	return t, nil
}

// set replaces a client's roles. The maps of others are never changed in place.
func (t *clients) set(client Client, change RoleChange) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now, t.changed = maps.Clone(t.now), maps.Clone(t.changed)
	t.now[client.URI], t.changed[client.URI] = client, change
}

// exchange puts another table in the place of this one, at once.
func (t *clients) exchange(by *clients) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.configured, t.changed, t.now, t.many = by.configured, by.changed, by.now, by.many
}

// of returns the client of an identity.
func (t *clients) of(uri string) (Client, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if client, ok := t.now[uri]; ok {
		return client, true
	}
	for _, of := range t.many {
		if own, ok := t.now[of].ownTerminal(uri); ok {
			return own, true
		}
	}
	return Client{}, false
}

// named returns the client of a name.
func (t *clients) named(name string) (Client, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, client := range t.now {
		if client.Name == name {
			return client, true
		}
	}
	return Client{}, false
}

// list returns all, in the order of their names.
func (t *clients) list() []ClientInfo {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make([]ClientInfo, 0, len(t.now))
	for uri, client := range t.now {
		_, changed := t.changed[uri]
		all = append(all, ClientInfo{Client: client, Configured: t.configured[uri].Roles, Changed: changed})
	}
	slices.SortFunc(all, func(a, b ClientInfo) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// administrators counts the clients that could approve, were client changed so.
func (t *clients) administrators(with Client) int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := 0
	for uri, client := range t.now {
		if uri == with.URI {
			client = with
		}
		if client.may(OpApprove) && client.may(OpSetRoles) {
			n++
		}
	}
	return n
}
