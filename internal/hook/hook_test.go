package hook

import (
	"testing"
	"time"
)

// TestEvent: ids of different events differ, and each says what the
// original has become. Delivery is tested with a real switch, token and database
// in softhsm-test.
func TestEvent(t *testing.T) {
	for _, c := range []struct {
		name         string
		e            Event
		id, original string
	}{
		{"created", Event{Reversal: "kzm", Kind: Created, N: 1, Full: true, State: "QUEUED"}, "kzm-created", "REVERSAL_PENDING"},
		{"done", Event{Reversal: "kzm", Kind: Done, N: 1, Full: true, State: "CONFIRMED", UpAnswer: "00"}, "kzm-done", "REVERSED"},
		{"D-30 done, original unknown", Event{Reversal: "kzm", Kind: Done, N: 1, Full: true, State: "CONFIRMED", UpAnswer: "25"}, "kzm-done", "REVERSED_UNKNOWN"},
		{"failed", Event{Reversal: "kzm", Kind: Failed, N: 1, Full: true, State: "FAILED"}, "kzm-failed", "REV_FAILED"},
		{"failed again", Event{Reversal: "kzm", Kind: Failed, N: 2, Full: true, State: "FAILED"}, "kzm-failed-2", "REV_FAILED"},
		{"parked", Event{Reversal: "kzm", Kind: Failed, N: 1, Full: true, State: "PARKED"}, "kzm-failed", "REVERSAL_PENDING"},
		{"a part", Event{Reversal: "kzm", Kind: Done, N: 1, State: "CONFIRMED", UpAnswer: "00"}, "kzm-done", "APPROVED"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.e.ID() != c.id || c.e.original() != c.original {
				t.Errorf("id %s, original %s", c.e.ID(), c.e.original())
			}
		})
	}
}

func TestBackoff(t *testing.T) {
	h := &Hook{cfg: Config{First: time.Second, Ceiling: 5 * time.Second}}
	for n, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 4: 5 * time.Second, 1000: 5 * time.Second} {
		if got := h.backoff(n); got != want {
			t.Errorf("after %d failures %v, want %v", n, got, want)
		}
	}
}
