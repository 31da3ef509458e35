package custody

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/pin"
)

// Config is what custody is made of. All members but Maker and the limits are
// needed.
type Config struct {
	Token     Token
	Maker     Maker // nil: no key can be made or imported
	Store     Store
	Log       Log
	Clients   []Client
	Clock     func() time.Time
	Serial    string // of the token, for the records
	CacheKeys int    // key records kept in memory; 0 is 65,536
	Malformed Malformed
	LegacyPIN []string // PIN block formats of before ISO 9564 that keys may be made for: eci2, eci3, visa2, visa3
}

// Malformed limits refused PIN blocks for one client and incoming key, so that
// nobody can use the answers as an oracle (section 17, row 3 of the API).
type Malformed struct {
	PerMinute int // 0 is 50
	PerHour   int // then the key's PIN use stops until keyd is started again; 0 is 500
}

// Custody carries out operations with keys. It is safe for concurrent use.
type Custody struct {
	token   Token
	maker   Maker
	log     Log
	clients map[string]Client
	clock   func() time.Time
	serial  string
	book    *book
	refused *refusals
	legacy  []string
	data    keys.Key // keyd's own, for card data
}

// New checks the configuration and returns a Custody.
func New(cfg Config) (*Custody, error) {
	if cfg.Token == nil || cfg.Store == nil || cfg.Log == nil || cfg.Clock == nil {
		return nil, errors.New("custody: token, store, log and clock are all needed")
	}
	clients := make(map[string]Client, len(cfg.Clients))
	for _, client := range cfg.Clients {
		if err := client.check(); err != nil {
			return nil, err
		}
		if _, twice := clients[client.URI]; twice {
			return nil, fmt.Errorf("custody: two clients have the identity %q", client.URI)
		}
		clients[client.URI] = client
	}
	for _, name := range cfg.LegacyPIN {
		if _, err := pin.ParseLegacy(name); err != nil {
			return nil, fmt.Errorf("custody: legacy PIN block formats: %w", err)
		}
	}
	data, err := cfg.Token.System("data")
	if err != nil {
		return nil, tokenError("finding the key for card data", err)
	}
	return &Custody{
		token:   cfg.Token,
		maker:   cfg.Maker,
		log:     cfg.Log,
		clients: clients,
		clock:   cfg.Clock,
		serial:  cfg.Serial,
		book:    newBook(cfg.Store, cfg.CacheKeys),
		refused: newRefusals(cfg.Malformed, cfg.Clock),
		data:    data,
		legacy:  slices.Clone(cfg.LegacyPIN),
	}, nil
}

// WithoutMaker returns a Custody over the same parts that can make no key: what
// the path of transactions is given.
func (c *Custody) WithoutMaker() *Custody {
	user := *c
	user.maker = nil
	return &user
}

// Identify returns the configured client of a verified certificate: by its
// first URI SAN, or its first DNS SAN where it has no URI. It returns
// [ErrDenied] for a certificate that no client has (C-06).
func (c *Custody) Identify(cert *x509.Certificate) (Client, error) {
	name := ""
	switch {
	case len(cert.URIs) > 0:
		name = cert.URIs[0].String()
	case len(cert.DNSNames) > 0:
		name = cert.DNSNames[0]
	}
	client, ok := c.clients[name]
	if !ok || name == "" {
		return Client{}, fmt.Errorf("%w: no client has the certificate's identity", ErrDenied)
	}
	return client, nil
}

// Ready reports why nothing can be recorded, or nil.
func (c *Custody) Ready() error {
	if err := c.log.Ready(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// Random fills p from the token's generator.
func (c *Custody) Random(p []byte) error {
	if err := c.token.Random(p); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// SwitchCaller is the switch core at work for the peer of a link.
func SwitchCaller(name string, kind audit.ActorKind, addr, conn, cert string) Caller {
	return Caller{
		Client: Client{Name: name, Roles: []Role{RoleSwitch}, Keys: []string{"*"}},
		Kind:   kind,
		Addr:   addr,
		Conn:   conn,
		Cert:   cert,
	}
}

// SystemCaller is keyd itself at a terminal of the machine: `keyd dev` and the
// commands that an operator runs beside the daemon.
func SystemCaller(name string, roles ...Role) Caller {
	return Caller{Client: Client{Name: name, Roles: roles, Keys: []string{"*"}}, Kind: audit.ActorSystem}
}

// unavailable says whether err is about a part that is away rather than about
// the request.
func unavailable(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
