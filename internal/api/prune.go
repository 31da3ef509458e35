package api

import (
	"encoding/base64"
	"encoding/hex"
	"math"
)

// pruneLog is PruneLog: a closed month of the audit log below a seq, or all of
// it with All.
func (c *call) pruneLog() error {
	f := &c.form
	_, log := f.string(0, "Log", required)
	below := f.int(0, "Below", 1, math.MaxInt32)
	if all, _ := f.bool(0, "All", optional); all == (below != 0) {
		f.fail("Below", "must say what to remove, or All must be true")
	}
	if err := c.check(); err != nil {
		return err
	}
	p, err := c.custody.PruneLog(c.ctx, c.caller, c.id, string(log), uint64(below))
	if err != nil {
		return err
	}
	return c.answerJSON(struct {
		Log, Origin   string
		First, Size   uint64
		Root          string
		ArchiveSHA256 string
	}{p.Log, p.Origin, p.First, p.Size, base64.StdEncoding.EncodeToString(p.Root[:]), hex.EncodeToString(p.Archive[:])})
}
