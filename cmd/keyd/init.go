package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/store"
)

type initCmd struct {
	Config string `required:"" placeholder:"FILE" help:"The configuration, TOML."`
}

// initTimeout bounds the making of keys in the token.
const initTimeout = 2 * time.Minute

// Run makes what a node needs and has only once. It makes nothing where any of
// it exists.
func (c *initCmd) Run(p *program) error {
	if err := harden(); err != nil {
		return err
	}
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	if err := refuseExisting(cfg); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(p.ctx, initTimeout)
	defer cancel()
	log, m := newLogger(p.stderr, "warn"), newMetrics()
	if err := initToken(ctx, cfg, log, m); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Audit.Dir, 0o750); err != nil {
		return fmt.Errorf("making the audit log's folder: %w", err)
	}
	db, err := openStore(ctx, cfg, store.Visit)
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	n, err := openNode(ctx, cfg, log, m)
	if err != nil {
		return err
	}
	key, err := n.audit.Vkey(audit.Sec.String())
	if err := errors.Join(err, n.close(context.WithoutCancel(ctx))); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "made the master keys in the token %q, the database %s and the audit log %s\n"+
		"give this verification key of the audit log to those who check it:\n%s\n",
		cfg.Token.Label, cfg.Store.Path, cfg.Audit.Dir, key)
	return err
}

// refuseExisting protects what is there: a second set of master keys would
// leave every stored key unusable.
func refuseExisting(cfg *configFile) error {
	for _, path := range []string{cfg.Store.Path, cfg.Audit.Dir} {
		entries, err := os.ReadDir(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
			continue
		}
		return fmt.Errorf("%s exists already; `keyd init` is for a new node and changes nothing", path)
	}
	return nil
}

// initToken makes keyd's own keys in the token.
func initToken(ctx context.Context, cfg *configFile, log *slog.Logger, m *metrics) error {
	token, err := openToken(ctx, cfg, log, m)
	if err != nil {
		return err
	}
	err = hsm.NewManager(token).Init(ctx)
	if errors.Is(err, hsm.ErrExists) {
		err = advise(err, "`keyd init` is for a new node and changes nothing")
	}
	return errors.Join(err, token.Close())
}
