package custody

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"keyd.dev/keyd/pin"
)

// Settings are what a Custody that works can be given anew; the members are
// those of [Config].
type Settings struct {
	Clients          []Client
	LegacyPIN        []string
	LegacyBlocks     []string
	CryptogramImport []string
	CryptogramExport []string
	Malformed        Malformed
	Quotas           Quotas
	Profiles         []TerminalProfile
	Validity, Wait   time.Duration // of [DualControl]
}

// lists say which weak forms are permitted.
type lists struct {
	legacyPIN      []string
	legacyBlocks   []string
	cryptogramsIn  []string
	cryptogramsOut []string
}

func newLists(legacyPIN, legacyBlocks, in, out []string) (*lists, error) {
	for _, name := range legacyPIN {
		if _, err := pin.ParseLegacy(name); err != nil {
			return nil, fmt.Errorf("custody: legacy PIN block formats: %w", err)
		}
	}
	for what, list := range map[string][]string{
		"legacy key blocks": legacyBlocks, "cryptograms that come in": in, "cryptograms that go out": out,
	} {
		for _, pattern := range list {
			if !strings.HasPrefix(pattern, "alias/") {
				return nil, fmt.Errorf("custody: %s: %q is no alias; name each key-encryption key, alias/…", what, pattern)
			}
		}
	}
	return &lists{slices.Clone(legacyPIN), slices.Clone(legacyBlocks), slices.Clone(in), slices.Clone(out)}, nil
}

func (l *lists) share() *atomic.Pointer[lists] {
	p := new(atomic.Pointer[lists])
	p.Store(l)
	return p
}

// Renew gives the Custody new settings, all or none. Requests that begin
// afterwards have them, on open connections too; roles that were changed by
// [Custody.SetRoles] stay, by the rule of the start. Whether changes need a
// second person is not among the settings, and while they do nobody becomes an
// administrator by Renew: such a client stays as it was, or unknown, and its name
// is in held. It takes two persons, or a start that everybody sees. It returns
// [ErrConflict] where one administrator would be left, [ErrUnavailable], or why
// the settings cannot be; then nothing has changed.
func (c *Custody) Renew(ctx context.Context, s Settings) (held []string, err error) {
	c.dual.mu.Lock()
	defer c.dual.mu.Unlock()
	r, err := c.renewal(ctx, s)
	if err != nil {
		return nil, err
	}
	c.clients.exchange(r.table)
	c.lists.Store(r.lists)
	c.quota.now.Store(r.quotas)
	c.refused.setLimit(s.Malformed)
	if c.terminals != nil {
		c.terminals.profiles.Store(&r.profiles)
	}
	c.dual.policy.Validity, c.dual.policy.Wait = r.approvals.Validity, r.approvals.Wait
	return r.held, nil
}

// Rehearse returns what [Custody.Renew] would, and changes nothing.
func (c *Custody) Rehearse(ctx context.Context, s Settings) (held []string, err error) {
	c.dual.mu.Lock()
	defer c.dual.mu.Unlock()
	r, err := c.renewal(ctx, s)
	return r.held, err
}

// renewal is Settings that were checked against what is there.
type renewal struct {
	table     *clients
	held      []string
	lists     *lists
	quotas    *Quotas
	profiles  map[string]TerminalProfile
	approvals DualControl
}

func (c *Custody) renewal(ctx context.Context, s Settings) (r renewal, err error) {
	if r.lists, err = newLists(s.LegacyPIN, s.LegacyBlocks, s.CryptogramImport, s.CryptogramExport); err != nil {
		return r, err
	}
	quotas, err := newQuota(s.Quotas)
	if err != nil {
		return r, err
	}
	r.quotas = quotas.now.Load()
	if r.profiles, err = profilesOf(s.Profiles); err != nil {
		return r, err
	}
	r.approvals = DualControl{Validity: s.Validity, Wait: s.Wait}
	if err := r.approvals.complete(); err != nil {
		return r, err
	}
	changes, err := c.book.store.RoleChanges(ctx)
	if err != nil {
		return r, storeError("reading changed roles", err)
	}
	r.table, r.held, err = c.renewed(s.Clients, changes)
	return r, err
}

// renewed is the new table of principals, with those left as they were who would
// become administrators by it.
func (c *Custody) renewed(list []Client, changes []RoleChange) (table *clients, held []string, err error) {
	table, err = newClients(list, changes)
	if err != nil || !c.dual.policy.On {
		return table, nil, err
	}
	var kept []Client
	for _, client := range list {
		was, known := c.clients.of(client.URI)
		if now, _ := table.of(client.URI); !gainsControl(was, now) {
			kept = append(kept, client)
			continue
		}
		held = append(held, client.Name)
		if known {
			kept = append(kept, c.clients.asConfigured(client.URI))
		}
	}
	if table, err = newClients(kept, changes); err != nil {
		return nil, nil, err
	}
	before, left := c.clients.administrators(Client{}), table.administrators(Client{})
	if left == 1 && before != 1 {
		return nil, nil, fmt.Errorf("%w: one administrator would be left, who could change nothing without a second one", ErrConflict)
	}
	return table, held, nil
}

// gainsControl says whether a client would be able to change what it could not
// change before, as an administrator. What operators may do as well is not meant.
func gainsControl(was, now Client) bool {
	for op := range Permissions() {
		if RoleAdmin.may(op) && !RoleOperator.may(op) && now.may(op) && !was.may(op) {
			return true
		}
	}
	return false
}

// asConfigured is a client without the changes of its roles.
func (t *clients) asConfigured(uri string) Client {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.configured[uri]
}
