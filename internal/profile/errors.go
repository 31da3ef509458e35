package profile

import (
	"errors"
	"fmt"
	"strings"
)

// The errors of this package.
var (
	// ErrProfile: a profile that is refused; see [Refused].
	ErrProfile = errors.New("profile: not a valid profile")
	// ErrUnknown: keyd brings no profile of this name.
	ErrUnknown = errors.New("profile: no such profile")
	// ErrLink: the profile's MAC needs TLS, or a link that is marked private
	// (A-08, U-56).
	ErrLink = errors.New("profile: cup_ecb is for a link with TLS, or one that is marked private")
)

// Refused lists all that is wrong with a profile, each as "file:line: key: what".
type Refused struct{ Lines []string }

func (e *Refused) Error() string {
	if len(e.Lines) == 1 {
		return e.Lines[0]
	}
	return fmt.Sprintf("%v, for %d reasons:\n  %s", ErrProfile, len(e.Lines), strings.Join(e.Lines, "\n  "))
}

// Is makes every Refused [ErrProfile].
func (e *Refused) Is(target error) bool { return target == ErrProfile }
