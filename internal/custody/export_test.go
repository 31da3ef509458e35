package custody

import (
	"time"

	"keyd.dev/keyd/keys"
)

// Refusals shows the counting of refused PIN blocks to the tests.
type Refusals struct{ r *refusals }

// NewRefusals counts by the clock of the test's bubble.
func NewRefusals(limit Malformed) Refusals { return Refusals{newRefusals(limit, time.Now)} }

// Allow is refusals.allow.
func (r Refusals) Allow(client string, key keys.ID) error { return r.r.allow(client, key) }

// Count is refusals.count.
func (r Refusals) Count(client string, key keys.ID) bool { return r.r.count(client, key) }
