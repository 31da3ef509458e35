package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"syscall"
)

// fileSystem is what the log needs of its directory. Names are relative to it
// and have slashes. Implementations are safe for concurrent use. What a call
// did is durable only after the sync that covers it: contents after file.Sync
// or file.Datasync, names after SyncDir, both after SyncFS.
type fileSystem interface {
	Open(name string, flag int) (file, error)
	Mkdir(name string) error // no error when it is there
	Rename(from, to string) error
	Remove(name string) error
	ReadDir(name string) ([]string, error) // sorted; directories end in a slash
	SyncDir(name string) error
	SyncFS(written []string) error // everything, of which written is new
	Free() (free, total int64, err error)
	Lock(name string) (io.Closer, error) // ErrLocked when another holds it
}

// file is an open file.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
	Datasync() error
	Size() (int64, error)
}

// beginner is a file whose contents can be on their way to the disk before they are
// waited for, so that a sync of everything has little left to do, and does not hold
// up who syncs beside it. It promises nothing.
type beginner interface{ BeginSync() }

// osFS is the operating system's files below a directory.
type osFS string

func (d osFS) path(name string) string { return filepath.Join(string(d), filepath.FromSlash(name)) }

func (d osFS) Open(name string, flag int) (file, error) {
	if flag == os.O_RDONLY {
		flag |= syscall.O_NONBLOCK // a pipe that somebody put into a copy holds nobody up
	}
	f, err := os.OpenFile(d.path(name), flag|syscall.O_CLOEXEC, 0o640)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d osFS) Mkdir(name string) error {
	err := os.Mkdir(d.path(name), 0o750)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func (d osFS) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

func (d osFS) Remove(name string) error { return os.Remove(d.path(name)) }

func (d osFS) ReadDir(name string) ([]string, error) {
	entries, err := os.ReadDir(d.path(name))
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		n := e.Name()
		if e.IsDir() {
			n += "/"
		}
		names = append(names, n)
	}
	sort.Strings(names)
	return names, nil
}

func (d osFS) SyncDir(name string) error {
	f, err := os.Open(d.path(name))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (d osFS) Free() (free, total int64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(string(d), &s); err != nil {
		return 0, 0, fmt.Errorf("statfs %s: %w", string(d), err)
	}
	return int64(s.Bavail) * int64(s.Bsize), int64(s.Blocks) * int64(s.Bsize), nil
}

func (d osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(d.path(name), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s", ErrLocked, f.Name())
		}
		return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
	}
	return f, nil
}

// osFile is a file of the operating system.
type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !st.Mode().IsRegular() {
		return 0, fmt.Errorf("%w: %s is no regular file", ErrFormat, f.Name())
	}
	return st.Size(), nil
}

// syncEach makes files and the directories that hold them durable, one by one.
func (d osFS) syncEach(written []string) error {
	dirs := map[string]bool{}
	for _, name := range written {
		f, err := os.Open(d.path(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // superseded since
		}
		if err != nil {
			return err
		}
		err = f.Sync()
		f.Close()
		if err != nil {
			return err
		}
		for p := filepath.Dir(name); !dirs[p]; p = filepath.Dir(p) {
			dirs[p] = true
		}
	}
	for p := range dirs {
		if err := d.SyncDir(p); err != nil {
			return err
		}
	}
	return nil
}

// readFile reads a whole file of at most limit bytes.
func readFile(fsys fileSystem, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes, more than %d", ErrFormat, name, size, limit)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		return nil, err
	}
	return b, nil
}

// writeTemp writes a file under its temporary name.
func writeTemp(fsys fileSystem, name string, data []byte, sync bool) error {
	f, err := fsys.Open(name+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	switch begin, ok := f.(beginner); {
	case err != nil:
	case sync:
		err = f.Sync()
	case ok:
		begin.BeginSync()
	}
	return errors.Join(err, f.Close())
}

// writeFile replaces a file as a whole; it is durable only after a sync.
func writeFile(fsys fileSystem, name string, data []byte) error {
	if err := writeTemp(fsys, name, data, false); err != nil {
		return err
	}
	return fsys.Rename(name+".tmp", name)
}

// writeDurable replaces a file as a whole and makes it durable.
func writeDurable(fsys fileSystem, name string, data []byte) error {
	if err := writeTemp(fsys, name, data, true); err != nil {
		return err
	}
	if err := fsys.Rename(name+".tmp", name); err != nil {
		return err
	}
	return fsys.SyncDir(parent(name))
}

// parent returns the directory that holds name.
func parent(name string) string {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '/' {
			return name[:i]
		}
	}
	return "."
}
