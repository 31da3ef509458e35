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

// numbers gives each message of keyd's own a STAN that no other has on any link
// and day, also not after a crash: a number is reserved in the journal before it
// is used. It is safe for concurrent use.
type numbers struct {
	journal Journal
	before  []string // counters of versions that had one for each upstream
	clock   func() time.Time

	mu        sync.Mutex
	next, end uint64
}

// countedMessages is the counter of all messages of keyd's own.
const countedMessages = "stan"

// reserve returns the first of so many numbers that are now taken. The first time
// it begins above those of versions before.
func (n *numbers) reserve(tx Tx) (first uint64, err error) {
	first, err = tx.Reserve(countedMessages, reserveNumbers)
	if err != nil || first > 0 {
		return first, err
	}
	var most uint64
	for _, name := range n.before {
		last, err := tx.Reserve(name, 1)
		if err != nil {
			return 0, err
		}
		most = max(most, last)
	}
	if most == 0 {
		return 0, nil
	}
	if _, err = tx.Reserve(countedMessages, most); err != nil {
		return 0, err
	}
	return tx.Reserve(countedMessages, reserveNumbers)
}

// take returns an unused number. It fails only when the journal does.
func (n *numbers) take(ctx context.Context) (number, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next == n.end {
		var first uint64
		err := n.journal.Update(ctx, func(tx Tx) (err error) {
			first, err = n.reserve(tx)
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
