package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"keyd.dev/keyd/internal/sim"
)

// posResult is an exchange as it is printed.
type posResult struct {
	Sent     string     `json:"sent,omitempty"`
	STAN     string     `json:"stan,omitempty"`
	KSN      string     `json:"ksn,omitempty"`
	Batch    string     `json:"batch,omitempty"`
	Sends    int        `json:"sends,omitempty"`
	Answer   string     `json:"answer"` // empty: none came that could be read
	Code     string     `json:"code"`
	Meaning  string     `json:"meaning,omitempty"`
	RRN      string     `json:"rrn,omitempty"`
	Approval string     `json:"approval,omitempty"`
	MAC      string     `json:"mac"`
	SignedIn bool       `json:"signed_in,omitempty"`
	Owed     string     `json:"reversal_pending,omitempty"` // its reason
	Before   *posBefore `json:"reversal_before,omitempty"`
	Advised  *posBefore `json:"advice_before,omitempty"`
}

// posBefore is the pending reversal that went first.
type posBefore struct {
	Of      string `json:"of"` // STAN of the original
	STAN    string `json:"stan"`
	Reason  string `json:"reason,omitempty"`
	Code    string `json:"code,omitempty"`
	MAC     string `json:"mac,omitempty"`
	Tries   int    `json:"tries"`
	GivenUp bool   `json:"given_up,omitempty"`
}

func resultOf(r *sim.Result) posResult {
	out := posResult{MAC: string(r.MAC), SignedIn: r.SignedIn, Owed: r.Owed, Sends: r.Sends}
	if b := r.Before; b != nil {
		out.Before = &posBefore{Of: b.Of.STAN(), STAN: b.STAN, Reason: b.Reason, Code: b.Code, MAC: string(b.MAC), Tries: b.Tries, GivenUp: b.GivenUp}
	}
	if a := r.Advised; a != nil {
		out.Advised = &posBefore{Of: a.STAN, STAN: a.STAN, Code: a.Code, Tries: a.Tries, GivenUp: a.GivenUp}
	}
	if r.Sent == nil {
		return out
	}
	m := r.Sent.Message
	out.Sent, out.STAN, out.KSN = string(m.MTI()), m.Text(11), r.Sent.KSN
	if text := m.Text(60); r.Sent.KSN == "" && len(text) >= 8 {
		out.Batch = text[2:8]
	}
	if a := r.Answer; a != nil {
		out.Answer, out.Code, out.Meaning = string(a.MTI()), a.Text(39), meaning(a.Text(39))
		out.RRN, out.Approval = a.Text(37), a.Text(38)
	}
	return out
}

func (f *posFlags) print(p *program, r *sim.Result) error {
	out := resultOf(r)
	if f.JSON {
		return json.NewEncoder(p.stdout).Encode(out)
	}
	var lines []string
	if b := out.Before; b != nil {
		end := fmt.Sprintf("DE 39 = %s (%s), MAC %s", b.Code, meaning(b.Code), b.MAC)
		if b.Code == "" {
			end = "no answer"
		}
		if b.GivenUp {
			end += "; GIVEN UP"
		}
		lines = append(lines, fmt.Sprintf("pending reversal of STAN %s, reason %s, %d of 3 tries -> %s", b.Of, b.Reason, b.Tries, end))
	}
	if a := out.Advised; a != nil {
		end := fmt.Sprintf("DE 39 = %s (%s)", a.Code, meaning(a.Code))
		if a.GivenUp {
			end = "no answer; GIVEN UP"
		}
		lines = append(lines, fmt.Sprintf("pending advice STAN %s, %d of 3 tries -> %s", a.STAN, a.Tries, end))
	}
	switch {
	case r.Local:
		lines = append(lines, "the switch has no message for it: the terminal has closed its batch by itself")
	case r.Do == sim.DoResume && out.Before == nil && out.Advised == nil:
		lines = append(lines, "no reversal is pending")
	case out.Sent != "":
		lines = append(lines, out.line())
	}
	_, err := fmt.Fprintln(p.stdout, strings.Join(lines, "\n"))
	return err
}

// line is the exchange itself.
func (r posResult) line() string {
	number := "KSN " + r.KSN
	if r.KSN == "" {
		number = "batch " + r.Batch
	}
	text := fmt.Sprintf("%s STAN %s %s -> ", r.Sent, r.STAN, number)
	if r.Answer == "" {
		text += "no answer"
	} else {
		text += fmt.Sprintf("%s DE 39 = %s (%s), RRN %s, MAC %s", r.Answer, r.Code, r.Meaning, orNone(r.RRN), r.MAC)
	}
	if r.Owed != "" {
		text += fmt.Sprintf("; reversal pending, reason %s: it goes before the next message", r.Owed)
	}
	return text
}

