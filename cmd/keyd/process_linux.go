package main

import (
	"fmt"
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

// lockMemory keeps what the process touches out of the swap, where the limit
// allows it; where it does not, `keyd doctor` says so (C-13).
func lockMemory() error {
	limit, err := memlockLimit()
	if err != nil || limit != unlimited {
		return err
	}
	if err := syscall.Mlockall(syscall.MCL_CURRENT | syscall.MCL_FUTURE | mclOnFault); err != nil {
		return fmt.Errorf("locking the memory: %w", err)
	}
	return nil
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
