package api

import (
	"time"

	"keyd.dev/keyd/internal/custody"
)

// closeBatch is CloseBatch: of the terminal in Tid, or of all with All.
func (c *call) closeBatch() error {
	f := &c.form
	q := custody.BatchClosing{TID: c.digitsOr("Tid", 8, false)}
	if all, _ := f.bool(0, "All", optional); all == (q.TID != "") {
		f.fail("Tid", "must name a terminal, or All must be true")
	}
	q.Before = c.clock().Add(-time.Duration(f.int(0, "OlderThanSeconds", 0, 10*365*24*3600)) * time.Second)
	if err := c.check(); err != nil {
		return err
	}
	until, err := c.custody.CloseBatch(c.ctx, c.caller, c.id, q)
	if err != nil {
		return err
	}
	return c.answerJSON(struct {
		TID   string `json:"Tid,omitempty"`
		Until time.Time
	}{q.TID, until})
}
