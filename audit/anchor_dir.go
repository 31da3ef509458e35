package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
)

// DirAnchor is an [Anchor] in a directory, which is to be on another file system
// than the log, and of another administrator: one file for each origin
// ([AnchorFile]), with the checkpoint as it was signed. It never goes back to a
// smaller one. Nodes may share a directory: their origins differ.
type DirAnchor struct {
	name string
	dir  string

	mu   sync.Mutex      // one file is written at a time
	seen map[string]bool // origins of which the directory has had a file
}

// NewDirAnchor returns an anchor in a directory. It does not look at it: a
// directory that is away is for [Open] to judge. The error is [ErrConfig].
func NewDirAnchor(name, dir string) (*DirAnchor, error) {
	if !isID(name) || dir == "" {
		return nil, fmt.Errorf("%w: anchor %q in %q needs a name and a directory", ErrConfig, name, dir)
	}
	return &DirAnchor{name: name, dir: dir, seen: map[string]bool{}}, nil
}

// Name returns the anchor's name.
func (a *DirAnchor) Name() string { return a.name }

// AnchorFile returns the name of the file that a [DirAnchor] keeps for an origin.
func AnchorFile(origin string) string { return strings.ReplaceAll(origin, "/", "_") }

// Load returns the checkpoint of an origin. Errors: [ErrNotFound], [ErrFormat],
// and those of the directory, which must be there.
func (a *DirAnchor) Load(_ context.Context, origin string) ([]byte, error) {
	if !isOrigin(origin) {
		return nil, fmt.Errorf("%w: %q is no origin", ErrConfig, origin)
	}
	// A file that is not there is told from a directory that is not.
	if _, err := os.ReadDir(a.dir); err != nil {
		return nil, fmt.Errorf("reading the anchor's directory: %w", err)
	}
	msg, err := readFile(osFS(a.dir), AnchorFile(origin), maxAnchored)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: no checkpoint of %s in %s", ErrNotFound, origin, a.dir)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the checkpoint of %s: %w", origin, err)
	}
	return msg, nil
}

const maxAnchored = 1 << 16

// Store keeps a checkpoint, through a temporary file that is synced and renamed.
// Errors: [ErrRollback] when the directory has a larger one, or another of the
// same size; [ErrFormat]; those of the directory, which counts as away when a
// file has gone that was there.
func (a *DirAnchor) Store(ctx context.Context, checkpoint []byte) error {
	c, err := unverifiedCheckpoint(checkpoint)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	msg, err := a.Load(ctx, c.Origin)
	switch {
	case errors.Is(err, ErrNotFound) && a.seen[c.Origin]:
		return fmt.Errorf("the checkpoint of %s that was in %s is gone: the directory was emptied, or is not mounted: %w", c.Origin, a.dir, fs.ErrNotExist)
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return err
	default:
		a.seen[c.Origin] = true
		if err := notBefore(msg, c); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := writeDurable(osFS(a.dir), AnchorFile(c.Origin), checkpoint); err != nil {
		return err
	}
	a.seen[c.Origin] = true
	return nil
}

// notBefore refuses a checkpoint that does not come after the one that is kept.
func notBefore(kept []byte, c Checkpoint) error {
	old, err := unverifiedCheckpoint(kept)
	if err != nil {
		return fmt.Errorf("what is kept of %s: %w", c.Origin, err)
	}
	if old.Size > c.Size || old.Size == c.Size && old != c {
		return fmt.Errorf("%w: the anchor has size %d of %s, which does not come before size %d", ErrRollback, old.Size, c.Origin, c.Size)
	}
	return nil
}
