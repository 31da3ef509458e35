package custody

import (
	"fmt"
	"testing"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
)

// failing is the answer of a token that cannot.
type failing struct{}

func (failing) Error() string       { return "the token cannot" }
func (failing) ReturnValue() string { return "CKR_DEVICE_ERROR" }

// TestTokenFailed: an operation that the token did not do names its return value,
// and sec hears of each of them once a minute (L-14, L-138).
func TestTokenFailed(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	c := &Custody{failures: newFailures(), clock: func() time.Time { return now }, serial: "A1"}
	fail := func(err error) (audit.Record, bool) {
		r := audit.Record{Action: audit.MACGenerate}
		describe(&r, err)
		return c.tokenFailed(r, "r-1")
	}
	broken := fmt.Errorf("%w: signing: %w", ErrUnavailable, fmt.Errorf("%w: %w", keys.ErrUnavailable, failing{}))
	r, told := fail(broken)
	if !told || r.Action != audit.HSMError || r.Outcome != audit.OutcomeError || r.RC != "CKR_DEVICE_ERROR" || r.HSM.Serial != "A1" ||
		r.Reason != audit.ReasonHSMUnavailable || r.Corr != "r-1" {
		t.Errorf("L-138: told %t of %+v", told, r)
	}
	if _, told := fail(broken); told {
		t.Error("sec heard of it twice in a minute")
	}
	now = now.Add(time.Minute)
	if _, told := fail(broken); !told {
		t.Error("a minute later sec hears no more of it")
	}
	for name, err := range map[string]error{"no error": nil, "a wrong MAC": ErrMAC, "a key that is not there": ErrNoKey} {
		if _, told := fail(err); told {
			t.Errorf("%s is not the token's fault", name)
		}
	}
}
