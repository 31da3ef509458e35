package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/credentials"
	"keyd.dev/keyd/internal/credentials/vault"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/siem"
	"keyd.dev/keyd/internal/store"
)

// node is all of a daemon but its listeners: the token, the database, the audit
// log, and custody over them.
type node struct {
	cfg     *configFile
	log     *slog.Logger
	metrics *metrics
	token   *hsm.Token
	manager *hsm.Manager
	db      *store.DB
	audit   *audit.Log
	custody *custody.Custody
	desk    *isoswitch.Desk
	story   tokenStory
	feed    *siem.Feed // of published checkpoints, to the sinks
}

// openNode opens the parts in the order in which one needs the other, and
// closes again what it opened when one of them fails. There is no node without
// its audit log.
func openNode(ctx context.Context, cfg *configFile, log *slog.Logger, m *metrics) (*node, error) {
	return openNodeAs(ctx, cfg, log, m, false)
}

// openNodeAs is openNode; adopt takes a database that the token does not know.
func openNodeAs(ctx context.Context, cfg *configFile, log *slog.Logger, m *metrics, adopt bool) (_ *node, err error) {
	n := &node{cfg: cfg, log: log, metrics: m, feed: siem.NewFeed()}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close(context.WithoutCancel(ctx)))
		}
	}()
	if n.token, err = openTokenTelling(ctx, cfg, log, m, n.story.told); err != nil {
		return nil, err
	}
	n.manager = hsm.NewManager(n.token)
	if err := n.initialised(ctx); err != nil {
		return nil, err
	}
	if n.db, err = n.openRegistered(ctx, adopt); err != nil {
		return nil, n.registerRefused(ctx, err)
	}
	if n.audit, err = n.openAudit(); err != nil {
		return nil, err
	}
	if err := n.recordSealing(ctx); err != nil {
		return nil, err
	}
	archive, err := n.newArchive()
	if err != nil {
		return nil, err
	}
	n.desk = isoswitch.NewDesk(n.db, n.db, cfg.now)
	n.custody, err = custody.New(custody.Config{
		Archive: archive, Prune: n.newPruner(), Reversals: n.desk,
		Masters: n.manager, LMKStore: n.db,
		Token: n.token, Maker: n.manager, Keeper: n.manager, Store: n.db, Log: n.audit,
		Clients: cfg.clients(), Clock: cfg.now, Serial: n.token.Info().Serial,
		Alarm:     n.keyAlarm,
		Observe:   n.metrics.api.operated,
		Terminals: &custody.Terminals{Store: n.db, Maker: n.manager, Profiles: cfg.profiles()},
		LegacyPIN: cfg.API.LegacyPINFormats,

		CardTokensSince: cardTokensIn(cfg.Audit.Dir),
		Exchange: custody.Exchange{
			Token: n.manager, Store: n.db, LegacyBlocks: cfg.API.LegacyKeyBlocks,
			CryptogramImport: cfg.API.CryptogramImport, CryptogramExport: cfg.API.CryptogramExport,
		},
		DualControl: custody.DualControl{
			On: *cfg.API.DualControl, Validity: cfg.API.ApprovalValidity.std(), Wait: cfg.API.ApprovalWait.std(),
		},
		Malformed: custody.Malformed{PerMinute: cfg.API.RefusedPerMinute, PerHour: cfg.API.RefusedPerHour},
		Quotas:    cfg.quotas(),
	})
	if err != nil {
		return nil, fmt.Errorf("starting custody: %w", err)
	}
	if err := n.recordStart(ctx); err != nil {
		return nil, err
	}
	n.followToken()
	return n, nil
}

// openToken sets the module's environment, fetches the PIN once and logs in.
func openToken(ctx context.Context, cfg *configFile, log *slog.Logger, m *metrics) (*hsm.Token, error) {
	return openTokenTelling(ctx, cfg, log, m, func(error) {})
}

// openTokenTelling is openToken; told hears why the token was lost, and of nil when
// it is back.
func openTokenTelling(ctx context.Context, cfg *configFile, log *slog.Logger, m *metrics, told func(error)) (*hsm.Token, error) {
	t := &cfg.Token
	if err := setEnvironment(t.Environment); err != nil {
		return nil, err
	}
	vault, done, err := cfg.vaultForPIN(ctx, log)
	if err != nil {
		return nil, err
	}
	defer done()
	token, err := hsm.Open(hsm.Config{
		Module: t.Module, Reserved: t.Reserved, TokenLabel: t.Label,
		PIN: pinOnce(ctx, t, vault), NoPIN: t.NoPIN, RetainPIN: *t.PINRetain, FinalTry: t.AllowFinalTry,
		Sessions: t.Sessions, CacheKeys: t.CacheKeys, Objects: t.CacheObjects, Standing: *t.Standing, Deadline: t.Deadline.std(),
		Observe: m.token.observe,
		OnState: func(why error) {
			m.token.state(why)
			told(why)
			if why != nil {
				log.Error("token lost", "err", why)
			} else {
				log.Info("token back")
			}
		},
	})
	if err != nil {
		return nil, adviseToken(cfg, err)
	}
	m.token.state(nil)
	info := token.Info()
	if info.PINCountLow {
		log.Warn("token: a wrong PIN was given since the last right one; if it was not you, find out who", "label", info.Label, "serial", info.Serial)
	}
	log.Info("token open", "label", info.Label, "serial", info.Serial, "module", info.Library, "findings", info.Findings, "self_test", info.SelfTest.String(), "pin_memory", token.PINMemory())
	return token, nil
}

