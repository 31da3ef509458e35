package sim

import "keyd.dev/keyd/internal/iso8583"

// named is the entry that a void, a completion or a refund names, or nil.
func (b *book) named(e *Entry) *Entry {
	names, err := iso8583.ParseOriginalData(e.Names)
	if err != nil {
		return nil
	}
	return b.entries[bookKey{names.STAN, names.DateTime}]
}

// effect is the state that an entry gives the one that it names.
func (e *Entry) effect() string {
	switch {
	case e.Proc[:2] == "00":
		return "completed"
	case e.MTI == string(iso8583.FinancialAdvice):
		return "refunded"
	}
	return "voided"
}

// relate does what an entry does to the one that it names, and returns DE 39: 25
// where there is none, 22 where that is no longer simply approved.
func (b *book) relate(e *Entry) string {
	if e.Names == "" {
		return "00"
	}
	o := b.named(e)
	switch {
	case o == nil:
		return "25"
	case o.State != "approved" || o.Reversed > 0:
		return "22"
	}
	o.State = e.effect()
	if err := b.write(o); err != nil {
		return "96"
	}
	return "00"
}

// restore gives the entry that e names its state back, for e is reversed.
func (b *book) restore(e *Entry) {
	if o := b.named(e); o != nil && o.State == e.effect() {
		o.State = "approved"
		_ = b.write(o) // the reversal itself is written next, with the same fault
	}
}
