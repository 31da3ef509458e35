package backup

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/store"
	"keyd.dev/keyd/keys"
)

// Config says what an [Archive] backs up, and where to.
type Config struct {
	Dir   string // of the files; must be closed to others
	Node  string // in names and headers
	Site  string
	Build string
	Token Token
	DB    *store.DB
	LMK   func(context.Context) ([]LMK, error) // the local master keys in use
	Seals keys.HMACKey                         // the token's key for seals and prints
	Clock func() time.Time
	Wrap  *Wrap // a second wrap; nil for none
}

// Archive makes the backups of one node. It is safe for concurrent use.
type Archive struct{ cfg Config }

var _ custody.Archiver = (*Archive)(nil)

// New checks the configuration and returns an Archive.
func New(cfg Config) (*Archive, error) {
	if cfg.Token == nil || cfg.DB == nil || cfg.LMK == nil || cfg.Seals == nil || cfg.Clock == nil || cfg.Node == "" || cfg.Dir == "" {
		return nil, errors.New("backup: directory, node, token, database, master keys, key for seals and clock are all needed")
	}
	return &Archive{cfg}, nil
}

// Make implements [custody.Archiver]. It writes a new backup and returns once it is durable. It never writes over
// a file; an interrupted one leaves a file that ends in .partial and is of no use.
func (a *Archive) Make(ctx context.Context) (made custody.Backup, err error) {
	if err := closedDir(a.cfg.Dir); err != nil {
		return made, err
	}
	made.At = a.cfg.Clock().UTC().Truncate(time.Millisecond)
	made.File = "keyd-" + a.cfg.Node + "-" + made.At.Format("20060102T150405.000Z") + ".backup"
	path := filepath.Join(a.cfg.Dir, made.File)
	file, err := os.OpenFile(path+".partial", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return made, fmt.Errorf("backup: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(path+".partial"))
		}
	}()
	count := &counting{w: file, sum: sha256.New()}
	masters, err := a.cfg.LMK(ctx)
	if err == nil {
		made.LMK = newest(masters)
		if a.cfg.Wrap != nil {
			made.Transit, made.Custodians = a.cfg.Wrap.Transit.Name(), len(a.cfg.Wrap.Custodians)
		}
		made.Rows, err = a.writeWrapped(ctx, count, made.At, masters)
	}
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return made, err
	}
	// A link, because a rename would write over a file of that name.
	if err := os.Link(path+".partial", path); err != nil {
		return made, fmt.Errorf("backup: %w", err)
	}
	if err := errors.Join(os.Remove(path+".partial"), syncDir(a.cfg.Dir)); err != nil {
		return made, fmt.Errorf("backup: %w", err)
	}
	made.Bytes = count.n
	count.sum.Sum(made.SHA256[:0])
	return made, nil
}

// newest is the generation that the file's own key stands under.
func newest(masters []LMK) (generation uint32) {
	for _, m := range masters {
		generation = max(generation, m.Generation)
	}
	return generation
}

// writeWrapped puts the second wrap around the file, where one is configured.
func (a *Archive) writeWrapped(ctx context.Context, to io.Writer, at time.Time, masters []LMK) (map[string]int, error) {
	if a.cfg.Wrap == nil {
		return a.write(ctx, to, at, masters)
	}
	wrapped, err := a.cfg.Wrap.around(ctx, to)
	if err != nil {
		return nil, err
	}
	rows, err := a.write(ctx, wrapped, at, masters)
	return rows, errors.Join(err, wrapped.Close())
}

func (a *Archive) write(ctx context.Context, to io.Writer, at time.Time, masters []LMK) (map[string]int, error) {
	seals, err := SealCheck(a.cfg.Seals)
	if err != nil {
		return nil, err
	}
	w, err := NewWriter(to, NewKeeper(ctx, a.cfg.Token, a.cfg.Clock), Header{
		Made: at, Node: a.cfg.Node, Site: a.cfg.Site, Build: a.cfg.Build, Schema: store.SchemaVersion(), LMK: masters, Seals: seals,
	})
	if err != nil {
		return nil, err
	}
	if err := a.cfg.DB.Backup(ctx, w); err != nil {
		return nil, err
	}
	return w.Close()
}

// counting counts and hashes what goes to w.
type counting struct {
	w   io.Writer
	n   int64
	sum hash.Hash
}

// Write implements [io.Writer].
func (c *counting) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	c.sum.Write(p[:n])
	return n, err
}

// closedDir refuses a directory that others can write to: they could take a
// backup away, or put an older one in its place.
func closedDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("backup: directory of the backups: %w", err)
	}
	if !info.IsDir() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("backup: %s must be a directory that only its owner can write; do: chmod go-w %s", dir, dir)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// SealCheck is a check value of the token's key for seals and prints: 3 bytes,
// hexadecimal. Two tokens can hold the same local master key and not this one.
func SealCheck(k keys.HMACKey) (string, error) {
	mac, err := k.HMAC([]byte("keyd backup seal check\n"))
	if err != nil {
		return "", fmt.Errorf("backup: check value of the key for seals: %w", err)
	}
	return fmt.Sprintf("%X", mac[:3]), nil
}

// sealed are the tables whose rows carry seals or prints.
func sealed() []string {
	return []string{"client_role", "public_key", "terminal_print"}
}

// CheckSeals returns [ErrKey] for a backup with rows that carry seals or prints
// of another token's key: beside this one they would be refused, or recognise
// no key again.
func CheckSeals(h Header, rows map[string]int, own string) error {
	if h.Seals == own {
		return nil
	}
	for _, table := range sealed() {
		if n := rows[table]; n > 0 {
			return fmt.Errorf("%w: %d rows of %s are sealed by a key that this token has not; begin the token with the first "+
				"generation of the local master key, from which that key comes, and add the later ones", ErrKey, n, table)
		}
	}
	return nil
}
