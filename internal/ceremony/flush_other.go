//go:build !linux

package ceremony

import "errors"

// flush throws away what was typed and not read yet.
func flush(int) error { return errors.New("typed-ahead input cannot be thrown away on this system") }
