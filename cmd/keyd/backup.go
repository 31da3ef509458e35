package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/backup"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/store"
	"keyd.dev/keyd/keys"
)

type backupCmd struct {
	Create  backupCreateCmd  `cmd:"" help:"Let the daemon write a backup into the folder that its configuration names."`
	Verify  backupVerifyCmd  `cmd:"" help:"Prove that a backup would restore beside this token, without restoring it."`
	Restore backupRestoreCmd `cmd:"" help:"Make a new node of a backup, beside a token that holds the same local master key."`
}

type backupCreateCmd struct {
	doorFlags
	JSON bool `help:"Print JSON."`
}

// backupMade is the daemon's answer.
type backupMade struct {
	File   string
	Bytes  int64
	SHA256 string
	LMK    uint32
	Made   time.Time
	Rows   map[string]int

	Transit    string `json:",omitempty"` // key of Vault that opens the second wrap
	Custodians int    `json:",omitempty"` // who open it without
}

// Run asks the daemon for a backup.
func (c *backupCreateCmd) Run(p *program) error {
	d, err := c.open()
	if err != nil {
		return err
	}
	var made backupMade
	if err := d.own(p.ctx, string(custody.OpBackup), struct{}{}, &made); err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(p.stdout).Encode(made)
	}
	_, err = fmt.Fprintf(p.stdout, "%s: %d bytes, SHA-256 %s\n%skeys %d, aliases %d, terminals %d; it opens beside a token with generation %d of the local master key\n",
		made.File, made.Bytes, made.SHA256, made.wrapNote(), made.Rows["key"], made.Rows["alias"], made.Rows["terminal"], made.LMK)
	return err
}

type backupVerifyCmd struct {
	backupFlags
	File   string `arg:"" help:"The backup."`
	Config string `required:"" placeholder:"FILE" help:"The configuration, for the token."`
}

// Run proves that the backup would restore. It writes nothing but a scratch
// database, which it removes.
func (c *backupVerifyCmd) Run(p *program) error {
	if err := harden(); err != nil {
		return err
	}
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	opener, done, err := c.opener(p.ctx, cfg, newLogger(p.stderr, "warn"))
	if err != nil {
		return err
	}
	defer done()
	token, err := openToken(p.ctx, cfg, newLogger(p.stderr, "warn"), newMetrics())
	if err != nil {
		return err
	}
	proof, err := proveBackup(p.ctx, c.File, opener, token)
	if err := errors.Join(err, token.Close()); err != nil {
		return unproven(err)
	}
	return proof.print(p, "would restore")
}

// unproven gives a backup that is no good the exit code for it.
func unproven(err error) error {
	for _, is := range []error{backup.ErrNotBackup, backup.ErrKey, backup.ErrDamaged, store.ErrCorrupt, store.ErrSchema, keys.ErrBlockMAC, keys.ErrLMK, keys.ErrCheckValue} {
		if errors.Is(err, is) {
			return &exitError{code: exitVerify, err: fmt.Errorf("the backup would not restore: %w", err)}
		}
	}
	return err
}

// proof is what is known of a backup that restores.
type proof struct {
	header   backup.Header
	rows     map[string]int
	examined int // key blocks that the token can use
}

func (b *proof) print(p *program, verb string) error {
	_, err := fmt.Fprintf(p.stdout, "the backup of node %s of %s %s: %d key blocks examined in the token\n",
		b.header.Node, b.header.Made.UTC().Format(time.RFC3339), verb, b.examined)
	for _, table := range slices.Sorted(maps.Keys(b.rows)) {
		if err == nil {
			_, err = fmt.Fprintf(p.stdout, "%-16s %d\n", table, b.rows[table])
		}
	}
	return err
}

