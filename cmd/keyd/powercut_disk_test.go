package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// lossyDisk is a mounted folder that keeps what was written and not synced apart,
// and loses it when the power is cut: all of it, or all but some writes of some
// of their sectors, in any order, as disks do. Names, sizes that were synced and
// modes stay. What lies is the folder of another file system.
type lossyDisk struct {
	backing, mount string

	mu     sync.Mutex
	server *fuse.Server
	dirty  map[string][]unsynced // by the path in backing, in the order of writing
	lies   string                // syncs of files whose names begin so are acknowledged and not done
	synced int                   // how many syncs there were
	lost   int                   // how many writes were lost
	fault  func(op, path string) syscall.Errno
}

// fails is what the disk says to a call, write, fsync, create or rename; 0 for
// nothing amiss.
func (d *lossyDisk) fails(op, path string) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fault == nil {
		return 0
	}
	return d.fault(op, strings.TrimPrefix(path, d.backing))
}

// breaks lets calls fail from now on; nil ends it.
func (d *lossyDisk) breaks(fault func(op, path string) syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = fault
}

// unsynced is one write, or a change of size.
type unsynced struct {
	off     int64
	old     []byte // what stood there, as far as the file went
	oldSize int64
	new     []byte
	newSize int64 // of the file, once it was written
}

// sector is what a disk writes whole, or not at all.
const sector = 512

// newLossyDisk mounts one, or returns why it cannot be mounted here.
func newLossyDisk(t *testing.T) (*lossyDisk, error) {
	t.Helper()
	base := t.TempDir()
	d := &lossyDisk{backing: filepath.Join(base, "backing"), mount: filepath.Join(base, "disk"), dirty: make(map[string][]unsynced)}
	for _, dir := range []string{d.backing, d.mount} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.on(); err != nil {
		return nil, err
	}
	t.Cleanup(func() { d.off(t) })
	return d, nil
}

func (d *lossyDisk) on() error {
	var st syscall.Stat_t
	if err := syscall.Stat(d.backing, &st); err != nil {
		return err
	}
	data := &fs.LoopbackRoot{Path: d.backing, Dev: st.Dev}
	root := &lossyNode{LoopbackNode: fs.LoopbackNode{RootData: data}, disk: d}
	data.RootNode = root
	server, err := fs.Mount(d.mount, root, &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "lossy", Name: "lossy"}})
	if err != nil {
		return err
	}
	d.server = server
	return nil
}

func (d *lossyDisk) off(t *testing.T) {
	t.Helper()
	if d.server == nil {
		return
	}
	if err := d.server.Unmount(); err != nil {
		t.Fatalf("unmounting the disk: %v", err)
	}
	d.server = nil
}

// cut is what the disk has been through when the power comes back. Nobody may have
// a file of it open.
func (d *lossyDisk) cut(t *testing.T, dice *dice) {
	t.Helper()
	d.off(t)
	if err := d.loseAll(dice); err != nil {
		t.Fatalf("cutting the power: %v", err)
	}
	if err := d.on(); err != nil {
		t.Fatalf("mounting the disk again: %v", err)
	}
}

func (d *lossyDisk) loseAll(dice *dice) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for path, writes := range d.dirty {
		kept, err := lose(path, writes, dice)
		if err != nil {
			return err
		}
		d.lost += len(writes) - kept
	}
	d.dirty = make(map[string][]unsynced)
	return nil
}

// syncs is how many there were so far; whoever works on the disk goes on.
func (d *lossyDisk) syncs() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.synced
}

// lose takes the writes back, and does some of them again, or sectors of them.
func lose(path string, writes []unsynced, dice *dice) (kept int, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for i := len(writes) - 1; i >= 0; i-- {
		w := writes[i]
		if _, err := f.WriteAt(w.old, w.off); err != nil {
			return 0, err
		}
		if err := f.Truncate(w.oldSize); err != nil {
			return 0, err
		}
	}
	share := []int{0, 0, 30, 70, 95}[dice.below(5)]
	for _, w := range writes {
		if dice.below(100) >= share {
			continue
		}
		kept++
		if w.new == nil {
			err = errors.Join(err, f.Truncate(w.newSize))
			continue
		}
		for at := 0; at < len(w.new); at += sector {
			if dice.below(10) > 0 || share < 50 && len(w.new) <= sector {
				_, failed := f.WriteAt(w.new[at:min(at+sector, len(w.new))], w.off+int64(at))
				err = errors.Join(err, failed)
			}
		}
	}
	return kept, err
}

