package backup

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// Token is what a backup needs of the PKCS#11 boundary; hsm.Manager has it. It
// is safe for concurrent use. Its errors wrap the sentinels of package keys.
type Token interface {
	// Import makes a key block of a clear value, which it does not keep.
	Import(ctx context.Context, template keys.Block, value secret.Bytes) (*keys.Block, error)
	// Export returns the value of a genuine, exportable key block.
	Export(ctx context.Context, b *keys.Block) (secret.Bytes, error)
}

// A file key is a key block with this policy tag. No request can make a key
// with it, so no key of the store can be passed off as that of a file.
const (
	tagPurpose    = "keyd:purpose"
	purposeBackup = "backup"
)

// errPurpose is a genuine key block that is no file key.
var errPurpose = errors.New("backup: the key block is not that of a backup")

type keeper struct {
	ctx   context.Context
	token Token
	clock func() time.Time
}

// NewKeeper returns a keeper whose keys stand under the token's local master key.
func NewKeeper(ctx context.Context, token Token, clock func() time.Time) Keeper {
	return keeper{ctx, token, clock}
}

// Wrap implements [Keeper].
func (k keeper) Wrap(fileKey secret.Bytes) ([]byte, error) {
	b, err := k.token.Import(k.ctx, keys.Block{
		ID:      keys.ID(randomID()),
		Version: 1,
		Attributes: keys.Attributes{
			Usage: keys.UsageData, Algorithm: keys.AES128, Mode: keys.ModeBoth, Exportability: keys.Exportable,
		},
		CreatedMs: k.clock().UnixMilli(),
		Policy:    map[string]string{tagPurpose: purposeBackup},
	}, fileKey)
	if err != nil {
		return nil, fmt.Errorf("backup: wrap the file's key: %w", err)
	}
	return b.MarshalBinary()
}

// Unwrap implements [Keeper].
func (k keeper) Unwrap(wrapped []byte) (secret.Bytes, error) {
	b, err := keys.ParseBlock(wrapped)
	if err != nil {
		return secret.Bytes{}, err
	}
	if b.Policy[tagPurpose] != purposeBackup {
		return secret.Bytes{}, errPurpose
	}
	return k.token.Export(k.ctx, b)
}

// randomID is an id as key blocks have it; nobody looks for it.
func randomID() string {
	const alphabet = "0123456789abcdefghijklmnopqrstuv" // 32, so that each byte gives one without bias
	var id [32]byte
	_, _ = rand.Read(id[:]) // never fails; it ends the process instead
	for i, b := range id {
		id[i] = alphabet[b%32]
	}
	return string(id[:])
}
