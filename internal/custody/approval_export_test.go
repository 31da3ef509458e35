package custody

import (
	"context"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
)

// Approved shows how approvals are spent, without an act, to the tests.
func (c *Custody) Approved(ctx context.Context, caller Caller, corr string, op Operation, object string, usages ...keys.Usage) ([]audit.Approval, error) {
	return c.approved(ctx, caller, corr, op, object, usages...)
}

// NewClients shows the checks of a table of clients to the tests.
func NewClients(list []Client) (any, error) { return newClients(list, nil) }
