package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/dukpt"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/store"
)

type terminalCmd struct {
	Add     terminalAddCmd     `cmd:"" help:"Register a terminal; the running daemon knows it at once."`
	Import  terminalImportCmd  `cmd:"" help:"Register the terminals of a CSV file."`
	Ls      terminalLsCmd      `cmd:"" help:"List the registered terminals."`
	Show    terminalShowCmd    `cmd:"" help:"Show a terminal and its keys."`
	Suspend terminalSuspendCmd `cmd:"" help:"Take a terminal out of service."`
	Resume  terminalResumeCmd  `cmd:"" help:"Take a terminal back into service."`
	Retire  terminalRetireCmd  `cmd:"" help:"End a terminal for good and stop its working keys."`
	Unlock  terminalUnlockCmd  `cmd:"" help:"Let a terminal be heard again that wrong MACs have locked on its connections."`
	Limits  terminalLimitsCmd  `cmd:"" help:"Set the largest sale of a terminal."`
	Keys    terminalKeysCmd    `cmd:"" help:"Give a terminal new working keys under its master key."`

	CloseBatch terminalCloseBatchCmd `cmd:"" help:"Close the batches of a terminal, or of all: what was sold is settled, and the terminal cannot undo it any more."`
}

type terminalAddCmd struct {
	Config   string `placeholder:"FILE" help:"DUKPT on the daemon's machine: the configuration, TOML."`
	TID      string `required:"" name:"tid" placeholder:"TID" help:"DE 41, 8 characters."`
	MID      string `required:"" name:"mid" placeholder:"MID" help:"DE 42, 15 characters."`
	Scheme   string `required:"" enum:"tdes-dukpt,aes-dukpt,tmk" placeholder:"SCHEME" help:"tdes-dukpt, aes-dukpt or tmk."`
	BDK      string `name:"bdk" placeholder:"ALIAS" help:"DUKPT: alias of the base derivation key."`
	KSN      string `name:"ksn" placeholder:"HEX" help:"DUKPT: a KSN of the device: 20 (TDES) or 24 (AES) hexadecimal digits."`
	MACBytes int    `name:"mac-bytes" default:"8" enum:"4,8" help:"DUKPT: length of the MAC: ${enum}."`
	Profile  string `placeholder:"NAME" help:"tmk: the profile: unionpay, tdes, aes, or one of the configuration."`
	TMK      string `name:"tmk" placeholder:"KEY" help:"tmk: the master key: generate, alias/… of a stored key, or a TR-31 key block."`
	KEK      string `name:"kek" placeholder:"ALIAS" help:"tmk: the key-encryption key of a key block."`
	Keys     string `name:"working-keys" placeholder:"SLOTS" help:"tmk: working keys to make now: TPK+TAK or TPK+TAK+TDK."`
	Most     int64  `name:"max-amount" placeholder:"N" help:"Largest sale in minor units; by the API only."`
	doorFlags
}

// Run registers the terminal: by way of the API, or, with --config, by way of
// the daemon on this machine, or else by opening the node itself. Each way the
// change stands in the audit log.
func (c *terminalAddCmd) Run(p *program) error {
	if c.Config == "" {
		t, err := c.entry()
		if err != nil {
			return err
		}
		return addByDoor(p, &c.doorFlags, t)
	}
	t, err := c.terminal()
	if err != nil {
		return err
	}
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	err = callLocal(p.ctx, cfg.Ops.Socket, "/terminals", t)
	if errors.Is(err, errNoDaemon) {
		err = addOffline(p, cfg, t)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "terminal %s of merchant %s: %s under %s, device %s\n", t.TID, t.MID, t.Scheme, t.BDK, t.Device)
	return err
}

// entry is the terminal as a line of a file would have it.
func (c *terminalAddCmd) entry() (newTerminal, error) {
	fields := map[string]string{
		columnTID: c.TID, columnMID: c.MID, columnScheme: c.Scheme, columnBDK: c.BDK, columnKSN: c.KSN,
		columnProfile: c.Profile, columnTMK: c.TMK, columnKEK: c.KEK, columnKeys: c.Keys,
	}
	if c.Scheme != string(custody.SchemeMaster) {
		fields[columnMAC] = fmt.Sprint(c.MACBytes)
	}
	if c.Most != 0 {
		fields[columnMost] = fmt.Sprint(c.Most)
	}
	var row terminalRow
	if column, err := row.read(fields); err != nil {
		return newTerminal{}, usageError("--%s: %w", strings.ReplaceAll(strings.ReplaceAll(column, "max_amount", "max-amount"), "_", "-"), err)
	}
	return row.entry, nil
}

func (c *terminalAddCmd) terminal() (isoswitch.Terminal, error) {
	switch {
	case c.Scheme == string(custody.SchemeMaster) || c.Most != 0 || c.Profile != "" || c.TMK != "" || c.KEK != "" || c.Keys != "":
		return isoswitch.Terminal{}, usageError("--config registers DUKPT terminals alone; for all else name the daemon's API (--url, --ca, --cert, --key)")
	case c.BDK == "" || c.KSN == "":
		return isoswitch.Terminal{}, usageError("--bdk and --ksn are needed with %s", c.Scheme)
	}
	if !custody.ValidAlias(c.BDK) {
		return isoswitch.Terminal{}, usageError("--bdk=%q is not an alias; it begins with alias/", c.BDK)
	}
	device, err := deviceOf(isoswitch.Scheme(c.Scheme), c.KSN)
	if err != nil {
		return isoswitch.Terminal{}, usageError("--ksn: %w", err)
	}
	if len(c.TID) != 8 || len(c.MID) != 15 {
		return isoswitch.Terminal{}, usageError("--tid needs 8 characters and --mid 15; they have %d and %d", len(c.TID), len(c.MID))
	}
	return isoswitch.Terminal{TID: c.TID, MID: c.MID, Scheme: isoswitch.Scheme(c.Scheme), BDK: c.BDK, Device: device, MACBytes: c.MACBytes}, nil
}

