package audit

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// Datasync makes the contents durable without waiting for times.
func (f osFile) Datasync() error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err != syscall.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// BeginSync has the contents written without waiting for it.
func (f osFile) BeginSync() {
	const write = 2                                     // SYNC_FILE_RANGE_WRITE
	_ = syscall.SyncFileRange(int(f.Fd()), 0, 0, write) // SyncFS says what could not be written
}

// SyncFS makes the whole file system durable with syncfs(2), which reports
// write-back errors since Linux 5.8.
func (d osFS) SyncFS(written []string) error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	defer f.Close()
	return d.syncBy(f, written)
}

// syncBy is SyncFS by a file of it that is open. It is told of what failed since it
// was told last, or since it was opened.
func (d osFS) syncBy(f *os.File, written []string) error {
	trap := uintptr(0)
	switch runtime.GOARCH {
	case "amd64":
		trap = 306
	case "arm64":
		trap = 267
	default:
		return d.syncEach(written)
	}
	if _, _, errno := syscall.Syscall(trap, f.Fd(), 0, 0); errno != 0 {
		return fmt.Errorf("syncfs %s: %w", string(d), errno)
	}
	return nil
}
