package vault

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"time"
)

// How long is waited before a request is tried again. What only an operator
// can mend is tried seldom, so that Vault and its log are not flooded.
const (
	firstWait = time.Second
	mostWait  = time.Minute
	slowWait  = 10 * time.Minute
)

// backoff doubles from first to most while Vault is away.
type backoff struct {
	first, most, slow time.Duration
	next              time.Duration
}

func newBackoff() *backoff { return &backoff{first: firstWait, most: mostWait, slow: slowWait} }

// after says how long to wait after err.
func (b *backoff) after(err error) time.Duration {
	if !Passes(err) {
		return jitter(b.slow)
	}
	b.next = min(max(2*b.next, b.first), b.most)
	return jitter(b.next)
}

func (b *backoff) reset() { b.next = 0 }

// jitter takes up to a fifth off d, so that a fleet does not come all at once.
func jitter(d time.Duration) time.Duration {
	var word [8]byte
	_, _ = rand.Read(word[:]) // never fails
	return d - time.Duration(binary.BigEndian.Uint64(word[:])%(uint64(d)/5+1))
}

// pause waits for d, or less when wake is signalled; false when ctx ended.
func pause[S any](ctx context.Context, d time.Duration, wake <-chan S) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-wake:
	}
	return true
}

// Patiently does something that needs Vault until it succeeds, for a start that
// finds Vault down (C-10). Between tries it waits with back-off, seldom when
// Vault refuses; wake ends a wait, and may be nil. tell hears of each failure
// and the wait that follows. An error that is not Vault's ends it at once.
func Patiently[S any](ctx context.Context, wake <-chan S, tell func(err error, wait time.Duration), do func(context.Context) error) error {
	b := newBackoff()
	for {
		err := do(ctx)
		if err == nil || Cause(err) == "" {
			return err
		}
		wait := b.after(err)
		tell(err, wait)
		if !pause(ctx, wait, wake) {
			return err
		}
	}
}
