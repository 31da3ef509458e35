package hsm

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/keys"
)

// firstLMK is the generation of the local master key that Init makes.
const firstLMK = 1

// master is one generation of the local master key as an epoch uses it: the
// key that wraps, and that of the blocks' MACs.
type master struct{ wrap, mac pkcs11.ObjectHandle }

// masters are the generations at hand. A table is never changed: an epoch is
// given another.
type masters struct {
	by     map[uint32]master
	newest uint32 // 0 before the token is initialised
}

var errNoMaster = fmt.Errorf("%w: the token has no local master key; it must be initialised", keys.ErrNoKey)

// master returns a generation. It returns [keys.ErrNoKey] before the token is
// initialised and [keys.ErrLMK] for a generation that it does not hold.
func (e *epoch) master(generation uint32) (master, error) {
	all := e.masters.Load()
	if found, ok := all.by[generation]; ok {
		return found, nil
	}
	if all.newest == 0 {
		return master{}, errNoMaster
	}
	return master{}, fmt.Errorf("%w: it is under generation %d, the token holds %d", keys.ErrLMK, generation,
		slices.Sorted(maps.Keys(all.by)))
}

// newest returns the generation that new blocks are put under, 0 before the
// token is initialised.
func (e *epoch) newest() uint32 { return e.masters.Load().newest }

// checkLMK refuses a block of a generation that the token does not hold. One
// that it does not know it looks for again, since another process may have
// added it.
func (t *Token) checkLMK(b *keys.Block) error {
	e := t.condition.Load().epoch
	if e == nil {
		return nil // and found out once there is one
	}
	_, err := e.master(b.LMK)
	if errors.Is(err, keys.ErrLMK) {
		err = e.lookFor(b.LMK)
	}
	if err != nil {
		return fmt.Errorf("hsm: load key %s: %w", b.ID, err)
	}
	return nil
}

// lookEvery bounds the searches that blocks of unknown generations can cause.
const lookEvery = 100 * time.Millisecond

// lookFor looks for a generation that the epoch does not know, and waits for who
// does so already.
func (e *epoch) lookFor(generation uint32) error {
	e.looking.Lock()
	defer e.looking.Unlock()
	_, err := e.master(generation)
	if !errors.Is(err, keys.ErrLMK) || time.Since(e.looked) < lookEvery {
		return err
	}
	c := e.t.newCall("find the local master keys", e.t.cfg.Deadline)
	defer e.t.free(c)
	if err := e.look(c); err != nil {
		return err
	}
	e.looked = time.Now()
	_, err = e.master(generation)
	return err
}

// look finds the generations anew, in the middle of an epoch.
func (e *epoch) look(c *call) error {
	return e.perform(c, e.keeping, func(s *session) error { return e.findMasters(s) })
}

// findMasters finds the generations, of which there is one once the token is
// initialised. s is the keeper.
func (e *epoch) findMasters(s *session) error {
	stored, err := e.t.storedMasters(s)
	if err != nil {
		return err
	}
	known := e.masters.Load()
	all := &masters{by: make(map[uint32]master)}
	for _, m := range stored {
		switch {
		case m.wrap == 0:
			continue // what an interrupted addition or retirement has left
		case m.mac == 0:
			return fmt.Errorf("hsm: %w: no object is labelled %q, and %q without it opens nothing; restore the token",
				keys.ErrNoKey, e.t.masterLabel(labelBlockMAC, m.generation), e.t.masterLabel(labelLMK, m.generation))
		}
		mac := known.by[m.generation].mac // the keeper's copy, from an earlier search
		if mac == 0 {
			if mac, err = s.resident(m.mac); err != nil {
				return err
			}
		}
		all.by[m.generation] = master{wrap: m.wrap, mac: mac}
		all.newest = max(all.newest, m.generation)
	}
	e.masters.Store(all)
	return nil
}

// storedMaster is what the token stores of a generation; a handle of 0 is none.
type storedMaster struct {
	generation uint32
	master
}

// storedMasters lists the generations in the token, in their order. It returns
// [keys.ErrAmbiguous] where two objects have one label.
func (t *Token) storedMasters(s *session) ([]storedMaster, error) {
	found, err := s.find([]*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
	})
	if err != nil {
		return nil, err
	}
	by := make(map[uint32]storedMaster)
	for _, h := range found {
		got, err := s.mod.GetAttributeValue(s.handle, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, nil)})
		if err != nil {
			return nil, s.failure("C_GetAttributeValue", err)
		}
		label := string(got[0].Value)
		word, generation, ok := t.masterOf(label)
		if !ok {
			continue
		}
		m := by[generation]
		m.generation = generation
		place := &m.wrap
		if word == labelBlockMAC {
			place = &m.mac
		}
		if *place != 0 {
			return nil, fmt.Errorf("hsm: %w: two objects are labelled %q; remove the one that does not belong", keys.ErrAmbiguous, label)
		}
		*place = h
		by[generation] = m
	}
	return slices.SortedFunc(maps.Values(by), func(a, b storedMaster) int { return cmp.Compare(a.generation, b.generation) }), nil
}

// masterLabel is the label of a generation's object.
func (t *Token) masterLabel(word string, generation uint32) string {
	return t.cfg.Prefix + "-" + word + "-" + strconv.FormatUint(uint64(generation), 10)
}

// masterOf reads such a label.
func (t *Token) masterOf(label string) (word string, generation uint32, ok bool) {
	for _, word := range []string{labelLMK, labelBlockMAC} {
		digits, cut := strings.CutPrefix(label, t.cfg.Prefix+"-"+word+"-")
		n, err := strconv.ParseUint(digits, 10, 32)
		if cut && err == nil && n > 0 && t.masterLabel(word, uint32(n)) == label {
			return word, uint32(n), true
		}
	}
	return "", 0, false
}
