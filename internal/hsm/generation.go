package hsm

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// What a block MAC key makes a CMAC of beside blocks, which begin with "KDKB":
// each input has its own beginning, so that none can serve as another.
const (
	checkDomain = "keyd LMK check\x01" // ‖ generation, 4 bytes
	proofDomain = "keyd LMK proof\x01" // ‖ generation, 4 bytes ‖ challenge, 32 ‖ wrapped, 40
	valueDomain = "keyd LMK value\x01" // ‖ generation, 4 bytes ‖ challenge, 32: hashed, not MACed
)

func withGeneration(domain string, generation uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte(domain), generation)
}

// ownValue is the value of one of keyd's own keys: the local master key itself,
// or what is derived from it, by HKDF-SHA-256 without salt. In a later
// generation the info ends with its number, so that one value can never serve
// in two.
func ownValue(lmk secret.Bytes, word string, generation uint32) ([]byte, error) {
	if word == labelLMK {
		return slices.Clone(lmk.Reveal()), nil
	}
	info := "keyd own key " + word
	if generation != firstLMK {
		info += " of generation " + strconv.FormatUint(uint64(generation), 10)
	}
	value, err := hkdf.Key(sha256.New, lmk.Reveal(), nil, info, ownBytes)
	if err != nil {
		return nil, fmt.Errorf("derive key %s: %w", word, err)
	}
	return value, nil
}

// LMKCheck computes in the process the check value that a token shows for a
// local master key of 32 bytes in a generation: the first 3 bytes of the
// AES-CMAC under the block MAC key, which is derived from it, of a constant and
// the generation. It is what custodians compare. It returns [keys.ErrMaterial].
func LMKCheck(lmk secret.Bytes, generation uint32) (keys.KCV, error) {
	full, err := checkInProcess(lmk, generation)
	return keys.KCV(full[:3]), err
}

// CheckLMK is [LMKCheck], for those who know the boundary by an interface.
func (m *Manager) CheckLMK(lmk secret.Bytes, generation uint32) (keys.KCV, error) {
	return LMKCheck(lmk, generation)
}

func checkInProcess(lmk secret.Bytes, generation uint32) (mac [16]byte, err error) {
	if err := keys.CheckMaterial(keys.AES256, lmk.Reveal()); err != nil {
		return mac, fmt.Errorf("hsm: local master key: %w", err)
	}
	value, err := ownValue(lmk, labelBlockMAC, generation)
	if err != nil {
		return mac, fmt.Errorf("hsm: check value: %w", err)
	}
	defer secret.Clear(value)
	block, err := aes.NewCipher(value)
	if err != nil {
		return mac, fmt.Errorf("hsm: check value: %w", err)
	}
	out, err := chainCMAC(software{block}, withGeneration(checkDomain, generation))
	copy(mac[:], out)
	return mac, err
}

// software is a cipher in the process, for the check value of a master key that
// is being put together.
type software struct{ cipher.Block }

func (s software) Encrypt(iv, src []byte) ([]byte, error) {
	out := make([]byte, len(src))
	if iv != nil {
		cipher.NewCBCEncrypter(s.Block, iv).CryptBlocks(out, src)
		return out, nil
	}
	for i := 0; i < len(src); i += s.BlockSize() {
		s.Block.Encrypt(out[i:], src[i:])
	}
	return out, nil
}

// lentSecret is a copy for a worker, whose caller may give up before it does.
// The worker clears it at its end, or the caller where the worker never began.
type lentSecret struct {
	secret.Bytes
	begun atomic.Bool
}

func lend(value secret.Bytes) *lentSecret {
	own := secret.New(value.Len())
	copy(own.Reveal(), value.Reveal())
	return &lentSecret{Bytes: own}
}

// begin is for the worker, who calls what it returns at the end.
func (l *lentSecret) begin() (end func()) {
	l.begun.Store(true)
	return l.Clear
}

// settle is for the caller, when it has the worker's answer or gives up.
func (l *lentSecret) settle() {
	if !l.begun.Load() {
		l.Clear()
	}
}

func anyWhole(stored []storedMaster) bool {
	return slices.ContainsFunc(stored, func(m storedMaster) bool { return m.wrap != 0 && m.mac != 0 })
}

