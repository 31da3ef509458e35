package custody

import (
	"fmt"
	"path"
	"slices"

	"keyd.dev/keyd/audit"
)

// Client is a principal of the config: who, what it may do, with which keys.
type Client struct {
	Name  string   // in records and answers
	URI   string   // the first URI SAN of its certificate, else the first DNS SAN
	Roles []Role   // may be empty: then every operation is refused
	Keys  []string // alias patterns of path.Match, or "*" for every key

	Operations []Operation // narrows the roles to these; none is no narrowing

	// Terminals and Merchants are what a client of the role terminal may speak
	// for: TIDs and MIDs, ranges FIRST-LAST of them, patterns of path.Match. None
	// is all. Where URI has {tid}, the certificate names its one terminal there.
	Terminals, Merchants []string

	scope *Scope // of the two, once the client was checked
	own   string // TID in the certificate, where URI had {tid}
}

// Caller is a client on a connection.
type Caller struct {
	Client
	Kind audit.ActorKind
	Addr string // ip:port
	Conn string // connection id
	Cert string // SHA-256 of the certificate, lower-case hex

	Terminal string // the TID in the certificate, of a client with {tid}; else empty

	Subject string   // of the certificate: two certificates of one subject are one person's
	Request [32]byte // SHA-256 of the request, which an approval is bound to; zero where nothing can be approved

	Invocation string // id that all deliveries of one call have in common; "" for none

	// Quorum are the custodians of a ceremony, who stand in for the second person.
	// Only a ceremony sets it.
	Quorum []audit.Approval
}

// Has reports whether the client has the role.
func (c Client) Has(role Role) bool {
	for _, r := range c.Roles {
		if r == role {
			return true
		}
	}
	return false
}

func (c Client) may(op Operation) bool {
	if len(c.Operations) > 0 && !slices.Contains(c.Operations, op) {
		return false
	}
	for _, r := range c.Roles {
		if r.may(op) {
			return true
		}
	}
	return false
}

// mayUse reports whether one of the client's patterns fits one of the names.
// Only "*" fits a key without an alias.
func (c Client) mayUse(names []string) bool {
	for _, pattern := range c.Keys {
		if pattern == "*" {
			return true
		}
		for _, name := range names {
			if ok, err := path.Match(pattern, name); ok && err == nil {
				return true
			}
		}
	}
	return false
}

// check refuses a client that the config should not have.
func (c Client) check() error {
	if c.Name == "" || c.URI == "" {
		return fmt.Errorf("custody: a client needs a name and an identity (name %q, uri %q)", c.Name, c.URI)
	}
	for _, role := range c.Roles {
		if !slices.Contains(Roles(), role) {
			return fmt.Errorf("custody: client %q: unknown role %q", c.Name, role)
		}
	}
	if a, b, found := conflict(c.Roles); found {
		return fmt.Errorf("custody: client %q: nobody may be both %s and %s", c.Name, a, b)
	}
	if err := c.checkScope(); err != nil {
		return err
	}
	for _, op := range c.Operations {
		if len(Permissions()[op]) == 0 {
			return fmt.Errorf("custody: client %q: unknown operation %q", c.Name, op)
		}
	}
	for _, pattern := range c.Keys {
		if _, err := path.Match(pattern, "alias/x"); err != nil {
			return fmt.Errorf("custody: client %q: key pattern %q: %w", c.Name, pattern, err)
		}
	}
	return nil
}
