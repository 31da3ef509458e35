package credentials

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"keyd.dev/keyd/internal/secret"
)

// maxPIN is the longest PIN that is accepted, in bytes, its newline not counted.
const maxPIN = 256

// PINSource is the one place that the token's PIN comes from. The zero value
// is no source. It holds no secret and may be printed.
type PINSource struct {
	kind sourceKind
	arg  string
	argv []string
}

type sourceKind string

const (
	fromFile    sourceKind = "file"
	fromSystemd sourceKind = "systemd"
	fromEnv     sourceKind = "env"
	fromTTY     sourceKind = "tty"
	fromCommand sourceKind = "command"
	fromVault   sourceKind = "vault"
	fromWrapped sourceKind = "vault-wrapped"
)

// Vault is what a PIN source asks of HashiCorp Vault. Both return the value as
// Vault gave it, which is a Go string and cannot be wiped; their errors do not
// repeat it.
type Vault interface {
	// Secret reads one field of a secret of the KV engine, version 2.
	Secret(ctx context.Context, mount, path, field string) (string, error)
	// Unwrapped spends a single-use wrapping token, after it has checked what
	// made it, and returns the PIN in it. A token that is no longer good is an
	// error that says so: somebody else may have unwrapped it.
	Unwrapped(ctx context.Context, wrapping string) (string, error)
}

// ParsePINSource reads the name of a source:
//
//	file:/path                  a file that only its owner can read
//	systemd:NAME                a systemd credential, $CREDENTIALS_DIRECTORY/NAME
//	tty                         typed at /dev/tty
//	command:["argv0","arg",…]   standard output of a program, no shell
//	env:NAME                    an environment variable; only when allowEnv is set
//	vault:MOUNT/PATH#FIELD      a field of a secret of Vault's KV engine, version 2
//	vault-wrapped:/path         a file with a single-use wrapping token of Vault
//
// It returns [ErrSource]. C-01.
func ParsePINSource(text string, allowEnv bool) (PINSource, error) {
	kind, arg, _ := strings.Cut(text, ":")
	s := PINSource{kind: sourceKind(kind), arg: arg}
	switch s.kind {
	case fromFile, fromWrapped:
		if !filepath.IsAbs(arg) {
			return PINSource{}, fmt.Errorf("%w: %q: the path must be absolute", ErrSource, text)
		}
	case fromSystemd:
		if arg == "" || arg != filepath.Base(arg) || arg == "." || arg == ".." {
			return PINSource{}, fmt.Errorf("%w: %q: want systemd: and the name of a credential", ErrSource, text)
		}
	case fromEnv:
		if arg == "" {
			return PINSource{}, fmt.Errorf("%w: %q: want env: and the name of a variable", ErrSource, text)
		}
		if !allowEnv {
			return PINSource{}, fmt.Errorf("%w: %q: an environment variable can be read by others; use file: or systemd:, or set insecure_allow_env_pin = true", ErrSource, text)
		}
	case fromTTY:
		if text != "tty" {
			return PINSource{}, fmt.Errorf("%w: %q: tty takes no argument", ErrSource, text)
		}
	case fromCommand:
		if err := json.Unmarshal([]byte(arg), &s.argv); err != nil || len(s.argv) == 0 || !filepath.IsAbs(s.argv[0]) {
			return PINSource{}, fmt.Errorf(`%w: %q: want command:["/path/of/program","argument"]`, ErrSource, text)
		}
	case fromVault:
		if _, _, _, ok := splitVault(arg); !ok {
			return PINSource{}, fmt.Errorf("%w: %q: want vault:MOUNT/PATH#FIELD, vault:secret/keyd/token#pin say", ErrSource, text)
		}
	default:
		// The text may be the PIN itself, put there by mistake: it is not repeated.
		return PINSource{}, fmt.Errorf("%w: want file:/path, systemd:NAME, tty, command:[…], env:NAME, vault:MOUNT/PATH#FIELD or vault-wrapped:/path", ErrSource)
	}
	return s, nil
}

// splitVault takes MOUNT/PATH#FIELD apart. The mount is the first part of the
// path.
func splitVault(arg string) (mount, path, field string, ok bool) {
	at, field, found := strings.Cut(arg, "#")
	mount, path, more := strings.Cut(at, "/")
	return mount, path, field, found && more && mount != "" && path != "" && field != "" && !strings.ContainsAny(arg, " ?\n") && !strings.HasSuffix(path, "/")
}

// NeedsVault says whether the PIN comes from Vault.
func (s PINSource) NeedsVault() bool { return s.kind == fromVault || s.kind == fromWrapped }

// String returns the source as ParsePINSource reads it.
func (s PINSource) String() string {
	if s.kind == fromTTY {
		return string(s.kind)
	}
	return string(s.kind) + ":" + s.arg
}

// Read fetches the PIN, 1 to 256 bytes, and asks no other source when this one
// fails. One trailing newline is cut, nothing else. It returns [ErrUnsafe],
// [ErrNoPIN], the error of the operating system, or that of vault, which may be
// nil where the source does not need it. C-01.
func (s PINSource) Read(ctx context.Context, vault Vault) (secret.Bytes, error) {
	pin, err := s.read(ctx, vault)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("reading the token PIN from %s: %w", s, err)
	}
	return pin, nil
}

func (s PINSource) read(ctx context.Context, vault Vault) (secret.Bytes, error) {
	switch s.kind {
	case fromFile:
		return readPINFile(s.arg, false)
	case fromSystemd:
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return secret.Bytes{}, fmt.Errorf("%w: $CREDENTIALS_DIRECTORY is not set; start keyd by systemd with LoadCredential=%s", ErrNoPIN, s.arg)
		}
		return readPINFile(filepath.Join(dir, s.arg), true)
	case fromEnv:
		value, ok := os.LookupEnv(s.arg)
		if err := os.Unsetenv(s.arg); err != nil {
			return secret.Bytes{}, err
		}
		if !ok {
			return secret.Bytes{}, fmt.Errorf("%w: the variable is not set", ErrNoPIN)
		}
		return trimPIN([]byte(value))
	case fromTTY:
		return readPINTerminal()
	case fromCommand:
		return readPINCommand(ctx, s.argv)
	case fromVault, fromWrapped:
		return s.readVault(ctx, vault)
	}
	return secret.Bytes{}, fmt.Errorf("%w: none configured", ErrSource)
}

func (s PINSource) readVault(ctx context.Context, vault Vault) (secret.Bytes, error) {
	if vault == nil {
		return secret.Bytes{}, fmt.Errorf("%w: there is no [vault] section that says where Vault is", ErrNoPIN)
	}
	var value string
	var err error
	if s.kind == fromVault {
		mount, path, field, _ := splitVault(s.arg)
		value, err = vault.Secret(ctx, mount, path, field)
	} else {
		var wrapping string
		if wrapping, err = ReadClosedFile(s.arg); err == nil {
			value, err = vault.Unwrapped(ctx, wrapping)
		}
	}
	if err != nil {
		return secret.Bytes{}, err
	}
	return trimPIN([]byte(value))
}

// trimPIN takes the PIN out of b and clears b.
func trimPIN(b []byte) (secret.Bytes, error) {
	defer secret.Clear(b)
	pin := bytes.TrimSuffix(b, []byte("\n"))
	if len(pin) == 0 {
		return secret.Bytes{}, fmt.Errorf("%w: it is empty", ErrNoPIN)
	}
	if len(pin) > maxPIN {
		return secret.Bytes{}, fmt.Errorf("%w: longer than %d bytes", ErrNoPIN, maxPIN)
	}
	return secret.From(pin), nil
}
