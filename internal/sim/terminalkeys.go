package sim

import (
	"fmt"

	"keyd.dev/keyd/dukpt"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/mac"
	"keyd.dev/keyd/pin"
)

// tdesKeys are those of a TDES DUKPT terminal. X9.24-1:2009.
type tdesKeys struct {
	ik [16]byte
	at dukpt.TDESKSN
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
	k := &tdesKeys{at: at}
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
	transaction, err := dukpt.Walk(&k.ik, at)
	if err != nil {
		return key, err
	}
	return dukpt.WorkingKey(&transaction, use)
}

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
