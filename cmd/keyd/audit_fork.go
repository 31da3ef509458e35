package main

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"keyd.dev/keyd/audit"
)

type auditForkCmd struct {
	Config     string   `required:"" placeholder:"FILE" help:"The configuration of the node. Its audit.dir is absent or empty: move away what is left of the log."`
	From       string   `placeholder:"DIR" type:"path" help:"What is left of the lost log; it is sealed."`
	Checkpoint []string `placeholder:"FILE" help:"A checkpoint of the lost log that was kept elsewhere; repeatable."`
	Vkey       []string `placeholder:"FILE" help:"Verification keys of the lost log that the token does not hold; repeatable."`
	Person     []string `required:"" sep:"none" placeholder:"CERT,KEY" help:"Client certificate and key of an administrator; two, of two persons."`
}

// Run begins a new generation of the node's log in the place of one that was
// lost, while no daemon runs (L-66).
func (c *auditForkCmd) Run(p *program) error {
	if err := harden(); err != nil {
		return err
	}
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	if entries, err := os.ReadDir(cfg.Audit.Dir); !errors.Is(err, fs.ErrNotExist) && (err != nil || len(entries) > 0) {
		return usageError("%s is not empty: stop the daemon, move what is left of the log away, and name it by --from", cfg.Audit.Dir)
	}
	remains, err := c.remains(cfg)
	if err != nil {
		return err
	}
	token, err := openToken(p.ctx, cfg, cfg.logger(p.stderr), newMetrics())
	if err != nil {
		return err
	}
	signers, err := token.LogSigners()
	if err != nil {
		return errors.Join(err, token.Close())
	}
	for _, s := range signers {
		remains.Keys = append(remains.Keys, s.Public())
	}
	return errors.Join(c.fork(p, cfg, signers[0], remains), token.Close())
}

// remains reads what the flags name.
func (c *auditForkCmd) remains(cfg *configFile) (audit.Remains, error) {
	r := audit.Remains{Dir: c.From}
	if c.From == "" && len(c.Checkpoint) == 0 {
		return r, usageError("name what is left of the lost log by --from, or its last checkpoints by --checkpoint")
	}
	if c.From != "" {
		if _, err := os.Stat(c.From); err != nil {
			return r, err
		}
	}
	for _, file := range c.Checkpoint {
		text, err := os.ReadFile(file)
		if err != nil {
			return r, fmt.Errorf("reading a checkpoint: %w", err)
		}
		r.Checkpoints = append(r.Checkpoints, text)
	}
	for _, file := range c.Vkey {
		text, err := os.ReadFile(file)
		if err != nil {
			return r, fmt.Errorf("reading a verification key: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" {
				r.Vkeys = append(r.Vkeys, line)
			}
		}
	}
	return r, nil
}

// fork seals the old generation and begins the new one.
func (c *auditForkCmd) fork(p *program, cfg *configFile, signer crypto.Signer, remains audit.Remains) error {
	trees, err := audit.LastKnown(remains)
	if err != nil {
		return fmt.Errorf("looking for the last known checkpoints: %w", err)
	}
	persons, err := twoAdministrators(cfg, c.Person)
	if err != nil {
		return fmt.Errorf("%w: %w", errAccess, err)
	}
	if c.From != "" {
		if err := audit.Seal(c.From); err != nil {
			return err
		}
	}
	anchors, err := cfg.anchors()
	if err != nil {
		return err
	}
	log, err := audit.Open(cfg.Audit.Dir, signer, audit.Options{
		Anchors: anchors,
		Site:    cfg.Audit.Site, Node: cfg.Audit.Node, Build: thisBuild().name(), Cfg: cfg.hash,
		SegmentSize: int64(cfg.Audit.SegmentMB) << 20, TimeSource: cfg.Audit.TimeSource, Fork: trees,
	})
	if err != nil {
		return fmt.Errorf("beginning a new generation of the log: %w", err)
	}
	vkey, err := log.Vkey(audit.Sec.String())
	if err == nil {
		err = recordFork(p.ctx, log, persons, trees, vkey)
	}
	if err = errors.Join(err, log.Close(context.WithoutCancel(p.ctx))); err != nil {
		return err
	}
	var text strings.Builder
	for _, t := range trees {
		fmt.Fprintf(&text, "last known %s size=%d root=%s\n", t.Origin, t.Size, base64.StdEncoding.EncodeToString(t.Root[:]))
	}
	_, err = fmt.Fprintf(p.stdout, "%s%s\n\nthe key of the new generation. Two persons compare it and hand it to who verifies; the old origins are never signed again.\n", text.String(), vkey)
	return err
}

// recordFork records who ordered the fork and who consented.
func recordFork(ctx context.Context, log *audit.Log, persons []forkPerson, trees []audit.Tree, vkey string) error {
	sum := sha256.New()
	for _, t := range trees {
		fmt.Fprintf(sum, "%s\n%d\n%x\n", t.Origin, t.Size, t.Root[:])
	}
	fmt.Fprintln(sum, vkey)
	origin, err := audit.OriginOf(vkey)
	if err != nil {
		return err
	}
	return recordConsent(ctx, log, persons, 0, &audit.Change{Kind: audit.ChangeLog, Object: "fork/" + origin, After: audit.Hash(sum.Sum(nil))})
}