// keeps reports whether a file loses nothing: what a token, an administrator or
// the memory of processes has, and the tiles of the audit log, which are synced by
// syncfs(2), of which no file system of a process is told. The write-ahead log
// of the audit log, by which an answer waits, is synced file by file.
func (d *lossyDisk) keeps(path string) bool {
	name := strings.TrimPrefix(path, d.backing)
	database := strings.HasPrefix(filepath.Base(name), "keyd.db") && !strings.HasSuffix(name, "-shm")
	return !database && !strings.Contains(name, "/audit/wal/")
}

// before notes a write or a change of size before it is done.
func (d *lossyDisk) before(f *os.File, path string, w unsynced) error {
	if d.keeps(path) {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	w.oldSize = info.Size()
	if w.new != nil {
		w.newSize = max(w.oldSize, w.off+int64(len(w.new)))
	}
	until := w.off + int64(len(w.new))
	if w.new == nil {
		w.off, until = min(w.newSize, w.oldSize), w.oldSize
	}
	w.old = make([]byte, max(0, min(until, w.oldSize)-w.off))
	if _, err := f.ReadAt(w.old, w.off); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	d.dirty[path] = append(d.dirty[path], w)
	return nil
}

// lossyNode is a file or folder of the disk.
type lossyNode struct {
	fs.LoopbackNode
	disk *lossyDisk
}

func (n *lossyNode) where() string { return filepath.Join(n.disk.backing, n.Path(n.Root())) }

// WrapChild implements fs.NodeWrapChilder.
func (n *lossyNode) WrapChild(context.Context, fs.InodeEmbedder) fs.InodeEmbedder {
	return &lossyNode{LoopbackNode: fs.LoopbackNode{RootData: n.RootData}, disk: n.disk}
}

// Open implements fs.NodeOpener.
func (n *lossyNode) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	path := n.where()
	f, err := os.OpenFile(path, int(flags)&^syscall.O_APPEND&^fuse.FMODE_EXEC, 0)
	if err != nil {
		return nil, 0, fs.ToErrno(err)
	}
	return n.handle(f, path, flags), 0, 0
}

func (n *lossyNode) handle(f *os.File, path string, flags uint32) *lossyFile {
	return &lossyFile{LoopbackFile: fs.NewLoopbackFileFromOS(f), disk: n.disk, path: path, writes: flags&syscall.O_ACCMODE != syscall.O_RDONLY}
}

// Create implements fs.NodeCreater.
func (n *lossyNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if errno := n.disk.fails("create", filepath.Join(n.where(), name)); errno != 0 {
		return nil, nil, 0, errno
	}
	inode, fh, fuseFlags, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	path := filepath.Join(n.where(), name)
	return inode, &lossyFile{LoopbackFile: fh.(*fs.LoopbackFile), disk: n.disk, path: path, writes: true}, fuseFlags, 0
}

// Setattr implements fs.NodeSetattrer.
func (n *lossyNode) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		if err := n.disk.resize(n.where(), int64(size)); err != nil {
			return fs.ToErrno(err)
		}
	}
	return n.LoopbackNode.Setattr(ctx, nil, in, out)
}

// resize notes a change of size.
func (d *lossyDisk) resize(path string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return d.before(f, path, unsynced{newSize: size})
}

// Rename implements fs.NodeRenamer: what is not synced goes with the file.
func (n *lossyNode) Rename(ctx context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	from, target := filepath.Join(n.where(), name), filepath.Join(n.disk.backing, to.EmbeddedInode().Path(n.Root()), newName)
	if errno := n.disk.fails("rename", target); errno != 0 {
		return errno
	}
	errno := n.LoopbackNode.Rename(ctx, name, to, newName, flags)
	if errno == 0 {
		n.disk.mu.Lock()
		defer n.disk.mu.Unlock()
		delete(n.disk.dirty, target)
		if writes, ok := n.disk.dirty[from]; ok {
			n.disk.dirty[target] = writes
			delete(n.disk.dirty, from)
		}
	}
	return errno
}

