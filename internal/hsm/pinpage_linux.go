package hsm

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The kinds of memory that the kept PIN stands in (C-16).
const (
	pageSecret = "memfd_secret" // not even in the kernel's own map of the memory
	pageLocked = "locked"       // not in the swap, not in core files
	pageBare   = "not locked"   // not in core files
)

// newPage returns one page of memory outside of Go's heap for a secret that is
// kept long, and of which kind it is. Kernels have memfd_secret since 5.14, and
// it can be switched off; the limit of locked memory may be used up.
func newPage() ([]byte, string, error) {
	if b, err := newSecretPage(); err == nil {
		return b, pageSecret, nil
	}
	return newPrivatePage()
}

func newSecretPage() (b []byte, err error) {
	fd, err := unix.MemfdSecret(unix.O_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	size := os.Getpagesize()
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, err
	}
	b, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	// The page is made when it is touched first, and a process that cannot have
	// it is killed then, not later.
	b[0] = 0
	return b, nil
}

func newPrivatePage() ([]byte, string, error) {
	b, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, "", fmt.Errorf("hsm: a page for the PIN: %w", err)
	}
	// A child gets none of it, nor does a core file.
	if err := errors.Join(unix.Madvise(b, unix.MADV_DONTDUMP), unix.Madvise(b, unix.MADV_DONTFORK)); err != nil {
		return nil, "", errors.Join(fmt.Errorf("hsm: a page for the PIN: %w", err), unix.Munmap(b))
	}
	if err := unix.Mlock(b); err != nil {
		return b, pageBare, nil
	}
	return b, pageLocked, nil
}

func freePage(b []byte) error { return unix.Munmap(b) }
