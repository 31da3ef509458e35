package isoswitch

// nameBytes is how much of a RID its name has: 96 bits, so that no two of a
// journal share one.
const nameBytes = 12

// Name is the reversal's name for people, in answers, records and events: the
// first 96 bits of the RID as 24 letters, k for 0 to z for 15. It has no digit
// and no hexadecimal letter, so that nothing takes it for a card number or a key.
func (r RID) Name() string {
	name := make([]byte, 0, 2*nameBytes)
	for _, b := range r[:nameBytes] {
		name = append(name, 'k'+b>>4, 'k'+b&0x0F)
	}
	return string(name)
}

// ParseName returns the least and the greatest RID of a name. It is false for a
// text that is none.
func ParseName(name string) (least, greatest RID, ok bool) {
	if len(name) != 2*nameBytes {
		return least, greatest, false
	}
	for i := range greatest {
		greatest[i] = 0xFF
	}
	for i := range nameBytes {
		high, low := name[2*i]-'k', name[2*i+1]-'k'
		if high > 0x0F || low > 0x0F {
			return RID{}, RID{}, false
		}
		least[i] = high<<4 | low
		greatest[i] = least[i]
	}
	return least, greatest, true
}
