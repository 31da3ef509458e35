package sim

import (
	"math"
	"testing"
	"time"
)

// TestFleetRefusesRates: a rate that no clock can keep to is an error, before any
// terminal works.
func TestFleetRefusesRates(t *testing.T) {
	h := newHost(t)
	d := h.device(t, t.TempDir(), patient)
	defer d.Close()
	run := func(rate float64) (FleetReport, error) {
		return RunFleet(t.Context(), FleetConfig{Devices: []*Device{d}, Rate: rate, For: 20 * time.Millisecond, Order: func(int) Order { return sale(100, Faults{}) }})
	}
	for _, rate := range []float64{0, -1, 1e-12, 2e9, math.Inf(1), math.NaN()} {
		if r, err := run(rate); err == nil {
			t.Errorf("%v a second: %+v", rate, r)
		}
	}
	if got := h.took(); len(got) != 0 {
		t.Errorf("it sent %q", got)
	}
	for _, rate := range []float64{FleetLeastRate, FleetMostRate} {
		if _, err := run(rate); err != nil {
			t.Errorf("%v a second: %v", rate, err)
		}
	}
}
