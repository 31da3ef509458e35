package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// The rights that are handled are those of version 6 of the interface: rights
// of later ones are not taken before a kernel that has them was tried.
const (
	handledVersion = 6
	threadsVersion = 8 // from here on the kernel restricts all threads by itself
	signalErratum  = 2 // without its fix a thread cannot signal its own process

	readFile  = ll.AccessFSReadFile
	readDir   = ll.AccessFSReadFile | ll.AccessFSReadDir
	writeFile = readFile | ll.AccessFSWriteFile | ll.AccessFSTruncate
	writeDir  = readDir | writeFile | ll.AccessFSMakeReg | ll.AccessFSMakeDir | ll.AccessFSMakeSock |
		ll.AccessFSRemoveFile | ll.AccessFSRemoveDir | ll.AccessFSRefer
)

// Supported is what this kernel can hold.
func Supported() State {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil {
		return State{}
	}
	if abi >= handledVersion {
		if errata, err := ll.LandlockGetErrata(); err != nil || errata&signalErratum == 0 {
			abi = handledVersion - 1
		}
	}
	return stateOf(abi)
}

// Enter leaves the process with what cfg names, all of its threads, for good,
// and returns what the kernel holds of it. It returns [ErrMode],
// [ErrUnsupported], [ErrDeaf], or an error that names the folder that is not
// there.
func Enter(cfg Config) (State, error) {
	return enter(cfg, Supported())
}

func enter(cfg Config, can State) (State, error) {
	if _, err := ParseMode(string(cfg.Mode)); err != nil {
		return State{}, err
	}
	if cfg.Mode == Off {
		return State{}, nil
	}
	if !can.Files || !can.Ports {
		if cfg.Mode == Strict {
			return State{}, fmt.Errorf("%w: Landlock %d of this kernel holds %s; files and ports take Landlock 4, Linux 6.7", ErrUnsupported, can.ABI, can)
		}
		if !can.Files {
			return State{ABI: can.ABI}, nil
		}
	}
	rules, err := cfg.rules()
	if err != nil {
		return State{}, err
	}
	if can.ABI < threadsVersion {
		if err := awaitThreads(cfg.Patience); err != nil {
			return State{ABI: can.ABI}, err
		}
	}
	if err := cfg.handled().BestEffort().Restrict(rules...); err != nil {
		return State{}, fmt.Errorf("sandbox: %w", err)
	}
	return can, nil
}

// handled is what is refused unless a rule allows it.
func (c Config) handled() landlock.Config {
	scoped := landlock.ScopedSet(ll.ScopeSignal | ll.ScopeAbstractUnixSocket)
	if c.AbstractSockets {
		scoped = ll.ScopeSignal
	}
	return landlock.MustConfig(landlock.V6.HandledAccessFS, landlock.V6.HandledAccessNet, scoped)
}

func (c Config) rules() ([]landlock.Rule, error) {
	var rules []landlock.Rule
	add := func(paths []string, file, dir landlock.AccessFSSet, optional bool) error {
		for _, path := range paths {
			info, err := os.Stat(path)
			// What may not be looked at may not be read either.
			if optional && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) {
				continue
			}
			if err != nil {
				return fmt.Errorf("sandbox: looking at what stays open: %w", err)
			}
			rights := file
			if info.IsDir() {
				rights = dir
			}
			rule := landlock.PathAccess(rights, path)
			if optional {
				rule = rule.IgnoreIfMissing()
			}
			rules = append(rules, rule)
		}
		return nil
	}
	if err := errors.Join(add(c.Read, readFile, readDir, true), add(c.Write, writeFile, writeDir, false)); err != nil {
		return nil, err
	}
	for _, port := range c.Bind {
		rules = append(rules, landlock.BindTCP(port))
	}
	for _, port := range c.Connect {
		rules = append(rules, landlock.ConnectTCP(port))
	}
	return rules, nil
}