// LMKs returns the generations of the local master key that the token holds, in
// their order, with their check values, and what is left of an addition or a
// retirement that was interrupted. It returns [keys.ErrUnavailable], and
// [keys.ErrAmbiguous] where two objects have one label.
func (m *Manager) LMKs(ctx context.Context) ([]keys.LMK, error) {
	var list []keys.LMK
	err := m.t.manage(ctx, "list the local master keys", 0, func(_ *epoch, s *session) error {
		stored, err := m.t.storedMasters(s)
		if err != nil {
			return err
		}
		for _, g := range stored {
			lmk := keys.LMK{Generation: g.generation, Whole: g.wrap != 0 && g.mac != 0}
			if lmk.Whole {
				mac, err := s.cmac(g.mac, withGeneration(checkDomain, g.generation))
				if err != nil {
					return err
				}
				lmk.Check = keys.KCV(mac[:3])
			}
			list = append(list, lmk)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("hsm: list the local master keys: %w", err)
	}
	return list, nil
}

// AddLMK puts a local master key of 32 bytes, which a ceremony has put together,
// beside those that the token holds, and returns its generation: the newest and
// one. New blocks are under it from now on; older ones stay readable until
// [Manager.RetireLMK]. Its block MAC key is derived from it; the keys of
// [Token.System] and the log's stay as they are. The value is not kept; the
// caller clears it.
//
// The block MAC key is made first: one without its master key is what an
// interruption leaves, and is removed here. It returns [keys.ErrMaterial],
// [keys.ErrSameLMK] for a value that the token holds in another generation,
// [keys.ErrNoKey] for a token that is not initialised, [ErrSelfTest] where the
// token shows another check value than the process, or [keys.ErrUnavailable].
func (m *Manager) AddLMK(ctx context.Context, lmk secret.Bytes) (generation uint32, err error) {
	if err := keys.CheckMaterial(keys.AES256, lmk.Reveal()); err != nil {
		return 0, fmt.Errorf("hsm: local master key: %w", err)
	}
	held := lend(lmk)
	defer held.settle()
	m.t.making.Lock()
	defer m.t.making.Unlock()
	err = m.t.manage(ctx, "add a local master key", pkcs11.CKF_RW_SESSION, func(_ *epoch, s *session) error {
		defer held.begin()()
		made, err := m.addLMK(s, held.Bytes)
		generation = made
		return err
	})
	if err == nil {
		err = m.t.lookNow()
	}
	if err != nil {
		return 0, fmt.Errorf("hsm: add a local master key: %w", err)
	}
	return generation, nil
}

func (m *Manager) addLMK(s *session, lmk secret.Bytes) (uint32, error) {
	stored, err := m.t.storedMasters(s)
	if err != nil {
		return 0, err
	}
	if !anyWhole(stored) {
		return 0, errNoMaster
	}
	var newest uint32
	for _, g := range stored {
		if err := m.clean(s, g, lmk); err != nil {
			return 0, err
		}
		if g.wrap != 0 {
			newest = g.generation
		}
	}
	return newest + 1, m.makeMaster(s, newest+1, lmk)
}

// clean removes what is left of an interruption, and refuses a value that the
// token holds already.
func (m *Manager) clean(s *session, g storedMaster, lmk secret.Bytes) error {
	if g.wrap == 0 {
		if err := s.mod.DestroyObject(s.handle, g.mac); err != nil {
			return fmt.Errorf("remove what is left of generation %d: %w", g.generation, s.failure("C_DestroyObject", err))
		}
		return nil
	}
	same, err := s.holds(g, lmk)
	if err == nil && same {
		err = fmt.Errorf("%w: in generation %d", keys.ErrSameLMK, g.generation)
	}
	return err
}

// holds reports whether the token's generation was made from lmk.
func (s *session) holds(g storedMaster, lmk secret.Bytes) (bool, error) {
	want, err := checkInProcess(lmk, g.generation)
	if err != nil {
		return false, err
	}
	got, err := s.cmac(g.mac, withGeneration(checkDomain, g.generation))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1, err
}

// makeMaster makes the two objects of a generation, that of the blocks' MACs first.
func (m *Manager) makeMaster(s *session, generation uint32, lmk secret.Bytes) error {
	made := storedMaster{generation: generation}
	for _, k := range ownKeys {
		place := map[string]*pkcs11.ObjectHandle{labelBlockMAC: &made.mac, labelLMK: &made.wrap}[k.word]
		if place == nil {
			continue
		}
		value, err := ownValue(lmk, k.word, generation)
		if err != nil {
			return err
		}
		*place, err = s.mod.create(s.handle, m.t.labelled(k, m.t.masterLabel(k.word, generation)), value)
		secret.Clear(value)
		if err != nil {
			return fmt.Errorf("make %s: %w", m.t.masterLabel(k.word, generation), s.failure("C_CreateObject", err))
		}
	}
	if same, err := s.holds(made, lmk); err != nil || !same {
		return errors.Join(fmt.Errorf("%w: the token has another local master key than it was given", ErrSelfTest), err)
	}
	return nil
}

// lookNow lets the present epoch find the generations anew.
func (t *Token) lookNow() error {
	c := t.newCall("find the local master keys", t.cfg.Deadline)
	defer t.free(c)
	return t.try(c, func(e *epoch) error { return e.look(c) })
}

// Prove answers a challenge that another token has set: equal answers show that
// both hold the same local master key in this generation, and its block MAC key,
// without either leaving its token. It returns [keys.ErrLMK], [keys.ErrNoKey] or
// [keys.ErrUnavailable].
//
// The answer is the AES-CMAC under the block MAC key of a constant, the
// generation, the challenge, and a value that follows from these two, wrapped
// under the local master key.
func (m *Manager) Prove(ctx context.Context, generation uint32, challenge [32]byte) (answer [16]byte, err error) {
	value := sha256.Sum256(append(withGeneration(valueDomain, generation), challenge[:]...))
	b := &keys.Block{LMK: generation, Attributes: keys.Attributes{Algorithm: keys.AES256}}
	err = m.t.manage(ctx, "prove the local master key", 0, func(e *epoch, s *session) error {
		lmk, err := e.master(generation)
		if err != nil {
			return err
		}
		wrapped, err := s.wrapValue(e, b, secret.From(value[:]))
		if err != nil {
			return err
		}
		msg := append(withGeneration(proofDomain, generation), challenge[:]...)
		answer, err = s.cmac(lmk.mac, append(msg, wrapped...))
		return err
	})
	if err != nil {
		return [16]byte{}, fmt.Errorf("hsm: prove the local master key: %w", err)
	}
	return answer, nil
}
