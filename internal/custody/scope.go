package custody

import (
	"fmt"
	"path"
	"strings"
)

// ownTID stands in the identity of a client for the TID in that of a terminal's
// own certificate: "spiffe://acquirer/terminal/{tid}".
const ownTID = "{tid}"

// The lengths of DE 41 and DE 42.
const (
	tidLength = 8
	midLength = 15
)

// Scope is the terminals that a client may speak for on its link. A nil Scope
// has them all.
type Scope struct{ terminals, merchants names }

// names are exact ones, ranges and patterns. None at all are all.
type names struct {
	exact    map[string]bool
	ranges   [][2]string
	patterns []string
}

// Has reports whether a registered terminal is in the scope: its TID (DE 41) and
// its MID (DE 42) both must be.
func (s *Scope) Has(tid, mid string) bool {
	return s == nil || s.terminals.has(tid) && s.merchants.has(mid)
}

func (n *names) has(name string) bool {
	if n.exact[name] {
		return true
	}
	for _, r := range n.ranges {
		if len(name) == len(r[0]) && r[0] <= name && name <= r[1] {
			return true
		}
	}
	for _, p := range n.patterns {
		if ok, _ := path.Match(p, name); ok { // what is no pattern was refused before
			return true
		}
	}
	return n.exact == nil
}

// CheckScope returns an error for lists of terminals and merchants that no client
// can have: names of DE 41 and DE 42, FIRST-LAST for a range of them, or patterns
// with * and ?.
func CheckScope(terminals, merchants []string) error {
	_, err := newScope(terminals, merchants)
	return err
}

// newScope reads the lists. Without any it returns nil, which has all.
func newScope(terminals, merchants []string) (*Scope, error) {
	if len(terminals)+len(merchants) == 0 {
		return nil, nil
	}
	t, err := namesOf("TID", terminals, tidLength)
	if err != nil {
		return nil, err
	}
	m, err := namesOf("MID", merchants, midLength)
	if err != nil {
		return nil, err
	}
	return &Scope{t, m}, nil
}

func namesOf(what string, list []string, length int) (n names, err error) {
	if len(list) > 0 {
		n.exact = make(map[string]bool, len(list))
	}
	for _, text := range list {
		switch _, err := path.Match(text, "x"); {
		case len(text) == 2*length+1 && text[length] == '-':
			first, last := text[:length], text[length+1:]
			if first > last {
				return n, fmt.Errorf("custody: the range %q of %ss ends before it begins", text, what)
			}
			n.ranges = append(n.ranges, [2]string{first, last})
		case strings.ContainsAny(text, "*?[") && err == nil:
			n.patterns = append(n.patterns, text)
		case len(text) == length && err == nil:
			n.exact[text] = true
		default:
			return n, fmt.Errorf("custody: %q is no %s of %d characters, no range FIRST-LAST of them and no pattern with * or ?", text, what, length)
		}
	}
	return n, nil
}

// OwnTerminal is the TID that the certificate names, of a client with {tid} in its
// identity; empty of another, and where it is not letters and digits alone.
func (c Client) OwnTerminal() string { return c.own }

// Scope is the terminals that the client may speak for.
func (c Client) Scope() *Scope { return c.scope }

// checkScope refuses a scope that the client should not have. Only a client whose one role is that of a
// terminal has one, and only such a client may stand for many certificates.
func (c Client) checkScope() error {
	alone := len(c.Roles) == 1 && c.Roles[0] == RoleTerminal
	if !alone && (len(c.Terminals)+len(c.Merchants) > 0 || strings.Contains(c.URI, ownTID)) {
		return fmt.Errorf("custody: client %q: terminals, merchants and %s in the identity are for a client whose one role is %s", c.Name, ownTID, RoleTerminal)
	}
	if strings.Count(c.URI, ownTID) > 1 {
		return fmt.Errorf("custody: client %q: %s stands twice in its identity", c.Name, ownTID)
	}
	if err := CheckScope(c.Terminals, c.Merchants); err != nil {
		return fmt.Errorf("client %q: %w", c.Name, err)
	}
	return nil
}

// ownTerminal returns the client as it is for the certificate of one terminal,
// whose TID stands in the identity where the client's has {tid}. It may speak for
// that terminal alone, where the client's own lists have it.
func (c Client) ownTerminal(uri string) (Client, bool) {
	before, after, _ := strings.Cut(c.URI, ownTID)
	if len(uri) != len(before)+tidLength+len(after) || !strings.HasPrefix(uri, before) || !strings.HasSuffix(uri, after) {
		return Client{}, false
	}
	own := Scope{terminals: names{exact: map[string]bool{}}}
	if c.scope != nil {
		own.merchants = c.scope.merchants
	}
	tid := uri[len(before) : len(before)+tidLength]
	if c.scope == nil || c.scope.terminals.has(tid) {
		own.terminals.exact[tid] = true
	}
	c.URI, c.scope = uri, &own
	if !strings.ContainsFunc(tid, func(r rune) bool { return (r|0x20 < 'a' || r|0x20 > 'z') && (r < '0' || r > '9') }) {
		c.own = tid
	}
	return c, true
}
