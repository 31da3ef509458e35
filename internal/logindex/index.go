package logindex

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"keyd.dev/keyd/audit"
)

// Config says where an index is.
type Config struct {
	Dir    string        // folder of the files; made when the first is written
	Reader *audit.Reader // the log
}

// Index is the index of one audit log's folder, all its logs. It is safe for
// concurrent use, and for several processes at once: files are replaced as a
// whole, and what two of them build of the same records is equal.
type Index struct {
	dir    string
	reader *audit.Reader

	mu   sync.Mutex
	open map[fileName]*held
	tail map[*audit.Snapshot][]audit.Entry // what their checkpoints do not cover
}

type fileName struct {
	log   string
	block uint32
}

// held is a file that is open, and the range that it was checked against.
type held struct {
	*block
	file *os.File
}

// mostOpen bounds the files that are held open.
const mostOpen = 400

// Open returns the index of a log. The folder need not be there. The error is
// [ErrConfig].
func Open(c Config) (*Index, error) {
	if c.Dir == "" || c.Reader == nil {
		return nil, fmt.Errorf("%w: needs a folder and a log", ErrConfig)
	}
	return &Index{dir: c.Dir, reader: c.Reader, open: make(map[fileName]*held), tail: make(map[*audit.Snapshot][]audit.Entry)}, nil
}

// ReadTails reads what the checkpoints of snapshots do not cover, of all at once,
// which is quicker than to do it for each when it is searched.
func (x *Index) ReadTails(snaps []*audit.Snapshot) error {
	tails, err := x.reader.Tails(snaps)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, snap := range snaps {
		x.tail[snap] = tails[snap.Log()]
	}
	return nil
}

// End returns the seq behind the last record that a search of the snapshot sees.
func (x *Index) End(snap *audit.Snapshot) (uint64, error) {
	tail, err := x.tailOf(snap)
	return snap.Size() + uint64(len(tail)), err
}

// tailOf is what the checkpoint of a snapshot does not cover.
func (x *Index) tailOf(snap *audit.Snapshot) ([]audit.Entry, error) {
	x.mu.Lock()
	tail, known := x.tail[snap]
	x.mu.Unlock()
	if known {
		return tail, nil
	}
	if err := x.ReadTails([]*audit.Snapshot{snap}); err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.tail[snap], nil
}

// Close closes the files.
func (x *Index) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.closeFiles()
}

func (x *Index) closeFiles() error {
	var errs []error
	for name, h := range x.open {
		errs = append(errs, h.file.Close())
		delete(x.open, name)
	}
	return errors.Join(errs...)
}

// path is the file of a block.
func (x *Index) path(log string, block uint32) string {
	return filepath.Join(x.dir, log, fmt.Sprintf("%06d", block))
}

// parseName reads the number of a block from a file's name.
func parseName(name string) (uint32, bool) {
	n, err := strconv.ParseUint(name, 10, 32)
	return uint32(n), err == nil && fmt.Sprintf("%06d", n) == name
}

// part is the range of a block that a snapshot has whole bundles of.
type part struct {
	block      uint32
	first, end int
}

// parts returns the blocks of a snapshot, oldest first.
func parts(snap *audit.Snapshot) []part {
	var all []part
	bundles, kept := snap.Size()/bundleSize, snap.MinIndex()/bundleSize
	for b := kept / blockBundles; b*blockBundles < bundles; b++ {
		p := part{block: uint32(b), end: int(min(blockBundles, bundles-b*blockBundles))}
		if from := b * blockBundles; kept > from {
			p.first = int(kept - from)
		}
		if p.first < p.end {
			all = append(all, p)
		}
	}
	return all
}

// take returns the file of a block, when it is whole and made of the tiles of
// the snapshot. It may cover less than the part. Errors: [fs.ErrNotExist],
// [ErrFormat], [ErrStale]; those of the log.
func (x *Index) take(snap *audit.Snapshot, p part) (*block, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	name := fileName{snap.Log(), p.block}
	if h := x.open[name]; h != nil {
		return h.block, x.fits(snap, p, h.block)
	}
	file, err := os.Open(x.path(name.log, p.block))
	if err != nil {
		return nil, err
	}
	b, err := x.read(snap, p, file)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", file.Name(), err), file.Close())
	}
	if len(x.open) >= mostOpen {
		if err := x.closeFiles(); err != nil {
			return nil, errors.Join(err, file.Close())
		}
	}
	x.open[name] = &held{block: b, file: file}
	return b, nil
}

func (x *Index) read(snap *audit.Snapshot, p part, file *os.File) (*block, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	h, err := parseHead(file, info.Size())
	if err != nil {
		return nil, err
	}
	b := &block{head: *h, file: file}
	return b, x.fits(snap, p, b)
}

// fits reports whether a file is of a part of this log's tree. The error is
// [ErrStale], or one of the log.
func (x *Index) fits(snap *audit.Snapshot, p part, b *block) error {
	if b.block != p.block || b.end > p.end {
		return fmt.Errorf("%w: it is of block %d, up to bundle %d", ErrStale, b.block, b.end)
	}
	above, err := snap.Hashes(1, uint64(p.block))
	if err != nil {
		return err
	}
	if bindingOf(snap.Log(), b.block, b.first, b.end, above[b.first:b.end]) != b.binding {
		return fmt.Errorf("%w: its tiles are others", ErrStale)
	}
	return nil
}

// forget closes the file of a block that is to be replaced.
func (x *Index) forget(name fileName) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.open[name]
	if h == nil {
		return nil
	}
	delete(x.open, name)
	return h.file.Close()
}

// ofLog tells what is wrong with the log, or with this machine, from what makes a
// file worthless.
func ofLog(err error) bool {
	return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrStale)
}

// write replaces the file of a block. It needs no sync: a file that a crash
// spoils fails its check sums. It belongs to whom the folder above belongs to,
// so that an administrator's search leaves nothing that the daemon cannot replace.
func (x *Index) write(log string, block uint32, data []byte) error {
	if err := x.forget(fileName{log, block}); err != nil {
		return err
	}
	above := filepath.Dir(x.dir)
	for _, dir := range []string{x.dir, filepath.Join(x.dir, log)} {
		err := os.Mkdir(dir, 0o750)
		if err == nil {
			err = sameOwner(dir, above)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	file, err := os.CreateTemp(filepath.Join(x.dir, log), "*.tmp")
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	err = errors.Join(err, file.Chmod(0o640), file.Close())
	if err == nil {
		err = sameOwner(file.Name(), above)
	}
	if err == nil {
		err = os.Rename(file.Name(), x.path(log, block))
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}

// sameOwner gives a file of root's to the owner of a folder.
func sameOwner(path, folder string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(folder)
	if err != nil {
		return err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid != 0 {
		return os.Lchown(path, int(owner.Uid), int(owner.Gid))
	}
	return nil
}
