package custody

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"keyd.dev/keyd/keys"
)

const defaultCacheKeys = 1 << 16

// book finds keys by name and keeps what it found. All changes go through it,
// so what it keeps is what the store holds.
type book struct {
	store Store
	most  int

	mu      sync.RWMutex
	changes uint64 // so many times something was forgotten
	aliases map[string]keys.ID
	records map[keys.ID]KeyRecord
}

func newBook(store Store, most int) *book {
	if most <= 0 {
		most = defaultCacheKeys
	}
	b := &book{store: store, most: most}
	b.forgetAll()
	return b
}

// find returns the key that ref names: ErrNoKey where there is none.
func (b *book) find(ctx context.Context, ref Ref) (KeyRecord, error) {
	id := ref.ID
	if ref.Alias != "" {
		var err error
		if id, err = b.resolve(ctx, ref.Alias); err != nil {
			return KeyRecord{}, err
		}
	}
	b.mu.RLock()
	record, ok := b.records[id]
	changes := b.changes
	b.mu.RUnlock()
	if ok {
		return record, nil
	}
	record, err := b.store.Key(ctx, id)
	if err != nil {
		return KeyRecord{}, storeError("finding the key", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if changes != b.changes {
		return record, nil // it may have been read before a change
	}
	if len(b.records) >= b.most {
		b.records = make(map[keys.ID]KeyRecord)
	}
	b.records[id] = record
	return record, nil
}

func (b *book) resolve(ctx context.Context, name string) (keys.ID, error) {
	b.mu.RLock()
	id, ok := b.aliases[name]
	changes := b.changes
	b.mu.RUnlock()
	if ok {
		return id, nil
	}
	alias, err := b.store.Alias(ctx, name)
	if errors.Is(err, ErrNoAlias) {
		return "", fmt.Errorf("%w: no such alias", ErrNoKey)
	}
	if err != nil {
		return "", storeError("finding the alias", err)
	}
	if alias.Key == "" {
		return "", fmt.Errorf("%w: the alias has no key", ErrNoKey)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if changes != b.changes {
		return alias.Key, nil
	}
	if len(b.aliases) >= b.most {
		b.aliases = make(map[string]keys.ID)
	}
	b.aliases[name] = alias.Key
	return alias.Key, nil
}

// permit decides whether the client may do op with the key that ref names, and
// returns the key. A client that may not use the name learns nothing of whether
// the key exists. A key is allowed by any of its aliases, however it was named
// (section 17, row 2 of the API).
func (b *book) permit(ctx context.Context, client Client, op Operation, ref Ref) (KeyRecord, error) {
	if !client.may(op) {
		return KeyRecord{}, fmt.Errorf("%w: no role of the caller has %s", ErrDenied, op)
	}
	byName := ref.Alias != "" && client.mayUse([]string{ref.Alias}) || client.mayUse(nil)
	record, err := b.find(ctx, ref)
	switch {
	case byName:
		return record, err
	case err != nil && !errors.Is(err, ErrNoKey):
		return KeyRecord{}, err
	case err != nil || !client.mayUse(record.Aliases) && !b.inherits(ctx, client, record):
		return KeyRecord{}, fmt.Errorf("%w: not with this key", ErrDenied)
	}
	return record, nil
}

// inherits reports whether the key was replaced by one whose aliases the client
// may use: an older version goes by the names that it had.
func (b *book) inherits(ctx context.Context, client Client, k KeyRecord) bool {
	for range mostVersions {
		next := k.Life.Successor
		if next == "" {
			return false
		}
		var err error
		if k, err = b.find(ctx, Ref{ID: next}); err != nil {
			return false
		}
		if client.mayUse(k.Aliases) {
			return true
		}
	}
	return false
}

// forget drops what is known of the keys and aliases of a change.
func (b *book) forget(change keyEdit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changes++
	for _, put := range change.put {
		delete(b.records, put.new.Block.ID)
	}
	for _, alias := range change.set {
		b.forgetAlias(alias.Name)
		delete(b.records, alias.Key)
	}
	for _, name := range change.drop {
		b.forgetAlias(name)
	}
}

// forgetAlias drops an alias and the record that lists it. The caller holds the
// mutex.
func (b *book) forgetAlias(name string) {
	delete(b.records, b.aliases[name])
	delete(b.aliases, name)
}

func (b *book) forgetAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changes++
	b.aliases = make(map[string]keys.ID)
	b.records = make(map[keys.ID]KeyRecord)
}

// storeError keeps custody's own reasons and makes everything else ErrUnavailable.
func storeError(doing string, err error) error {
	for _, known := range []error{ErrKSN, ErrNoKey, ErrNoAlias, ErrAliasExists, ErrRepeated, ErrNoAnswer, ErrNoApproval, ErrConflict, ErrTampered, ErrNoTerminal, ErrTerminalTaken, ErrQuota, ErrUnavailable} {
		if errors.Is(err, known) {
			return fmt.Errorf("%s: %w", doing, err)
		}
	}
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, doing, err)
}
