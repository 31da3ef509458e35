package vectors

import (
	"testing"

	"keyd.dev/keyd/dukpt"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/mac"
	"keyd.dev/keyd/pin"
)

// tdesCase is a case of dukpt_tdes.json.
type tdesCase struct {
	counterCase
	ID, Kind        string
	BDK             hexBytes
	Counter         uint32
	IPEK            hexBytes
	TransactionKey  hexBytes `json:"transaction_key"`
	PINKey          hexBytes `json:"pin_key"`
	MACRequestKey   hexBytes `json:"mac_request_key"`
	MACResponseKey  hexBytes `json:"mac_response_key"`
	DataRequestKey  hexBytes `json:"data_request_key"`
	DataResponseKey hexBytes `json:"data_response_key"`
	PINBlock        struct {
		PIN, PAN, Format string
		Clear, Encrypted hexBytes
	} `json:"pin_block"`
	MAC struct {
		Message      hexBytes
		Request8     hexBytes `json:"request_x919_8"`
		Request4     hexBytes `json:"request_x919_4"`
		Response8    hexBytes `json:"response_x919_8"`
		Response4    hexBytes `json:"response_x919_4"`
		RequestCMAC  hexBytes `json:"request_cmac"`
		ResponseCMAC hexBytes `json:"response_cmac"`
	}
	Data struct {
		Mode               string
		IV, Plaintext      hexBytes
		RequestCiphertext  hexBytes `json:"request_ciphertext"`
		ResponseCiphertext hexBytes `json:"response_ciphertext"`
	}
}

// TDESDUKPT runs dukpt_tdes.json: BDK and companion in keys of the factory, the
// walk in the process, the working keys in keys of the factory again.
func TDESDUKPT(t *testing.T, f Factory) Tally {
	return each(t, "dukpt_tdes", f, func(t *testing.T, f Factory, c *tdesCase) {
		switch c.Kind {
		case "full":
			tdesFull(t, f, c)
		case "ksn_validity":
			checkValidity(t, must[dukpt.TDESKSN](t)(dukpt.ParseTDESKSN(c.KSN)), c.counterCase)
		case "ksn_next":
			checkNext(t, must[dukpt.TDESKSN](t)(dukpt.ParseTDESKSN(c.KSN)), c.counterCase, dukpt.ErrExhausted)
		case "malformed":
			if k, err := dukpt.ParseTDESKSN(c.KSN); err == nil && len(c.BDK) == 16 {
				t.Errorf("serial number %s was accepted", k)
			}
		default:
			t.Fatalf("unknown kind %q", c.Kind)
		}
	})
}

func tdesFull(t *testing.T, f Factory, c *tdesCase) {
	ksn := must[dukpt.TDESKSN](t)(dukpt.ParseTDESKSN(c.KSN))
	if ksn.Counter() != c.Counter {
		t.Errorf("counter %d, want %d", ksn.Counter(), c.Counter)
	}
	bdk := [16]byte(c.BDK)
	companion := dukpt.Companion(&bdk)
	s := dukpt.InitialKeyData(ksn)
	left := must[[]byte](t)(makeKey(t, f, keys.TDES2, bdk[:]).Encrypt(nil, s[:]))
	right := must[[]byte](t)(makeKey(t, f, keys.TDES2, companion[:]).Encrypt(nil, s[:]))
	ik := [16]byte(append(left, right...))
	same(t, "initial key", ik[:], c.IPEK)

	key := must[[16]byte](t)(dukpt.Walk(&ik, ksn))
	same(t, "transaction key", key[:], c.TransactionKey)
	working := make(map[dukpt.Use][]byte)
	for use, want := range map[dukpt.Use]hexBytes{
		dukpt.PIN:          c.PINKey,
		dukpt.MACRequest:   c.MACRequestKey,
		dukpt.MACBoth:      c.MACRequestKey,
		dukpt.MACResponse:  c.MACResponseKey,
		dukpt.DataRequest:  c.DataRequestKey,
		dukpt.DataResponse: c.DataResponseKey,
	} {
		w := must[[16]byte](t)(dukpt.WorkingKey(&key, use))
		same(t, use.String()+" key", w[:], want)
		working[use] = w[:]
	}
	tdesPIN(t, makeKey(t, f, keys.TDES2, working[dukpt.PIN]), c)
	tdesMAC(t, f, working[dukpt.MACRequest], c.MAC.Message, c.MAC.Request8, c.MAC.Request4, c.MAC.RequestCMAC)
	tdesMAC(t, f, working[dukpt.MACResponse], c.MAC.Message, c.MAC.Response8, c.MAC.Response4, c.MAC.ResponseCMAC)
	checkCBC(t, makeKey(t, f, keys.TDES2, working[dukpt.DataRequest]), c.Data.IV, c.Data.Plaintext, c.Data.RequestCiphertext)
	checkCBC(t, makeKey(t, f, keys.TDES2, working[dukpt.DataResponse]), c.Data.IV, c.Data.Plaintext, c.Data.ResponseCiphertext)
}

func tdesPIN(t *testing.T, key keys.Key, c *tdesCase) {
	t.Helper()
	side := parseSide(t, c.PINBlock.Format, &c.PINBlock.PAN)
	p := must[pin.PIN](t)(pin.ParsePIN([]byte(c.PINBlock.PIN)))
	field := must[pin.Field](t)(pin.Encode(&side, &p, nil))
	same(t, "clear PIN block", field.Bytes(), c.PINBlock.Clear)
	same(t, "PIN block", must[[]byte](t)(pin.Encipher(key, &side, &field)), c.PINBlock.Encrypted)
	decipherPIN(t, key, &side, c.PINBlock.Encrypted, c.PINBlock.PIN)
}

func tdesMAC(t *testing.T, f Factory, key, message, full8, left4, cmac []byte) {
	t.Helper()
	full := makeKey(t, f, keys.TDES2, key)
	left := makeKey(t, f, keys.TDES2, append(key[:8:8], key[:8]...))
	got := must[[]byte](t)(mac.Algorithm3(left, full, message, mac.Padding1))
	same(t, "algorithm 3", got, full8)
	same(t, "algorithm 3, four bytes", must[[]byte](t)(mac.Truncate(got, 4)), left4)
	same(t, "CMAC of the key", must[[]byte](t)(full.CMAC(message)), cmac)
	same(t, "CMAC over the cipher", must[[]byte](t)(mac.CMAC(full, message)), cmac)
}

func checkCBC(t *testing.T, key keys.Key, iv, plain, want []byte) {
	t.Helper()
	same(t, "ciphertext", must[[]byte](t)(key.Encrypt(iv, plain)), want)
	same(t, "plaintext", must[[]byte](t)(key.Decrypt(iv, want)), plain)
}
