package iso8583

// mayName reports whether a 0100, 0200 or 0220 with these DE 3 and DE 25 may name
// another transaction in DE 90: a void or a refund of a sale (DE 3 20), or the
// completion of a pre-authorization (00 with DE 25 06). U-17 to U-19; in every
// other such message DE 90 is refused (W-05).
func mayName(processing, condition []byte) bool {
	if len(processing) < 2 {
		return false
	}
	switch string(processing[:2]) {
	case "20":
		return true
	case "00":
		return string(condition) == "06"
	}
	return false
}

// names reports whether DE 90 of a message of class 1 or 2 stands where it may.
func (m MTI) names(processing, condition []byte) bool {
	class := m.Class()
	return class != '1' && class != '2' || mayName(processing, condition)
}
