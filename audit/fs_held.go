package audit

import (
	"errors"
	"io"
	"os"
)

// heldFS is [osFS] for who writes: the directory stays open as long as it is
// locked. A failed write-back is told by syncfs once to each open file, and to one
// that was opened later only if nobody was told before. So a directory that is
// opened anew for each sync misses what another process, a second node on the same
// disk say, has been told meanwhile.
type heldFS struct {
	osFS
	root *os.File
}

func newHeldFS(dir string) *heldFS { return &heldFS{osFS: osFS(dir)} }

// Lock implements [fileSystem].
func (d *heldFS) Lock(name string) (io.Closer, error) {
	lock, err := d.osFS.Lock(name)
	if err != nil {
		return nil, err
	}
	if d.root, err = os.Open(string(d.osFS)); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return holding{lock, d.root}, nil
}

// SyncFS implements [fileSystem]; the directory must be locked.
func (d *heldFS) SyncFS(written []string) error { return d.syncBy(d.root, written) }

// holding is a lock and the directory that it holds open.
type holding struct{ lock, root io.Closer }

func (h holding) Close() error { return errors.Join(h.root.Close(), h.lock.Close()) }
