package store

import (
	"fmt"
	"time"
)

// nanos is a time as the database holds it; zero is 0.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// instant reads a time.
type instant struct{ to *time.Time }

// Scan implements [sql.Scanner].
func (i instant) Scan(src any) error {
	n, ok := src.(int64)
	switch {
	case !ok:
		return fmt.Errorf("%w: a time is a %T", ErrCorrupt, src)
	case n == 0:
		*i.to = time.Time{}
	default:
		*i.to = time.Unix(0, n).UTC()
	}
	return nil
}

// orNull is a 32-byte value as the database holds it; zero is NULL.
func orNull(v [32]byte) any {
	if v == [32]byte{} {
		return nil
	}
	return v[:]
}

// digest reads a 32-byte value; NULL is zero.
type digest struct{ to *[32]byte }

// Scan implements [sql.Scanner].
func (d digest) Scan(src any) error {
	*d.to = [32]byte{}
	if src == nil {
		return nil
	}
	p, ok := src.([]byte)
	if !ok || len(p) != len(d.to) {
		return fmt.Errorf("%w: not 32 bytes", ErrCorrupt)
	}
	copy(d.to[:], p)
	return nil
}

// notNull makes a missing value an empty one, for columns that are NOT NULL.
func notNull(p []byte) []byte {
	if p == nil {
		return []byte{}
	}
	return p
}

// none makes an empty value a missing one.
func none(p []byte) []byte {
	if len(p) == 0 {
		return nil
	}
	return p
}
