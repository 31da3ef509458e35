package hsm

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// standing keeps operations open for the keys that are used most, each in a
// session of its own: to begin one costs a module more than a block through it,
// SoftHSM twelve times as much. ECB knows no blocks before, and in CBC a part
// begins anew when its first block takes off what the part before left behind.
// Decision 0043.
//
// An open operation holds the key's value as its object does, so that it ends
// before the object does: with the object's destruction, and with any session of
// which objects may have been. The zero value keeps none. It is safe for
// concurrent use.
type standing struct {
	most atomic.Int32 // operations; 0: none
	slot atomic.Uint64

	mu    sync.Mutex
	ended uint64 // how often operations were ended; who begins one looks twice
	open  map[standingKey]*stood
	uses  map[standingKey]int // of those that have none
}

// standingKey says what an operation does, and with which key.
type standingKey struct {
	do   operation
	mech uint
	key  pkcs11.ObjectHandle
}

// stood is an operation that stands open.
type stood struct {
	used atomic.Int64 // when, in Unix nanoseconds
	over atomic.Bool  // to be closed by whoever holds mu next, or now

	mu      sync.Mutex // held in a call
	session pkcs11.SessionHandle
	closed  bool
	size    int    // of a block
	last    []byte // in CBC, what the next block is XORed with
	part    []byte // the input of a call in CBC
}

const (
	usesToStand  = 32          // uses after which a key is one of those used most
	mostCounted  = 4096        // keys whose uses are counted; then all over again
	standingIdle = time.Second // unused for so long, one makes room for another
)

// blockOf returns the block size of what can stand open, 0 for all else.
func (k standingKey) blockOf() int {
	switch {
	case k.do == signing:
		return 0
	case k.mech == pkcs11.CKM_DES3_ECB:
		return 8
	case k.mech == pkcs11.CKM_AES_ECB:
		return 16
	case k.do == decrypting: // its chain would be the input
		return 0
	case k.mech == pkcs11.CKM_DES3_CBC:
		return 8
	case k.mech == pkcs11.CKM_AES_CBC:
		return 16
	}
	return 0
}

// chained reports whether a block depends on the one before.
func (k standingKey) chained() bool {
	return k.mech == pkcs11.CKM_DES3_CBC || k.mech == pkcs11.CKM_AES_CBC
}

// allow lets at most so many operations stand open on a slot.
func (s *standing) allow(slot uint, most int) {
	s.slot.Store(uint64(slot))
	s.most.Store(int32(most))
}

// through puts in through an operation that stands open. ok is false where there
// is none, or somebody else is in it, or it has failed: then the call is to be
// made as any other.
func (s *standing) through(m *native, k standingKey, iv, in, out []byte) (n int, ok bool) {
	size := k.blockOf()
	if s.most.Load() == 0 || size == 0 || len(in) == 0 || len(in)%size != 0 || len(out) < len(in) {
		return 0, false
	}
	o := s.find(m, k)
	if o == nil || !o.mu.TryLock() {
		return 0, false
	}
	n, err := o.put(m, k, iv, in, out)
	o.mu.Unlock()
	if err != nil {
		s.end(m, func(_ standingKey, other *stood) bool { return other == o })
	}
	if o.over.Load() {
		o.close(m)
	}
	return n, err == nil
}

// find returns the operation, or counts one more use; a key that is used much
// gets one, where there is room.
func (s *standing) find(m *native, k standingKey) *stood {
	s.mu.Lock()
	if o := s.open[k]; o != nil {
		s.mu.Unlock()
		return o
	}
	if s.uses == nil || len(s.uses) >= mostCounted {
		s.uses = make(map[standingKey]int)
	}
	s.uses[k]++
	if s.uses[k] < usesToStand {
		s.mu.Unlock()
		return nil
	}
	delete(s.uses, k)
	idle := s.makeRoom()
	full, ended := len(s.open) >= int(s.most.Load()), s.ended
	s.mu.Unlock()
	if idle != nil {
		idle.close(m)
	}
	if full {
		return nil
	}
	return s.begin(m, k, ended)
}

// makeRoom takes out an operation that was not used lately, where there is no
// room. The caller holds the mutex, and closes it.
func (s *standing) makeRoom() *stood {
	if len(s.open) < int(s.most.Load()) {
		return nil
	}
	before := time.Now().Add(-standingIdle).UnixNano()
	for k, o := range s.open {
		if o.used.Load() < before {
			delete(s.open, k)
			return o
		}
	}
	return nil
}

// begin opens an operation. Where anything was ended meanwhile it is closed
// again: the key may be gone, and its handle another's.
func (s *standing) begin(m *native, k standingKey, ended uint64) *stood {
	session, err := m.Ctx.OpenSession(uint(s.slot.Load()), pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		return nil
	}
	o := &stood{session: session, size: k.blockOf()}
	if k.chained() {
		o.last = make([]byte, o.size) // the initial vector of the first part
	}
	if err := m.begin(session, k.do, k.mech, o.last, k.key); err != nil {
		_ = m.Ctx.CloseSession(session)
		return nil
	}
	if !s.keep(k, o, ended) {
		_ = m.Ctx.CloseSession(session)
		return nil
	}
	return o
}

