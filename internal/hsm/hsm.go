// Package hsm is the PKCS#11 boundary: no other package sees a session, a
// handle, an attribute or a mechanism number.
//
// A [Token] uses keys: those of key blocks, which it unwraps under the token's
// local master key and keeps in a bounded cache, and a few of keyd's own. A
// [Manager] makes, imports and exports them; it is a second type, so that the
// path of a transaction never holds a value that could.
//
// What a module may do wrong is expected here. Each call has a deadline and is
// abandoned past it; a session that failed is not used again; a lost login or
// a dead module is brought back by one background goroutine, while callers
// get [keys.ErrUnavailable] at once; a PIN is tried once.
package hsm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// Token is an open token. Safe for concurrent use. Every key that it lends
// survives the loss of a session.
type Token struct {
	cfg   Config
	mod   cryptoki
	owner bool // of the module's initialisation
	slot  uint
	info  Info
	can   capabilities
	now   func() time.Time

	kept      keptPIN // empty unless it is kept
	pinMemory string
	entered   bool // the PIN has been asked for once

	condition  atomic.Pointer[condition]
	suspicions chan *suspicion
	mu         sync.Mutex
	suspected  *suspicion
	fallen     bool // the supervisor's: it has told of an outage
	systems    map[string]keys.Key

	dead   sync.Map   // of keys.ID: destroyed keys, of which no object is made again
	making sync.Mutex // token objects are made one after the other
	cache  *cache
	calls  sync.Pool // of *call
	stuck  atomic.Int64
	stats  counters

	reloaded time.Time
	stop     chan struct{}
	gone     chan struct{}
	once     sync.Once
}

// Info says which token this is.
type Info struct {
	Module       string // path
	Library      string // description and version, as the module has it
	Label        string
	Serial       string
	Manufacturer string
	Model        string
	Firmware     string
	Hardware     string
	// PINCountLow: a wrong PIN was given since the last right one.
	PINCountLow bool
	// PIN is what the token says against logging in, nil when nothing: it
	// wraps [ErrPIN].
	PIN error
	// Trials are the functions that the self-test tried, in the order of their
	// declaration; empty before one.
	Trials []Trial
	// Findings are what the self-test found the module not to enforce, or not to have.
	Findings []string
	// SelfTest is how long the self-test took. A rise is an early sign of trouble.
	SelfTest time.Duration
}

// Stats are counts since Open.
type Stats struct {
	Calls     uint64 // into the module, on behalf of keys
	Gathered  uint64 // uses of a key that shared the call of another
	Late      uint64 // calls that found no session before their deadline
	Abandoned uint64 // calls that did not return before their deadline
	Stuck     int64  // of these, those that have not come back yet
	Waiting   int64  // calls that wait for a session now
	Sessions  int    // that calls share, the keeper's not among them
	Busy      int64  // sessions in a call now, the keeper's among them
	Made      uint64 // key objects made in the token
	Destroyed uint64 // and destroyed again
	Hits      uint64 // of the cache
	Misses    uint64
	Evictions uint64
	Held      uint64 // keys in the cache
	Logins    uint64
	Epochs    uint64 // keeper sessions; all but the first after a loss
	Reloads   uint64 // of the module
}

type counters struct {
	calls, gathered, late, abandoned, made, destroyed, logins, epochs, reloads atomic.Uint64
	waiting, busy                                                              atomic.Int64
}

// Open loads the module, finds the token, logs in, tests the module with known
// answers, and starts the sessions.
//
// It returns [ErrConfig], [ErrModule], [ErrToken], [ErrPIN] or [ErrSelfTest],
// wrapped with what was found; [keys.ErrAmbiguous] when two master keys have
// one label. A wrong PIN was tried once.
func Open(cfg Config) (*Token, error) { return open(cfg, load) }

func open(cfg Config, load func(string) (cryptoki, error)) (*Token, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	mod, err := load(cfg.Module)
	if err != nil {
		return nil, err
	}
	t := &Token{
		cfg: cfg, mod: mod, now: time.Now,
		suspicions: make(chan *suspicion, 1), systems: make(map[string]keys.Key),
		cache: newCache(cfg.CacheKeys), stop: make(chan struct{}), gone: make(chan struct{}),
	}
	t.cache.objects = cfg.Objects
	if t.owner, err = start(mod, cfg); err != nil {
		return nil, err
	}
	if err := t.first(); err != nil {
		err = errors.Join(err, t.kept.drop())
		if t.owner {
			_ = mod.Finalize()
		}
		return nil, err
	}
	t.pinMemory = t.kept.kind
	go t.supervise()
	return t, nil
}

// first begins the first epoch.
func (t *Token) first() error {
	slot, info, err := findToken(t.mod, t.cfg.TokenLabel)
	if err != nil {
		return err
	}
	t.slot = slot
	t.info = describe(t.mod, t.cfg, info)
	e, err := t.begin()
	if err != nil {
		return err
	}
	t.publish(e, nil)
	if err := t.selfTest(e); err != nil {
		e.end()
		e.closeSessions()
		return err
	}
	return nil
}

