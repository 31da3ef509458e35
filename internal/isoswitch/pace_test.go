package isoswitch

import (
	"testing"
	"time"
)

// TestPace: within the least time a terminal signs in once, and once more
// as long as nobody has used the keys of the first.
func TestPace(t *testing.T) {
	const least = time.Minute
	var p pace
	sign := func(name, tid string, after time.Duration, want bool) {
		t.Helper()
		if got := p.take(tid, noon.Add(after), least); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	sign("the first, forged", "T0000001", 0, true)
	sign("the terminal's own", "T0000001", time.Second, true)
	sign("a third", "T0000001", 2*time.Second, false)
	sign("of another", "T0000002", 2*time.Second, true)
	sign("after the least time", "T0000001", least, true)
	p.used("T0000001")
	sign("its keys are in use", "T0000001", least+time.Second, false)
	sign("after it again", "T0000001", 2*least, true)
	p.giveBack("T0000001")
	sign("that came to nothing", "T0000001", 2*least+time.Second, true)
	p.used("T0000009")
	sign("nobody's", "T0000009", 0, true)

	var free pace
	for range 3 {
		if !free.take("T0000001", noon, 0) {
			t.Error("refused, and there is no least time")
		}
	}
}

// TestPaceOfCertificate: one certificate has so many sign-ins in a minute
// for all TIDs together, and takes none from another.
func TestPaceOfCertificate(t *testing.T) {
	var p pace
	for n, c := range []struct {
		cert  string
		after time.Duration
		want  bool
	}{
		{"one", 0, true}, {"one", time.Second, true}, {"one", 2 * time.Second, false}, {"two", 2 * time.Second, true},
		{"one", 59 * time.Second, false}, {"one", time.Minute, true}, {"one", time.Minute, true}, {"one", time.Minute, false},
	} {
		if got := p.share(c.cert, noon.Add(c.after), 2); got != c.want {
			t.Errorf("%d: %v, want %v", n, got, c.want)
		}
	}
}
