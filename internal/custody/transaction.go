package custody

import (
	"crypto/subtle"

	"keyd.dev/keyd/dukpt"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// transaction is what an act remembers of the TDES DUKPT message that it works
// on: the transaction key, from which every working key of the message is one
// XOR away; or, while the act is suspended and after it, the one key that
// answers. It is of one message, so that it opens nothing that the message and
// its answer did not open already. Decision 0001.
type transaction struct {
	wanted bool // the caller asked for it
	known  bool
	answer bool // key is the working key of the answer's MAC
	bdk    keys.ID
	ksn    dukpt.TDESKSN
	key    [16]byte
}

// is reports whether t holds the key of this message for this use.
func (t *transaction) is(bdk keys.ID, ksn dukpt.TDESKSN, use dukpt.Use) bool {
	return t != nil && t.known && t.bdk == bdk && t.ksn == ksn && (!t.answer || use == dukpt.MACResponse)
}

// keep remembers a transaction key, where that is wanted.
func (t *transaction) keep(bdk keys.ID, ksn dukpt.TDESKSN, key *[16]byte) {
	if t == nil || !t.wanted {
		return
	}
	t.known, t.answer, t.bdk, t.ksn = true, false, bdk, ksn
	subtle.ConstantTimeCopy(1, t.key[:], key[:])
}

// working returns the working key for a use. It is the caller's to clear.
func (t *transaction) working(use dukpt.Use) ([16]byte, error) {
	if t.answer {
		return t.key, nil
	}
	return dukpt.WorkingKey(&t.key, use)
}

// narrow forgets all but the key that answers.
func (t *transaction) narrow() {
	if !t.known || t.answer {
		return
	}
	key, err := dukpt.WorkingKey(&t.key, dukpt.MACResponse)
	defer secret.Clear(key[:])
	if err != nil {
		t.forget()
		return
	}
	t.answer = true
	subtle.ConstantTimeCopy(1, t.key[:], key[:])
}

// forget overwrites the key.
func (t *transaction) forget() {
	secret.Clear(t.key[:])
	t.known = false
}
