package iso8583

import (
	"encoding/binary"
	"fmt"
	"io"
)

// MaxFrame is the greatest length of a message in bytes (W-01).
const MaxFrame = 4096

// ReadFrame reads one frame, a 2-byte big-endian length and so many bytes, and
// returns the bytes, which are the caller's own. It reads nothing behind the
// frame.
//
// It returns io.EOF when r ends before a frame, io.ErrUnexpectedEOF (wrapped)
// when r ends within one, and [ErrFrameEmpty] or [ErrFrameTooLong] for a length
// outside 1 to [MaxFrame]; after these two r stands behind the length, and the
// connection is to be closed (W-01, W-18).
func ReadFrame(r io.Reader) ([]byte, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head); err != nil {
		if err == io.EOF {
			return nil, io.EOF
		}
		return nil, fmt.Errorf("reading the length of a frame: %w", err)
	}
	n := int(binary.BigEndian.Uint16(head))
	if err := checkFrame(n); err != nil {
		return nil, err
	}
	msg := make([]byte, n)
	if got, err := io.ReadFull(r, msg); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("reading a frame of %d bytes, got %d: %w", n, got, err)
	}
	return msg, nil
}

// AppendFrame appends msg to dst with its length before it. It returns
// [ErrFrameEmpty] or [ErrFrameTooLong] when msg does not fit a frame.
func AppendFrame(dst, msg []byte) ([]byte, error) {
	if err := checkFrame(len(msg)); err != nil {
		return dst, err
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(msg)))
	return append(dst, msg...), nil
}

func checkFrame(n int) error {
	switch {
	case n == 0:
		return ErrFrameEmpty
	case n > MaxFrame:
		return fmt.Errorf("%w: %d bytes, at most %d", ErrFrameTooLong, n, MaxFrame)
	}
	return nil
}
