package custody

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// TerminalMaker makes the keys of terminals and puts them under their master
// keys. *hsm.Manager is one. Its errors wrap the sentinels of package keys.
type TerminalMaker interface {
	// GenerateBatch makes all keys or none.
	GenerateBatch(ctx context.Context, wanted []keys.Wanted) ([]keys.Made, error)
	// Deliver enciphers TDES working keys by ECB under a master key.
	Deliver(ctx context.Context, master *keys.Block, list []*keys.Block) (out []keys.Cryptogram, inProcess bool, err error)
	// WorkingValue gives the clear value of a working key, to be put under the
	// master key at once and cleared.
	WorkingValue(ctx context.Context, master, b *keys.Block) (secret.Bytes, error)
}

// Terminals is what the registry of terminals is made of; all but the profiles
// is needed.
type Terminals struct {
	Store    TerminalStore
	Maker    TerminalMaker
	Profiles []TerminalProfile // beside and in place of [TerminalProfiles]
}

// terminals is the registry at work.
type terminals struct {
	store    TerminalStore
	maker    TerminalMaker
	profiles atomic.Pointer[map[string]TerminalProfile] // see [Custody.Renew]
	seal     keys.HMACKey                               // of prints

	// changing is held while terminals change, so that each change begins with
	// what the last one left.
	changing sync.Mutex
}

func newTerminals(cfg *Terminals, token Token) (*terminals, error) {
	if cfg == nil {
		return nil, nil
	}
	if cfg.Store == nil || cfg.Maker == nil {
		return nil, errors.New("custody: the registry of terminals needs a store and a maker")
	}
	profiles, err := profilesOf(cfg.Profiles)
	if err != nil {
		return nil, err
	}
	key, err := token.System("token")
	if err != nil {
		return nil, tokenError("finding the key for prints", err)
	}
	seal, ok := key.(keys.HMACKey)
	if !ok {
		return nil, errors.New("custody: the key for prints makes no HMAC")
	}
	r := &terminals{store: cfg.Store, maker: cfg.Maker, seal: seal}
	r.profiles.Store(&profiles)
	return r, nil
}

// registry returns the registry for a caller that may do op. It returns
// [ErrDenied], or [ErrUnavailable] where this process has none.
func (c *Custody) registry(ctx context.Context, caller Caller, corr string, op Operation) (*terminals, error) {
	if !caller.may(op) {
		return nil, c.refuse(ctx, caller, corr, op, fmt.Errorf("%w: no role of the caller has %s", ErrDenied, op))
	}
	if c.terminals == nil {
		return nil, fmt.Errorf("%w: this process has no registry of terminals", ErrUnavailable)
	}
	return c.terminals, nil
}

// printMark keeps prints apart from what else the token key seals.
const printMark = "keyd terminal key print 1\n"

// print is the keyed fingerprint of a key: the same for the same value, and of
// no use without the token. made is what the key makes of [keys.PrintData]. A-04.
func (r *terminals) print(a keys.Algorithm, made []byte) (print [16]byte, err error) {
	text := append([]byte(printMark), byte(a))
	mac, err := r.seal.HMAC(append(text, made...))
	if err != nil {
		return print, tokenError("making the print of a key", err)
	}
	copy(print[:], mac)
	return print, nil
}

// printOf is the print of a stored key, which must be able to encipher.
func (c *Custody) printOf(ctx context.Context, k KeyRecord) (print [16]byte, err error) {
	loaded, err := c.load(ctx, k)
	if err != nil {
		return print, err
	}
	defer loaded.Release()
	a := k.Block.Attributes.Algorithm
	made, err := loaded.Key.Encrypt(nil, keys.PrintData(a))
	if err != nil {
		return print, tokenError("making the print of a key", err)
	}
	return c.terminals.print(a, made)
}

// TerminalKey is a key of a terminal, in an answer.
type TerminalKey struct {
	Slot     string // TMK, TPK, TAK or TDK
	ID       keys.ID
	Version  uint32
	Check    keys.KCV
	Previous bool // of the set before
}

// TerminalView is a terminal with its keys.
type TerminalView struct {
	Terminal
	Has []TerminalKey
	// Of its present MAC key, where its block says so: the messages that it has
	// verified, how many it may, and when it is too old. Zero where there is none.
	Messages, MostMessages uint64
	Until                  time.Time
}

// GetTerminal returns a terminal. It returns [ErrDenied], [ErrNoTerminal] or
// [ErrUnavailable].
func (c *Custody) GetTerminal(ctx context.Context, caller Caller, corr, tid string) (TerminalView, error) {
	r, err := c.registry(ctx, caller, corr, OpGetTerminal)
	if err != nil {
		return TerminalView{}, err
	}
	t, err := r.store.Registered(ctx, tid)
	if err != nil {
		return TerminalView{}, storeError("finding the terminal", err)
	}
	return c.viewOf(ctx, t)
}

func (c *Custody) viewOf(ctx context.Context, t Terminal) (TerminalView, error) {
	view := TerminalView{Terminal: t}
	add := func(s slot, id keys.ID, previous bool) error {
		if id == "" {
			return nil
		}
		k, err := c.book.store.Key(ctx, id)
		if err != nil {
			return storeError("finding the "+s.String(), err)
		}
		view.Has = append(view.Has, TerminalKey{s.String(), id, k.Block.Version, k.Block.Check, previous})
		return nil
	}
	for _, one := range []struct {
		s        slot
		id       keys.ID
		previous bool
	}{
		{slotMaster, t.Master, false},
		{slotPIN, t.Keys.PIN, false}, {slotMAC, t.Keys.MAC, false}, {slotData, t.Keys.Data, false},
		{slotPIN, t.Previous.PIN, true}, {slotMAC, t.Previous.MAC, true}, {slotData, t.Previous.Data, true},
	} {
		if err := add(one.s, one.id, one.previous); err != nil {
			return TerminalView{}, err
		}
	}
	if t.Keys.MAC == "" {
		return view, nil
	}
	if err := c.lasting(ctx, t, &view); err != nil {
		return TerminalView{}, err
	}
	return view, nil
}

// lasting adds how long the MAC key may still be used.
func (c *Custody) lasting(ctx context.Context, t Terminal, view *TerminalView) error {
	k, err := c.book.store.Key(ctx, t.Keys.MAC)
	if err != nil {
		return storeError("finding the MAC key", err)
	}
	l, err := limitsOf(k)
	if err != nil {
		return err
	}
	use, err := c.usage.snapshot(ctx, t.Keys.MAC)
	if err != nil {
		return err
	}
	if l.most > 0 {
		view.Messages, view.MostMessages = use.Uses-min(use.Uses, l.from), l.most-l.from
	}
	if l.aged != 0 {
		view.Until = time.Unix(0, l.aged).UTC()
	}
	return nil
}

// ListTerminals returns up to limit terminals in the order of their TIDs, those
// after the given one. It returns [ErrDenied] or [ErrUnavailable].
func (c *Custody) ListTerminals(ctx context.Context, caller Caller, corr, after string, limit int) ([]Terminal, error) {
	r, err := c.registry(ctx, caller, corr, OpListTerminals)
	if err != nil {
		return nil, err
	}
	list, err := r.store.Registry(ctx, after, limit)
	if err != nil {
		return nil, storeError("listing terminals", err)
	}
	return list, nil
}

// terminalKeys are keys in a record of the log sec.
func terminalKeys(list []KeyRecord) []audit.Key {
	all := make([]audit.Key, len(list))
	for i, k := range list {
		all[i] = keyEntrySec(audit.KeyRoleTarget, k.Block, keyName(k))
	}
	return all
}
