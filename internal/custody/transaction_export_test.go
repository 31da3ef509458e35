package custody

// Remembered returns a copy of the key that the act remembers of its DUKPT
// message, zeros for none.
func (a *Act) Remembered() [16]byte { return a.transaction.key }
