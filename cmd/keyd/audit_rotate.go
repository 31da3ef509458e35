package main

import (
	"crypto"
	"errors"
	"fmt"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/keys"
)

type auditRotateCmd struct {
	Config string   `required:"" placeholder:"FILE" help:"The configuration of the node."`
	Lost   string   `placeholder:"FILE" help:"The log goes on under a new key at once, for the token lost the one in FILE, a vkey or pub.pem that was kept elsewhere; with two administrators, while no daemon runs."`
	Person []string `sep:"none" placeholder:"CERT,KEY" help:"With --lost: client certificate and key of an administrator; two, of two persons."`
}

// Run makes the next key pair inside the token. The daemon signs with it from
// its next start on, and with the old one as long as audit.key_overlap says. For
// a key that was lost see [auditRotateCmd.replace].
func (c *auditRotateCmd) Run(p *program) error {
	if err := harden(); err != nil {
		return err
	}
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	if c.Lost != "" {
		return c.replace(p, cfg)
	}
	if len(c.Person) > 0 {
		return usageError("--person goes with --lost: a rotation with an overlap needs nobody's consent")
	}
	token, err := openToken(p.ctx, cfg, cfg.logger(p.stderr), newMetrics())
	if err != nil {
		return err
	}
	signer, err := hsm.NewManager(token).RotateLog(p.ctx)
	lost := errors.Is(err, keys.ErrNoKey)
	if err = errors.Join(err, token.Close()); err != nil {
		err = fmt.Errorf("making a key for the audit log: %w", err)
		if lost {
			err = adviseLostKey(cfg, err)
		}
		return err
	}
	reader, err := openLog(cfg.Audit.Dir)
	if err != nil {
		return err
	}
	vkey, err := secVkey(reader, signer.Public())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%s\n\nthe new key of the log. Two persons compare it and hand it to who verifies, beside the old one.\nStart the daemon again: checkpoints then carry both lines for %v and more, until a start after that.\n",
		vkey, cfg.Audit.KeyOverlap.std())
	return err
}

// secVkey is a key as the vkey of the log sec in a folder.
func secVkey(r *audit.Reader, pub crypto.PublicKey) (string, error) {
	origin, err := secOrigin(r)
	if err != nil {
		return "", err
	}
	return audit.Vkey(origin, pub)
}

// secOrigin is the origin of the log sec in a folder.
func secOrigin(r *audit.Reader) (string, error) {
	text, err := r.Checkpoint(audit.Sec.String())
	if err != nil {
		return "", fmt.Errorf("reading the checkpoint of sec: %w", err)
	}
	return audit.CheckpointOrigin(text)
}

// logKeys are the keys of the log's checkpoints as the token has them.
type logKeys struct {
	signer   crypto.Signer
	previous crypto.Signer // nil outside of an overlap
	retired  []crypto.PublicKey
}

// logKeys finds who signs. A rotation begins with the first start that finds a
// newer key in the token, which the log records (L-57).
func (n *node) logKeys() (logKeys, error) {
	all, err := n.token.LogSigners()
	if err != nil {
		err = fmt.Errorf("finding the key of the audit log: %w", err)
		if errors.Is(err, keys.ErrNoKey) {
			err = adviseLostKey(n.cfg, err)
		}
		return logKeys{}, err
	}
	found := logKeys{signer: all[0]}
	for _, s := range all[1:] {
		found.retired = append(found.retired, s.Public())
	}
	if len(all) == 1 {
		return found, nil
	}
	over, err := n.overlapOver(found.signer.Public())
	if err != nil {
		return found, err
	}
	if !over {
		found.previous = all[1]
	}
	return found, nil
}

// overlapOver reports whether checkpoints have carried the line of a key beside
// that of the one before for long enough. After a loss there is no overlap.
func (n *node) overlapOver(pub crypto.PublicKey) (bool, error) {
	reader, err := audit.OpenReader(n.cfg.Audit.Dir)
	if errors.Is(err, audit.ErrNotFound) {
		return false, nil // a new log
	}
	if err != nil {
		return false, fmt.Errorf("looking for the last change of the log's key: %w", err)
	}
	vkey, err := secVkey(reader, pub)
	if errors.Is(err, audit.ErrNotFound) {
		return false, nil // without a checkpoint yet
	}
	if err != nil {
		return false, err
	}
	since, err := reader.KeySince(vkey)
	if errors.Is(err, audit.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for the last change of the log's key: %w", err)
	}
	return since.Lost || time.Since(since.At) >= n.cfg.Audit.KeyOverlap.std(), nil
}
