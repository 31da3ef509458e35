package vectors

import (
	"bytes"
	"errors"
	"testing"

	"keyd.dev/keyd/dukpt"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/mac"
	"keyd.dev/keyd/pin"
)

// aesCase is a case of dukpt_aes.json.
type aesCase struct {
	counterCase
	ID, Kind       string
	BDK            hexBytes
	InitialKeyID   hexBytes `json:"initial_key_id"`
	InitialKey     hexBytes `json:"initial_key"`
	TransactionKey hexBytes `json:"transaction_key"`
	WorkingKeys    []struct {
		Usage   string
		KeyType string `json:"key_type"`
		Key     hexBytes
	} `json:"working_keys"`
	Operations *aesOperations
	Usage      string // of kind "strength"
	KeyType    string `json:"key_type"`
}

type aesOperations struct {
	KeyType string `json:"key_type"`
	PIN     struct {
		PIN, PAN, Format string
		Random           hexBytes
		PINField         hexBytes `json:"pin_field"`
		Encrypted        hexBytes
	}
	MAC struct {
		Message      hexBytes
		RequestCMAC  hexBytes `json:"request_cmac"`
		ResponseCMAC hexBytes `json:"response_cmac"`
		HMACKeyType  string   `json:"hmac_key_type"`
		RequestHMAC  hexBytes `json:"request_hmac_sha256"`
		ResponseHMAC hexBytes `json:"response_hmac_sha256"`
	}
	Data struct {
		Mode               string
		IV, Plaintext      hexBytes
		RequestCiphertext  hexBytes `json:"request_ciphertext"`
		ResponseCiphertext hexBytes `json:"response_ciphertext"`
	}
}

var aesUses = map[string]dukpt.Use{
	"key_encryption": dukpt.KeyEncryption, "pin_encryption": dukpt.PIN,
	"mac_generation": dukpt.MACRequest, "mac_verification": dukpt.MACResponse, "mac_both": dukpt.MACBoth,
	"data_encryption_encrypt": dukpt.DataRequest, "data_encryption_decrypt": dukpt.DataResponse, "data_encryption_both": dukpt.DataBoth,
}

var aesKeyTypes = map[string]dukpt.KeyType{
	"tdes2": dukpt.TDES2, "tdes3": dukpt.TDES3,
	"aes128": dukpt.AES128, "aes192": dukpt.AES192, "aes256": dukpt.AES256,
	"hmac128": dukpt.HMAC128, "hmac192": dukpt.HMAC192, "hmac256": dukpt.HMAC256,
}

// AESDUKPT runs dukpt_aes.json: each derivation by [keys.Key.Derive] in keys of
// the factory, and again with the clear keys in the process. Keys for HMAC of
// 128 and 192 bits have no algorithm of package keys; they go the second way only.
func AESDUKPT(t *testing.T, f Factory) Tally {
	return each(t, "dukpt_aes", f, func(t *testing.T, f Factory, c *aesCase) {
		switch c.Kind {
		case "derive", "update_key":
			aesDerive(t, f, c)
		case "strength":
			aesStrength(t, c)
		case "ksn_validity":
			checkValidity(t, must[dukpt.AESKSN](t)(dukpt.ParseAESKSN(c.KSN)), c.counterCase)
		case "ksn_next":
			checkNext(t, must[dukpt.AESKSN](t)(dukpt.ParseAESKSN(c.KSN)), c.counterCase, dukpt.ErrExhausted)
		case "malformed":
			_, keyErr := dukpt.NewKey(bdkType(c.BDK), c.BDK)
			if k, err := dukpt.ParseAESKSN(c.KSN); err == nil && keyErr == nil {
				t.Errorf("serial number %s was accepted", k)
			}
		default:
			t.Fatalf("unknown kind %q", c.Kind)
		}
	})
}

func bdkType(bdk []byte) dukpt.KeyType {
	return map[int]dukpt.KeyType{16: dukpt.AES128, 24: dukpt.AES192, 32: dukpt.AES256}[len(bdk)]
}

