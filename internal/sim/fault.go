package sim

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"keyd.dev/keyd/internal/iso8583"
)

// Fault is what a step of a script did to one message. It holds no card number.
type Fault struct {
	Fault    string `json:"fault"` // the step's words
	Step     string `json:"step"`
	MTI      string `json:"mti"`
	STAN     string `json:"stan"`
	DateTime string `json:"dt"`
	TID      string `json:"tid"`
	Amount   int64  `json:"amount,omitempty"`  // minor units
	Of       string `json:"of,omitempty"`      // STAN of the original that a reversal names
	Network  string `json:"network,omitempty"` // DE 70
}

func faultOf(s *Step, m *iso8583.Message) Fault {
	f := Fault{
		Fault: s.Do.Words(), Step: s.Name, MTI: string(m.MTI()), STAN: m.Text(11), DateTime: m.Text(7), TID: m.Text(41), Network: m.Text(70),
	}
	f.Amount, _ = m.Amount()
	if original, names := m.Original(); names {
		f.Of = original.STAN
	}
	return f
}

// note puts a fault or a key change on file, between the sales.
func (b *book) note(what any) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file == nil {
		return nil
	}
	line, err := json.Marshal(what)
	if err != nil {
		return err
	}
	_, err = b.file.Write(append(line, '\n'))
	return err
}

// ReadFaults returns the faults of a book's file in the order in which they were
// done.
func ReadFaults(path string) ([]Fault, error) {
	var all []Fault
	err := eachLine(path, func(line []byte) error {
		var f Fault
		if err := json.Unmarshal(line, &f); err != nil {
			return err
		}
		if f.Fault != "" {
			all = append(all, f)
		}
		return nil
	})
	return all, err
}

// ReadChanges returns the key changes of a book's file, likewise.
func ReadChanges(path string) ([]Changed, error) {
	var all []Changed
	err := eachLine(path, func(line []byte) error {
		var c Changed
		if err := json.Unmarshal(line, &c); err != nil {
			return err
		}
		if c.Change != "" {
			all = append(all, c)
		}
		return nil
	})
	return all, err
}

// eachLine gives every whole line of a book to fn. A torn last line, which a
// kill can leave, is passed over.
func eachLine(path string, fn func(line []byte) error) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("sim: issuer's book: %w", err)
	}
	lines := bufio.NewReader(bytes.NewReader(raw))
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err := fn(line); err != nil {
			return fmt.Errorf("sim: issuer's book %s: line %d: %w", path, n, err)
		}
	}
}