// deviceOf is the part of a KSN that a terminal is bound to.
func deviceOf(scheme isoswitch.Scheme, ksn string) (isoswitch.Device, error) {
	if scheme == isoswitch.AESDUKPT {
		k, err := dukpt.ParseAESKSN(strings.ToUpper(ksn))
		if err != nil {
			return "", err
		}
		return isoswitch.Device(k.Device().String()[:16]), nil
	}
	k, err := dukpt.ParseTDESKSN(strings.ToUpper(ksn))
	if err != nil {
		return "", err
	}
	return isoswitch.Device(k.Device().String()), nil
}

func addOffline(p *program, cfg *configFile, t isoswitch.Terminal) error {
	n, err := openNode(p.ctx, cfg, newLogger(p.stderr, "warn"), newMetrics())
	if err != nil {
		return err
	}
	err = n.addTerminal(p.ctx, localRecord(os.Getuid()), t)
	return errors.Join(err, n.close(context.WithoutCancel(p.ctx)))
}

// addTerminal registers a terminal and records it; who is the record to fill.
func (n *node) addTerminal(ctx context.Context, who audit.Record, t isoswitch.Terminal) error {
	if _, err := n.db.Alias(ctx, t.BDK); err != nil {
		if errors.Is(err, custody.ErrNoAlias) {
			return fmt.Errorf("there is no key %s; `keyd key ls` lists those there are", t.BDK)
		}
		return err
	}
	ticket, err := n.audit.Reserve(ctx, audit.Sec, 1)
	if err != nil {
		return fmt.Errorf("writing the audit log: %w", err)
	}
	defer ticket.Release()
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	who.Action, who.Outcome = audit.TerminalChange, audit.OutcomeOK
	who.Change = &audit.Change{Kind: audit.ChangeTerminal, Object: "terminal/" + t.TID, After: sha256.Sum256(text)}
	added := n.db.AddTerminal(ctx, t)
	switch {
	case errors.Is(added, store.ErrExists):
		who.Outcome, who.Reason = audit.OutcomeRefused, audit.ReasonDuplicate
		added = fmt.Errorf("terminal %s, or its device %s, is registered already: %w", t.TID, t.Device, added)
	case added != nil:
		who.Outcome, who.Reason = audit.OutcomeError, audit.ReasonInternal
	}
	if _, err := ticket.Append(who); err != nil {
		return errors.Join(fmt.Errorf("writing the audit log: %w", err), added)
	}
	return added
}

type terminalLsCmd struct {
	Config string `required:"" placeholder:"FILE" help:"The configuration, TOML."`
	JSON   bool   `help:"Print JSON lines."`
}

// terminalLine is a terminal as it is printed.
type terminalLine struct {
	TID      string `json:"tid"`
	MID      string `json:"mid"`
	Scheme   string `json:"scheme"`
	BDK      string `json:"bdk"`
	Device   string `json:"device"`
	MACBytes int    `json:"mac_bytes"`
	Disabled bool   `json:"disabled"`
	Status   string `json:"status"`
	Profile  string `json:"profile,omitempty"`
	Version  uint32 `json:"key_version,omitempty"`
}

// Run lists the registry. It reads the database, also beside a running daemon.
func (c *terminalLsCmd) Run(p *program) error {
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	db, err := visitStore(p.ctx, cfg)
	if err != nil {
		return err
	}
	defer db.Close()
	out := newTable(p.stdout, c.JSON, "TID", "MID", "SCHEME", "BDK", "DEVICE", "MAC", "STATE")
	for after := ""; ; {
		page, err := db.Registry(p.ctx, after, 0)
		if err != nil {
			return err
		}
		for _, t := range page {
			line := terminalLine{t.TID, t.MID, string(t.Scheme), t.BDK, t.Device, t.MACBytes, t.Status != custody.InService,
				string(t.Status), t.Profile, t.Keys.Version}
			key, device, mac := t.BDK, t.Device, fmt.Sprint(t.MACBytes)
			if t.Scheme == custody.SchemeMaster {
				key, device, mac = "profile "+t.Profile, "-", "-"
			}
			out.row(line, t.TID, t.MID, string(t.Scheme), key, device, mac, string(t.Status))
			after = t.TID
		}
		if len(page) == 0 {
			return out.flush()
		}
	}
}

// visitStore opens a database that must exist already.
func visitStore(ctx context.Context, cfg *configFile) (*store.DB, error) {
	if _, err := os.Stat(cfg.Store.Path); err != nil {
		return nil, advise(fmt.Errorf("opening the database: %w", err), "`keyd init` makes it, else check store.path in %s", cfg.path)
	}
	return visit(ctx, cfg)
}
