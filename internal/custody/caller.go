package custody

import (
	"fmt"
	"path"
	"slices"

	"keyd.dev/keyd/audit"
)

// Operation names what a caller may be allowed to do. The names are those of
// the API; the switch uses the same.
type Operation string

// The operations.
const (
	OpTranslatePIN Operation = "TranslatePinData"
	OpGenerateMAC  Operation = "GenerateMac"
	OpVerifyMAC    Operation = "VerifyMac"
	OpCreateKey    Operation = "CreateKey"
	OpGetKey       Operation = "GetKey"
	OpListKeys     Operation = "ListKeys"
	OpCreateAlias  Operation = "CreateAlias"
	OpGetAlias     Operation = "GetAlias"
)

// Role is what a principal is; it decides which operations it may do.
type Role string

// The roles.
const (
	RoleApplication Role = "application" // uses keys, reads keys and aliases
	RoleAdmin       Role = "admin"       // the control plane, no key use
	RoleOperator    Role = "operator"    // reads the control plane
	RoleCustodian   Role = "custodian"   // ceremonies only
	RoleAuditor     Role = "auditor"     // reads the log only
	RoleTerminal    Role = "terminal"    // the switch listener only
	RoleSwitch      Role = "switch"      // keyd's own switch core; never in a config
)

// Roles lists the roles that a config may give.
func Roles() []Role {
	return []Role{RoleApplication, RoleAdmin, RoleOperator, RoleCustodian, RoleAuditor, RoleTerminal}
}

// may is the permission matrix: the operations of each role.
func (r Role) may(op Operation) bool {
	switch op {
	case OpTranslatePIN, OpGenerateMAC, OpVerifyMAC:
		return r == RoleApplication || r == RoleSwitch
	case OpCreateKey, OpCreateAlias:
		return r == RoleAdmin
	case OpGetKey, OpGetAlias, OpListKeys:
		return r == RoleApplication || r == RoleAdmin || r == RoleOperator
	}
	return false
}

// Client is a principal of the config: who, what it may do, with which keys.
type Client struct {
	Name  string   // in records and answers
	URI   string   // the first URI SAN of its certificate, else the first DNS SAN
	Roles []Role   // may be empty: then every operation is refused
	Keys  []string // alias patterns of path.Match, or "*" for every key
}

// Caller is a client on a connection.
type Caller struct {
	Client
	Kind audit.ActorKind
	Addr string // ip:port
	Conn string // connection id
	Cert string // SHA-256 of the certificate, lower-case hex
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
	if c.Has(RoleAdmin) && c.Has(RoleApplication) {
		return fmt.Errorf("custody: client %q: whoever administers keys may not use them", c.Name)
	}
	for _, pattern := range c.Keys {
		if _, err := path.Match(pattern, "alias/x"); err != nil {
			return fmt.Errorf("custody: client %q: key pattern %q: %w", c.Name, pattern, err)
		}
	}
	return nil
}
