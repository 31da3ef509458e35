package ceremony

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"keyd.dev/keyd/internal/secret"
)

// Terminal is where a person sits. What is typed is read byte by byte into a
// fixed array, without the terminal's own line editing and, for secrets,
// without echo; the terminal is as it was whenever nobody is being asked.
type Terminal struct {
	f    *os.File
	conn syscall.RawConn
}

// mostTyped bounds a line: 64 bytes in pairs of digits, each with a blank.
const mostTyped = 256

// line is what is being typed.
type line struct {
	b [mostTyped]byte
	n int
}

// OpenTerminal opens the controlling terminal, wherever standard input and
// output go. The error is [ErrTerminal].
func OpenTerminal() (*Terminal, error) {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: a ceremony is held at one, by hand: %w", ErrTerminal, err)
	}
	conn, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %w", ErrTerminal, err)
	}
	return &Terminal{f: f, conn: conn}, nil
}

// Close lets the terminal go.
func (t *Terminal) Close() error { return t.f.Close() }

// Say prints text.
func (t *Terminal) Say(format string, args ...any) {
	// A terminal that is gone shows in the next question.
	_, _ = fmt.Fprintf(t.f, format+"\n", args...)
}

// Wipe clears the screen and what can be scrolled back to.
func (t *Terminal) Wipe() { _, _ = io.WriteString(t.f, "\x1b[H\x1b[2J\x1b[3J") }

// Ask reads a line that everybody may see. The errors are [ErrInterrupted] and
// those of ctx.
func (t *Terminal) Ask(ctx context.Context, prompt string) (string, error) {
	var l line
	if err := t.read(ctx, prompt, true, &l); err != nil {
		return "", err
	}
	return strings.TrimSpace(string(l.b[:l.n])), nil
}

// Secret reads a line that nobody sees and hands it to use, which must not keep
// it; then it is overwritten.
func (t *Terminal) Secret(ctx context.Context, prompt string, use func(typed []byte) error) error {
	var l line
	defer func() { secret.Clear(l.b[:]) }()
	if err := t.read(ctx, prompt, false, &l); err != nil {
		return err
	}
	return use(l.b[:l.n])
}

// Show prints a component in groups of four digits.
func (t *Terminal) Show(value secret.Bytes) {
	const digits = "0123456789ABCDEF"
	var out [3 * mostTyped]byte
	defer func() { secret.Clear(out[:]) }()
	n := 0
	for i, b := range value.Reveal() {
		if i > 0 && i%2 == 0 {
			out[n] = ' '
			n++
		}
		out[n], out[n+1] = digits[b>>4], digits[b&15]
		n += 2
	}
	out[n] = '\n'
	_, _ = t.f.Write(out[:n+1])
}

// The keys that mean something while a line is typed.
const (
	keyInterrupt = 0x03
	keyEnd       = 0x04
	keyBackspace = 0x08
	keyKill      = 0x15
	keySuspend   = 0x1a
	keyQuit      = 0x1c
	keyDelete    = 0x7f
)

// read asks and reads one line. What was typed ahead of the question is thrown
// away: it was meant for another.
func (t *Terminal) read(ctx context.Context, prompt string, echo bool, l *line) (err error) {
	if ctx.Err() != nil {
		return cause(ctx)
	}
	old, err := t.raw()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.restore(old)) }()
	stop := context.AfterFunc(ctx, func() { _ = t.f.SetReadDeadline(time.Unix(1, 0)) })
	defer func() {
		stop()
		_ = t.f.SetReadDeadline(time.Time{})
	}()
	if _, err := io.WriteString(t.f, prompt); err != nil {
		return fmt.Errorf("%w: the terminal is gone: %w", ErrInterrupted, err)
	}
	for {
		done, err := t.key(l, echo)
		if ctx.Err() != nil {
			err = cause(ctx)
		}
		if done || err != nil {
			_, _ = io.WriteString(t.f, "\r\n")
			return err
		}
	}
}

// cause is why a question is not waited for any longer: the ceremony's end, or
// that of the command.
func cause(ctx context.Context) error {
	if why := context.Cause(ctx); errors.Is(why, ErrEnded) {
		return why
	}
	return ctx.Err()
}

// key reads one key and reports whether the line is over.
func (t *Terminal) key(l *line, echo bool) (bool, error) {
	var b [1]byte
	defer secret.Clear(b[:])
	n, err := t.f.Read(b[:])
	if n == 0 || err != nil {
		return false, fmt.Errorf("%w: the terminal is gone", ErrInterrupted)
	}
	switch b[0] {
	case '\r', '\n':
		return true, nil
	case keyInterrupt, keyEnd, keySuspend, keyQuit:
		return false, fmt.Errorf("%w: by hand", ErrInterrupted)
	case keyBackspace, keyDelete:
		if l.n > 0 {
			l.n--
			l.b[l.n] = 0
			t.echo(echo, []byte("\b \b"))
		}
	case keyKill:
		for ; l.n > 0; l.n-- {
			l.b[l.n-1] = 0
			t.echo(echo, []byte("\b \b"))
		}
	default:
		if l.n < len(l.b) && b[0] >= ' ' {
			l.b[l.n] = b[0]
			l.n++
			t.echo(echo, b[:])
		}
	}
	return false, nil
}

func (t *Terminal) echo(on bool, text []byte) {
	if on {
		_, _ = t.f.Write(text)
	}
}

// raw takes the terminal's echo, editing and signals away and throws away what
// was typed before.
func (t *Terminal) raw() (*term.State, error) {
	var old *term.State
	err := t.control(func(fd int) (err error) {
		if old, err = term.MakeRaw(fd); err != nil {
			return err
		}
		return flush(fd)
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTerminal, err)
	}
	return old, nil
}

func (t *Terminal) restore(old *term.State) error {
	err := t.control(func(fd int) error { return term.Restore(fd, old) })
	if errors.Is(err, syscall.EIO) {
		return nil // it was hung up: there is nothing to restore
	}
	return err
}

func (t *Terminal) control(f func(fd int) error) error {
	var failed error
	if err := t.conn.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return err
	}
	return failed
}
