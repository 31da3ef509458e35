package backup

import (
	"context"
	"io"
)

// Around begins a second wrap.
func Around(ctx context.Context, to io.Writer, w *Wrap) (io.WriteCloser, error) {
	return w.around(ctx, to)
}

// Sealed seals bytes of the test's choice as the inside of a file.
func Sealed(w io.Writer, keeper Keeper, inside []byte) error {
	sealed, err := seal(w, keeper)
	if err != nil {
		return err
	}
	if _, err := sealed.Write(inside); err != nil {
		return err
	}
	return sealed.Close()
}
