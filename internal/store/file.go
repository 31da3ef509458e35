package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// prepareFile makes sure that path is a file of ours that nobody else can read,
// in a directory that nobody else can write; it makes the file when there is none.
func prepareFile(path string) error {
	dir := filepath.Dir(path)
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("store: directory of the database: %w", err)
	}
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Errorf("%w: directory %s has mode %04o; do: chmod go-w %s", ErrUnsafe, dir, perm, dir)
	}
	if !ours(info, true) {
		return fmt.Errorf("%w: directory %s belongs to another user", ErrUnsafe, dir)
	}
	if info, err = os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		return makeFile(path)
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	switch perm := info.Mode().Perm(); {
	case !info.Mode().IsRegular():
		return fmt.Errorf("%w: %s is not a regular file", ErrUnsafe, path)
	case perm&0o077 != 0:
		return fmt.Errorf("%w: %s has mode %04o; do: chmod 600 %s", ErrUnsafe, path, perm, path)
	case !ours(info, false):
		return fmt.Errorf("%w: %s belongs to another user", ErrUnsafe, path)
	}
	return nil
}

// makeFile makes an empty file, which SQLite takes for an empty database. An
// existing one is never opened here: closing it would drop the locks that
// SQLite may hold on it in this process.
func makeFile(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return prepareFile(path)
	}
	if err != nil {
		return fmt.Errorf("store: make the database: %w", err)
	}
	return file.Close()
}

// ours reports whether the file belongs to this user, or, if that will do, to root.
func ours(info os.FileInfo, rootToo bool) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && (int(stat.Uid) == os.Geteuid() || rootToo && stat.Uid == 0)
}

// lock is the right to serve from a database. The kernel takes it back when the
// process ends, however it ends.
type lock struct{ file *os.File }

// lockPatience bounds the wait for a visitor that holds the lock for as long as
// it takes to make the schema.
const lockPatience = time.Second

// takeLock takes the lock, or returns [ErrServed].
func takeLock(ctx context.Context, path string) (*lock, error) {
	file, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: lock: %w", err)
	}
	if err := awaitLock(ctx, file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	pid := fmt.Appendf(nil, "%-10d\n", os.Getpid())
	if _, err := file.WriteAt(pid, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("store: lock: %w", err), file.Close())
	}
	return &lock{file}, nil
}

func awaitLock(ctx context.Context, file *os.File) error {
	deadline := time.Now().Add(lockPatience)
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return fmt.Errorf("store: lock %s: %w", file.Name(), err)
		case time.Now().After(deadline):
			return fmt.Errorf("%w: %s is locked by process %s", ErrServed, file.Name(), lockHolder(file))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func lockHolder(file *os.File) string {
	text, err := io.ReadAll(io.NewSectionReader(file, 0, 32))
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}

func (l *lock) release() error { return l.file.Close() }
