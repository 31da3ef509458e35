package custody

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
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
	Quotas    Quotas // zero: no limit
	Keeper    Keeper // nil: keys are not changed nor destroyed
	// Alarm is told of alarms about keys, which are in the log too; nil tells nobody.
	Alarm   func(alarm audit.Alarm, key keys.ID, why error)
	Archive Archiver // nil: no backups
	Prune   Pruner   // nil: nothing of the audit log is pruned
	// Observe is told what each operation with a key took; it must not block and
	// is safe for concurrent use. Nil is told nothing.
	Observe func(Measure)
	// Masters changes the local master key, and LMKStore keeps what is known of
	// its generations; both or neither.
	Masters   MasterKeys
	LMKStore  LMKStore
	Exchange  Exchange   // zero: no key comes in or goes out
	Terminals *Terminals // nil: no registry of terminals
	// Reversals is the queue of reversals; nil: operators do not see it.
	Reversals ReversalDesk
	// DualControl says which changes need a second person.
	DualControl DualControl
	// CardTokensSince gives the times at which tokens of cards left this node, as
	// the audit log has them; nil: none did before this process.
	CardTokensSince func(time.Time) ([]time.Time, error)
	LegacyPIN       []string // PIN block formats of before ISO 9564 that keys may be made for: eci2, eci3, visa2, visa3
}

// Malformed limits refused PIN blocks for one client and incoming key, so that
// nobody can use the answers as an oracle (section 17, row 3 of the API).
type Malformed struct {
	PerMinute int // 0 is 50
	PerHour   int // then the key's PIN use stops until keyd is started again; 0 is 500
}

// Custody carries out operations with keys. It is safe for concurrent use.
type Custody struct {
	token    Token
	maker    Maker
	log      Log
	clients  *clients
	dual     *dual
	clock    func() time.Time
	serial   string
	book     *book
	refused  *refusals
	quota    *quota
	denials  *denials
	readings *readings
	tokens   *cardTokens
	flood    *denials               // refusals of the switch
	failures *failures              // of the token
	lists    *atomic.Pointer[lists] // see [Custody.Renew]
	archive  Archiver
	pruner   Pruner
	exchange Exchange
	zones    *Custody // of one without a maker: who changes zone keys; nil: itself
	data     keys.Key // keyd's own, for card data

	life    *sync.Mutex // held while a key is changed
	keeper  Keeper
	usage   *usage
	sweeper *sweeper
	alarms  func(audit.Alarm, keys.ID, error)
	observe func(Measure)
	limited *atomic.Pointer[KeyLimits] // as the last sweep found them

	terminals *terminals
	signIns   *terminals    // the same, for terminals that sign in alone
	forget    func(keys.ID) // takes the objects of a replaced key out of the token
	reversals ReversalDesk

	masters    MasterKeys
	lmkStore   LMKStore
	rewrapping *sync.Mutex // held by who moves blocks to the newest local master key
}

// New checks the configuration and returns a Custody.
func New(cfg Config) (*Custody, error) {
	if cfg.Token == nil || cfg.Store == nil || cfg.Log == nil || cfg.Clock == nil {
		return nil, errors.New("custody: token, store, log and clock are all needed")
	}
	if (cfg.Masters == nil) != (cfg.LMKStore == nil) {
		return nil, errors.New("custody: who changes the local master key needs a store for it, and the other way round")
	}
	if err := cfg.Exchange.check(); err != nil {
		return nil, err
	}
	weak, err := newLists(cfg.LegacyPIN, cfg.Exchange.LegacyBlocks, cfg.Exchange.CryptogramImport, cfg.Exchange.CryptogramExport)
	if err != nil {
		return nil, err
	}
	data, err := cfg.Token.System("data")
	if err != nil {
		return nil, tokenError("finding the key for card data", err)
	}
	dual, err := newDual(cfg)
	if err != nil {
		return nil, err
	}
	changes, err := cfg.Store.RoleChanges(context.Background())
	if err != nil {
		return nil, storeError("reading changed roles", err)
	}
	clients, err := newClients(cfg.Clients, changes)
	if err != nil {
		return nil, err
	}
	quota, err := newQuota(cfg.Quotas)
	if err != nil {
		return nil, err
	}
	terminals, err := newTerminals(cfg.Terminals, cfg.Token)
	if err != nil {
		return nil, err
	}
	return &Custody{
		token:    cfg.Token,
		maker:    cfg.Maker,
		log:      cfg.Log,
		clients:  clients,
		dual:     dual,
		clock:    cfg.Clock,
		serial:   cfg.Serial,
		book:     newBook(cfg.Store, cfg.CacheKeys),
		refused:  newRefusals(cfg.Malformed, cfg.Clock),
		quota:    quota,
		denials:  newDenials(func(ctx context.Context, r audit.Record) error { return recordIn(ctx, cfg.Log, r) }, cfg.Clock),
		flood:    newDenials(func(ctx context.Context, r audit.Record) error { return recordIn(ctx, cfg.Log, r) }, cfg.Clock),
		readings: new(readings),
		tokens:   &cardTokens{since: cfg.CardTokensSince},
		failures: newFailures(),
		data:     data,
		lists:    weak.share(),
		archive:  cfg.Archive,
		pruner:   cfg.Prune,
		exchange: cfg.Exchange,
		life:     new(sync.Mutex),
		keeper:   cfg.Keeper,
		usage:    newUsage(cfg.Store, cfg.Clock),
		sweeper:  newSweeper(),
		alarms:   cfg.Alarm,
		observe:  observer(cfg.Observe),
		limited:  new(atomic.Pointer[KeyLimits]),

		terminals: terminals, signIns: terminals, forget: forgetter(cfg.Keeper),
		reversals: cfg.Reversals,

		masters: cfg.Masters, lmkStore: cfg.LMKStore, rewrapping: new(sync.Mutex),
	}, nil
}

// forgetter is [Keeper.Forget], or nothing where nobody keeps objects.
func forgetter(k Keeper) func(keys.ID) {
	if k == nil {
		return func(keys.ID) {}
	}
	return k.Forget
}

// WithoutMaker returns a Custody over the same parts that can make no key but
// those of a terminal that signs in, and take in none but a zone key that its host
// sends: what the path of transactions is given.
func (c *Custody) WithoutMaker() *Custody {
	user := *c
	user.maker, user.keeper, user.masters, user.terminals, user.reversals = nil, nil, nil, nil, nil
	user.exchange = Exchange{}
	user.zones = c
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
	client, ok := c.clients.of(name)
	if !ok || name == "" || strings.Contains(name, ownTID) {
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
