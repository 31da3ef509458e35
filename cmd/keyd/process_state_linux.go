package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// processState is what the kernel tells everybody about a process, also about
// one that is not dumpable.
type processState struct {
	locked       uint64 // bytes
	lockLimit    uint64 // bytes, or unlimited
	coreLimit    uint64
	noNewPrivs   bool
	seccomp      bool
	capabilities uint64 // effective, a bit each
	uid          int    // effective
	hidden       bool   // its memory and files are closed to its own user
}

// readProcess reads /proc/PID.
func readProcess(pid int) (processState, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	var p processState
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return p, fmt.Errorf("reading the state of process %d: %w", pid, err)
	}
	limits, err := os.ReadFile(filepath.Join(dir, "limits"))
	if err != nil {
		return p, fmt.Errorf("reading the limits of process %d: %w", pid, err)
	}
	words := statusWords(status)
	first := func(name string) string {
		if w := words[name]; len(w) > 0 {
			return w[0]
		}
		return ""
	}
	locked, lerr := strconv.ParseUint(first("VmLck"), 10, 64) // in KiB
	caps, cerr := strconv.ParseUint(first("CapEff"), 16, 64)
	if lerr != nil || cerr != nil || len(words["Uid"]) != 4 {
		return p, fmt.Errorf("the state of process %d is not of the form that keyd knows", pid)
	}
	p.locked, p.capabilities = locked<<10, caps
	p.noNewPrivs, p.seccomp = first("NoNewPrivs") == "1", first("Seccomp") == "2"
	if p.uid, err = strconv.Atoi(words["Uid"][1]); err != nil {
		return p, err
	}
	p.coreLimit, p.lockLimit = hardLimit(limits, "Max core file size"), hardLimit(limits, "Max locked memory")
	p.hidden, err = isHidden(filepath.Join(dir, "mem"), p.uid)
	return p, err
}

func statusWords(status []byte) map[string][]string {
	words := make(map[string][]string)
	for line := range bytes.Lines(status) {
		name, rest, _ := strings.Cut(string(line), ":")
		words[name] = strings.Fields(rest)
	}
	return words
}

// hardLimit is a limit that the process cannot raise; a line is name, soft,
// hard, unit.
func hardLimit(limits []byte, name string) uint64 {
	lines := bufio.NewScanner(bytes.NewReader(limits))
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		words := strings.Fields(rest)
		if !ok || len(words) < 2 {
			continue
		}
		if n, err := strconv.ParseUint(words[1], 10, 64); err == nil {
			return n
		}
		return unlimited
	}
	return unlimited
}