// setEnvironment is for the module: C reads the environment that os.Setenv
// changes, as long as cgo is in use.
func setEnvironment(vars map[string]string) error {
	for name, value := range vars {
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("setting %s for the PKCS#11 module: %w", name, err)
		}
	}
	return nil
}

// errPINSpent: the PIN was given at the start and may not be asked for again.
var errPINSpent = errors.New("pin_retain is false: start keyd again to log in to the token")

// pinOnce reads the PIN for the first login only: a lost login with pin_retain
// = false waits for an operator (C-03).
func pinOnce(ctx context.Context, t *tokenConfig, vault credentials.Vault) func() (secret.Bytes, error) {
	if t.NoPIN {
		return nil
	}
	var once sync.Once
	return func() (secret.Bytes, error) {
		pin, err := secret.Bytes{}, errPINSpent
		once.Do(func() {
			var source credentials.PINSource
			if source, err = credentials.ParsePINSource(t.PINSource, t.InsecureAllowEnvPIN); err == nil {
				pin, err = source.Read(ctx, vault)
			}
		})
		return pin, err
	}
}

// pinRefused reports that a try of the PIN was used up, or that the token would
// not let one be used (C-02).
func pinRefused(err error) bool {
	return errors.Is(err, hsm.ErrPIN) && !slices.ContainsFunc(
		[]error{credentials.ErrUnsafe, credentials.ErrNoPIN, os.ErrNotExist, os.ErrPermission, errPINSpent},
		func(other error) bool { return errors.Is(err, other) })
}

func adviseToken(cfg *configFile, err error) error {
	t := &cfg.Token
	err = fmt.Errorf("opening the token %q: %w", t.Label, err)
	switch {
	case vault.Cause(err) != "":
		return advise(err, "the PIN did not come from Vault and was not tried; see token.pin_source and [vault] in %s", cfg.path)
	case errors.Is(err, hsm.ErrModule):
		return advise(err, "check token.module = %q in %s, and install the module (SoftHSM: apt-get install softhsm2)", t.Module, cfg.path)
	case errors.Is(err, hsm.ErrToken):
		return advise(err, "check token.label in %s; `keyd doctor --config %s` lists what is missing", cfg.path, cfg.path)
	case errors.Is(err, hsm.ErrPIN):
		return advise(err, "the PIN of token.pin_source in %s was tried once and will not be tried again, since tokens lock after a few; put the right PIN there first", cfg.path)
	case errors.Is(err, credentials.ErrUnsafe), errors.Is(err, credentials.ErrNoPIN), errors.Is(err, os.ErrNotExist), errors.Is(err, os.ErrPermission):
		return advise(err, "token.pin_source in %s says where the PIN is", cfg.path)
	}
	return err
}

// initialised refuses a token without keyd's own keys, and one with half of them.
func (n *node) initialised(ctx context.Context) error {
	made, missing, err := n.manager.Exists(ctx)
	if err != nil {
		return fmt.Errorf("looking for the master keys in the token: %w", err)
	}
	switch {
	case len(missing) == 0:
		return nil
	case len(made) == 0:
		return fmt.Errorf("the token %q holds no master keys; make them once with `keyd init --config %s`", n.cfg.Token.Label, n.cfg.path)
	}
	if len(missing) == 1 && missing[0] == n.token.LogLabel() {
		return adviseLostKey(n.cfg, fmt.Errorf("the token %q holds no key of the audit log: it lacks %q", n.cfg.Token.Label, missing[0]))
	}
	return fmt.Errorf("the token %q holds only a part of keyd's keys, and lacks %q; restore the token, or remove the rest and run `keyd init`", n.cfg.Token.Label, missing)
}

// visit opens the database to look at it, also beside a daemon.
func visit(ctx context.Context, cfg *configFile) (*store.DB, error) {
	return openStore(ctx, cfg, store.Config{Path: cfg.Store.Path, Purpose: store.Visit})
}

func openStore(ctx context.Context, cfg *configFile, as store.Config) (*store.DB, error) {
	db, err := store.Open(ctx, as)
	if errors.Is(err, store.ErrServed) {
		return nil, advise(fmt.Errorf("opening the database: %w", err), "stop that process first, or give this one a store.path of its own")
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return nil, advise(fmt.Errorf("opening the database: %w", err), "store.path in %s must be in a folder of this user", cfg.path)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the database %s: %w", cfg.Store.Path, err)
	}
	return db, nil
}