// proveBackup restores a backup into a scratch database, checks that, and lets
// the token examine every key block.
func proveBackup(ctx context.Context, file string, opener backup.Opener, token *hsm.Token) (_ *proof, err error) {
	m := hsm.NewManager(token)
	dir, err := os.MkdirTemp("", "keyd-backup-")
	if err != nil {
		return nil, fmt.Errorf("making a scratch folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "keyd.db")
	b, err := unpack(ctx, file, opener, path, m)
	if err != nil {
		return nil, err
	}
	if err := b.seals(token); err != nil {
		return nil, err
	}
	db, err := store.Open(ctx, store.Config{Path: path, Purpose: store.Visit})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.Check(ctx); err != nil {
		return nil, err
	}
	b.examined, err = examineAll(ctx, db, m)
	return b, err
}

// seals refuses a backup whose seals this token cannot check.
func (b *proof) seals(token *hsm.Token) error {
	key, err := sealKey(token)
	if err != nil {
		return err
	}
	own, err := backup.SealCheck(key)
	if err != nil {
		return err
	}
	return backup.CheckSeals(b.header, b.rows, own)
}

// unpack makes a database of a backup.
func unpack(ctx context.Context, file string, opener backup.Opener, path string, m *hsm.Manager) (_ *proof, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("opening the backup: %w", err)
	}
	defer f.Close()
	inside, err := backup.Open(ctx, f, opener)
	if err != nil {
		return nil, err
	}
	r, err := backup.NewReader(inside, backup.NewKeeper(ctx, m, time.Now))
	if err != nil {
		return nil, err
	}
	b := &proof{header: r.Header}
	err = store.Restore(ctx, path, r.Header.Schema, func(sink store.RowSink) error {
		end, err := r.All(sink)
		b.rows = end.Rows
		return err
	})
	return b, err
}

// examinePage is how many key blocks the token is given at a time.
const examinePage = 500

// examineAll lets the token examine every block that has a value.
func examineAll(ctx context.Context, db *store.DB, m *hsm.Manager) (int, error) {
	q, n := custody.KeyQuery{Limit: examinePage}, 0
	for {
		page, err := db.Keys(ctx, q)
		if err != nil || len(page) == 0 {
			return n, err
		}
		blocks := make([]*keys.Block, len(page))
		for i, k := range page {
			blocks[i] = k.Block
		}
		if err := m.Examine(ctx, blocks); err != nil {
			return n, err
		}
		n += len(page)
		q.After = page[len(page)-1].Block.ID
	}
}

type backupRestoreCmd struct {
	backupFlags
	File   string `arg:"" help:"The backup."`
	Config string `required:"" placeholder:"FILE" help:"The configuration of the new node."`
}

// Run makes a new node, or gives an empty or lost database of one its contents;
// the audit log, where there is one, goes on. It proves the backup before it
// begins, and touches no database that holds anything.
func (c *backupRestoreCmd) Run(p *program) error {
	if err := harden(); err != nil {
		return err
	}
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	b, err := c.restore(p, cfg)
	if err != nil {
		return unproven(err)
	}
	if err := b.print(p, "is restored"); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "KSNs that were used after the backup are not known: see docs/OPERATIONS.md before terminals connect\n")
	return err
}

func (c *backupRestoreCmd) restore(p *program, cfg *configFile) (*proof, error) {
	log, m := newLogger(p.stderr, "warn"), newMetrics()
	_, err := os.Stat(cfg.Audit.Dir)
	newLog := errors.Is(err, fs.ErrNotExist)
	b, err := c.fill(p.ctx, cfg, m)
	if err != nil {
		return nil, err
	}
	if err := c.found(p.ctx, cfg, log, m, b); err != nil {
		errs := []error{err, store.RemoveRestored(cfg.Store.Path)}
		if newLog {
			errs = append(errs, os.RemoveAll(cfg.Audit.Dir))
		}
		return nil, errors.Join(errs...)
	}
	return b, nil
}

// found lets the token and the log know the new database.
func (c *backupRestoreCmd) found(ctx context.Context, cfg *configFile, log *slog.Logger, m *metrics, b *proof) error {
	if err := os.MkdirAll(cfg.Audit.Dir, 0o750); err != nil {
		return fmt.Errorf("making the audit log's folder: %w", err)
	}
	n, err := openNodeAs(ctx, cfg, log, m, true)
	if err != nil {
		return err
	}
	err = errors.Join(n.recordAdopted(ctx, localRecord(os.Getuid())), n.recordRestored(ctx, b, c.File))
	return errors.Join(err, n.close(context.WithoutCancel(ctx)))
}