func aesDerive(t *testing.T, f Factory, c *aesCase) {
	bdk := must[dukpt.Key](t)(dukpt.NewKey(bdkType(c.BDK), c.BDK))
	id := [8]byte(c.InitialKeyID)
	ik := must[dukpt.Key](t)(dukpt.AESInitialKey(&bdk, id))
	same(t, "initial key", ik.Bytes(), c.InitialKey)
	var ksn dukpt.AESKSN
	var transaction dukpt.Key
	if c.Kind == "update_key" {
		ksn = dukpt.UpdateKSN(id)
		if _, err := dukpt.AESWalk(&ik, ksn); !errors.Is(err, dukpt.ErrCounter) {
			t.Errorf("the update key's counter serves as a transaction's: %v", err)
		}
		transaction = must[dukpt.Key](t)(dukpt.NewKey(bdk.Type(), c.TransactionKey))
		for _, w := range c.WorkingKeys {
			key := must[dukpt.Key](t)(dukpt.AESUpdateKey(&ik, id, aesKeyTypes[w.KeyType]))
			same(t, "update key", key.Bytes(), w.Key)
		}
	} else {
		ksn = must[dukpt.AESKSN](t)(dukpt.ParseAESKSN(c.KSN))
		transaction = must[dukpt.Key](t)(dukpt.AESWalk(&ik, ksn))
		same(t, "transaction key", transaction.Bytes(), c.TransactionKey)
		aesResume(t, &ik, ksn, c.TransactionKey)
	}
	for _, w := range c.WorkingKeys {
		key := must[dukpt.Key](t)(dukpt.AESWorkingKey(&transaction, ksn, aesUses[w.Usage], aesKeyTypes[w.KeyType]))
		same(t, w.Usage+" "+w.KeyType, key.Bytes(), w.Key)
	}
	if c.Operations != nil {
		aesHMAC(t, &transaction, ksn, c.Operations)
	}
	aesInToken(t, makeKey(t, f, tokenType(bdk.Type()), c.BDK), ksn, c)
}

// aesResume breaks the walk off after each step and goes on from there.
func aesResume(t *testing.T, ik *dukpt.Key, ksn dukpt.AESKSN, want []byte) {
	t.Helper()
	at, register := *ik, uint32(0)
	counter := ksn.Counter()
	for step := range dukpt.Steps(ksn, ik.Type()) {
		for bit := uint32(1) << 31; ; bit >>= 1 {
			if counter&^register&bit != 0 {
				register |= bit
				break
			}
		}
		if err := dukpt.Derive(&at, &at, &step); err != nil {
			t.Fatal(err)
		}
		rest := must[dukpt.Key](t)(dukpt.AESWalkFrom(&at, register, ksn))
		same(t, "transaction key, walk resumed", rest.Bytes(), want)
	}
}

// tokenType is the algorithm of package keys for a derived key, or 0.
func tokenType(k dukpt.KeyType) keys.Algorithm {
	return map[dukpt.KeyType]keys.Algorithm{
		dukpt.TDES2: keys.TDES2, dukpt.TDES3: keys.TDES3,
		dukpt.AES128: keys.AES128, dukpt.AES192: keys.AES192, dukpt.AES256: keys.AES256,
		dukpt.HMAC256: keys.HMACSHA256,
	}[k]
}

