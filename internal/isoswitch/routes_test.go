package isoswitch

import (
	"errors"
	"strings"
	"testing"
)

const (
	shopA = "M00000000000001"
	shopB = "M00000000000002"
)

// TestRoutes is which sale goes where.
func TestRoutes(t *testing.T) {
	upstreams := []string{"visa", "master", "local"}
	list := []Route{
		{Name: "visa", Upstream: "visa", BINs: []string{"4"}},
		{Name: "our own", Upstream: "local", BINs: []string{"400012", "510000-510099"}},
		{Name: "master", Upstream: "master", BINs: []string{"51-55", "2221-2720"}},
		{Name: "shop", Upstream: "local", Merchants: []string{shopA}, BINs: []string{"4"}},
		{Name: "shop's others", Upstream: "master", Merchants: []string{shopB}},
	}
	r, err := newRoutes(list, upstreams)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, mid, pan string
		want           string // empty is none
	}{
		{"by the first digit", "M00000000000009", "4111111111111111", "visa"},
		{"the longest beginning", "M00000000000009", "4000123456789010", "local"},
		{"beside it", "M00000000000009", "4000133456789010", "visa"},
		{"the first of a range", "M00000000000009", "2221000000000009", "master"},
		{"the last of a range", "M00000000000009", "2720990000000009", "master"},
		{"above a range", "M00000000000009", "2721000000000009", ""},
		{"below a range", "M00000000000009", "2220990000000009", ""},
		{"a longer range before a shorter one", "M00000000000009", "5100990000000009", "local"},
		{"above the longer range", "M00000000000009", "5101000000000009", "master"},
		{"the merchant before the card", shopA, "4000123456789010", "local"},
		{"a merchant's other cards go as those of all", shopA, "5200000000000007", "master"},
		{"a merchant with all cards", shopB, "4111111111111111", "master"},
		{"a card shorter than a beginning", "M00000000000009", "40001", "visa"},
		{"no route", "M00000000000009", "6011000000000004", ""},
		{"no digits", "M00000000000009", "x", ""},
		{"no card", "M00000000000009", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			if to := r.find(c.mid, c.pan); to != none {
				got = upstreams[to]
			}
			if got != c.want {
				t.Errorf("goes to %q, want %q", got, c.want)
			}
		})
	}
	if n := testing.AllocsPerRun(100, func() { r.find(shopA, "5101000000000009") }); n != 0 {
		t.Errorf("a look-up allocates %v times", n)
	}
}

func TestRoutesRefused(t *testing.T) {
	for _, c := range []struct {
		name, says string
		list       []Route
	}{
		{"no routes to two", "no routes", nil},
		{"no such upstream", `no upstream "c"`, []Route{{Name: "x", Upstream: "c"}}},
		{"two defaults", "x and y are for the same sales", []Route{{Name: "x", Upstream: "a"}, {Name: "y", Upstream: "b"}}},
		{"one card twice", "overlap", []Route{{Name: "x", Upstream: "a", BINs: []string{"4000"}}, {Name: "y", Upstream: "b", BINs: []string{"4000"}}}},
		{"ranges that overlap", "510000-559999 and 550000-560000", []Route{{Name: "x", Upstream: "a", BINs: []string{"510000-559999"}}, {Name: "y", Upstream: "b", BINs: []string{"550000-560000"}}}},
		{"a range around another", "overlap", []Route{{Name: "x", Upstream: "a", BINs: []string{"520000"}}, {Name: "y", Upstream: "b", BINs: []string{"510000-559999"}}}},
		{"a merchant twice", "x and y", []Route{{Name: "x", Upstream: "a", Merchants: []string{shopA}}, {Name: "y", Upstream: "b", Merchants: []string{shopB, shopA}}}},
		{"a merchant of 14", "15 characters", []Route{{Name: "x", Upstream: "a", Merchants: []string{shopA[:14]}}}},
		{"letters", "neither", []Route{{Name: "x", Upstream: "a", BINs: []string{"4X"}}}},
		{"nothing", "neither", []Route{{Name: "x", Upstream: "a", BINs: []string{""}}}},
		{"a range backwards", "neither", []Route{{Name: "x", Upstream: "a", BINs: []string{"55-51"}}}},
		{"a range of two lengths", "neither", []Route{{Name: "x", Upstream: "a", BINs: []string{"51-559"}}}},
		{"twenty digits", "neither", []Route{{Name: "x", Upstream: "a", BINs: []string{strings.Repeat("9", 20)}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := CheckRoutes(c.list, []string{"a", "b"})
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
		})
	}
	if err := CheckRoutes(nil, []string{"a"}); err != nil {
		t.Errorf("one upstream without routes is refused: %v", err)
	}
}

// FuzzBIN: what is taken as a range finds its own ends.
func FuzzBIN(f *testing.F) {
	f.Add("4")
	f.Add("510000-559999")
	f.Add("0-9")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := newRoutes([]Route{{Name: "x", Upstream: "b", BINs: []string{text}}}, []string{"a", "b"})
		if err != nil {
			return
		}
		low, high, ranged := strings.Cut(text, "-")
		if r.find("", low) != 1 || ranged && r.find("", high) != 1 {
			t.Errorf("%q does not find its own ends", text)
		}
	})
}
