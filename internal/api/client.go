package api

import (
	"context"

	"keyd.dev/keyd/internal/custody"
)

// decider is [custody.Custody.Approve] or [custody.Custody.Reject].
type decider = func(ctx context.Context, caller custody.Caller, corr, ref string) (custody.Approval, error)

// mostRoles bounds the list of roles in a request.
const mostRoles = 16

// client is a principal, in answers.
type client struct {
	Name            string
	URI             string `json:"Uri"`
	Roles           []custody.Role
	ConfiguredRoles []custody.Role
	Changed         bool
	Keys            []string            `json:",omitempty"`
	Operations      []custody.Operation `json:",omitempty"`
}

func wireClient(c custody.ClientInfo) client {
	return client{
		Name: c.Name, URI: c.URI, Changed: c.Changed, Keys: c.Keys, Operations: c.Operations,
		Roles:           append([]custody.Role{}, c.Roles...),
		ConfiguredRoles: append([]custody.Role{}, c.Configured...),
	}
}

// getClients is GetClients.
func (c *call) getClients() error {
	if err := c.check(); err != nil {
		return err
	}
	list, err := c.custody.Clients(c.ctx, c.caller, c.id)
	if err != nil {
		return err
	}
	out := struct{ Clients []client }{[]client{}}
	for _, one := range list {
		out.Clients = append(out.Clients, wireClient(one))
	}
	return c.answerJSON(out)
}

// setRoles is SetRoles.
func (c *call) setRoles() error {
	q := custody.SetRoles{Roles: c.roles()}
	if at, name := c.form.string(0, "Client", required); at >= 0 {
		q.Client = string(name)
		if len(name) < 1 || len(name) > 64 || !printable(name) {
			c.form.failAt(at, "must be 1 to 64 printable characters")
		}
	}
	if err := c.check(); err != nil {
		return err
	}
	changed, err := c.custody.SetRoles(c.ctx, c.caller, c.id, q)
	if err != nil {
		c.asked = q.Client
		return err
	}
	return c.answerJSON(struct{ Client client }{wireClient(changed)})
}

// roles reads the member Roles.
func (c *call) roles() []custody.Role {
	f := &c.form
	list := f.list(0, "Roles", required)
	if list < 0 {
		return nil
	}
	roles := []custody.Role{}
	for at := list + 1; at < f.doc.nodes[list].next; at = f.doc.nodes[at].next {
		if len(roles) == mostRoles {
			f.failAt(list, "has too many roles")
			return nil
		}
		if f.doc.nodes[at].kind != kindString {
			f.failAt(at, "must be a string")
			continue
		}
		roles = append(roles, custody.Role(f.doc.bytes(f.doc.nodes[at].text)))
	}
	return roles
}
