package custody

import (
	"context"
	"fmt"
	"time"

	"keyd.dev/keyd/audit"
)

// Archiver makes a backup of key blocks, registry and policies. It is safe for
// concurrent use; what it returns is durable.
type Archiver interface {
	Make(ctx context.Context) (Backup, error)
}

// Backup describes a backup that was made.
type Backup struct {
	File   string // its name in the directory of backups
	Bytes  int64
	SHA256 [32]byte       // of the file
	Rows   map[string]int // by table
	At     time.Time
	LMK    uint32 // generation that opens it

	Transit    string // key of Vault that opens its second wrap; "" without one
	Custodians int    // who open that without Vault
}

// lmkName is the name of the local master key in records.
const lmkName = "keyd-lmk"

// MakeBackup makes a backup in the directory that the configuration names. Its
// hash is in the log, so that an older or foreign file cannot pass for it. It
// returns [ErrDenied], [ErrConflict] where no directory is configured, or
// [ErrUnavailable].
func (c *Custody) MakeBackup(ctx context.Context, caller Caller, corr string) (Backup, error) {
	if !caller.may(OpBackup) {
		return Backup{}, c.refuse(ctx, caller, corr, OpBackup, fmt.Errorf("%w: no role of the caller has %s", ErrDenied, OpBackup))
	}
	if c.archive == nil {
		return Backup{}, fmt.Errorf("%w: no directory for backups is configured; set backup.dir", ErrConflict)
	}
	var made Backup
	r := c.changeRecord(caller, corr, audit.KeyBackup, audit.ChangeKey, "backup")
	r.Keys = []audit.Key{{Role: audit.KeyRoleKEK, ID: lmkName, Version: 1}}
	err := c.intended(ctx, r, func(r *audit.Record) error {
		var err error
		if made, err = c.archive.Make(ctx); err != nil {
			return fmt.Errorf("%w: making the backup: %w", ErrUnavailable, err)
		}
		r.Keys[0].Version = int(made.LMK)
		r.Change = &audit.Change{Kind: audit.ChangeKey, Object: "backup/" + made.File, After: made.SHA256}
		return nil
	})
	return made, err
}
