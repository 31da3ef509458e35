package custody

import (
	"context"

	"keyd.dev/keyd/keys"
)

// CountUse counts one use of a key as operations do.
func CountUse(c *Custody, k KeyRecord) func(context.Context) error {
	return func(ctx context.Context) error { return c.use(ctx, k, making) }
}

// CheckPolicy takes one tag as a new key's, and reads it back as a use does.
func CheckPolicy(name, value string) error {
	policy, _, err := splitTags(map[string]string{name: value}, nil)
	if err != nil || len(policy) == 0 {
		return err
	}
	_, err = limitsOf(KeyRecord{Block: &keys.Block{Policy: policy}})
	return err
}
