package credentials

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"keyd.dev/keyd/internal/secret"
)

// readPINFile opens the file without following a link and judges what it
// opened, not what the name stands for a moment later. A credential of systemd
// may carry an access control list for the own user.
func readPINFile(path string, credential bool) (secret.Bytes, error) {
	var buf [maxPIN + 1]byte
	defer secret.Clear(buf[:])
	n, err := readClosed(path, credential, buf[:])
	if err != nil {
		return secret.Bytes{}, err
	}
	return trimPIN(buf[:n])
}

// ReadClosedFile reads a token of Vault from a file under the rules of a PIN's:
// no link, a regular file of root or the own user that nobody else can read, one
// name, at most 256 bytes, one trailing newline cut. It returns [ErrUnsafe],
// [ErrNoPIN] or the error of the operating system. The text is a Go string,
// since Vault's library takes nothing else, and cannot be wiped.
func ReadClosedFile(path string) (string, error) {
	var buf [maxPIN + 1]byte
	defer secret.Clear(buf[:])
	n, err := readClosed(path, false, buf[:])
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	text := strings.TrimSuffix(string(buf[:n]), "\n")
	if text == "" || len(text) > maxPIN {
		return "", fmt.Errorf("%s: %w: it is empty, or longer than %d bytes", path, ErrNoPIN, maxPIN)
	}
	return text, nil
}

func readClosed(path string, credential bool, buf []byte) (int, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return 0, fmt.Errorf("%w: it is a symbolic link; name the file itself", ErrUnsafe)
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := judgePINFile(f, credential); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(f, buf)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return 0, err
	}
	return n, nil
}

func judgePINFile(f *os.File, credential bool) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: it is not a regular file", ErrUnsafe)
	}
	if extra := info.Mode().Perm() & 0o077; extra != 0 && !(credential && extra == 0o040 && onlyFor(f, os.Geteuid())) {
		return fmt.Errorf("%w: its mode %04o lets others in; run: chmod 600 %s", ErrUnsafe, info.Mode().Perm(), f.Name())
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%w: its owner cannot be told", ErrUnsafe)
	}
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: it belongs to user %d; it must belong to root or to user %d, who runs keyd", ErrUnsafe, st.Uid, os.Geteuid())
	}
	if st.Nlink != 1 {
		return fmt.Errorf("%w: it has %d names (hard links); it must have one", ErrUnsafe, st.Nlink)
	}
	// The newline that may follow the PIN is not part of it.
	if info.Size() > maxPIN+1 {
		return fmt.Errorf("%w: the file has %d bytes; a PIN has at most %d", ErrNoPIN, info.Size(), maxPIN)
	}
	return nil
}
