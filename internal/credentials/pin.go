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
)

// ParsePINSource reads the name of a source:
//
//	file:/path                  a file that only its owner can read
//	systemd:NAME                a systemd credential, $CREDENTIALS_DIRECTORY/NAME
//	tty                         typed at /dev/tty
//	command:["argv0","arg",…]   standard output of a program, no shell
//	env:NAME                    an environment variable; only when allowEnv is set
//
// It returns [ErrSource]. C-01.
func ParsePINSource(text string, allowEnv bool) (PINSource, error) {
	kind, arg, _ := strings.Cut(text, ":")
	s := PINSource{kind: sourceKind(kind), arg: arg}
	switch s.kind {
	case fromFile:
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
	default:
		// The text may be the PIN itself, put there by mistake: it is not repeated.
		return PINSource{}, fmt.Errorf("%w: want file:/path, systemd:NAME, tty, command:[…] or env:NAME", ErrSource)
	}
	return s, nil
}

// String returns the source as ParsePINSource reads it.
func (s PINSource) String() string {
	if s.kind == fromTTY {
		return string(s.kind)
	}
	return string(s.kind) + ":" + s.arg
}

// Read fetches the PIN, 1 to 256 bytes, and asks no other source when this one
// fails. One trailing newline is cut, nothing else. It returns [ErrUnsafe],
// [ErrNoPIN], or the error of the operating system. C-01.
func (s PINSource) Read(ctx context.Context) (secret.Bytes, error) {
	pin, err := s.read(ctx)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("reading the token PIN from %s: %w", s, err)
	}
	return pin, nil
}

func (s PINSource) read(ctx context.Context) (secret.Bytes, error) {
	switch s.kind {
	case fromFile:
		return readPINFile(s.arg)
	case fromSystemd:
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return secret.Bytes{}, fmt.Errorf("%w: $CREDENTIALS_DIRECTORY is not set; start keyd by systemd with LoadCredential=%s", ErrNoPIN, s.arg)
		}
		return readPINFile(filepath.Join(dir, s.arg))
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
	}
	return secret.Bytes{}, fmt.Errorf("%w: none configured", ErrSource)
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
