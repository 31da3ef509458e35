package softhsmtest_test

import (
	"testing"

	"keyd.dev/keyd/internal/iso8583"
)

// TestCUPRecorded is A-12.T2: what was recorded before a sign-in is worth nothing
// after it, nor when keyd was started again.
func TestCUPRecorded(t *testing.T) {
	t.Run("A-12.T2 a recorded reversal after a sign-in, and after a restart", func(t *testing.T) {
		u := newCUP(t)
		u.t = t
		u.wants(u.buy("000001", 30000), "00")
		recorded := u.sealed(u.undo(iso8583.ReversalRequest, "000001", 30000))
		u.signIn("003")
		for n := range 2 {
			if m := u.exchange(recorded); m.Text(39) != "A0" {
				t.Errorf("the recorded reversal, %d restarts later: %s, want A0", n, m.Text(39))
			}
			if effective, _ := u.booked(30000); effective != 0 {
				t.Error("it had its effect")
			}
			if n == 0 {
				u.h.reopen()
				u.link = u.h.dial("terminal")
			}
		}
		u.wants(u.undo(iso8583.ReversalRequest, "000001", 30000), "00")
	})
}

// TestCUPNextBatch is A-25.T2: the STAN rolls over, a new batch begins, and its
// numbers are those of a sale of the batch before, which is still inside look-back.
func TestCUPNextBatch(t *testing.T) {
	t.Run("A-25.T2 the same STAN in the next batch is another original", func(t *testing.T) {
		u := newCUP(t)
		u.t = t
		const next = "2200002500060"
		u.wants(u.buy("000001", 40000), "00")
		u.wants(u.buy("999999", 40002), "00")
		u.wants(u.buy("000001", 40004).Set(60, next), "00")
		u.wants(u.buy("000001", 40004).Set(60, next), "00") // the stored answer of the new one
		u.wants(u.undo(iso8583.ReversalRequest, "000001", 40004).Set(60, next), "00")
		u.wants(u.undo(iso8583.ReversalRequest, "000001", 40000).Set(60, next), "64") // the amount of the old one
		eventually(t, "the issuer has reversed the new sale", func() bool { effective, _ := u.booked(40004); return effective == 1 })
		u.h.quiet()
		for _, amount := range []int64{40000, 40002} {
			if effective, _ := u.booked(amount); effective != 0 {
				t.Errorf("the sale of %d was reversed with it", amount)
			}
		}
		if _, messages := u.booked(40004); messages != 1 {
			t.Errorf("the issuer has %d entries of the new sale, want 1", messages)
		}
		u.wants(u.undo(iso8583.ReversalRequest, "000001", 40000), "00") // by its own batch
		eventually(t, "the issuer has reversed the old sale", func() bool { effective, _ := u.booked(40000); return effective == 1 })
	})
}