// describe puts together what module and token say of themselves.
func describe(mod cryptoki, cfg Config, token pkcs11.TokenInfo) Info {
	info := Info{
		Module: cfg.Module, Label: token.Label, Serial: token.SerialNumber,
		Manufacturer: token.ManufacturerID, Model: token.Model,
		Firmware:    fmt.Sprintf("%d.%d", token.FirmwareVersion.Major, token.FirmwareVersion.Minor),
		Hardware:    fmt.Sprintf("%d.%d", token.HardwareVersion.Major, token.HardwareVersion.Minor),
		PINCountLow: token.Flags&pkcs11.CKF_USER_PIN_COUNT_LOW != 0,
	}
	if !cfg.NoPIN {
		info.PIN = checkPINFlags(token, cfg.FinalTry)
	}
	if lib, err := mod.GetInfo(); err == nil {
		info.Library = fmt.Sprintf("%s %d.%d", lib.LibraryDescription, lib.LibraryVersion.Major, lib.LibraryVersion.Minor)
	}
	return info
}

// Look says which token Open would open, and what the token says about its
// PIN, without logging in and without a self-test. The PIN is not asked for.
// It returns [ErrConfig], [ErrModule] or [ErrToken].
func Look(cfg Config) (Info, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return Info{}, err
	}
	mod, err := load(cfg.Module)
	if err != nil {
		return Info{}, err
	}
	owner, err := start(mod, cfg)
	if err != nil {
		return Info{}, err
	}
	if owner {
		defer func() { _ = mod.Finalize() }()
	}
	_, token, err := findToken(mod, cfg.TokenLabel)
	if err != nil {
		return Info{}, err
	}
	return describe(mod, cfg, token), nil
}

// Close ends every session and lets the module go. Calls under way get
// [keys.ErrUnavailable]. It waits for those inside the module no longer than
// their deadline.
func (t *Token) Close() error {
	t.once.Do(func() {
		close(t.stop)
		<-t.gone
		last := t.condition.Load().epoch
		t.publish(nil, ErrClosed)
		if last != nil {
			last.end()
			last.closeSessions()
		}
		_ = t.kept.drop()
		// A module is not finalised under a call that is still inside.
		if t.owner && t.stuck.Load() == 0 {
			_ = t.mod.Finalize()
		}
	})
	return nil
}

// Info says which token this is.
func (t *Token) Info() Info {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.info
}

// Stats returns the counts since Open.
func (t *Token) Stats() Stats {
	s := Stats{
		Calls: t.stats.calls.Load(), Gathered: t.stats.gathered.Load(), Late: t.stats.late.Load(), Abandoned: t.stats.abandoned.Load(), Stuck: t.stuck.Load(),
		Waiting: t.stats.waiting.Load(), Sessions: t.cfg.Sessions, Busy: t.stats.busy.Load(),
		Made: t.stats.made.Load(), Destroyed: t.stats.destroyed.Load(),
		Logins: t.stats.logins.Load(), Epochs: t.stats.epochs.Load(), Reloads: t.stats.reloads.Load(),
	}
	s.Hits, s.Misses, s.Evictions, s.Held = t.cache.counts()
	return s
}

// Check reports whether the token is fit for traffic: it is up, no call is
// stuck, it is initialised, and its block MAC key answers. It returns
// [keys.ErrUnavailable], [keys.ErrNoKey], or the error of ctx.
func (t *Token) Check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if n := t.stuck.Load(); n > 0 {
		return fmt.Errorf("hsm: check: %d calls: %w", n, errStuck)
	}
	c := t.newCall("check", t.cfg.Deadline)
	defer t.free(c)
	return t.try(c, func(e *epoch) error {
		lmk, err := e.master(e.newest())
		if err != nil {
			return fmt.Errorf("hsm: check: %w", err)
		}
		var zero, mac [16]byte
		return e.once(c, signing, pkcs11.CKM_AES_CMAC, pair{lmk.mac}, nil, zero[:], mac[:])
	})
}

// Random fills p from the token's generator. It returns [keys.ErrUnavailable].
func (t *Token) Random(p []byte) error {
	c := t.newCall("C_GenerateRandom", t.cfg.Deadline)
	defer t.free(c)
	return t.try(c, func(e *epoch) error {
		buf := make([]byte, len(p))
		err := e.perform(c, e.queue, func(s *session) error { return s.mod.random(s.handle, buf) })
		if err != nil {
			return err // buf may still be written to
		}
		copy(p, buf)
		secret.Clear(buf)
		return nil
	})
}

// renewed ends the present epoch for another, which finds the token's own keys anew.
func (t *Token) renewed(ctx context.Context) error {
	old := t.condition.Load().epoch
	for {
		now := t.condition.Load()
		var wait <-chan struct{}
		switch {
		case now.down != nil:
			return errors.Join(errRenew, now.down)
		case now.epoch == nil:
			wait = now.changed
		case now.epoch == old:
			wait = t.suspect(old, errRenew)
		default:
			return nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
