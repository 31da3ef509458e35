package credentials

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"keyd.dev/keyd/internal/secret"
)

// readPINFile opens the file without following a link and judges what it
// opened, not what the name stands for a moment later.
func readPINFile(path string) (secret.Bytes, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return secret.Bytes{}, fmt.Errorf("%w: it is a symbolic link; name the file itself", ErrUnsafe)
	}
	if err != nil {
		return secret.Bytes{}, err
	}
	defer f.Close()
	if err := judgePINFile(f); err != nil {
		return secret.Bytes{}, err
	}
	var buf [maxPIN + 1]byte
	defer secret.Clear(buf[:])
	n, err := io.ReadFull(f, buf[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return secret.Bytes{}, err
	}
	return trimPIN(buf[:n])
}

func judgePINFile(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: it is not a regular file", ErrUnsafe)
	}
	if extra := info.Mode().Perm() & 0o077; extra != 0 {
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
