package main

import (
	"fmt"
	"time"

	"keyd.dev/keyd/internal/sim"
)

const (
	// mostSales is a rate that no switch on the machines of the benchmark has: so
	// many sales are prepared.
	mostSales = 4000 // a second, of all terminals
	// mostStock bounds them in a long measurement, whose last sales are made when
	// they are due.
	mostStock = 60_000
)

// saleStock is how many sales each of some terminals has before a measurement and
// its warm-up begin.
func saleStock(length time.Duration, terminals int) int {
	return min(int(1.1*length.Seconds()*mostSales), mostStock)/terminals + 1
}

// seller is a terminal that sells as fast as it gets answers. Its messages are made
// before the measurement, and the MACs of the answers verified after it: a terminal
// in the field does that on a processor of its own, here it would be the daemon's.
type seller struct {
	*sim.Terminal
	link *sim.Link
	made []*sim.Sent // not sent yet
	sold []sold
}

// sold is a sale and what came for it.
type sold struct {
	sent *sim.Sent
	raw  []byte
}

// newSeller prepares a number of sales. More can be made, each when it is due.
func newSeller(t *sim.Terminal, link *sim.Link, stock int) (worker, error) {
	s := &seller{Terminal: t, link: link, sold: make([]sold, 0, stock)}
	for range stock {
		sent, err := testSale(t)
		if err != nil {
			return worker{}, err
		}
		s.made = append(s.made, sent)
	}
	return worker{op: s.sell, end: s.end}, nil
}

func (s *seller) sell() (err error) {
	var sent *sim.Sent
	if len(s.made) > 0 {
		sent, s.made = s.made[0], s.made[1:]
	} else if sent, err = testSale(s.Terminal); err != nil {
		return err
	}
	raw, err := s.link.Exchange(sent.Raw)
	s.sold = append(s.sold, sold{sent, raw})
	return err
}

// end judges every answer.
func (s *seller) end() error {
	err := s.link.Close()
	for _, one := range s.sold {
		if err == nil && one.raw != nil { // who got none has told
			err = approved(s.Terminal, one.sent, one.raw)
		}
	}
	return err
}

func testSale(t *sim.Terminal) (*sim.Sent, error) {
	return t.Sale(demoAmountTDES, sim.Card{PAN: demoPANTDES, PIN: testPIN}, nil)
}

// oneSale makes a sale and judges its answer at once.
func oneSale(t *sim.Terminal, link *sim.Link) error {
	sent, err := testSale(t)
	if err != nil {
		return err
	}
	raw, err := link.Exchange(sent.Raw)
	if err != nil {
		return err
	}
	return approved(t, sent, raw)
}

// approved refuses an answer that is no approval, or whose MAC is not right.
func approved(t *sim.Terminal, sent *sim.Sent, raw []byte) error {
	answer, err := t.Answer(sent, raw)
	if err != nil {
		return err
	}
	if code := answer.Text(39); code != "00" {
		return fmt.Errorf("sale answered with %s (%s)", code, meaning(code))
	}
	return nil
}
