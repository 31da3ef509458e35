package ceremony

import (
	"bytes"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// mostDevices bounds an injection list.
const mostDevices = 10_000

var tidForm = regexp.MustCompile(`^[A-Za-z0-9]{1,16}$`)

// addList gives a script the list that it names. Only an injection has one.
func (s *Script) addList(text []byte) error {
	if s.Kind != Injection {
		if len(text) > 0 {
			return fmt.Errorf("%w: a ceremony of kind %s has no list", ErrScript, s.Kind)
		}
		return nil
	}
	devices, err := ParseList(text)
	if err != nil {
		return err
	}
	s.device = devices
	return nil
}

// ParseList reads an injection list: CSV with the head line TID,KSN. A KSN is
// the initial one of a device, 20 (TDES) or 24 (AES) hexadecimal digits. The
// error is [ErrScript] and names the line.
func ParseList(text []byte) ([]Device, error) {
	r := csv.NewReader(bytes.NewReader(text))
	r.FieldsPerRecord = 2
	head, err := r.Read()
	if err != nil || head[0] != "TID" || head[1] != "KSN" {
		return nil, fmt.Errorf("%w: the injection list must begin with the line TID,KSN", ErrScript)
	}
	var devices []Device
	seen := make(map[string]bool)
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: injection list: %w", ErrScript, err)
		}
		line, _ := r.FieldPos(0)
		d := Device{TID: row[0], KSN: strings.ToUpper(row[1])}
		raw, err := hex.DecodeString(d.KSN)
		switch {
		case !tidForm.MatchString(d.TID):
			return nil, fmt.Errorf("%w: injection list, line %d: the TID is not 1 to 16 letters and digits", ErrScript, line)
		case err != nil || len(raw) != 10 && len(raw) != 12:
			return nil, fmt.Errorf("%w: injection list, line %d: a KSN has 20 or 24 hexadecimal digits", ErrScript, line)
		case seen[d.KSN]:
			return nil, fmt.Errorf("%w: injection list, line %d: the KSN stands in it twice", ErrScript, line)
		case len(devices) == mostDevices:
			return nil, fmt.Errorf("%w: injection list: more than %d lines; make it two ceremonies", ErrScript, mostDevices)
		}
		seen[d.KSN] = true
		devices = append(devices, d)
	}
	if len(devices) == 0 {
		return nil, fmt.Errorf("%w: the injection list names no device", ErrScript)
	}
	return devices, nil
}

// injected is what an injection made, in the order of its list.
func (s *session) injected() []Injected {
	if s.script.Kind != Injection || s.stage != Done {
		return nil
	}
	out := make([]Injected, 0, len(s.devices))
	for _, d := range s.devices {
		out = append(out, Injected{TID: d.TID, KSN: d.KSN, Check: s.made.Checks[d.KSN], Block: s.made.Devices[d.KSN]})
	}
	return out
}

// InjectionFile is the CSV that a key injection facility gets.
func InjectionFile(rows []Injected) ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	_ = w.Write([]string{"TID", "KSN", "KCV", "TR31"})
	for _, r := range rows {
		_ = w.Write([]string{r.TID, r.KSN, r.Check, r.Block})
	}
	w.Flush()
	return b.Bytes(), w.Error()
}
