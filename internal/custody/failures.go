package custody

import (
	"sync"
	"time"

	"keyd.dev/keyd/audit"
)

// failureEvery is how often sec hears of one return value of the token. Every
// operation that failed by it has a record of its own in ops.
const failureEvery = time.Minute

// mostFailures bounds the return values that are told apart.
const mostFailures = 256

// failures remembers which return values of the token sec has heard of lately.
type failures struct {
	mu   sync.Mutex
	told map[string]time.Time
}

func newFailures() *failures { return &failures{told: make(map[string]time.Time)} }

// fresh reports whether nobody was told of a return value in the last minute, and
// marks it as told.
func (f *failures) fresh(rc string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if at, ok := f.told[rc]; ok && now.Sub(at) < failureEvery && !now.Before(at) {
		return false
	}
	if len(f.told) >= mostFailures {
		clear(f.told)
	}
	f.told[rc] = now
	return true
}

// tokenFailed is the record of sec for an operation that the token did not do. It
// returns false where the token did not fail, or sec has heard of it lately.
func (c *Custody) tokenFailed(r audit.Record, corr string) (audit.Record, bool) {
	if r.RC == "" || r.Outcome != audit.OutcomeError || !c.failures.fresh(r.RC, c.clock()) {
		return audit.Record{}, false
	}
	return audit.Record{
		Action: audit.HSMError, Outcome: audit.OutcomeError, Reason: r.Reason, RC: r.RC,
		Actor: audit.System(), Corr: corr, HSM: audit.HSM{Serial: c.serial},
	}, true
}
