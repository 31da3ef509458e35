//go:build !linux

package main

import "errors"

// processState cannot be told here.
type processState struct {
	locked, lockLimit, coreLimit uint64
	noNewPrivs, seccomp, hidden  bool
	capabilities                 uint64
	uid                          int
}

func readProcess(int) (processState, error) { return processState{}, errors.ErrUnsupported }
