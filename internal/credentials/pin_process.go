package credentials

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"golang.org/x/term"

	"keyd.dev/keyd/internal/secret"
)

// commandTimeout is how long a PIN command may run.
const commandTimeout = 10 * time.Second

// readPINCommand runs argv without a shell. Its standard output is the PIN and
// is never logged; its standard error is dropped, because a program that fails
// may well print what it was given.
func readPINCommand(ctx context.Context, argv []string) (secret.Bytes, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = time.Second
	out := &pinBuffer{}
	defer out.clear()
	cmd.Stdout = out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return secret.Bytes{}, fmt.Errorf("%w: the command failed: %w", ErrNoPIN, err)
	}
	return trimPIN(out.buf[:out.n])
}

// pinBuffer takes a PIN and its newline and refuses a byte more.
type pinBuffer struct {
	buf [maxPIN + 1]byte
	n   int
}

func (b *pinBuffer) Write(p []byte) (int, error) {
	if b.n+len(p) > len(b.buf) {
		return 0, errors.New("output longer than a PIN")
	}
	b.n += copy(b.buf[b.n:], p)
	return len(p), nil
}

func (b *pinBuffer) clear() { secret.Clear(b.buf[:]) }

// readPINTerminal asks at the controlling terminal, whatever standard input is.
func readPINTerminal() (secret.Bytes, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: no terminal to ask at: %w", ErrNoPIN, err)
	}
	defer tty.Close()
	if _, err := io.WriteString(tty, "Token PIN: "); err != nil {
		return secret.Bytes{}, err
	}
	pin, err := term.ReadPassword(int(tty.Fd()))
	if _, werr := io.WriteString(tty, "\n"); err == nil {
		err = werr
	}
	if err != nil {
		secret.Clear(pin)
		return secret.Bytes{}, err
	}
	return trimPIN(pin)
}
