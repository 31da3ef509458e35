//go:build !linux

package main

import (
	"errors"
	"fmt"
	"syscall"
)

// harden turns core files off (C-13).
func harden() error {
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("turning core files off: %w", err)
	}
	return nil
}

// lockMemory has nothing to do here.
func lockMemory() (bool, error) { return false, nil }

// mayLock cannot be told here.
func mayLock() bool { return false }

// memlockLimit cannot be told here.
func memlockLimit() (uint64, error) { return 0, errors.ErrUnsupported }

// clockSynced cannot be told here.
func clockSynced() (bool, error) { return false, errors.ErrUnsupported }
