package siem

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The parts of a message that are the same for all.
const (
	appName        = "keyd"
	checkpointName = "checkpoint"   // MSGID of a checkpoint (L-163)
	bom            = "\xef\xbb\xbf" // before UTF-8 (RFC 5424, section 6.4)
)

// DefaultFacility is that of messages, "log audit" (L-162).
const DefaultFacility = 13

// The severities (RFC 5424, section 6.2.1).
const (
	severityAlert    = 1
	severityCritical = 2
	severityError    = 3
	severityWarning  = 4
	severityInfo     = 6
)

// Formatter writes records and checkpoints as messages of RFC 5424. It is safe
// for concurrent use.
type Formatter struct {
	pri [8]string // by severity: <PRI>1 and a space
	sd  string    // [keyd@PEN
}

// NewFormatter returns a Formatter for an IANA private enterprise number, which
// has no default, and a facility from 0 to 23; see [DefaultFacility]. The error
// is [ErrConfig]. L-162.
func NewFormatter(pen, facility int) (*Formatter, error) {
	if pen < 1 || int64(pen) > 1<<32-1 {
		return nil, fmt.Errorf("%w: private enterprise number %d: it needs the one that IANA gave to you", ErrConfig, pen)
	}
	if facility < 0 || facility > 23 {
		return nil, fmt.Errorf("%w: facility %d is not 0 to 23", ErrConfig, facility)
	}
	f := &Formatter{sd: "[keyd@" + strconv.Itoa(pen)}
	for severity := range f.pri {
		f.pri[severity] = "<" + strconv.Itoa(facility*8+severity) + ">1 "
	}
	return f, nil
}

// AppendRecord appends the message of a record, whose bytes it holds unchanged
// behind a byte order mark, and returns it with what was read of the record. A
// message has no newline. The error is [ErrFormat].
func (f *Formatter) AppendRecord(dst, record []byte) ([]byte, Head, error) {
	h, err := ParseHead(record)
	if err != nil {
		return dst, h, err
	}
	dst = f.header(dst, h.severity(), h.Time, h.Node, h.Boot, h.Action)
	dst = append(dst, ` log="`...)
	dst = append(dst, h.Log...)
	dst = append(dst, `" seq="`...)
	dst = strconv.AppendUint(dst, h.Seq, 10)
	dst = append(dst, `" id="`...)
	dst = append(dst, h.ID...)
	dst = append(dst, `"] `+bom...)
	return append(dst, record...), h, nil
}

// Checkpoint is a published checkpoint as a message tells it.
type Checkpoint struct {
	Log  string // sec or ops-yyyy-mm
	Note []byte // the signed note, as it is published
	At   time.Time
	Node string // as in records; "" is not known
	Boot string // the same
}

// AppendCheckpoint appends the message of a checkpoint. What follows the byte
// order mark is a JSON object of one line, since a note has several, with the
// members checkpoint, the note, and log. The error is [ErrFormat]. L-163.
func (f *Formatter) AppendCheckpoint(dst []byte, c Checkpoint) ([]byte, error) {
	_, size, _, err := parseNote(c.Note)
	if err != nil {
		return dst, err
	}
	if !plain(c.Log) || c.Node != "" && !plain(c.Node) || c.Boot != "" && !plain(c.Boot) {
		return dst, fmt.Errorf("%w: log, node or boot of a checkpoint", ErrFormat)
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(checkpointBody{Checkpoint: string(c.Note), Log: c.Log}); err != nil {
		return dst, fmt.Errorf("%w: checkpoint: %w", ErrFormat, err)
	}
	at := c.At.UTC().Format("2006-01-02T15:04:05.000000Z")
	dst = f.header(dst, severityInfo, at, orDash(c.Node), orDash(c.Boot), checkpointName)
	dst = append(dst, ` log="`...)
	dst = append(dst, c.Log...)
	dst = append(dst, `" size="`...)
	dst = strconv.AppendUint(dst, size, 10)
	dst = append(dst, `"] `+bom...)
	return append(dst, bytes.TrimRight(text.Bytes(), "\n")...), nil
}

// checkpointBody is the text of a checkpoint's message.
type checkpointBody struct {
	Checkpoint string `json:"checkpoint"`
	Log        string `json:"log"`
}

// header appends everything up to the name of the structured data.
func (f *Formatter) header(dst []byte, severity int, at, node, boot, id string) []byte {
	dst = append(dst, f.pri[severity]...)
	for _, part := range [...]string{at, node, appName, boot, id} {
		dst = append(dst, part...)
		dst = append(dst, ' ')
	}
	return append(dst, f.sd...)
}

// AppendFrame appends a message by octet counting (RFC 5425, section 4.3).
func AppendFrame(dst, message []byte) []byte {
	dst = strconv.AppendInt(dst, int64(len(message)), 10)
	dst = append(dst, ' ')
	return append(dst, message...)
}

// severity is that of L-162; of several the gravest.
func (h *Head) severity() int {
	s := severityInfo
	switch h.Outcome {
	case "refused":
		s = severityWarning
	case "error":
		s = severityError
	case "unknown":
		s = severityCritical
	}
	switch h.AlarmLevel {
	case "critical":
		s = severityAlert
	case "warn":
		s = min(s, severityWarning)
	}
	return s
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// parseNote reads the three lines of a checkpoint without looking at its
// signatures. The error is [ErrFormat].
func parseNote(note []byte) (origin string, size uint64, root [32]byte, err error) {
	text, sigs, ok := strings.Cut(string(note), "\n\n")
	lines := strings.Split(text, "\n")
	bad := fmt.Errorf("%w: not a signed checkpoint", ErrFormat)
	if !ok || sigs == "" || len(lines) != 3 || !plain(lines[0]) {
		return "", 0, root, bad
	}
	size, err = strconv.ParseUint(lines[1], 10, 53)
	hash, herr := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || herr != nil || len(hash) != len(root) {
		return "", 0, root, bad
	}
	return lines[0], size, [32]byte(hash), nil
}
