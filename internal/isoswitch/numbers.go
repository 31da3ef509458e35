package isoswitch

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// number is what tells a message of keyd's own from all others: STAN and DE 7.
type number struct {
	stan string // DE 11
	sent string // DE 7
	rrn  string // DE 37, should the message need a new one
}

// reserveNumbers is how many numbers one durable reservation yields.
const reserveNumbers = 8192

// numbers gives each message of keyd's own a STAN that no other has on the link
// and day, also not after a crash: a number is reserved in the journal before it
// is used. It is safe for concurrent use.
type numbers struct {
	journal Journal
	name    string
	clock   func() time.Time

	mu        sync.Mutex
	next, end uint64
}

// take returns an unused number. It fails only when the journal does.
func (n *numbers) take(ctx context.Context) (number, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next == n.end {
		var first uint64
		err := n.journal.Update(ctx, func(tx Tx) (err error) {
			first, err = tx.Reserve(n.name, reserveNumbers)
			return err
		})
		if err != nil {
			return number{}, fmt.Errorf("reserving numbers for the link: %w", err)
		}
		n.next, n.end = first, first+reserveNumbers
	}
	count := n.next
	n.next++
	now := n.clock().UTC()
	return number{
		stan: fmt.Sprintf("%06d", count%999_999+1),
		sent: now.Format(layoutDE7),
		rrn:  fmt.Sprintf("%01d%03d%08d", now.Year()%10, now.YearDay(), count%100_000_000),
	}, nil
}
