package main

import (
	"fmt"
	"strings"

	"keyd.dev/keyd/internal/custody"
)

type clientCmd struct {
	Ls    clientLsCmd    `cmd:"" help:"List the clients and their roles."`
	Roles clientRolesCmd `cmd:"" help:"Give a client these roles and no others; takes effect at once."`
}

type clientLsCmd struct {
	doorFlags
	JSON bool `help:"Print JSON lines."`
}

type clientRolesCmd struct {
	doorFlags
	Name  string   `arg:"" help:"The client."`
	Roles []string `required:"" placeholder:"ROLE" help:"application, admin, operator, custodian, auditor, terminal, separated by commas; none takes all roles away."`
}

// clientAnswer is a client as the daemon tells it.
type clientAnswer struct {
	Name            string   `json:"Name"`
	URI             string   `json:"Uri"`
	Roles           []string `json:"Roles"`
	ConfiguredRoles []string `json:"ConfiguredRoles"`
	Changed         bool     `json:"Changed"`
	Keys            []string `json:"Keys,omitempty"`
	Operations      []string `json:"Operations,omitempty"`
}

// Run lists the clients.
func (c *clientLsCmd) Run(p *program) error {
	d, err := c.open()
	if err != nil {
		return err
	}
	var answer struct{ Clients []clientAnswer }
	if err := d.own(p.ctx, string(custody.OpGetClients), struct{}{}, &answer); err != nil {
		return err
	}
	out := newTable(p.stdout, c.JSON, "NAME", "ROLES", "CONFIGURED", "KEYS", "OPERATIONS", "URI")
	for _, one := range answer.Clients {
		configured := "the same"
		if one.Changed {
			configured = words(one.ConfiguredRoles)
		}
		operations := "all of the roles"
		if len(one.Operations) > 0 {
			operations = words(one.Operations)
		}
		out.row(one, one.Name, words(one.Roles), configured, words(one.Keys), operations, one.URI)
	}
	return out.flush()
}

// Run changes the roles of a client.
func (c *clientRolesCmd) Run(p *program) error {
	roles := c.Roles
	if len(roles) == 1 && roles[0] == "none" {
		roles = []string{}
	}
	d, err := c.open()
	if err != nil {
		return err
	}
	var answer struct{ Client clientAnswer }
	query := map[string]any{"Client": c.Name, "Roles": roles}
	if err := d.own(p.ctx, string(custody.OpSetRoles), query, &answer); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "client %s: %s\n", answer.Client.Name, words(answer.Client.Roles))
	return err
}

func words(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ",")
}
