package iso8583

// ASCII87 returns the dialect ascii87: ISO 8583:1987, all in ASCII. The profile
// of that name describes the same (internal/profile), and a test compares.
func ASCII87() *Dialect {
	d, err := New(ascii87())
	if err != nil {
		panic(err) // the description is a constant of this package
	}
	return d
}

// ascii87 is the table of section 1 of the dialect; a field in none of the lists
// is refused (W-05).
func ascii87() Spec {
	must := []int{2, 3, 4, 7, 11, 12, 13, 37, 39, 41, 42, 49}
	may := []int{32, 38, 55, 62}
	return Spec{
		Name: "ascii87", Wire: WireASCII, MAC: MACHex16, KSN: 62, Incomplete: []string{"30", "63"},
		Messages: []MessageSpec{{
			Name: "financial", Types: []MTI{AuthorizationRequest, FinancialRequest, FinancialAdvice},
			Must:       []int{2, 3, 4, 7, 11, 12, 13, 22, 25, 41, 42, 49},
			May:        []int{14, 32, 35, 37, 52, 55, 62, 63, 90},
			AnswerMust: must, AnswerMay: may,
		}, {
			Name: "reversal", Types: []MTI{ReversalRequest, ReversalRepeat, ReversalAdvice, ReversalAdviceRepeat},
			Must:       []int{2, 3, 4, 7, 11, 12, 13, 22, 25, 39, 41, 42, 49, 90},
			May:        []int{14, 32, 37, 38, 55, 62, 95},
			AnswerMust: must, AnswerMay: may,
		}, {
			Name: "network", Types: []MTI{NetworkRequest}, MayMAC: true,
			Must: []int{7, 11, 41, 42, 70}, May: []int{62},
			AnswerMust: []int{7, 11, 39, 41, 42, 70}, AnswerMay: []int{37, 62},
		}},
		Fields: []FieldSpec{
			{DE: 2, Name: "PAN", Form: "n..19", Echo: true},
			{DE: 3, Name: "processing code", Form: "n6", Echo: true},
			{DE: 4, Name: "amount, minor units", Form: "n12", Echo: true},
			{DE: 7, Name: "transmission date and time", Form: "n10", Echo: true},
			{DE: 11, Name: "STAN", Form: "n6", Echo: true},
			{DE: 12, Name: "local time", Form: "n6", Echo: true},
			{DE: 13, Name: "local date", Form: "n4", Echo: true},
			{DE: 14, Name: "expiry", Form: "n4"},
			{DE: 22, Name: "entry mode", Form: "n3"},
			{DE: 25, Name: "condition code", Form: "n2"},
			{DE: 32, Name: "acquirer", Form: "n..11", Echo: true},
			{DE: 35, Name: "track 2", Form: "z..37"},
			{DE: 37, Name: "RRN", Form: "an12", Echo: true},
			{DE: 38, Name: "approval code", Form: "an6"},
			{DE: 39, Name: "answer code or reason", Form: "an2"},
			{DE: 41, Name: "TID", Form: "ans8", Echo: true},
			{DE: 42, Name: "MID", Form: "ans15", Echo: true},
			{DE: 49, Name: "currency", Form: "n3", Echo: true},
			{DE: 52, Name: "PIN block", Form: "h16", Want: "16 hex digits"},
			{DE: 55, Name: "EMV", Form: "b...255", Want: "b..255 as hex"},
			{DE: 62, Name: "KSN", Form: "h...24", Want: "20 or 24 hex digits", Lengths: []int{20, 24}, Echo: true, Terminal: true},
			{DE: 63, Name: "PIN block, AES", Form: "h...32", Want: "32 hex digits, without DE 52", Min: 32, Excludes: 52, Terminal: true},
			{DE: 70, Name: "network management code", Form: "n3", Echo: true},
			{DE: 90, Name: "original data elements", Form: "n42"},
			{DE: 95, Name: "replacement amounts", Form: "an42", Want: "n12 and 30 zeros", Shape: ShapeReplacement},
		},
	}
}