// aesInToken makes every derivation by Derive and looks at a key by using it.
func aesInToken(t *testing.T, bdk keys.Key, ksn dukpt.AESKSN, c *aesCase) {
	t.Helper()
	kind := bdkType(c.BDK)
	derive := func(from keys.Key, step dukpt.Step, can keys.Ability) keys.Key {
		t.Helper()
		d, err := from.Derive(step.Data(), keys.Spec{Algorithm: tokenType(step.Type), Can: can})
		if err != nil {
			t.Fatalf("deriving a %s key: %v", step.Type, err)
		}
		t.Cleanup(func() {
			if err := d.Close(); err != nil {
				t.Errorf("closing a derived key: %v", err)
			}
		})
		return d
	}
	const parent = keys.CanDerive | keys.CanEncrypt
	key := derive(bdk, dukpt.InitialKeyStep(ksn.InitialKeyID(), kind), parent)
	sameKey(t, "initial key in token", key, c.InitialKey)
	for step := range dukpt.Steps(ksn, kind) {
		key = derive(key, step, parent)
	}
	sameKey(t, "transaction key in token", key, c.TransactionKey)
	for _, w := range c.WorkingKeys {
		if tokenType(aesKeyTypes[w.KeyType]) == 0 {
			continue // see AESDUKPT
		}
		step := must[dukpt.Step](t)(dukpt.WorkingKeyStep(ksn, kind, aesUses[w.Usage], aesKeyTypes[w.KeyType]))
		sameKey(t, w.Usage+" "+w.KeyType+" in token", derive(key, step, keys.CanEncrypt), w.Key)
	}
	if c.Operations == nil {
		return
	}
	of := func(use dukpt.Use, can keys.Ability) keys.Key {
		return derive(key, must[dukpt.Step](t)(dukpt.WorkingKeyStep(ksn, kind, use, aesKeyTypes[c.Operations.KeyType])), can)
	}
	o := c.Operations
	side := parseSide(t, o.PIN.Format, &o.PIN.PAN)
	p := must[pin.PIN](t)(pin.ParsePIN([]byte(o.PIN.PIN)))
	field := must[pin.Field](t)(pin.Encode(&side, &p, fixed(o.PIN.Random)))
	same(t, "PIN field", field.Bytes(), o.PIN.PINField)
	pinKey := of(dukpt.PIN, keys.CanEncrypt|keys.CanDecrypt)
	same(t, "PIN block", must[[]byte](t)(pin.Encipher(pinKey, &side, &field)), o.PIN.Encrypted)
	decipherPIN(t, pinKey, &side, o.PIN.Encrypted, o.PIN.PIN)

	same(t, "request CMAC", must[[]byte](t)(of(dukpt.MACRequest, keys.CanMAC).CMAC(o.MAC.Message)), o.MAC.RequestCMAC)
	same(t, "response CMAC", must[[]byte](t)(of(dukpt.MACResponse, keys.CanMAC).CMAC(o.MAC.Message)), o.MAC.ResponseCMAC)
	checkCBC(t, of(dukpt.DataRequest, keys.CanEncrypt|keys.CanDecrypt), o.Data.IV, o.Data.Plaintext, o.Data.RequestCiphertext)
	checkCBC(t, of(dukpt.DataResponse, keys.CanEncrypt|keys.CanDecrypt), o.Data.IV, o.Data.Plaintext, o.Data.ResponseCiphertext)
}

// sameKey fails when k does not encipher as a key of value want does.
func sameKey(t *testing.T, what string, k keys.Key, want []byte) {
	t.Helper()
	newCipher := secret.NewAES
	if k.BlockSize() == 8 {
		newCipher = secret.NewTDES
	}
	zeros := make([]byte, k.BlockSize())
	expected := must[[]byte](t)(must[secret.Cipher](t)(newCipher(want)).Encrypt(nil, zeros))
	same(t, what, must[[]byte](t)(k.Encrypt(nil, zeros)), expected)
}

func aesHMAC(t *testing.T, transaction *dukpt.Key, ksn dukpt.AESKSN, o *aesOperations) {
	t.Helper()
	for use, want := range map[dukpt.Use]hexBytes{dukpt.MACRequest: o.MAC.RequestHMAC, dukpt.MACResponse: o.MAC.ResponseHMAC} {
		key := must[dukpt.Key](t)(dukpt.AESWorkingKey(transaction, ksn, use, aesKeyTypes[o.MAC.HMACKeyType]))
		same(t, use.String()+" HMAC", must[[]byte](t)(mac.HMAC(mac.SHA256, key.Bytes(), o.MAC.Message)), want)
	}
}

func aesStrength(t *testing.T, c *aesCase) {
	bdk := must[dukpt.Key](t)(dukpt.NewKey(bdkType(c.BDK), c.BDK))
	ksn := must[dukpt.AESKSN](t)(dukpt.ParseAESKSN(c.KSN))
	ik := must[dukpt.Key](t)(dukpt.AESInitialKey(&bdk, ksn.InitialKeyID()))
	transaction := must[dukpt.Key](t)(dukpt.AESWalk(&ik, ksn))
	key, err := dukpt.AESWorkingKey(&transaction, ksn, aesUses[c.Usage], aesKeyTypes[c.KeyType])
	if c.Expected.Error != "" {
		if !errors.Is(err, dukpt.ErrStrength) {
			t.Errorf("%s under %s: %v, want %v", c.KeyType, bdk.Type(), err, dukpt.ErrStrength)
		}
		return
	}
	if err != nil || !bytes.Equal(key.Bytes(), c.Expected.Key) {
		t.Errorf("%s under %s: %v, or the key differs", c.KeyType, bdk.Type(), err)
	}
}
