package isoswitch

import (
	"net"
	"testing"
	"time"
)

// TestChoice is the choice among the links of a host, R-31.
func TestChoice(t *testing.T) {
	const back = time.Minute
	h := &host{cfg: Upstream{Silence: 5}}
	is := func(name string, up bool, sign signState, misses int32, fell bool, lasts time.Duration) *link {
		l := &link{h: h, cfg: Endpoint{Name: name}, sign: sign, fell: fell}
		if up {
			l.conn = new(net.TCPConn)
		}
		l.misses.Store(misses)
		if l.stands() == fit {
			l.since = noon.Add(-lasts)
		}
		return l
	}
	good := func(name string) *link { return is(name, true, signedOn, 0, false, time.Hour) }
	again := func(name string, fit time.Duration) *link { return is(name, true, signedOn, 0, true, fit) }
	for _, c := range []struct {
		name    string
		links   []*link
		present int // -1 is none
		want    int
		wait    time.Duration
	}{
		{"both fit at the start", []*link{good("p"), good("s")}, -1, 0, 0},
		{"the primary comes up after the secondary, and never failed", []*link{good("p"), good("s")}, 1, 0, 0},
		{"the primary is down", []*link{is("p", false, unsigned, 0, true, 0), good("s")}, 0, 1, 0},
		{"the primary refuses the sign-on", []*link{is("p", true, signedOff, 0, false, 0), good("s")}, 0, 1, 0},
		{"the primary has not answered the sign-on", []*link{is("p", true, unsigned, 0, false, 0), good("s")}, 0, 1, 0},
		{"the primary answers nothing any more", []*link{is("p", true, signedOn, 5, false, 0), good("s")}, 0, 1, 0},
		{"four messages without an answer are none too many", []*link{is("p", true, signedOn, 4, false, 0), good("s")}, 0, 0, 0},
		{"the primary is back for ten seconds", []*link{again("p", 10*time.Second), good("s")}, 1, 1, 50 * time.Second},
		{"the primary is back for a minute", []*link{again("p", time.Minute), good("s")}, 1, 0, 0},
		{"the secondary goes while the primary is just back", []*link{again("p", time.Second), is("s", false, unsigned, 0, true, 0)}, 1, 0, 0},
		{"the third link stays until the first of the two before it is steady", []*link{again("p", time.Second), again("s", 20*time.Second), good("t")}, 2, 2, 40 * time.Second},
		{"only one that answers no sign-on", []*link{is("p", true, unsigned, 0, false, 0)}, -1, 0, 0},
		{"only one that answers nothing", []*link{is("p", true, signedOn, 9, true, 0)}, 0, 0, 0},
		{"only one that refuses the sign-on", []*link{is("p", true, signedOff, 0, true, 0)}, 0, -1, 0},
		{"none", []*link{is("p", false, unsigned, 0, true, 0), is("s", false, unsigned, 0, true, 0)}, 1, -1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := func(i int) *link {
				if i < 0 {
					return nil
				}
				return c.links[i]
			}
			got, wait := choose(c.links, at(c.present), noon, back)
			if got != at(c.want) || wait != c.wait {
				name := "none"
				if got != nil {
					name = got.cfg.Name
				}
				t.Errorf("chose %s and waits %v, want %d and %v", name, wait, c.want, c.wait)
			}
		})
	}
}
