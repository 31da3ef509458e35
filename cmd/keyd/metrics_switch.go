package main

import (
	"context"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"keyd.dev/keyd/internal/isoswitch"
)

// switchMetrics is what the daemon counts of the switch.
type switchMetrics struct {
	decisions *prometheus.CounterVec
	answers   *histograms
	received  *prometheus.CounterVec
	automatic *prometheus.CounterVec
	forwarded *prometheus.CounterVec
	givenUp   prometheus.Counter
	codes     map[string]bool
}

// answerCodes are the values of DE 39 that a label may have. An answer's code
// comes from a peer, so that others are counted together.
const answerCodes = "00 01 02 03 04 05 06 07 08 09 10 12 13 14 15 17 19 20 21 22 23 25 26 28 30 31 33 34 35 36 37 38 39 40 " +
	"41 42 43 44 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 75 76 77 78 79 90 91 92 93 94 95 96 97 98 99"

// stateCodes are the codes of the switch's own events.
const stateCodes = "0420 0421 mac echo silent failed parked undelivered unexpected up down " +
	"timeout bad_answer link_lost restart open closed moved refused"

func (s *switchMetrics) register(m *metrics) {
	s.decisions = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "keyd_switch_decisions_total", Help: "Decisions of the switch: what it was, DE 39 or a state, row of the decision table.",
	}, []string{"name", "code", "rule"})
	var names [][]string
	for _, name := range []string{"sale", "reversal", "signin", otherName} {
		names = append(names, []string{name})
	}
	s.answers = newHistograms("keyd_switch_answer_seconds", "Time from a message's arrival to its answer.", requestBounds(), []string{"name"}, names...)
	s.received = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "keyd_reversals_received_total", Help: "Reversals of terminals that were answered, by outcome and row of the decision table.",
	}, []string{"outcome", "rule"})
	s.automatic = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "keyd_reversals_automatic_total", Help: "Reversals that keyd started itself, by cause.",
	}, []string{"cause"})
	s.forwarded = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "keyd_reversals_forwarded_total", Help: "Tries at upstream and what came of them: sent, confirmed, declined, silent, unauthentic.",
	}, []string{"result"})
	s.givenUp = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "keyd_reversals_given_up_total", Help: "Reversals that upstream never confirmed, and that an operator must settle.",
	})
	s.begin()
	s.codes = make(map[string]bool)
	for code := range strings.FieldsSeq(answerCodes + " " + stateCodes) {
		s.codes[code] = true
	}
	m.registry.MustRegister(s.decisions, s.answers, s.received, s.automatic, s.forwarded, s.givenUp)
}

// begin counts from 0 what alerts look at.
func (s *switchMetrics) begin() {
	for _, cause := range []isoswitch.Cause{isoswitch.ByTimeout, isoswitch.ByBadAnswer, isoswitch.ByLinkLoss, isoswitch.ByRestart, isoswitch.ByUndelivered} {
		s.automatic.WithLabelValues(string(cause))
	}
	for _, result := range []string{"sent", "confirmed", "declined", "silent", "unauthentic"} {
		s.forwarded.WithLabelValues(result)
	}
	for _, rule := range []string{"D-03", "D-04", "D-06", "D-09", "D-11"} { // what nobody honest sends often
		s.received.WithLabelValues(string(isoswitch.Refused), rule)
	}
	for _, code := range []string{"mac", "echo", "unexpected"} {
		s.decisions.WithLabelValues("response", code, "")
	}
}

// event hears of the switch's decisions.
func (s *switchMetrics) event(e isoswitch.Event) {
	if e.Code != "" && !s.codes[e.Code] {
		e.Code = otherName
	}
	s.decisions.WithLabelValues(e.Name, e.Code, e.Rule).Inc()
	if e.Took > 0 {
		h := s.answers.of(e.Name)
		if h == nil {
			h = s.answers.of(otherName)
		}
		h.observe(e.Took)
	}
	switch {
	case e.Outcome != "":
		s.received.WithLabelValues(string(e.Outcome), e.Rule).Inc()
	case e.Name == "automatic":
		s.automatic.WithLabelValues(e.Code).Inc()
	case e.Name == "forward":
		s.forward(e.Code)
	}
}

// forward counts a try at upstream.
func (s *switchMetrics) forward(code string) {
	switch code {
	case "0420", "0421":
		s.forwarded.WithLabelValues("sent").Inc()
	case "00", "25": // 25: unknown there, so that nothing is left to undo
		s.forwarded.WithLabelValues("confirmed").Inc()
	case "silent":
		s.forwarded.WithLabelValues("silent").Inc()
	case "mac":
		s.forwarded.WithLabelValues("unauthentic").Inc()
	case "failed", "parked":
		s.givenUp.Inc()
	default:
		s.forwarded.WithLabelValues("declined").Inc()
	}
}

// watch shows the state of the switch.
func (s *switchMetrics) watch(m *metrics, sw *isoswitch.Switch, most int) {
	var (
		up          = describe("keyd_switch_upstream_up", "1 while every upstream can be reached over a link that is signed on.")
		connections = describe("keyd_switch_connections", "Connections of terminals.")
		room        = describe("keyd_switch_connections_limit", "The most of these, switch.connections.")
		inFlight    = describe("keyd_switch_in_flight", "Sales that wait for upstream.")
	)
	m.registry.MustRegister(asked{[]*prometheus.Desc{up, connections, room, inFlight}, func(_ context.Context, ch chan<- prometheus.Metric) {
		now := sw.Status()
		ch <- gaugeOf(up, truth(now.LinkUp && now.SignedOn))
		ch <- gaugeOf(connections, float64(now.Connections))
		ch <- gaugeOf(room, float64(most))
		ch <- gaugeOf(inFlight, float64(now.InFlight))
	}})
}
