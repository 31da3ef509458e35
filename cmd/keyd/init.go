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
)

type initCmd struct {
	Config        string `required:"" placeholder:"FILE" help:"The configuration, TOML."`
	ExistingToken bool   `help:"The token holds keyd's keys already, another node's or those of an interrupted init: make only the database and the audit log."`
	Adopt         bool   `help:"The token knows an earlier database of this node, which is lost: let it know the new one in its place."`
}

// initTimeout bounds the making of keys in the token.
const initTimeout = 2 * time.Minute

// Run makes what a node needs and has only once. It makes nothing where any of
// it exists.
func (c *initCmd) Run(p *program) error {
	if err := errors.Join(desWorks(), harden()); err != nil {
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
	n, err := c.make(ctx, cfg, newLogger(p.stderr, "warn"))
	if err != nil {
		return errors.Join(err, unmake(cfg))
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

// make makes the parts and opens the node. The folders come first: what fails
// there fails before the token is changed.
func (c *initCmd) make(ctx context.Context, cfg *configFile, log *slog.Logger) (*node, error) {
	if err := makeFiles(ctx, cfg); err != nil {
		return nil, err
	}
	m := newMetrics()
	if err := initToken(ctx, cfg, log, m, *c); err != nil {
		return nil, err
	}
	n, err := openNodeAs(ctx, cfg, log, m, c.Adopt)
	if err != nil || !c.Adopt {
		return n, err
	}
	if err := n.recordAdopted(ctx, localRecord(os.Getuid())); err != nil {
		return nil, errors.Join(err, n.close(context.WithoutCancel(ctx)))
	}
	return n, nil
}

// makeFiles makes the audit log's folder and an empty database.
func makeFiles(ctx context.Context, cfg *configFile) error {
	if err := os.MkdirAll(cfg.Audit.Dir, 0o750); err != nil {
		return fmt.Errorf("making the audit log's folder: %w", err)
	}
	db, err := visit(ctx, cfg)
	if err != nil {
		return err
	}
	return db.Close()
}

// unmake removes the files that an init that failed had made; none of them was
// there before it. The token's keys stay: `keyd init --existing-token` goes on
// with them.
func unmake(cfg *configFile) error {
	errs := []error{os.RemoveAll(cfg.Audit.Dir)}
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		if err := os.Remove(cfg.Store.Path + suffix); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
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

// initToken makes keyd's own keys in the token, and begins the node's register
// there: that a node is new is for the token to know and not for the database.
func initToken(ctx context.Context, cfg *configFile, log *slog.Logger, m *metrics, c initCmd) error {
	token, err := openToken(ctx, cfg, log, m)
	if err != nil {
		return err
	}
	if !c.ExistingToken {
		err = hsm.NewManager(token).Init(ctx)
		if errors.Is(err, hsm.ErrExists) {
			err = advise(err, "`keyd init` is for a new node and changes nothing; --existing-token makes a node for the keys that are there")
		}
	}
	if err == nil && !c.Adopt {
		err = foundRegister(ctx, cfg, token)
	}
	return errors.Join(err, token.Close())
}
