package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// The file of `keyd terminal import` is CSV (RFC 4180): a header, then a line
// for each terminal. Columns may come in any order; those that no terminal of the
// file needs may be left out.
const (
	columnTID     = "tid"          // DE 41, 8 characters
	columnMID     = "mid"          // DE 42, 15 characters
	columnScheme  = "scheme"       // tdes-dukpt, aes-dukpt or tmk
	columnBDK     = "bdk"          // DUKPT: alias of the base derivation key
	columnKSN     = "ksn"          // DUKPT: a KSN of the device, hexadecimal
	columnMAC     = "mac_bytes"    // DUKPT: 8 (where it is empty) or 4
	columnProfile = "profile"      // tmk: name of the profile
	columnTMK     = "tmk"          // tmk: generate, the name of a stored key, or a TR-31 key block
	columnKEK     = "kek"          // tmk: the key-encryption key of a key block
	columnKeys    = "working_keys" // tmk: TPK+TAK or TPK+TAK+TDK, to be made now
	columnMost    = "max_amount"   // largest sale in minor units; none where it is empty
)

func terminalColumns() []string {
	return []string{columnTID, columnMID, columnScheme, columnBDK, columnKSN, columnMAC, columnProfile, columnTMK, columnKEK, columnKeys, columnMost}
}

const (
	mostField = 1024 // characters; the longest is a key block
	mostDigit = 12   // of an amount
)

// newTerminal is an entry of AddTerminals.
type newTerminal struct {
	TID         string     `json:"Tid"`
	MID         string     `json:"Mid"`
	Scheme      string     `json:"Scheme"`
	BDK         string     `json:"Bdk,omitempty"`
	KSN         string     `json:"Ksn,omitempty"`
	MACBytes    int        `json:"MacBytes,omitempty"`
	Most        int64      `json:"MaximumAmount,omitempty"`
	Profile     string     `json:",omitempty"`
	MasterKey   *newMaster `json:",omitempty"`
	WorkingKeys []string   `json:",omitempty"`
}

// newMaster says where a terminal's master key comes from.
type newMaster struct {
	Generate      bool      `json:",omitempty"`
	KeyIdentifier string    `json:",omitempty"`
	Tr31KeyBlock  *keyBlock `json:",omitempty"`
}

type keyBlock struct {
	WrappedKeyBlock       string
	WrappingKeyIdentifier string
}

// masterOf reads the words of --tmk and of the column tmk.
func masterOf(tmk, kek string) (*newMaster, error) {
	switch {
	case tmk == "generate" && kek == "":
		return &newMaster{Generate: true}, nil
	case strings.HasPrefix(tmk, "alias/") && kek == "", strings.HasPrefix(tmk, "arn:") && kek == "":
		return &newMaster{KeyIdentifier: tmk}, nil
	case tmk == "generate", strings.HasPrefix(tmk, "alias/"), strings.HasPrefix(tmk, "arn:"):
		return nil, errors.New("a key-encryption key is for a key block; leave it out here")
	case tmk == "":
		return nil, errors.New("a terminal of scheme tmk needs a master key: generate, alias/… or a TR-31 key block")
	case kek == "":
		return nil, errors.New("a key block needs its key-encryption key (alias/…); for a stored key write alias/…, for a new one generate")
	}
	return &newMaster{Tr31KeyBlock: &keyBlock{tmk, kek}}, nil
}

// workingKeysOf reads the words of --working-keys and of the column working_keys.
func workingKeysOf(text string) ([]string, error) {
	switch text {
	case "":
		return nil, nil
	case "TPK+TAK", "TPK+TAK+TDK":
		return strings.Split(text, "+"), nil
	}
	return nil, errors.New("want TPK+TAK, TPK+TAK+TDK, or nothing")
}

// rowError is what is wrong with a line of the file, and where.
type rowError struct {
	line   int
	tid    string
	column string // may be empty: the line as a whole
	reason string
}

func (e *rowError) Error() string {
	if e.column == "" {
		return fmt.Sprintf("line %d: %s", e.line, e.reason)
	}
	return fmt.Sprintf("line %d, column %s: %s", e.line, e.column, e.reason)
}

// terminalRow is a terminal of the file.
type terminalRow struct {
	line  int
	entry newTerminal
}

// terminalFile reads the file line by line.
type terminalFile struct {
	r       *csv.Reader
	columns []string
}

// openTerminals reads the header. Its errors say what to change in the file.
func openTerminals(r io.Reader) (*terminalFile, error) {
	in := bufio.NewReaderSize(r, 1<<16)
	if mark, err := in.Peek(3); err == nil && bytes.Equal(mark, []byte("\xEF\xBB\xBF")) {
		_, _ = in.Discard(3) // as spreadsheets begin their files
	}
	f := &terminalFile{r: csv.NewReader(in)}
	f.r.FieldsPerRecord = -1 // counted here, so that the error says it better
	header, err := f.r.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("the file is empty; its first line names the columns: " + strings.Join(terminalColumns(), ","))
	}
	if err != nil {
		return nil, fmt.Errorf("line 1: %w", plainCSV(err))
	}
	for _, name := range header {
		switch {
		case len(header) == 1 && strings.Contains(name, ";"):
			return nil, errors.New("line 1: columns are parted by commas, not by semicolons; save the file so")
		case !slices.Contains(terminalColumns(), name):
			return nil, fmt.Errorf("line 1: no column is called %q; there are %s", short(name), strings.Join(terminalColumns(), ","))
		case slices.Contains(f.columns, name):
			return nil, fmt.Errorf("line 1: two columns are called %s", name)
		}
		f.columns = append(f.columns, name)
	}
	for _, name := range []string{columnTID, columnMID, columnScheme} {
		if !slices.Contains(f.columns, name) {
			return nil, fmt.Errorf("line 1: the column %s is missing", name)
		}
	}
	return f, nil
}