func orNone(s string) string {
	if strings.TrimSpace(s) == "" {
		return "none"
	}
	return s
}

type posStatusCmd struct{ posFlags }

// posStatus is what a terminal remembers. The working keys are told by their being
// there alone.
type posStatus struct {
	KSN      string     `json:"ksn,omitempty"`
	STAN     int        `json:"stan"`
	Batch    int        `json:"batch,omitempty"`
	SignedIn bool       `json:"signed_in"`
	Pending  *posOwed   `json:"pending,omitempty"`
	Advice   *posOwed   `json:"advice,omitempty"`
	Slips    []sim.Slip `json:"slips"`
}

// posOwed is a pending reversal.
type posOwed struct {
	Of     string `json:"of"` // STAN
	Amount int64  `json:"amount"`
	Reason string `json:"reason,omitempty"`
	Tries  int    `json:"tries"`
}

// Run prints what is in the terminal's folder; it sends nothing.
func (c *posStatusCmd) Run(p *program) error {
	s, err := c.site()
	if err != nil {
		return err
	}
	state, err := sim.ReadState(s.state)
	if err != nil {
		return advise(err, "send something first: keyd sim pos sale")
	}
	status := posStatus{KSN: state.KSN, STAN: state.STAN, Batch: state.Batch, SignedIn: state.Keys != ""}
	if o := state.Pending; o != nil {
		status.Pending = &posOwed{Of: o.Original.STAN(), Amount: o.Original.Amount(), Reason: o.Reason, Tries: o.Tries}
	}
	if a := state.Advice; a != nil {
		status.Advice = &posOwed{Of: a.Message.STAN(), Amount: a.Message.Amount(), Tries: a.Tries}
	}
	if status.Slips, err = sim.ReadSlips(s.state); err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(p.stdout).Encode(status)
	}
	return status.print(p, s)
}

func (s posStatus) print(p *program, site *posSite) error {
	number := "next KSN " + s.KSN
	if s.KSN == "" {
		number = fmt.Sprintf("batch %06d, signed in: %v", s.Batch, s.SignedIn)
	}
	owed := "no reversal is pending"
	if o := s.Pending; o != nil {
		owed = fmt.Sprintf("REVERSAL PENDING of STAN %s, amount %d, reason %s, %d of 3 tries", o.Of, o.Amount, o.Reason, o.Tries)
	}
	if a := s.Advice; a != nil {
		owed += fmt.Sprintf("\nADVICE PENDING, STAN %s, amount %d, %d of 3 tries", a.Of, a.Amount, a.Tries)
	}
	fmt.Fprintf(p.stdout, "terminal %s: last STAN %06d, %s\n%s\n", site.TID, s.STAN, number, owed)
	out := newTable(p.stdout, false, "TIME", "WHAT", "STAN", "AMOUNT", "CODE", "REASON", "TRIES", "RESULT")
	for _, l := range s.Slips {
		tries := ""
		if l.Tries > 0 {
			tries = fmt.Sprint(l.Tries)
		}
		out.row(l, l.Time.Format(time.RFC3339), l.Do, l.STAN, fmt.Sprint(l.Amount), l.Code, l.Reason, tries, l.Result)
	}
	return out.flush()
}

// meaning says in words what an answer code says: W-09, and U-67 to U-79 where that
// has it not.
func meaning(code string) string {
	if text, ok := map[string]string{
		"00": "approved", "03": "unknown merchant", "10": "approved in part", "12": "invalid transaction or currency", "13": "amount",
		"14": "card number", "22": "the original's state forbids it", "25": "original not found", "30": "format",
		"40": "function not supported", "51": "declined by the issuer", "55": "wrong PIN",
		"58": "not permitted to terminal", "61": "over limit", "63": "security violation",
		"64": "amount differs from the original's", "68": "no answer from upstream in time", "90": "day change",
		"91": "upstream not reachable", "92": "no route to an upstream", "94": "duplicate", "96": "keyd cannot, or upstream's answer is not authentic",
		"97": "terminal not registered", "98": "no answer from upstream in time", "99": "PIN format", "A0": "MAC", "A7": "security processing",
	}[code]; ok {
		return text
	}
	return "unknown code"
}
