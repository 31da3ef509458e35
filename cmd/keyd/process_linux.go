package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
)

// What the syscall package does not name.
const (
	rlimitMemlock = 8
	mclOnFault    = 4
	staUnsync     = 0x40
)

// harden keeps the process's memory out of core files and away from other
// processes of the same user (C-13).
func harden() error {
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("turning core files off: %w", err)
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 0, 0); errno != 0 {
		return fmt.Errorf("making the process not dumpable: %w", errno)
	}
	return nil
}

// lockMemory keeps what the process touches out of the swap, where the limit or
// the right to go beyond it allows that, and reports whether it does; where it
// does not, `keyd doctor` says so. A page is locked when it is touched first: all
// that is mapped would be 85 MB more (C-13).
func lockMemory() (bool, error) {
	limit, err := memlockLimit()
	if err != nil || limit != unlimited && !mayLock() {
		return false, err
	}
	debug.FreeOSMemory() // what is locked is never given back
	if err := syscall.Mlockall(syscall.MCL_CURRENT | syscall.MCL_FUTURE | mclOnFault); err != nil {
		return false, fmt.Errorf("locking the memory: %w", err)
	}
	return true, nil
}

// mayLock reports CAP_IPC_LOCK, to which the limit does not apply.
func mayLock() bool {
	const ipcLock = 14
	p, err := readProcess(os.Getpid())
	return err == nil && p.capabilities>>ipcLock&1 == 1
}

// memlockLimit is how much memory may be locked, in bytes.
func memlockLimit() (uint64, error) {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(rlimitMemlock, &r); err != nil {
		return 0, fmt.Errorf("reading the limit of locked memory: %w", err)
	}
	return r.Cur, nil
}

// clockSynced is what the kernel says of the clock.
func clockSynced() (bool, error) {
	var t syscall.Timex
	if _, err := syscall.Adjtimex(&t); err != nil {
		return false, fmt.Errorf("asking the kernel about the clock: %w", err)
	}
	return t.Status&staUnsync == 0, nil
}

// isHidden reports whether the kernel took a file of /proc/PID from the user
// who runs the process, as it does where the process is not dumpable. Of root's
// processes it cannot be told.
func isHidden(file string, uid int) (bool, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(file, &st); err != nil {
		return false, fmt.Errorf("looking at the owner of %s: %w", file, err)
	}
	return uid != 0 && st.Uid == 0, nil
}
