// Package dudect finds out by statistics whether the time of an operation
// depends on its input. It is for tests.
//
// Two classes of inputs are measured in random order, many thousand times, and
// Welch's t-test says whether their mean times differ. A test with it needs a
// control beside it that leaks on purpose: a measurement that does not find the
// leak of the control proves nothing about the rest.
//
// The method is that of Reparaz, Balasch and Verbauwhede, "Dude, is my code
// constant time?" (2016).
package dudect

import (
	"crypto/rand"
	"math"
	"slices"
	"time"
)

// Threshold is the value of |t| above which two classes certainly differ.
const Threshold = 10

// T measures op of a and of b, each about samples times in random order, and
// returns the greatest |t| over several croppings of the slow tail, which is the
// machine's noise. repeat is how often the operation runs in one measurement:
// enough to take at least a microsecond. It is one function with two inputs,
// not two functions: where code lies in memory changes its time too.
func T[Input any](samples, repeat int, a, b Input, op func(Input)) float64 {
	inputs := [2]Input{a, b}
	classes := order(2 * samples)
	var times [2][]float64
	for _, class := range classes {
		in := inputs[class]
		start := time.Now()
		for range repeat {
			op(in)
		}
		times[class] = append(times[class], float64(time.Since(start)))
	}
	worst := 0.0
	for _, keep := range []float64{0.5, 0.7, 0.9} {
		limit := quantile(slices.Concat(times[0], times[1]), keep)
		worst = max(worst, math.Abs(welch(below(times[0], limit), below(times[1], limit))))
	}
	return worst
}

// order draws n classes, 0 or 1.
func order(n int) []byte {
	draw := make([]byte, n)
	_, _ = rand.Read(draw) // never fails; it ends the process instead
	for i := range draw {
		draw[i] &= 1
	}
	return draw
}

func quantile(values []float64, q float64) float64 {
	slices.Sort(values)
	return values[int(q*float64(len(values)-1))]
}

func below(values []float64, limit float64) []float64 {
	var kept []float64
	for _, v := range values {
		if v <= limit {
			kept = append(kept, v)
		}
	}
	return kept
}

// welch is Welch's t of two samples; 0 where one is too small to say.
func welch(a, b []float64) float64 {
	if len(a) < 2 || len(b) < 2 {
		return 0
	}
	meanA, varA := moments(a)
	meanB, varB := moments(b)
	spread := math.Sqrt(varA/float64(len(a)) + varB/float64(len(b)))
	if spread == 0 {
		return 0
	}
	return (meanA - meanB) / spread
}

func moments(values []float64) (mean, variance float64) {
	for _, v := range values {
		mean += v
	}
	mean /= float64(len(values))
	for _, v := range values {
		variance += (v - mean) * (v - mean)
	}
	return mean, variance / float64(len(values)-1)
}
