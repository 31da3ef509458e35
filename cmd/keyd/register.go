package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/store"
)

type registerCmd struct {
	Show  registerShowCmd  `cmd:"" help:"Print how many registered rows the database has, and their root."`
	Adopt registerAdoptCmd `cmd:"" help:"Let the token know the database as it is: after an upgrade or a restore, never to silence an alarm."`
}

type registerShowCmd struct {
	Config string `required:"" placeholder:"FILE" help:"The configuration, TOML."`
}

// Run prints the register of the database, also beside a running daemon.
func (c *registerShowCmd) Run(p *program) error {
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	return printRegister(p, cfg)
}

type registerAdoptCmd struct {
	Config string `required:"" placeholder:"FILE" help:"The configuration, TOML."`
	Yes    bool   `help:"Do it. Without this the command prints what it would adopt and changes nothing."`
}

// Run makes the token know the database as it is. Keys, aliases and terminals
// that somebody put into it are believed from then on, which is why nothing but
// this command does so, and why it is recorded.
func (c *registerAdoptCmd) Run(p *program) error {
	if err := harden(); err != nil {
		return err
	}
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	if err := printRegister(p, cfg); err != nil {
		return err
	}
	if !c.Yes {
		return advise(errors.New("nothing was changed"), "compare these counts with what you expect; with --yes the token will know this database and no other")
	}
	n, err := openNodeAs(p.ctx, cfg, newLogger(p.stderr, "warn"), newMetrics(), true)
	if err != nil {
		return err
	}
	err = n.recordAdopted(p.ctx, localRecord(os.Getuid()))
	if err := errors.Join(err, n.close(context.WithoutCancel(p.ctx))); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "the token %q knows this database now\n", cfg.Token.Label)
	return err
}

// printRegister prints the counts and the root of the database.
func printRegister(p *program, cfg *configFile) error {
	db, err := visitStore(p.ctx, cfg)
	if err != nil {
		return err
	}
	defer db.Close()
	rows, root, err := db.Counts(p.ctx)
	if err != nil {
		return err
	}
	for _, kind := range slices.Sorted(maps.Keys(rows)) {
		if _, err := fmt.Fprintf(p.stdout, "%-12s %d\n", kind, rows[kind]); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(p.stdout, "%-12s %x\n", "root", root)
	return err
}

// recordAdopted records that the database was taken as it is.
func (n *node) recordAdopted(ctx context.Context, who audit.Record) error {
	_, root, err := n.db.Counts(ctx)
	if err != nil {
		return err
	}
	who.Action, who.Outcome = audit.AdminExecute, audit.OutcomeOK
	who.Change = &audit.Change{Kind: audit.ChangeConfig, Object: "register", After: root}
	return n.record(ctx, who)
}

// newAnchor is where the token keeps what it knows of this node's database.
func newAnchor(cfg *configFile, token *hsm.Token) (*hsm.Anchor, error) {
	return hsm.NewAnchor(token, cfg.Audit.Node)
}

// foundRegister begins the register of a new node.
func foundRegister(ctx context.Context, cfg *configFile, token *hsm.Token) error {
	anchor, err := newAnchor(cfg, token)
	if err != nil {
		return err
	}
	err = store.Found(ctx, anchor)
	if errors.Is(err, store.ErrRegister) {
		return advise(err, "restore that database; or, where it is lost for good, let the token know the new one with --adopt")
	}
	return err
}

// openRegistered opens the database to serve.
func (n *node) openRegistered(ctx context.Context, adopt bool) (*store.DB, error) {
	anchor, err := newAnchor(n.cfg, n.token)
	if err != nil {
		return nil, err
	}
	return openStore(ctx, n.cfg, store.Config{
		Path: n.cfg.Store.Path, Purpose: store.Serve, LookBack: n.cfg.Switch.LookBack.std(),
		Sealer: n.rowSealer,
		Anchor: anchor, Adopt: adopt, Committed: n.metrics.committed, Suspicion: func(s store.Suspicion) { n.suspicion(context.WithoutCancel(ctx), s) },
	})
}

// registerRefused puts a database that the token does not know into the audit
// log, and says what to do.
func (n *node) registerRefused(ctx context.Context, err error) error {
	if !errors.Is(err, store.ErrRegister) {
		return err
	}
	var unlogged error
	if n.audit, unlogged = n.openAudit(); unlogged == nil {
		unlogged = n.alarm(ctx, alarmRegister, "database", err)
	}
	err = advise(err, "it was rolled back, or changed by something else than keyd, or keyd was upgraded from a version before registers. "+
		"`keyd audit ls --action sys.alarm --config %[1]s` and the records of key.* say what should be there, `keyd register show --config %[1]s` what is. "+
		"Put the right database back. Only when you know why they differ: `keyd register adopt --config %[1]s`", n.cfg.path)
	return errors.Join(err, unlogged)
}

// The codes of the register's alarms.
const (
	alarmRegister = "register_mismatch" // the database is not the one that the token knows
	alarmRow      = "register_row"      // a row is not the one that keyd wrote
	alarmAnchor   = "register_anchor"   // the token cannot let go of what it knew before
)

// suspicion is what the store tells of rows that are not what keyd wrote.
func (n *node) suspicion(ctx context.Context, s store.Suspicion) {
	code, object := alarmRow, s.Kind+"/"+s.Name
	switch {
	case s.Kind == "":
		code, object = alarmAnchor, "token"
	case s.Sealed:
		code, object = alarmJournal, journalObject(s)
	}
	if err := n.alarm(ctx, code, object, s.Err); err != nil {
		n.log.Error("an alarm is not in the audit log", "code", code, "object", object, "err", err)
	}
}

// alarm tells operators and auditors.
func (n *node) alarm(ctx context.Context, code, object string, cause error) error {
	a := audit.Alarm{Code: code, Level: audit.LevelCritical}
	n.metrics.alarm(a)
	n.log.Error("alarm", "code", code, "object", object, "err", cause)
	if n.audit == nil {
		return errors.New("the audit log is not open yet")
	}
	return n.record(ctx, audit.Record{
		Action: audit.SysAlarm, Actor: audit.System(), Outcome: audit.OutcomeError, Reason: audit.ReasonInternal,
		Corr: corrOf(object), Alarm: a,
	})
}

// corrOf is the name of an object as a record can have it.
func corrOf(object string) string {
	for _, c := range object {
		if c != '/' && c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return "hex:" + hex.EncodeToString([]byte(object))
		}
	}
	return strings.TrimSuffix(object, "/")
}
