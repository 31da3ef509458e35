package hsm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"keyd.dev/keyd/internal/secret"
)

// SoftoknVar names the environment variable with the path of NSS softokn's
// library, for machines that keep it in an unusual place.
const SoftoknVar = "KEYD_SOFTOKN"

// softoknPlaces are where the systems' packages put the library.
var softoknPlaces = [...]string{
	"/usr/lib/*/libsoftokn3.so",
	"/usr/lib/*/nss/libsoftokn3.so",
	"/usr/lib64/libsoftokn3.so",
	"/usr/lib/libsoftokn3.so",
	"/usr/local/lib/libsoftokn3.so",
	"/opt/homebrew/lib/libsoftokn3.dylib",
}

// FindSoftokn returns the path of NSS softokn's library: the one that
// KEYD_SOFTOKN names, or the first of the usual places. It returns
// [ErrModule], with what to install, when there is none.
func FindSoftokn() (string, error) {
	if path := os.Getenv(SoftoknVar); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%w: %s: %w", ErrModule, SoftoknVar, err)
		}
		return filepath.Abs(path)
	}
	for _, place := range softoknPlaces {
		if found, _ := filepath.Glob(place); len(found) > 0 {
			return found[0], nil
		}
	}
	return "", fmt.Errorf("%w: NSS softokn is not installed; install the package libnss3 (Debian, Ubuntu), nss-softokn (Fedora) or nss (Homebrew), or name its library in %s",
		ErrModule, SoftoknVar)
}

// SoftoknReserved is what softokn wants at its start: the folder of its
// database, and the label of the token in it.
func SoftoknReserved(dir, label string) (string, error) {
	for _, text := range []string{dir, label} {
		if strings.ContainsAny(text, `'"\`) {
			return "", fmt.Errorf("%w: %q cannot stand in softokn's parameters", ErrConfig, text)
		}
	}
	return "configdir='sql:" + dir + "' certPrefix='' keyPrefix='' secmod='secmod.db' flags='' dbTokenDescription='" + label + "'", nil
}

// InitSoftokn gives the database of cfg.Reserved, which is made if it is not
// there, its PIN; the empty one makes a database without, for [Config.NoPIN].
// It is for throw-away tokens. It returns [ErrModule], [ErrExists]
// for a database that was given its PIN before, [ErrToken] or [ErrPIN].
func InitSoftokn(cfg Config, pin secret.Bytes) error {
	cfg.NoPIN, cfg.PIN = true, nil
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	mod, err := load(cfg.Module)
	if err != nil {
		return err
	}
	owner, err := start(mod, cfg)
	if err != nil {
		return err
	}
	if owner {
		defer func() { _ = mod.Finalize() }()
	}
	slot, err := freeSlot(mod, cfg.TokenLabel)
	if err != nil {
		return err
	}
	return initPIN(mod, slot, secret.Bytes{}, pin) // a new database has an officer without a PIN
}