// fill proves the backup and makes the new database of it.
func (c *backupRestoreCmd) fill(ctx context.Context, cfg *configFile, m *metrics) (_ *proof, err error) {
	opener, done, err := c.opener(ctx, cfg, newLogger(os.Stderr, "warn"))
	if err != nil {
		return nil, err
	}
	defer done()
	token, err := openToken(ctx, cfg, newLogger(os.Stderr, "warn"), m)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, token.Close()) }()
	b, err := proveBackup(ctx, c.File, opener, token)
	if err != nil {
		return nil, err
	}
	if err := store.RemoveEmpty(ctx, cfg.Store.Path); err != nil {
		return nil, advise(err, "a backup is restored where there is no database, or one without keys; move %s away, or stop the daemon that has it", cfg.Store.Path)
	}
	_, err = unpack(ctx, c.File, opener, cfg.Store.Path, hsm.NewManager(token))
	return b, err
}

// recordRestored says in the log where the node comes from. The log of a new
// node was not there before, to hold the intent.
func (n *node) recordRestored(ctx context.Context, b *proof, file string) error {
	generation := uint32(0)
	for _, lmk := range b.header.LMK {
		generation = max(generation, lmk.Generation)
	}
	r := localRecord(os.Getuid())
	r.Action, r.Phase = audit.KeyRestore, audit.PhaseIntent
	r.Keys = []audit.Key{{Role: audit.KeyRoleKEK, ID: "keyd-lmk", Version: int(generation)}}
	r.HSM = audit.HSM{Serial: n.token.Info().Serial}
	hash, err := hashFile(file)
	if err != nil {
		return err
	}
	r.Change = &audit.Change{
		Kind: audit.ChangeKey, Object: "backup/" + b.header.Node + "/" + b.header.Made.UTC().Format("20060102T150405Z"), After: hash,
	}
	ticket, err := n.audit.Reserve(ctx, audit.Sec, 2)
	if err != nil {
		return fmt.Errorf("writing the audit log: %w", err)
	}
	defer ticket.Release()
	at, err := ticket.Append(r)
	if err != nil {
		return fmt.Errorf("writing the audit log: %w", err)
	}
	r.Phase, r.Outcome, r.Ref = 0, audit.OutcomeOK, at[0].ID
	if _, err := ticket.Append(r); err != nil {
		return fmt.Errorf("writing the audit log: %w", err)
	}
	return nil
}

// hashFile is the SHA-256 of a file.
func hashFile(path string) (sum [32]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, err
	}
	h.Sum(sum[:0])
	return sum, nil
}

// sealKey is the token's key for seals and prints.
func sealKey(token *hsm.Token) (keys.HMACKey, error) {
	key, err := token.System("token")
	if err != nil {
		return nil, fmt.Errorf("finding the key for seals: %w", err)
	}
	seals, ok := key.(keys.HMACKey)
	if !ok {
		return nil, errors.New("the token's key for seals makes no HMAC")
	}
	return seals, nil
}

// newArchive is where the daemon's backups go; nil where no folder is configured.
func (n *node) newArchive() (custody.Archiver, error) {
	if n.cfg.Backup.Dir == "" {
		return nil, nil
	}
	seals, err := sealKey(n.token)
	if err != nil {
		return nil, err
	}
	wrap, err := n.backupWrap()
	if err != nil {
		return nil, err
	}
	a, err := backup.New(backup.Config{
		Wrap: wrap,
		Dir:  n.cfg.Backup.Dir, Node: n.cfg.Audit.Node, Site: n.cfg.Audit.Site, Build: thisBuild().name(),
		Token: n.manager, DB: n.db, Clock: time.Now, Seals: seals,
		LMK: func(ctx context.Context) ([]backup.LMK, error) {
			list, err := n.manager.LMKs(ctx)
			var out []backup.LMK
			for _, l := range list {
				if l.Whole {
					out = append(out, backup.LMK{Generation: l.Generation, Check: l.Check.String()})
				}
			}
			return out, err
		},
	})
	if err != nil {
		return nil, err
	}
	return a, nil
}
