package api

import (
	"strings"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

// mostFilter bounds the filter of a reading, in bytes.
const mostFilter = 1024

// getAuditLog is GetAuditLog: it records what is about to be read of the audit
// log, and answers with the reading that [AuditPath] asks for.
func (c *call) getAuditLog() error {
	var q custody.LogQuery
	if at, text := c.form.string(0, "Command", required); at >= 0 {
		if q.Command = readCommand(string(text)); q.Command == 0 {
			c.form.failAt(at, "must be ls, get, find, verify, prove, export or report")
		}
	}
	if at, text := c.form.string(0, "Filter", optional); at >= 0 {
		if q.Filter = string(text); len(text) > mostFilter {
			c.form.failAt(at, "must have at most 1024 bytes")
		}
	}
	if at, text := c.form.string(0, "Log", optional); at >= 0 {
		if q.Log = string(text); !isLogName(q.Log) {
			c.form.failAt(at, "must be sec, or a month as ops-2026-11")
		}
	}
	if err := c.check(); err != nil {
		return err
	}
	r, err := c.custody.OpenReading(c.ctx, c.caller, c.id, q)
	if err != nil {
		return err
	}
	return c.answerJSON(struct {
		Reading string
		Until   time.Time
		Seq     uint64
	}{r.ID, r.Until.UTC(), r.Seq})
}

// isLogName reports whether text is sec, or a month of ops.
func isLogName(text string) bool {
	month, ok := strings.CutPrefix(text, "ops-")
	if !ok {
		return text == "sec"
	}
	_, err := time.Parse("2006-01", month)
	return err == nil
}

// readCommand is the command of this name; zero for none that reads the log.
func readCommand(name string) audit.QueryCmd {
	for cmd := audit.QueryList; cmd <= audit.QueryReport; cmd++ {
		if cmd.String() == name {
			return cmd
		}
	}
	return 0
}

// getCardToken is GetCardToken: the tokens by which a card is found in the audit
// log, to who has the consent of a second person.
func (c *call) getCardToken() error {
	at, digits := c.form.string(0, "Pan", required)
	defer clear(digits)
	if at >= 0 && (len(digits) < 8 || len(digits) > 19 || !isDecimal(digits)) {
		c.form.failAt(at, "must be 8 to 19 digits")
	}
	if err := c.check(); err != nil {
		return err
	}
	tokens, err := c.custody.CardTokens(c.ctx, c.caller, c.id, digits)
	if err != nil {
		return err
	}
	return c.answerJSON(struct{ Tokens []string }{tokens})
}

func isDecimal(text []byte) bool {
	for _, b := range text {
		if b < '0' || b > '9' {
			return false
		}
	}
	return true
}
