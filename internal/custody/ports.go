package custody

import (
	"context"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// Token is what custody needs of the PKCS#11 boundary to use keys. It is safe
// for concurrent use. Its errors wrap the sentinels of package keys.
type Token interface {
	// Load gives the key of a block, from the cache or unwrapped anew.
	Load(ctx context.Context, b *keys.Block) (*keys.Loaded, error)
	// Derived gives the key whose value is ECB(key of base, data), cached.
	Derived(ctx context.Context, base *keys.Block, data []byte, as keys.Spec) (*keys.Loaded, error)
	// System gives one of keyd's own keys: "data" (AES-256) or "token" (HMAC).
	System(name string) (keys.Key, error)
	// Random fills p from the token's generator.
	Random(p []byte) error
}

// Maker makes key blocks. It is a second type, so that the code on the path of
// transactions holds nothing that could create or export a key.
type Maker interface {
	// Generate makes a new value in the token and returns the template as a
	// whole block, and whether the clear value crossed this process.
	Generate(ctx context.Context, template keys.Block) (b *keys.Block, inProcess bool, err error)
	// Import takes a clear value; it does not keep it.
	Import(ctx context.Context, template keys.Block, value secret.Bytes) (*keys.Block, error)
}

// Store keeps what is not secret: key blocks, aliases, stored answers. It is
// safe for concurrent use; what it has accepted is durable when it returns.
type Store interface {
	ApprovalStore
	RoleStore
	LifeStore
	CountStore
	KSNStore
	// AddKey stores a new key and, in the same commit, the answer of once (which may be nil).
	// It returns ErrRepeated when the principal used the invocation id before.
	AddKey(ctx context.Context, k KeyRecord, once *Once) error
	// Key returns the key with its aliases, or ErrNoKey.
	Key(ctx context.Context, id keys.ID) (KeyRecord, error)
	// Keys returns up to q.Limit keys in the order of their ids, those after q.After.
	Keys(ctx context.Context, q KeyQuery) ([]KeyRecord, error)
	// AddAlias stores a new alias; ErrAliasExists when it points to another key; ErrRepeated as AddKey.
	AddAlias(ctx context.Context, a Alias, once *Once) error
	// Alias returns the alias, or ErrNoAlias.
	Alias(ctx context.Context, name string) (Alias, error)
	// ChangeKeys runs fn, which notes changes of keys and aliases, and makes them
	// in one commit together with the answer of once, which may be nil and which fn
	// may fill in. Changes are made one after the other; fn must not block.
	ChangeKeys(ctx context.Context, once *Once, fn func(KeyChange) error) error
	// Recall returns the stored answer to an invocation, or ErrNoAnswer.
	Recall(ctx context.Context, principal, invocation string) (Once, error)
}

// KeyChange notes changes of keys and aliases that are made together. What it
// shows is what there was before the change.
type KeyChange interface {
	// Key returns the key with its aliases, or ErrNoKey.
	Key(id keys.ID) (KeyRecord, error)
	// AddKey adds a new key with its aliases.
	AddKey(k KeyRecord) error
	// SetKey replaces a key's record, or returns ErrNoKey; k.Aliases is not looked at.
	SetKey(k KeyRecord) error
	// Alias returns the alias, or ErrNoAlias.
	Alias(name string) (Alias, error)
	// AddAlias adds an alias: ErrAliasExists when it points to another key.
	AddAlias(a Alias) error
	// SetAlias adds an alias, or lets it point elsewhere; ErrNoKey.
	SetAlias(a Alias) error
	// DropAlias takes an alias away, or returns ErrNoAlias.
	DropAlias(name string) error
}

// Log is what custody needs of the audit log; *audit.Log has it. It is safe for
// concurrent use. What a ticket has appended is durable when Append returns.
type Log interface {
	Reserve(ctx context.Context, id audit.LogID, n int) (*audit.Ticket, error)
	Ready() error
	// PAN gives what may be recorded of a PAN: some digits and a keyed token.
	PAN(digits []byte) (audit.PAN, error)
	// UnregisteredTerminal and UnregisteredMerchant give the keyed tokens of
	// identifiers that do not stand in the registers.
	UnregisteredTerminal(id []byte) (audit.Name, error)
	UnregisteredMerchant(id []byte) (audit.Name, error)
}
