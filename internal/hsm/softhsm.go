package hsm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// SoftHSMVar names the environment variable with the path of SoftHSM's
// library, for machines that keep it in an unusual place.
const SoftHSMVar = "KEYD_SOFTHSM"

// softHSMPlaces are where the systems' packages put the library.
var softHSMPlaces = [...]string{
	"/usr/lib/softhsm/libsofthsm2.so",
	"/usr/lib64/softhsm/libsofthsm2.so",
	"/usr/lib64/pkcs11/libsofthsm2.so",
	"/usr/lib/*/softhsm/libsofthsm2.so",
	"/usr/local/lib/softhsm/libsofthsm2.so",
	"/opt/homebrew/lib/softhsm/libsofthsm2.so",
}

// FindSoftHSM returns the path of SoftHSM's library: the one that
// KEYD_SOFTHSM names, or the first of the usual places. It returns
// [ErrModule], with what to install, when there is none.
func FindSoftHSM() (string, error) {
	if path := os.Getenv(SoftHSMVar); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%w: %s: %w", ErrModule, SoftHSMVar, err)
		}
		return filepath.Abs(path)
	}
	for _, place := range softHSMPlaces {
		if found, _ := filepath.Glob(place); len(found) > 0 {
			return found[0], nil
		}
	}
	return "", fmt.Errorf("%w: SoftHSM is not installed; install the package softhsm2 (Debian, Ubuntu) or softhsm (Fedora, Homebrew), or name its library in %s",
		ErrModule, SoftHSMVar)
}

// WriteSoftHSMConfig makes the folder for SoftHSM's tokens and the file that
// SOFTHSM2_CONF must name, both below dir, unless they are there, and returns
// the file's path. SoftHSM reads the variable when a module starts in the
// process, so the caller sets it before [InitToken] and [Open].
func WriteSoftHSMConfig(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("hsm: SoftHSM folder: %w", err)
	}
	tokens, path := filepath.Join(dir, "tokens"), filepath.Join(dir, "softhsm2.conf")
	if err := os.MkdirAll(tokens, 0o700); err != nil {
		return "", fmt.Errorf("hsm: SoftHSM folder: %w", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	text := "directories.tokendir = " + tokens + "\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("hsm: SoftHSM configuration: %w", err)
	}
	return path, nil
}