// Unlink implements fs.NodeUnlinker.
func (n *lossyNode) Unlink(ctx context.Context, name string) syscall.Errno {
	errno := n.LoopbackNode.Unlink(ctx, name)
	if errno == 0 {
		n.disk.mu.Lock()
		defer n.disk.mu.Unlock()
		delete(n.disk.dirty, filepath.Join(n.where(), name))
	}
	return errno
}

// lossyFile is an open file.
type lossyFile struct {
	*fs.LoopbackFile
	disk   *lossyDisk
	path   string
	writes bool
	mu     sync.Mutex // of one write: what stood there, then what is to stand there
}

// PassthroughFd implements fs.FilePassthroughFder: the kernel must not write past
// this file system.
func (f *lossyFile) PassthroughFd() (int, bool) { return -1, false }

// Write implements fs.FileWriter.
func (f *lossyFile) Write(_ context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if errno := f.disk.fails("write", f.path); errno != 0 {
		return 0, errno
	}
	own, err := os.OpenFile(f.path, os.O_RDWR, 0)
	if err != nil {
		return 0, fs.ToErrno(err)
	}
	defer own.Close()
	if err := f.disk.before(own, f.path, unsynced{off: off, new: append([]byte{}, data...)}); err != nil {
		return 0, fs.ToErrno(err)
	}
	n, err := own.WriteAt(data, off)
	return uint32(n), fs.ToErrno(err)
}

// Writev implements fs.FileWritever.
func (f *lossyFile) Writev(ctx context.Context, data [][]byte, off int64) (uint32, syscall.Errno) {
	done := uint32(0)
	for _, piece := range data {
		n, errno := f.Write(ctx, piece, off+int64(done))
		if done += n; errno != 0 {
			return done, errno
		}
	}
	return done, 0
}

// Allocate implements fs.FileAllocater.
func (f *lossyFile) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	const keepsSize = 1 // FALLOC_FL_KEEP_SIZE
	if mode != 0 && mode != keepsSize {
		return syscall.ENOTSUP
	}
	if info, err := os.Stat(f.path); mode == 0 && err == nil && int64(off+size) > info.Size() {
		if err := f.disk.resize(f.path, int64(off+size)); err != nil {
			return fs.ToErrno(err)
		}
	}
	return f.LoopbackFile.Allocate(ctx, off, size, mode)
}

// Fsync implements fs.FileFsyncer: what was written is now kept.
func (f *lossyFile) Fsync(context.Context, uint32) syscall.Errno {
	if errno := f.disk.fails("fsync", f.path); errno != 0 {
		return errno
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.synced++; f.disk.lies == "" || !strings.HasPrefix(filepath.Base(f.path), f.disk.lies) {
		delete(f.disk.dirty, f.path)
	}
	return 0
}

// TestLossyDisk: the disk loses what was not synced, and nothing else.
func TestLossyDisk(t *testing.T) {
	d, err := newLossyDisk(t)
	if err != nil {
		t.Logf("no file system can be mounted here (%v); TestPowerCut follows the calls instead", err)
		return
	}
	if err := os.MkdirAll(filepath.Join(d.mount, "audit", "wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	dice := newDice(1)
	for round := range 20 {
		name := filepath.Join(d.mount, "audit", "wal", fmt.Sprint(round))
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		kept := strings.Repeat("kept", 3000)
		_, err = f.WriteString(kept)
		err = errors.Join(err, f.Sync())
		_, more := f.WriteString(strings.Repeat("lost", 3000))
		if err := errors.Join(err, more, f.Close()); err != nil {
			t.Fatal(err)
		}
		d.cut(t, dice)
		got, err := os.ReadFile(name)
		if err != nil || !strings.HasPrefix(string(got), kept) {
			t.Fatalf("what was synced is gone: %d bytes, %v", len(got), err)
		}
	}
	if d.lost == 0 {
		t.Error("nothing was lost")
	}
}
