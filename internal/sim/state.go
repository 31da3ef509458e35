package sim

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"keyd.dev/keyd/internal/iso8583"
)

// State is what a terminal must not forget when its power goes: the numbers that
// it has used, its working keys under its master key, and the reversal that it
// owes. It is written before each message that depends on it leaves.
type State struct {
	KSN   string `json:"ksn,omitempty"`   // DUKPT: of the next message
	STAN  int    `json:"stan"`            // of the last message
	Batch int    `json:"batch,omitempty"` // of terminals that have batches
	// Keys is DE 62 of the last sign-in, hexadecimal: keys under the master key.
	// Empty: the terminal must sign in.
	Keys string `json:"keys,omitempty"`
	// Pending is the reversal that the terminal owes: one at most (U-61).
	Pending *Pending `json:"pending,omitempty"`
	// Advice is a message that is sent again until it is answered (U-20).
	Advice *Advice `json:"advice,omitempty"`

	Sale       *Memory `json:"sale,omitempty"`       // the last approved sale
	Preauth    *Memory `json:"preauth,omitempty"`    // the last approved pre-authorisation
	Completion *Memory `json:"completion,omitempty"` // the last approved completion
	Reversal   *Memory `json:"reversal,omitempty"`   // the last honoured reversal

	// Last is the newest slip. It is in one write with what it tells of, so that one
	// that a loss of power kept from being printed is printed at the next start.
	Last *Slip `json:"last_slip,omitempty"`
}

// Pending is a reversal that is written down before its original leaves (U-57).
type Pending struct {
	Original Memory `json:"original"`
	Reason   string `json:"reason"` // DE 39
	Tries    int    `json:"tries"`  // counted before each leaves
	// STAN and DateTime are DE 11 and DE 7 of the reversal, in a dialect in which
	// it has its own; empty before the first try.
	STAN     string `json:"stan,omitempty"`
	DateTime string `json:"dt,omitempty"`
}

// Advice is what a terminal tells of and does not reverse.
type Advice struct {
	Message Memory `json:"message"`
	Tries   int    `json:"tries"` // counted before each leaves
}

// Slip is what a terminal would have printed.
type Slip struct {
	Time   time.Time `json:"time"`
	Do     string    `json:"do"`
	STAN   string    `json:"stan"`
	Amount int64     `json:"amount"`         // minor units
	Code   string    `json:"code,omitempty"` // DE 39 that was believed; empty: none came
	RRN    string    `json:"rrn,omitempty"`  // DE 37 of that answer
	Reason string    `json:"reason,omitempty"`
	Tries  int       `json:"tries,omitempty"`
	Result string    `json:"result"`
}

// parse reads and checks a state that was written down.
func (s *State) parse(raw []byte) error {
	*s = State{}
	if err := parseStrict(raw, s); err != nil {
		return err
	}
	switch {
	case s.STAN < 0 || s.STAN > maxSTAN:
		return fmt.Errorf("a STAN of %d", s.STAN)
	case s.Batch < 0 || s.Batch > maxSTAN:
		return fmt.Errorf("a batch of %d", s.Batch)
	}
	if p := s.Pending; p != nil {
		if p.Tries < 0 || len(p.Reason) != 2 {
			return errors.New("a pending reversal with bad tries or reason")
		}
		if err := p.Original.check(); err != nil {
			return fmt.Errorf("the pending reversal: %w", err)
		}
	}
	if a := s.Advice; a != nil {
		if err := a.Message.check(); err != nil || a.Tries < 0 {
			return errors.Join(errors.New("the pending advice has bad tries or no message"), err)
		}
	}
	return nil
}

// check refuses a memory of no message.
func (m *Memory) check() error {
	if len(m.MTI) != 4 || !iso8583.MTI(m.MTI).IsRequest() {
		return errors.New("it is no request")
	}
	for name := range m.Fields {
		if de, err := strconv.Atoi(name); err != nil || de < 2 || de > 128 {
			return fmt.Errorf("a data element %q", name)
		}
	}
	return nil
}

// field is a data element of the memory, or "".
func (m *Memory) field(de int) string { return m.Fields[strconv.Itoa(de)] }

// STAN is DE 11.
func (m *Memory) STAN() string { return m.field(11) }

// Amount is DE 4 in minor units; 0 without one.
func (m *Memory) Amount() int64 {
	n, err := strconv.ParseInt(m.field(4), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// maxSTAN is the last STAN, and the last batch: after it comes 000001.
const maxSTAN = 999_999

// after is the number after n.
func after(n int) int { return n%maxSTAN + 1 }

// ReadState returns what is written in a terminal's folder, without being that
// terminal. It returns [ErrState].
func ReadState(dir string) (*State, error) {
	s := new(State)
	there, err := (&folder{path: dir}).load(s)
	if err == nil && !there {
		err = fmt.Errorf("%w: %s: no terminal has worked here: %w", ErrState, dir, fs.ErrNotExist)
	}
	return s, err
}

// ReadSlips returns the slips of a terminal's folder, the oldest first. A torn
// last line, which a power loss can leave, is passed over.
func ReadSlips(dir string) ([]Slip, error) {
	raw, err := os.ReadFile(filepath.Join(dir, slipFile))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	var all []Slip
	for lines := bufio.NewReader(bytes.NewReader(raw)); ; {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		var s Slip
		if err := json.Unmarshal(line, &s); err != nil {
			return nil, fmt.Errorf("%w: %s: line %d: %w", ErrState, slipFile, len(all)+1, err)
		}
		all = append(all, s)
	}
}
