package dudect

import (
	"math"
	"testing"
)

func TestWelch(t *testing.T) {
	a := []float64{27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4}
	b := []float64{27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 30.1, 24.4}
	if got := welch(a, b); math.Abs(got+2.8632) > 0.0001 {
		t.Errorf("t = %.4f, want -2.8632", got)
	}
}