// openAudit opens the log; the folder must be there, since a log that silently
// starts anew elsewhere is no log.
func (n *node) openAudit() (*audit.Log, error) {
	a := &n.cfg.Audit
	keys, err := n.logKeys()
	if err != nil {
		return nil, err
	}
	tokener, err := custody.NewTokener(n.token)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(a.Dir); err != nil {
		return nil, advise(fmt.Errorf("opening the audit log: %w", err), "keyd does not run without it; `keyd init` makes it, else check audit.dir in %s", n.cfg.path)
	}
	anchors, err := n.cfg.anchors()
	if err != nil {
		return nil, err
	}
	log, err := audit.Open(a.Dir, keys.signer, audit.Options{
		Anchors:  anchors,
		Previous: keys.previous, Retired: keys.retired,
		Site: a.Site, Node: a.Node, Build: thisBuild().name(), Cfg: n.cfg.hash,
		SegmentSize: int64(a.SegmentMB) << 20, CheckpointInterval: a.CheckpointInterval.std(), UnsignedLimit: a.UnsignedLimit.std(),
		Tokener: tokener, TimeSource: a.TimeSource,
		Disk:   audit.DiskLimits{WarnPercent: a.DiskWarnPct, CriticalPercent: a.DiskCriticalPct},
		Synced: n.metrics.synced, Published: n.feed.Published,
		Alarm: func(alarm audit.Alarm, cause error) {
			n.metrics.alarm(alarm)
			n.log.Error("audit alarm", "code", alarm.Code, "level", alarm.Level.String(), "err", cause)
		},
	})
	switch {
	case errors.Is(err, audit.ErrLocked):
		return nil, advise(fmt.Errorf("opening the audit log: %w", err), "stop the process that uses %s first", a.Dir)
	case errors.Is(err, audit.ErrRollback), errors.Is(err, audit.ErrAnchor):
		return nil, adviseAnchor(n.cfg, err)
	case errors.Is(err, audit.ErrSignature):
		return nil, adviseLostKey(n.cfg, fmt.Errorf("opening the audit log: %w; a checkpoint is of no key in the token, so either the token lost its key, or somebody changed %s, which `keyd audit verify --vkey FILE --dir %s` tells", err, a.Dir, a.Dir))
	case errors.Is(err, audit.ErrCorrupt), errors.Is(err, audit.ErrFormat):
		return nil, advise(fmt.Errorf("opening the audit log: %w", err), "keyd does not start on a damaged log; keep %s as evidence and run `keyd audit verify --dir %s`", a.Dir, a.Dir)
	case err != nil:
		return nil, fmt.Errorf("opening the audit log %s: %w", a.Dir, err)
	}
	return log, nil
}

// recordStart says in the log what this process runs with (L-63).
func (n *node) recordStart(ctx context.Context) error {
	loaded := audit.Record{
		Action: audit.ConfigLoad, Actor: audit.System(), Outcome: audit.OutcomeOK,
		Change: &audit.Change{Kind: audit.ChangeConfig, Object: "config", After: n.cfg.hash},
	}
	return n.record(ctx, append([]audit.Record{loaded}, n.tokenStart()...)...)
}

// record makes records of sec durable.
func (n *node) record(ctx context.Context, records ...audit.Record) error {
	ticket, err := n.audit.Reserve(ctx, audit.Sec, len(records))
	if err != nil {
		return fmt.Errorf("writing the audit log: %w", err)
	}
	defer ticket.Release()
	if _, err := ticket.Append(records...); err != nil {
		return fmt.Errorf("writing the audit log: %w", err)
	}
	return nil
}

// close closes what is open, the users of a part before the part.
func (n *node) close(ctx context.Context) error {
	var errs []error
	if n.custody != nil {
		errs = append(errs, n.custody.Close(ctx))
	}
	if n.audit != nil {
		n.leaveToken(ctx)
		errs = append(errs, n.audit.Close(ctx))
	}
	if n.db != nil {
		errs = append(errs, n.db.Close())
	}
	if n.token != nil {
		errs = append(errs, n.token.Close())
	}
	return errors.Join(errs...)
}

// clients is the table of principals as custody has it.
func (c *config) clients() []custody.Client {
	out := make([]custody.Client, 0, len(c.Client))
	for _, client := range c.Client {
		roles := make([]custody.Role, 0, len(client.Roles))
		for _, r := range client.Roles {
			roles = append(roles, custody.Role(r))
		}
		var operations []custody.Operation
		for _, op := range client.Operations {
			operations = append(operations, custody.Operation(op))
		}
		out = append(out, custody.Client{Name: client.Name, URI: client.URI, Roles: roles, Keys: client.Keys, Operations: operations,
			Terminals: client.Terminals, Merchants: client.Merchants})
	}
	return out
}