// keep takes an operation in. It reports false where it must not.
func (s *standing) keep(k standingKey, o *stood, ended uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != ended || s.open[k] != nil || len(s.open) >= int(s.most.Load()) {
		return false
	}
	if s.open == nil {
		s.open = make(map[standingKey]*stood)
	}
	o.used.Store(time.Now().UnixNano())
	s.open[k] = o
	return true
}

// put does one part. The caller holds o.mu.
func (o *stood) put(m *native, k standingKey, iv, in, out []byte) (int, error) {
	if o.over.Load() {
		return 0, errStale
	}
	if k.chained() {
		if len(iv) != o.size {
			return 0, errStale
		}
		o.part = append(o.part[:0], in...)
		defer secret.Clear(o.part)
		for i := range o.size {
			o.part[i] ^= iv[i] ^ o.last[i]
		}
		in = o.part
	}
	n, err := m.more(o.session, k.do, in, out)
	if err == nil && n != len(in) { // a module that keeps some back
		err = errKeptBack
	}
	if err != nil {
		return 0, err
	}
	if k.chained() {
		copy(o.last, out[n-o.size:n])
	}
	o.used.Store(time.Now().UnixNano())
	return n, nil
}

// end takes operations out, and closes those in which nobody is; who is in one
// closes it himself.
func (s *standing) end(m *native, which func(standingKey, *stood) bool) {
	if s.most.Load() == 0 {
		return
	}
	var out []*stood
	s.mu.Lock()
	s.ended++
	for k, o := range s.open {
		if which(k, o) {
			delete(s.open, k)
			out = append(out, o)
		}
	}
	s.mu.Unlock()
	for _, o := range out {
		o.close(m)
	}
}

// close ends the operation with its session. Where somebody is in it, he does so
// when he comes out.
func (o *stood) close(m *native) {
	o.over.Store(true)
	if !o.mu.TryLock() {
		return
	}
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.closed = true
	_ = m.Ctx.CloseSession(o.session)
	secret.Clear(o.last)
}

// DestroyObject ends what stands open with the key, destroys it, and looks again:
// another may have begun meanwhile.
func (m *native) DestroyObject(s pkcs11.SessionHandle, key pkcs11.ObjectHandle) error {
	of := func(k standingKey, _ *stood) bool { return k.key == key }
	m.standing.end(m, of)
	defer m.standing.end(m, of)
	return m.Ctx.DestroyObject(s, key)
}

// CloseSession ends everything that stands open: with the session go its
// objects, and their handles may come again as those of others.
func (m *native) CloseSession(s pkcs11.SessionHandle) error {
	all := func(standingKey, *stood) bool { return true }
	m.standing.end(m, all)
	defer m.standing.end(m, all)
	return m.Ctx.CloseSession(s)
}

// Finalize ends everything that stands open, and the module.
func (m *native) Finalize() error {
	m.standing.end(m, func(standingKey, *stood) bool { return true })
	m.standing.most.Store(0)
	return m.Ctx.Finalize()
}

// keepOpen lets the operations of the keys used most stand open.
func (m *native) keepOpen(slot uint, most int) { m.standing.allow(slot, most) }

// errKeptBack: a part did not come out whole and at once.
var errKeptBack = errors.New("part of the output was kept back")

// standsOpen tries what a standing operation needs: that each part comes out
// whole and at once, and in CBC is chained to the part before.
func (p *probe) standsOpen() error {
	value := testValue[:keys.TDES2.KeyBytes()]
	h, err := p.keyOf(keys.TDES2, rights{encrypt: true}, value)
	if err != nil {
		return err
	}
	soft, err := softCipher(keys.TDES2, value)
	if err != nil {
		return err
	}
	want, err := soft.Encrypt(nil, testData)
	if err != nil {
		return err
	}
	if err := p.inParts(h, tdesMechs.ecb, nil, want); err != nil {
		return err
	}
	if want, err = soft.Encrypt(testIV[:8], testData); err != nil {
		return err
	}
	return p.inParts(h, tdesMechs.cbc, testIV[:8], want)
}

// inParts enciphers the test data in two parts, in a session of its own.
func (p *probe) inParts(h pkcs11.ObjectHandle, mech uint, iv, want []byte) error {
	s := &session{mod: p.s.mod, slot: p.s.slot}
	if err := s.ensure(); err != nil {
		return err
	}
	defer s.close()
	if err := s.mod.begin(s.handle, encrypting, mech, iv, h); err != nil {
		return s.failure("C_EncryptInit", err)
	}
	got := make([]byte, len(want))
	for _, part := range [...]struct{ from, to int }{{0, 8}, {8, len(want)}} {
		n, err := s.mod.more(s.handle, encrypting, testData[part.from:part.to], got[part.from:part.to])
		if err != nil {
			return s.failure("C_EncryptUpdate", err)
		}
		if n != part.to-part.from {
			return errKeptBack
		}
	}
	if !same(got, want) {
		return errAnswer
	}
	return nil
}
