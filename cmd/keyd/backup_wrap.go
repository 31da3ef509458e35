package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"filippo.io/age"

	"keyd.dev/keyd/internal/backup"
	"keyd.dev/keyd/internal/credentials"
	"keyd.dev/keyd/internal/credentials/vault"
)

// transit is one key of Vault's transit engine, for backups (C-11).
type transit struct {
	client     *vault.Client
	mount, key string
}

var _ backup.Transit = (*transit)(nil)

// newTransit takes MOUNT/KEY.
func newTransit(client *vault.Client, name string) *transit {
	i := strings.LastIndexByte(name, '/')
	return &transit{client: client, mount: name[:max(i, 0)], key: name[i+1:]}
}

// Name implements [backup.Transit].
func (t *transit) Name() string { return t.mount + "/" + t.key }

// Wrap implements [backup.Transit].
func (t *transit) Wrap(ctx context.Context, fileKey []byte) (string, error) {
	return t.client.Encrypt(ctx, t.mount, t.key, fileKey)
}

// Unwrap implements [backup.Transit].
func (t *transit) Unwrap(ctx context.Context, wrapped string) ([]byte, error) {
	return t.client.Decrypt(ctx, t.mount, t.key, wrapped)
}

// backupWrap is the second wrap of the daemon's backups; nil for none.
func (n *node) backupWrap() (*backup.Wrap, error) {
	b := &n.cfg.Backup
	if b.Transit == "" {
		return nil, nil
	}
	link := n.cfg.vault
	if link == nil { // a command that opens the node itself
		var err error
		if link, err = newVaultLink(n.cfg, n.log, newMetrics()); err != nil {
			return nil, err
		}
	}
	w := &backup.Wrap{Transit: newTransit(link.client, b.Transit)}
	for _, text := range b.Custodians {
		r, err := age.ParseX25519Recipient(text)
		if err != nil {
			return nil, fmt.Errorf("backup.custodians: %w", err)
		}
		w.Custodians = append(w.Custodians, r)
	}
	return w, nil
}

// backupFlags are those of commands that read a backup.
type backupFlags struct {
	Identity string `placeholder:"FILE" help:"Identity (age) of a custodian who can open the second wrap without Vault."`
}

// opener is what takes the second wrap off a backup, and what ends that.
func (f *backupFlags) opener(ctx context.Context, cfg *configFile, log *slog.Logger) (backup.Opener, func(), error) {
	if f.Identity != "" {
		held, err := readIdentities(f.Identity)
		return backup.Opener{Held: held}, func() {}, err
	}
	if cfg.Vault.Address == "" {
		return backup.Opener{}, func() {}, nil
	}
	var client *vault.Client
	find := func(name string) (backup.Transit, error) {
		link, err := newVaultLink(cfg, log, newMetrics())
		if err != nil {
			return nil, err
		}
		client = link.client
		return newTransit(client, name), nil
	}
	done := func() {
		if client != nil {
			client.Close(context.WithoutCancel(ctx))
		}
	}
	return backup.Opener{Transit: find}, done, nil
}

// readIdentities reads the identity of a custodian, from a file that nobody else
// can read.
func readIdentities(path string) ([]age.Identity, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the custodian's identity: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading the custodian's identity: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, advise(fmt.Errorf("%w: the custodian's identity, mode %04o", credentials.ErrUnsafe, info.Mode().Perm()), "run: chmod 600 %s", path)
	}
	held, err := age.ParseIdentities(io.LimitReader(f, 64<<10))
	if err != nil {
		return nil, advise(fmt.Errorf("reading the custodian's identity: %s is no identity file of age", path), "make a pair by `age-keygen`")
	}
	return held, nil
}

// wrapNote is what who makes a backup must know of its second wrap.
func (m *backupMade) wrapNote() string {
	switch {
	case m.Transit == "":
		return ""
	case m.Custodians == 0:
		return fmt.Sprintf("restoring it needs Vault as well: key %s; without that key nobody can open it.\n"+
			"Let custodians hold a second way: put their public keys (age-keygen makes a pair) into backup.custodians and make another backup\n", m.Transit)
	}
	return fmt.Sprintf("restoring it needs Vault as well: key %s; or any of %d custodians: --identity FILE\n", m.Transit, m.Custodians)
}
