package api

import "testing"

// TestRequestIDIsNoPAN: an id that the audit log took for a card number would be
// missing from the records (L-74), and raise an alarm.
func TestRequestIDIsNoPAN(t *testing.T) {
	for name, c := range map[string]struct {
		id   string
		want bool
	}{
		"digits across dashes":  {"ab401288-8888-4818-81ab-cdefcdefcdef", true},
		"a letter in each run":  {"40128888-888a-4881-8b12-3456789012ff", false},
		"twelve digits are few": {"abcdefab-cdef-4bcd-9bcd-123456789012", false},
		"thirteen are not":      {"abcdefab-cdef-4bcd-9bc1-123456789012", true},
	} {
		if got := looksLikePAN(c.id); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	var ids requestIDs
	seen := map[string]bool{}
	for range 20_000 {
		id := ids.next()
		if looksLikePAN(id) || len(id) != 36 || id[14] != '4' || seen[id] {
			t.Fatalf("made %q, again = %v", id, seen[id])
		}
		seen[id] = true
	}
}
