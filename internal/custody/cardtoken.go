package custody

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"keyd.dev/keyd/audit"
)

// The bound on tokens of cards that leave the node (L-105).
const (
	mostCardTokens  = 60
	cardTokenWindow = time.Hour
)

// sealCardQuery is the label of what a request for a token is known by.
const sealCardQuery = "card-query"

// CardTokens gives the tokens by which a card is found in the audit log, that of
// the present key first (L-105). It needs a second person, whatever the policy of
// the node, and at most 60 an hour leave it. Who asks, and who approves, see the
// card truncated and learn the token only with the answer: until then it stands
// neither in the request for approval nor in the log, and the request's hash is
// keyed. The digits are not kept; the caller clears them. It returns [ErrDenied],
// [ErrRequest], [ErrApproval], [ErrTooMany] or [ErrUnavailable].
func (c *Custody) CardTokens(ctx context.Context, caller Caller, corr string, digits []byte) ([]string, error) {
	if err := c.Permit(ctx, caller, corr, OpGetCardToken); err != nil {
		return nil, err
	}
	r := audit.Record{Action: audit.LogToken, Query: &audit.Query{Cmd: audit.QueryToken}}
	c.tokens.mu.Lock()
	defer c.tokens.mu.Unlock()
	if err := c.tokens.room(c.clock()); err != nil {
		describe(&r, err)
		_, unrecorded := c.recordAt(ctx, caller, corr, r)
		return nil, after(unrecorded, err)
	}
	card, err := c.log.PAN(digits)
	switch {
	case errors.Is(err, audit.ErrFormat):
		return nil, fmt.Errorf("%w: a PAN has 8 to 19 digits", ErrRequest)
	case err != nil:
		return nil, fmt.Errorf("%w: making the token of a card: %w", ErrUnavailable, err)
	}
	if caller.Request, err = c.dual.seal(sealCardQuery, card.Token()); err != nil {
		return nil, err
	}
	if _, err := c.consent(ctx, caller, corr, OpGetCardToken, "card "+card.String()); err != nil {
		return nil, err
	}
	r.Outcome, r.Query.Filter = audit.OutcomeOK, "pan_tok="+card.Token()
	if _, err := c.recordAt(ctx, caller, corr, r); err != nil {
		return nil, err
	}
	c.tokens.left = append(c.tokens.left, c.clock())
	all := []string{card.Token()}
	if card.Previous() != "" {
		all = append(all, card.Previous())
	}
	return all, nil
}

// cardTokens remembers when tokens left the node. Its lock is held from the look
// at the bound to the answer, so that two requests do not share the last one.
type cardTokens struct {
	since func(time.Time) ([]time.Time, error) // what the log has; nil: nothing
	mu    sync.Mutex
	asked bool // since was
	left  []time.Time
}

// room refuses above the bound. What left before this process is in the log, and
// is looked up there once. The caller holds the lock.
func (t *cardTokens) room(now time.Time) error {
	from := now.Add(-cardTokenWindow)
	if !t.asked && t.since != nil {
		before, err := t.since(from)
		if err != nil {
			return fmt.Errorf("%w: counting the tokens of the last hour: %w", ErrUnavailable, err)
		}
		t.left = before
	}
	t.asked = true
	t.left = slices.DeleteFunc(t.left, func(at time.Time) bool { return !at.After(from) })
	if len(t.left) >= mostCardTokens {
		return fmt.Errorf("%w: %d tokens of cards left this node within an hour", ErrTooMany, len(t.left))
	}
	return nil
}
