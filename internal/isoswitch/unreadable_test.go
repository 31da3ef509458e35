package isoswitch

import (
	"context"
	"testing"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/profile"
)

// looseDialect is ascii87 with a DE 90 of any length, which no profile may have.
func looseDialect(t *testing.T) (*iso8583.Dialect, speech) {
	t.Helper()
	speaks, err := profile.Builtin("ascii87")
	if err != nil {
		t.Fatal(err)
	}
	spec := speaks.Dialect.Spec()
	for i := range spec.Fields {
		if spec.Fields[i].DE == 90 {
			spec.Fields[i].Form = "n..42"
		}
	}
	own := *speaks
	if own.Dialect, err = iso8583.New(spec); err != nil {
		t.Fatal(err)
	}
	return own.Dialect, speech{&own}
}

// TestD01UnreadableOriginal: a message whose DE 90 names nothing is refused, and
// leaves nothing in the journal, also where a dialect let it through.
func TestD01UnreadableOriginal(t *testing.T) {
	for _, text := range []string{"0200", "02000000071122110000", "02000000071122110000000000000000000000000"} {
		t.Run("of "+text, func(t *testing.T) {
			m := newMachine()
			dialect, speaks := looseDialect(t)
			m.s.dialect = dialect
			r := m.message("0420", func(b *iso8583.Builder) { b.Set(39, "06").Set(90, text) })
			r.speech = speaks
			d, err := m.s.decideReversal(context.Background(), r, custody.Card{Token: "k1:card"})
			if err != nil || d.verdict.rule != "D-01" || !d.refused {
				t.Errorf("reversal: %s, %v", d.verdict.rule, err)
			}
			r = m.message("0200", func(b *iso8583.Builder) { b.Set(3, "200000").Set(90, text) })
			r.speech = speaks
			void := &Txn{TID: "T0000001", MTI: "0200", Processing: "200000"}
			if err := m.journal.Update(context.Background(), func(tx Tx) error {
				v, err := m.s.relate(tx, r, void)
				if v == nil || v.rule != "D-01" {
					t.Errorf("void: %+v", v)
				}
				return err
			}); err != nil {
				t.Error(err)
			}
			if n := len(m.journal.held.txns) + len(m.journal.held.revs); n != 0 {
				t.Errorf("%d entries in the journal", n)
			}
		})
	}
}
