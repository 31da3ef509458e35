// Package sandbox takes from the own process, for the rest of its life and of
// its children's, the files and ports that it does not need: what gets control
// of it then has no more than these. It stands on Landlock, which Linux has
// since 5.13, needs no privilege, and cannot be undone.
package sandbox

import (
	"errors"
	"fmt"
	"time"
)

// The errors of this package.
var (
	// ErrMode: the word is none of the modes.
	ErrMode = errors.New("sandbox: want off, best_effort or strict")
	// ErrUnsupported: the mode is strict, and this kernel cannot hold files and ports.
	ErrUnsupported = errors.New("sandbox: the kernel does not support it")
	// ErrDeaf: a thread of the process, of the PKCS#11 module say, blocks all
	// signals, by which kernels before Landlock 8 reach it. Nothing was taken
	// from the process.
	ErrDeaf = errors.New("sandbox: a thread of the process blocks all signals")
)

// Mode says what happens where the kernel cannot do it all.
type Mode string

// The modes of a sandbox.
const (
	// Off leaves the process as it is.
	Off Mode = "off"
	// BestEffort takes what the kernel supports, and nothing where it supports nothing.
	BestEffort Mode = "best_effort"
	// Strict is BestEffort where files and ports can be held, and [ErrUnsupported] elsewhere.
	Strict Mode = "strict"
)

// ParseMode reads the word of a configuration. It returns [ErrMode].
func ParseMode(word string) (Mode, error) {
	switch m := Mode(word); m {
	case Off, BestEffort, Strict:
		return m, nil
	}
	return "", fmt.Errorf("%w: %q", ErrMode, word)
}

// Config says what the process keeps. Everything else is refused to it: other
// files and folders, the running of any program, device calls, other TCP ports,
// and, where the kernel can, signals to and abstract sockets of other processes.
// What is open already stays open. UDP, Unix sockets with a path, and protocols
// beside TCP are not held by the kernel.
type Config struct {
	Mode Mode
	// Read are folders, with all beneath, and files that may be read. What is
	// not there is left out. A file that is replaced by another of its name is
	// another file: name its folder.
	Read []string
	// Write are folders, with all beneath, in which files may be read, written,
	// made, renamed and removed, and files that may be written. All must be there.
	Write []string
	// Bind are the TCP ports that may be listened on.
	Bind []uint16
	// Connect are the TCP ports that may be connected to, on any host.
	Connect []uint16
	// AbstractSockets keeps the abstract Unix sockets of other processes.
	AbstractSockets bool
	// Patience is how long a thread may block signals, as each does at its
	// birth, before it counts as deaf. Default 2 s.
	Patience time.Duration
}

const defaultPatience = 2 * time.Second

// State is what the kernel holds of a [Config].
type State struct {
	ABI     int  `json:"abi"`     // of Landlock; 0 where there is none
	Files   bool `json:"files"`   // files and folders
	Ports   bool `json:"ports"`   // TCP ports
	Devices bool `json:"devices"` // device calls
	Signals bool `json:"signals"` // signals and abstract sockets
}

// String names what is held, "files, ports".
func (s State) String() string {
	text := ""
	for _, part := range []struct {
		held bool
		name string
	}{{s.Files, "files"}, {s.Ports, "ports"}, {s.Devices, "device calls"}, {s.Signals, "signals"}} {
		switch {
		case !part.held:
		case text == "":
			text = part.name
		default:
			text += ", " + part.name
		}
	}
	if text == "" {
		return "nothing"
	}
	return text
}

// stateOf is what a version of Landlock's interface can hold.
func stateOf(abi int) State {
	// Version 1 cannot let a file be renamed into another folder, and 2 cannot
	// hold truncation, which is no way out of a folder.
	return State{ABI: abi, Files: abi >= 2, Ports: abi >= 4, Devices: abi >= 5, Signals: abi >= 6}
}
