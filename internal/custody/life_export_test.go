package custody

import "context"

// CountUse counts one use of a key as operations do.
func CountUse(c *Custody, k KeyRecord) func(context.Context) error {
	return func(ctx context.Context) error { return c.use(ctx, k, making) }
}
