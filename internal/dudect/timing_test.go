package dudect_test

import (
	"testing"

	"keyd.dev/keyd/internal/dudect"
	"keyd.dev/keyd/mac"
)

// TestTimingMAC is the benchmark of the same name in small, with ten times its
// bound: a busy machine must not fail it, a comparison that stops early must.
func TestTimingMAC(t *testing.T) {
	t.Run("A-05.T2 first byte, last byte", func(t *testing.T) {
		full := make([]byte, 16)
		first, last := make([]byte, 16), make([]byte, 16)
		first[0], last[15] = 1, 1
		const runs, most = 100_000, 10 * dudect.Threshold
		control := dudect.T(runs, 20, first, last, func(in []byte) { sink = leaky(full, in) })
		got := dudect.T(runs, 20, first, last, func(in []byte) { sink = mac.Verify(full, in, 16) == nil })
		t.Logf("t = %.1f, of a comparison that stops early %.1f", got, control)
		if control < most {
			t.Errorf("the leaky control was not found out (t = %.1f): the measurement is worth nothing", control)
		}
		if got > most {
			t.Errorf("the time of a refusal depends on where the MAC is wrong: t = %.1f, at most %d", got, most)
		}
	})
}
