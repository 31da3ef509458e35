package isoswitch

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Route says which sales go to an upstream: those of its merchants with its
// cards. One that names neither is for all that no other route is for.
type Route struct {
	Name      string
	Upstream  string
	Merchants []string // MIDs, 15 characters each; none: all
	BINs      []string // beginnings of card numbers, "4000", or ranges of them, "510000-559999"; none: all
}

// routes are the routes as they are asked. A route of a merchant comes before one
// of all merchants, the longest beginning of the card number before a shorter one,
// and that before a route of all cards. They never change.
type routes struct {
	merchants map[string]*cardRoutes
	all       *cardRoutes
}

// cardRoutes find an upstream, as its place in the configuration, by the card.
type cardRoutes struct {
	lengths []binRoutes // longest first
	rest    int         // of all other cards; none where there is none
	by      string      // the route that says so
}

type binRoutes struct {
	digits int
	ranges []binRange // in order, none overlaps another
}

type binRange struct {
	low, high uint64
	to        int
	by        string
}

const none = -1

// find returns the place of the upstream to which a sale goes, or none.
func (r *routes) find(mid, pan string) int {
	if c, ok := r.merchants[mid]; ok {
		if to := c.find(pan); to != none {
			return to
		}
	}
	return r.all.find(pan)
}

func (c *cardRoutes) find(pan string) int {
	for i := range c.lengths {
		b := &c.lengths[i]
		bin, ok := beginning(pan, b.digits)
		if !ok {
			continue
		}
		at, _ := slices.BinarySearchFunc(b.ranges, bin, func(r binRange, bin uint64) int { return cmp.Compare(r.high, bin) })
		if at < len(b.ranges) && b.ranges[at].low <= bin {
			return b.ranges[at].to
		}
	}
	return c.rest
}

// beginning is the number that the first digits of a card number make.
func beginning(pan string, digits int) (n uint64, ok bool) {
	if len(pan) < digits {
		return 0, false
	}
	for i := range digits {
		d := pan[i] - '0'
		if d > 9 {
			return 0, false
		}
		n = 10*n + uint64(d)
	}
	return n, true
}

// newRoutes puts routes to these upstreams in order, or says why they are
// refused: two that could be for the same sale, and neither before the other. One
// upstream needs no routes.
func newRoutes(list []Route, upstreams []string) (*routes, error) {
	r := &routes{merchants: map[string]*cardRoutes{}, all: &cardRoutes{rest: none}}
	if len(list) == 0 {
		if len(upstreams) > 1 {
			return nil, fmt.Errorf("%w: there are %d upstreams and no routes, so that nobody knows which sales go where", ErrConfig, len(upstreams))
		}
		r.all.rest = 0
		return r, nil
	}
	for _, one := range list {
		to := slices.Index(upstreams, one.Upstream)
		if to < 0 {
			return nil, fmt.Errorf("%w: route %s: there is no upstream %q", ErrConfig, one.Name, one.Upstream)
		}
		into := []*cardRoutes{r.all}
		if len(one.Merchants) > 0 {
			into = into[:0]
		}
		for _, mid := range one.Merchants {
			if len(mid) != 15 {
				return nil, fmt.Errorf("%w: route %s: %q is no merchant; a MID has 15 characters", ErrConfig, one.Name, mid)
			}
			if r.merchants[mid] == nil {
				r.merchants[mid] = &cardRoutes{rest: none}
			}
			into = append(into, r.merchants[mid])
		}
		for _, c := range into {
			if err := c.add(one, to); err != nil {
				return nil, err
			}
		}
	}
	return r, nil
}

func (c *cardRoutes) add(one Route, to int) error {
	if len(one.BINs) == 0 {
		if c.rest != none {
			return fmt.Errorf("%w: routes %s and %s are for the same sales", ErrConfig, c.by, one.Name)
		}
		c.rest, c.by = to, one.Name
		return nil
	}
	for _, text := range one.BINs {
		digits, span, err := parseBIN(text)
		if err != nil {
			return fmt.Errorf("%w: route %s: %w", ErrConfig, one.Name, err)
		}
		span.to, span.by = to, one.Name
		at, found := slices.BinarySearchFunc(c.lengths, digits, func(b binRoutes, digits int) int { return cmp.Compare(digits, b.digits) })
		if !found {
			c.lengths = slices.Insert(c.lengths, at, binRoutes{digits: digits})
		}
		if err := c.lengths[at].insert(span); err != nil {
			return err
		}
	}
	return nil
}

func (b *binRoutes) insert(span binRange) error {
	at, _ := slices.BinarySearchFunc(b.ranges, span.low, func(r binRange, low uint64) int { return cmp.Compare(r.high, low) })
	if at < len(b.ranges) && b.ranges[at].low <= span.high {
		other := b.ranges[at]
		return fmt.Errorf("%w: routes %s and %s are for the same cards: %0*d-%0*d and %0*d-%0*d overlap", ErrConfig,
			other.by, span.by, b.digits, other.low, b.digits, other.high, b.digits, span.low, b.digits, span.high)
	}
	b.ranges = slices.Insert(b.ranges, at, span)
	return nil
}

// parseBIN reads the beginning of card numbers, or a range of beginnings of one
// length.
func parseBIN(text string) (digits int, span binRange, err error) {
	low, high, ranged := strings.Cut(text, "-")
	if !ranged {
		high = low
	}
	var is, as bool
	span.low, is = beginning(low, len(low))
	span.high, as = beginning(high, len(high))
	if !is || !as || len(low) != len(high) || len(low) < 1 || len(low) > 19 || span.low > span.high {
		return 0, binRange{}, fmt.Errorf("%q is neither the first 1 to 19 digits of card numbers nor a range of them, 510000-559999 say", text)
	}
	return len(low), span, nil
}

// CheckRoutes returns [ErrConfig] for routes that no switch with these upstreams
// would take.
func CheckRoutes(list []Route, upstreams []string) error {
	_, err := newRoutes(list, upstreams)
	return err
}

// route is the host to which a sale goes by the routes of now, or nil.
func (s *Switch) route(r *request) *host {
	to := r.rules.routes.find(r.terminal.MID, string(r.pan))
	if to == none {
		return nil
	}
	return s.hosts[to]
}
