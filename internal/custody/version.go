package custody

import (
	"context"
	"iter"

	"keyd.dev/keyd/keys"
)

// mostVersions bounds how far from the newest version of a key older ones are
// looked for.
const mostVersions = 4

// older yields the versions before k that go on taking what was made under
// them, the newest first. Each that is yielded was found usable; its use is the
// caller's to count. What cannot be found or used is passed over.
func (c *Custody) older(ctx context.Context, k KeyRecord) iter.Seq2[KeyRecord, *meter] {
	return func(yield func(KeyRecord, *meter) bool) {
		id := k.Life.Predecessor
		for range mostVersions {
			if id == "" {
				return
			}
			next, err := c.book.find(ctx, Ref{ID: id})
			if err != nil || next.Life.Successor != k.Block.ID {
				return
			}
			if m, err := c.ready(ctx, next, taking); err == nil && !yield(next, m) {
				return
			}
			k, id = next, next.Life.Predecessor
		}
	}
}

// replaceable reports whether keys of the usage are replaced by rotation. A base
// derivation key is not: each terminal in the field holds a key derived from it,
// and goes on to need this one, for requests and for answers, until it is
// injected anew; see decision 0024.
func replaceable(u keys.Usage) bool { return u != keys.UsageBDK && u != keys.UsageInitialKey }
