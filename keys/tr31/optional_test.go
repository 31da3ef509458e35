package tr31

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOptional(t *testing.T) {
	long := make([]byte, 300)
	for i := range long {
		long[i] = 'A'
	}
	all := []Optional{{"KS", "FFFF9876543210E00000"}, {"LB", string(long)}, {"00", ""}}
	got, err := ParseOptional(FormatOptional(all))
	if err != nil || !cmp.Equal(got, all) {
		t.Errorf("%v %s", err, cmp.Diff(all, got))
	}
	if got, err := ParseOptional(""); err != nil || got != nil {
		t.Errorf("none: %v, %v", got, err)
	}
	for _, bad := range []string{"KS", "KS18", "KS04\n", "KS03", "ks04"} {
		if _, err := ParseOptional(bad); !errors.Is(err, ErrShape) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// FuzzParseOptional: what is read is written in a form that reads as the same.
func FuzzParseOptional(f *testing.F) {
	f.Add("KS18FFFF9876543210E00000")
	f.Add("LB0004000A")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := ParseOptional(text)
		if err != nil {
			return
		}
		again, err := ParseOptional(FormatOptional(all))
		if err != nil || !cmp.Equal(all, again) {
			t.Errorf("%q: %v, %v", text, again, err)
		}
	})
}
