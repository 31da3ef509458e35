package iso8583

import "slices"

// ASCII87Link returns ascii87 as a host speaks it: with DE 48 and 53 in 0800 and
// 0810, in which zone keys are changed (docs/SWITCH.md, section 7). A terminal's
// dialect has neither.
func ASCII87Link() *Dialect {
	d, err := New(ascii87Link())
	if err != nil {
		panic(err) // the description is a constant of this package
	}
	return d
}

func ascii87Link() Spec {
	s := ascii87()
	for i := range s.Messages {
		if m := &s.Messages[i]; slices.Contains(m.Types, NetworkRequest) {
			m.May, m.AnswerMay = append(m.May, 48, 53), append(m.AnswerMay, 48, 53)
		}
	}
	s.Fields = append(s.Fields,
		FieldSpec{DE: 48, Name: "zone key: check value and key block", Form: "ans...512"},
		FieldSpec{DE: 53, Name: "zone key: which, and the number of the change", Form: "n16", Echo: true},
	)
	slices.SortFunc(s.Fields, func(a, b FieldSpec) int { return a.DE - b.DE })
	return s
}
