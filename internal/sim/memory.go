package sim

import (
	"fmt"
	"strconv"

	"keyd.dev/keyd/internal/iso8583"
)

// Memory is what a terminal keeps of a message to reverse it later: no PIN
// block and no MAC.
type Memory struct {
	MTI      string            `json:"mti"`
	KSN      string            `json:"ksn"`
	Fields   map[string]string `json:"fields"`
	RRN      string            `json:"rrn,omitempty"`
	Approval string            `json:"approval,omitempty"`
	Date     string            `json:"date,omitempty"` // DE 13 of the answer, MMDD
}

// kept are the data elements that a reversal, a void or a completion repeats or
// names.
var kept = []int{2, 3, 4, 7, 11, 12, 13, 14, 22, 23, 25, 37, 38, 39, 41, 42, 49, 55, 60, 61, 90}

// Remember keeps what is needed of a message and of its answer, which may be nil.
func (s *Sent) Remember(answer *iso8583.Message) Memory {
	m := Memory{MTI: string(s.Message.MTI()), KSN: s.KSN, Fields: make(map[string]string)}
	for _, de := range kept {
		if s.Message.Has(de) {
			m.Fields[strconv.Itoa(de)] = s.Message.Text(de)
		}
	}
	if answer != nil {
		m.RRN, m.Approval, m.Date = answer.Text(37), answer.Text(38), answer.Text(13)
	}
	return m
}

// Recall makes a message of a memory again. It cannot be sent: its MAC is zero.
func (t *Terminal) Recall(m Memory) (*Sent, error) {
	b := t.dialect.Build(iso8583.MTI(m.MTI), iso8583.SideTerminal).Set(62, m.KSN)
	for name, value := range m.Fields {
		de, err := strconv.Atoi(name)
		if err != nil {
			return nil, fmt.Errorf("sim: memory with a data element %q", name)
		}
		b.Set(de, value)
	}
	open, err := b.Pack()
	if err != nil {
		return nil, fmt.Errorf("sim: memory of a %s: %w", m.MTI, err)
	}
	return t.sent(open.Seal([8]byte{}), m.KSN)
}
