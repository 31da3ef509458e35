package isoswitch

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"time"
)

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// jitter returns d plus up to a quarter of it, so that what broke together does
// not come back together.
func jitter(d time.Duration) time.Duration {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil || d < 4 {
		return d
	}
	return d + time.Duration(binary.BigEndian.Uint64(b[:])%uint64(d/4))
}

// backoff is the wait after the given number of tries, from 1. Section 8.
func (r Retry) backoff(tries int) time.Duration {
	d := r.First
	for i := 1; i < tries && d < r.Ceiling; i++ {
		d *= time.Duration(r.Factor)
	}
	return min(d, r.Ceiling)
}