// short keeps an error to one line, whatever the file holds.
func short(text string) string {
	if len(text) > 40 {
		return text[:40] + "…"
	}
	return text
}

func plainCSV(err error) error {
	var parse *csv.ParseError
	if errors.As(err, &parse) {
		return fmt.Errorf("not CSV: %w (a field with quotes or commas in it stands in double quotes)", parse.Err)
	}
	return err
}

// next returns the next terminal; [io.EOF] at the end; a [*rowError] for a line
// that is wrong, after which the next one can be read; and any other error of
// the file.
func (f *terminalFile) next() (terminalRow, error) {
	record, err := f.r.Read()
	var parse *csv.ParseError
	switch {
	case errors.As(err, &parse):
		return terminalRow{}, &rowError{line: parse.StartLine, reason: plainCSV(err).Error()}
	case err != nil:
		return terminalRow{}, err
	}
	line, _ := f.r.FieldPos(0)
	if len(record) != len(f.columns) {
		return terminalRow{}, &rowError{line: line, reason: fmt.Sprintf("%d fields, and the header has %d columns", len(record), len(f.columns))}
	}
	fields := make(map[string]string, len(record))
	for i, name := range f.columns {
		fields[name] = record[i]
	}
	row := terminalRow{line: line}
	if column, err := row.read(fields); err != nil {
		return terminalRow{}, &rowError{line, fields[columnTID], column, err.Error()}
	}
	return row, nil
}

// read checks the form of a line's fields; what they mean, the daemon checks.
func (row *terminalRow) read(fields map[string]string) (column string, err error) {
	for _, name := range terminalColumns() {
		if text := fields[name]; len(text) > mostField || !plainASCII(text) {
			return name, fmt.Errorf("want at most %d printable ASCII characters", mostField)
		}
	}
	e := &row.entry
	e.TID, e.MID, e.Scheme = fields[columnTID], fields[columnMID], fields[columnScheme]
	switch {
	case len(e.TID) != 8:
		return columnTID, fmt.Errorf("a TID has 8 characters, this one %d", len(e.TID))
	case len(e.MID) != 15:
		return columnMID, fmt.Errorf("a MID has 15 characters, this one %d", len(e.MID))
	}
	if text := fields[columnMost]; text != "" {
		if e.Most, err = digits(text); err != nil {
			return columnMost, err
		}
	}
	switch e.Scheme {
	case "tmk":
		return row.readMaster(fields)
	case "tdes-dukpt", "aes-dukpt":
		return row.readDUKPT(fields)
	}
	return columnScheme, errors.New("want tdes-dukpt, aes-dukpt or tmk")
}

func (row *terminalRow) readMaster(fields map[string]string) (column string, err error) {
	for _, name := range []string{columnBDK, columnKSN, columnMAC} {
		if fields[name] != "" {
			return name, errors.New("is for DUKPT; leave it empty with scheme tmk")
		}
	}
	e := &row.entry
	if e.Profile = fields[columnProfile]; e.Profile == "" {
		return columnProfile, errors.New("is needed with scheme tmk: unionpay, tdes, aes or one of the configuration")
	}
	if e.MasterKey, err = masterOf(fields[columnTMK], fields[columnKEK]); err != nil {
		return columnTMK, err
	}
	e.WorkingKeys, err = workingKeysOf(fields[columnKeys])
	return columnKeys, err
}

func (row *terminalRow) readDUKPT(fields map[string]string) (column string, err error) {
	for _, name := range []string{columnProfile, columnTMK, columnKEK, columnKeys} {
		if fields[name] != "" {
			return name, errors.New("is for scheme tmk; leave it empty with DUKPT")
		}
	}
	e := &row.entry
	e.BDK, e.KSN = fields[columnBDK], fields[columnKSN]
	want := map[string]int{"tdes-dukpt": 20, "aes-dukpt": 24}[e.Scheme]
	switch {
	case !strings.HasPrefix(e.BDK, "alias/"):
		return columnBDK, errors.New("want the alias of the base derivation key, alias/…")
	case len(e.KSN) != want || strings.Trim(e.KSN, "0123456789abcdefABCDEF") != "":
		return columnKSN, fmt.Errorf("want %d hexadecimal digits", want)
	}
	switch fields[columnMAC] {
	case "", "8":
		e.MACBytes = 8
	case "4":
		e.MACBytes = 4
	default:
		return columnMAC, errors.New("want 8 or 4")
	}
	return "", nil
}

func plainASCII(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

// digits reads an amount of money in minor units.
func digits(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || len(text) > mostDigit || strings.Trim(text, "0123456789") != "" {
		return 0, fmt.Errorf("want an amount in minor units, at most %d digits", mostDigit)
	}
	return n, nil
}
