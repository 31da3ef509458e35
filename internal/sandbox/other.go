//go:build !linux

package sandbox

import "fmt"

// Supported is nothing here.
func Supported() State { return State{} }

// Enter does nothing, or refuses where cfg is strict: [ErrUnsupported].
func Enter(cfg Config) (State, error) {
	if _, err := ParseMode(string(cfg.Mode)); err != nil {
		return State{}, err
	}
	if cfg.Mode == Strict {
		return State{}, fmt.Errorf("%w: it takes Linux", ErrUnsupported)
	}
	return State{}, nil
}
