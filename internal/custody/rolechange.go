package custody

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
)

// RoleChange is roles that a configured client has in place of those of the
// configuration.
type RoleChange struct {
	Client string
	URI    string
	Roles  []Role // sorted; none: every operation is refused
	At     time.Time
}

// RoleStore keeps changed roles. What it has accepted is durable when it returns. It returns [ErrTampered] for a row that it did
// not write as it stands.
type RoleStore interface {
	// SetRoles stores a change in place of the client's earlier one.
	SetRoles(ctx context.Context, r RoleChange) error
	// RoleChanges returns the newest change of each client.
	RoleChanges(ctx context.Context) ([]RoleChange, error)
}

// SetRoles asks for a configured client to have these roles and no others.
type SetRoles struct {
	Client string
	Roles  []Role
}

// SetRoles changes the roles of a client, at once and for good: open connections
// have them from their next request on. It needs a second person, or the quorum
// of a ceremony. It returns [ErrDenied], [ErrRequest] for roles that nobody may
// have together, [ErrNoClient], [ErrConflict] where too few administrators would
// be left, [ErrApproval] or [ErrUnavailable].
func (c *Custody) SetRoles(ctx context.Context, caller Caller, corr string, q SetRoles) (ClientInfo, error) {
	if !caller.may(OpSetRoles) {
		return ClientInfo{}, c.refuse(ctx, caller, corr, OpSetRoles, notTheirs(OpSetRoles))
	}
	was, ok := c.clients.named(q.Client)
	if !ok {
		return ClientInfo{}, fmt.Errorf("%w: %q", ErrNoClient, q.Client)
	}
	now := was
	now.Roles = sortedRoles(q.Roles)
	if err := now.checkRoles(); err != nil {
		return ClientInfo{}, err
	}
	r := c.changeRecord(caller, corr, audit.RoleChange, audit.ChangeRole, "client/"+now.Name)
	r.Change.Before, r.Change.After = rolesHash(was), rolesHash(now)
	if err := c.enoughAdministrators(now); err != nil {
		describe(&r, err)
		return ClientInfo{}, after(c.record(ctx, r), err)
	}
	approvals, err := c.approved(ctx, caller, corr, OpSetRoles, now.Name+" = "+joinRoles(now.Roles))
	if err != nil {
		return ClientInfo{}, err
	}
	r.Approvals = approvals
	c.dual.mu.Lock()
	defer c.dual.mu.Unlock()
	if current, _ := c.clients.named(now.Name); rolesHash(current) != rolesHash(was) {
		return ClientInfo{}, fmt.Errorf("%w: the roles were changed meanwhile", ErrConflict)
	}
	if err := c.setRoles(ctx, r, now); err != nil {
		return ClientInfo{}, err
	}
	return ClientInfo{Client: now, Configured: c.clients.configured[now.URI].Roles, Changed: true}, nil
}

// setRoles records a change, stores it, and lets it hold. Where the store fails
// after the record, a second record says so.
func (c *Custody) setRoles(ctx context.Context, r audit.Record, now Client) error {
	ticket, err := c.log.Reserve(ctx, audit.Sec, 2)
	if err != nil {
		return fmt.Errorf("%w: no room in the audit log: %w", ErrUnavailable, err)
	}
	defer ticket.Release()
	change := RoleChange{Client: now.Name, URI: now.URI, Roles: now.Roles, At: c.clock().UTC()}
	err = c.enoughAdministrators(now)
	describe(&r, err)
	if _, failed := ticket.Append(r); failed != nil {
		return fmt.Errorf("%w: writing the audit log: %w", ErrUnavailable, failed)
	}
	if err != nil {
		return err
	}
	if err := c.book.store.SetRoles(ctx, change); err != nil {
		err = storeError("storing the roles", err)
		describe(&r, err)
		if _, failed := ticket.Append(r); failed != nil {
			return fmt.Errorf("%w: writing the audit log: %w", err, failed)
		}
		return err
	}
	c.clients.set(now, change)
	return nil
}

// enoughAdministrators refuses a change after which nobody could undo it: with
// dual control that takes two.
func (c *Custody) enoughAdministrators(now Client) error {
	least := 1
	if c.dual.policy.On {
		least = 2
	}
	left := c.clients.administrators(now)
	if left < least && c.clients.administrators(Client{}) > left {
		return fmt.Errorf("%w: too few administrators would be left to undo it", ErrConflict)
	}
	return nil
}

// Clients lists the principals with their roles. It returns [ErrDenied].
func (c *Custody) Clients(ctx context.Context, caller Caller, corr string) ([]ClientInfo, error) {
	if !caller.may(OpGetClients) {
		return nil, c.refuse(ctx, caller, corr, OpGetClients, notTheirs(OpGetClients))
	}
	return c.clients.list(), nil
}

// checkRoles is the part of [Client.check] that an administrator can get wrong.
func (c Client) checkRoles() error {
	for _, role := range c.Roles {
		if !slices.Contains(Roles(), role) {
			return fmt.Errorf("%w: a role is none of those there are", ErrRequest)
		}
	}
	if a, b, found := conflict(c.Roles); found {
		return fmt.Errorf("%w: nobody may be both %s and %s", ErrRequest, a, b)
	}
	return nil
}

func sortedRoles(roles []Role) []Role {
	list := append([]Role{}, roles...)
	slices.Sort(list)
	return slices.Compact(list)
}

func joinRoles(roles []Role) string {
	if len(roles) == 0 {
		return "none"
	}
	words := make([]string, len(roles))
	for i, role := range roles {
		words[i] = string(role)
	}
	return strings.Join(words, ",")
}

// rolesHash is the hash of a client's roles in records: of the JSON array of
// their names, sorted.
func rolesHash(c Client) audit.Hash {
	text, err := json.Marshal(sortedRoles(c.Roles))
	if err != nil {
		return audit.Hash{}
	}
	return sha256.Sum256(text)
}
