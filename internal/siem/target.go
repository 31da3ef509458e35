package siem

import "context"

// Target is where an [Exporter] sends to.
type Target interface {
	// Open begins a session, within a few seconds or not at all.
	Open(ctx context.Context) (Session, error)
	// Frame appends a message in the form that goes to this target.
	Frame(dst, message []byte) []byte
}

// Session is one connection to a receiver, or one open file. It is for one
// goroutine; after an error it is only closed.
type Session interface {
	// Write hands framed messages over, in order. It returns when the operating
	// system has them, ctx ends, or nothing has moved for a few seconds.
	Write(ctx context.Context, p []byte) error
	// Sent counts the bytes that were handed over, in the units of Settle.
	Sent() uint64
	// Settle returns of how many bytes the other end's system said that it has
	// them, and of how many it can be said that they need not be sent again.
	Settle() (taken, settled uint64, err error)
	// Broken is closed when the other end has gone; nil when that cannot be seen.
	Broken() <-chan struct{}
	// Close ends the session in order and lets its resources go. It reports
	// whether the other end is known to have read everything.
	Close(ctx context.Context) (complete bool, err error)
	// Abort ends the session at once.
	Abort() error
}
