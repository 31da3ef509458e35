package sim

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync"

	"keyd.dev/keyd/dukpt"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/mac"
	"keyd.dev/keyd/pin"
)

// tdesKeys are those of a TDES DUKPT terminal. X9.24-1:2009.
type tdesKeys struct {
	ik   [16]byte
	at   dukpt.TDESKSN
	mu   *sync.Mutex // of path: answers may be checked beside each other
	path []stop      // to the last transaction key, which a message and its answer need three times
}

// stop is a key on the way to a transaction key, after so much of the counter, as
// a terminal keeps those that it still needs.
type stop struct {
	counter uint32
	key     [16]byte
}

func newTDESKeys(bdk []byte, ksn string) (*tdesKeys, error) {
	at, err := dukpt.ParseTDESKSN(ksn)
	if err != nil {
		return nil, err
	}
	if len(bdk) != 16 {
		return nil, fmt.Errorf("sim: TDES BDK of %d bytes, want 16", len(bdk))
	}
	whole := [16]byte(bdk)
	companion := dukpt.Companion(&whole)
	data := dukpt.InitialKeyData(at)
	k := &tdesKeys{at: at, mu: new(sync.Mutex)}
	for half, key := range [][16]byte{whole, companion} {
		c, err := secret.NewTDES(key[:])
		if err != nil {
			return nil, err
		}
		part, err := c.Encrypt(nil, data[:])
		if err != nil {
			return nil, err
		}
		copy(k.ik[8*half:], part)
	}
	return k, nil
}

func (k *tdesKeys) ksn() string        { return k.at.String() }
func (k *tdesKeys) format() pin.Format { return pin.Format0 }

func (k *tdesKeys) next() (err error) {
	k.at, err = k.at.Next()
	return err
}

func (k *tdesKeys) key(ksn string, use dukpt.Use) (key [16]byte, err error) {
	at, err := dukpt.ParseTDESKSN(ksn)
	if err != nil {
		return key, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	transaction, err := k.walk(at)
	if err != nil {
		return key, err
	}
	return dukpt.WorkingKey(&transaction, use)
}

// walk goes to the transaction key from the last stop that lies on the way.
func (k *tdesKeys) walk(at dukpt.TDESKSN) (key [16]byte, err error) {
	if err := at.Valid(); err != nil {
		return key, err
	}
	counter, device := at.Counter(), at.Device()
	if device != k.at.Device() {
		return dukpt.Walk(&k.ik, at)
	}
	for n := len(k.path) - 1; n >= 0 && !onTheWay(k.path[n].counter, counter); n-- {
		k.path = k.path[:n]
	}
	if len(k.path) == 0 {
		k.path = []stop{{0, k.ik}}
	}
	for {
		last := &k.path[len(k.path)-1]
		left := counter &^ last.counter
		if left == 0 {
			return last.key, nil
		}
		next := last.counter | 1<<(bits.Len32(left)-1)
		if key, err = dukpt.Resume(&last.key, last.counter, counting(device, next)); err != nil {
			return key, err
		}
		k.path = append(k.path, stop{next, key})
	}
}

// counting is a device's serial number with a counter.
func counting(device dukpt.TDESKSN, counter uint32) dukpt.TDESKSN {
	binary.BigEndian.PutUint32(device[6:], binary.BigEndian.Uint32(device[6:])|counter)
	return device
}

// onTheWay reports whether the one bits of a are the highest of b.
func onTheWay(a, b uint32) bool { return a == 0 || a&b == a && b-a < a&-a }

func (k *tdesKeys) cipher(ksn string, use dukpt.Use) (secret.Cipher, error) {
	key, err := k.key(ksn, use)
	if err != nil {
		return secret.Cipher{}, err
	}
	return secret.NewTDES(key[:])
}

func (k *tdesKeys) mac(ksn string, use dukpt.Use, input []byte) (sum [8]byte, err error) {
	key, err := k.key(ksn, use)
	if err != nil {
		return sum, err
	}
	left, all, err := mac.NewAlgorithm3(key[:])
	if err != nil {
		return sum, err
	}
	full, err := mac.Algorithm3(left, all, input, mac.Padding1)
	if err != nil {
		return sum, err
	}
	return [8]byte(full), nil
}

// aesKeys are those of an AES-128 DUKPT terminal. X9.24-3:2017.
type aesKeys struct {
	ik dukpt.Key
	at dukpt.AESKSN
}

func newAESKeys(bdk []byte, ksn string) (*aesKeys, error) {
	at, err := dukpt.ParseAESKSN(ksn)
	if err != nil {
		return nil, err
	}
	base, err := dukpt.NewKey(dukpt.AES128, bdk)
	if err != nil {
		return nil, err
	}
	ik, err := dukpt.AESInitialKey(&base, at.InitialKeyID())
	if err != nil {
		return nil, err
	}
	return &aesKeys{ik: ik, at: at}, nil
}

func (k *aesKeys) ksn() string        { return k.at.String() }
func (k *aesKeys) format() pin.Format { return pin.Format4 }

func (k *aesKeys) next() (err error) {
	k.at, err = k.at.Next()
	return err
}

func (k *aesKeys) cipher(ksn string, use dukpt.Use) (secret.Cipher, error) {
	at, err := dukpt.ParseAESKSN(ksn)
	if err != nil {
		return secret.Cipher{}, err
	}
	transaction, err := dukpt.AESWalk(&k.ik, at)
	if err != nil {
		return secret.Cipher{}, err
	}
	key, err := dukpt.AESWorkingKey(&transaction, at, use, dukpt.AES128)
	if err != nil {
		return secret.Cipher{}, err
	}
	return secret.NewAES(key.Bytes())
}

// mac is the leftmost 8 bytes of the CMAC (W-07).
func (k *aesKeys) mac(ksn string, use dukpt.Use, input []byte) (sum [8]byte, err error) {
	c, err := k.cipher(ksn, use)
	if err != nil {
		return sum, err
	}
	full, err := mac.CMAC(c, input)
	if err != nil {
		return sum, err
	}
	return [8]byte(full[:8]), nil
}

func (k *tdesKeys) set(ksn string) (err error) {
	k.at, err = dukpt.ParseTDESKSN(ksn)
	return err
}

func (k *aesKeys) set(ksn string) (err error) {
	k.at, err = dukpt.ParseAESKSN(ksn)
	return err
}
