package custody_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// The published BDKs, and keys of the API's test table.
const (
	bdkTDES = "0123456789ABCDEFFEDCBA9876543210"
	bdkAES  = "FEDCBA9876543210F1F1F1F1F1F1F1F1"
	zpkA    = "49049D94F1F1929B1A83192CF71038CB"
	tak42   = "C73E94DAD9CDB9194AAEF8262A83DC16"
	takCMAC = "66F69CA1D7F33E1B10B8798DDA30361F"
	tpk17   = "FE68DA4A37EAE5F70831E307D3FBDADA"
)

func withKeys(t *testing.T, r *room) *room {
	t.Helper()
	r.key(t, "alias/bdk-tdes", attributes(keys.UsageBDK, keys.TDES2, keys.ModeDerive), bdkTDES, nil)
	r.key(t, "alias/bdk-aes", attributes(keys.UsageBDK, keys.AES128, keys.ModeDerive), bdkAES, nil)
	r.key(t, "alias/bdk-aes-token", attributes(keys.UsageBDK, keys.AES128, keys.ModeDerive), bdkAES, map[string]string{"keyd:custody": "token"})
	r.key(t, "alias/bdk-tdes-token", attributes(keys.UsageBDK, keys.TDES2, keys.ModeDerive), bdkTDES, map[string]string{"keyd:custody": "token"})
	r.key(t, "alias/zpk-a", attributes(keys.UsagePIN, keys.TDES2, keys.ModeBoth), zpkA, nil)
	r.key(t, "alias/zpk-in", attributes(keys.UsagePIN, keys.TDES2, keys.ModeDecrypt), tpk17, nil)
	r.key(t, "alias/tak-42", attributes(keys.UsageMACAlg3, keys.TDES2, keys.ModeMAC), tak42, nil)
	r.key(t, "alias/tak-long", attributes(keys.UsageMACAlg3, keys.TDES2, keys.ModeMAC), "A4795D7338988CC757946BFEBC8F1089", map[string]string{"keyd:mac-min-bytes": "8"})
	r.key(t, "alias/tak-verify", attributes(keys.UsageMACAlg3, keys.TDES2, keys.ModeVerify), "46B0AA84C9AB2CC87FBD7C736E515C06", nil)
	r.key(t, "alias/tak-cmac", attributes(keys.UsageCMAC, keys.AES128, keys.ModeMAC), takCMAC, nil)
	return r
}

func ref(alias string) custody.Ref { return custody.Ref{Alias: alias} }

// TestLegacyPIN: blocks of before ISO 9564 come in where the configuration and
// the key's policy permit it, and never go out.
func TestLegacyPIN(t *testing.T) {
	strict := newRoom(t, nil)
	_, err := strict.CreateKey(t.Context(), admin, "t", custody.CreateKey{
		Attributes: attributes(keys.UsagePIN, keys.TDES2, keys.ModeBoth), Tags: map[string]string{"keyd:pin-format": "visa3"},
	})
	if !errors.Is(err, custody.ErrRequest) {
		t.Errorf("a legacy key without permission: %v", err)
	}
}

func TestLegacyPINIncoming(t *testing.T) {
	r := newRoom(t, func(c *custody.Config) { c.LegacyPIN = []string{"visa3"} })
	r.key(t, "alias/old", attributes(keys.UsagePIN, keys.TDES2, keys.ModeBoth), tpk17, map[string]string{"keyd:pin-format": "visa3"})
	r.key(t, "alias/zpk-a", attributes(keys.UsagePIN, keys.TDES2, keys.ModeBoth), zpkA, nil)
	old, err := secret.NewTDES(unhex(t, tpk17))
	if err != nil {
		t.Fatal(err)
	}
	block, err := old.Encrypt(nil, unhex(t, "1234F77777777777"))
	if err != nil {
		t.Fatal(err)
	}
	translate := func(in, out custody.PINSide) (got custody.TranslatedPIN, err error) {
		failed := r.act(t, app, func(a *custody.Act) error {
			got, err = a.TranslatePIN(t.Context(), custody.TranslatePIN{In: in, Out: out, Block: block})
			return err
		})
		return got, failed
	}
	iso := custody.PINSide{Key: ref("alias/zpk-a"), Format: custody.ISO0, PAN: "4012345678909"}
	got, err := translate(custody.PINSide{Key: ref("alias/old"), Format: custody.ISO1}, iso)
	if err != nil || fmt.Sprintf("%X", got.Block) != "DCBAC0ABA559F78B" {
		t.Errorf("got %X, %v", got.Block, err)
	}
	if _, err := translate(custody.PINSide{Key: ref("alias/old"), Format: custody.ISO0, PAN: "4012345678909"}, iso); !errors.Is(err, custody.ErrKeyUse) {
		t.Errorf("named as format 0: %v", err)
	}
	if _, err := translate(iso, custody.PINSide{Key: ref("alias/old"), Format: custody.ISO1}); !errors.Is(err, custody.ErrKeyUse) {
		t.Errorf("outgoing: %v", err)
	}
	for _, record := range r.records(t, opsLog()) {
		if strings.Contains(record, `"fmt_in":"visa3"`) {
			return
		}
	}
	t.Error("no record names the legacy format")
}

// published is the message of X9.24-1, annex A.4.2, padded.
const published = "343031323334353637383930394439383700000000000000"

func TestMACs(t *testing.T) {
	r := withKeys(t, newRoom(t, nil))
	tdesKSN, aesKSN := unhex(t, "FFFF9876543210E00001"), unhex(t, "123456789012345600000001")
	cmacMessage := "30323030333232303034383030304330303030313030303030303030303030303030313030303131323132323135303030303031323330353130305445524D303030314D45524348414E5430303030303031"
	plain := unhex(t, "3430313233343536373839303944393837") // "4012345678909D987"
	tests := []struct {
		name    string
		q       custody.GenerateMAC
		want    string
		custody audit.Custody
	}{
		{"V8.1 TDES DUKPT request", custody.GenerateMAC{
			Key: ref("alias/bdk-tdes"), DUKPT: &custody.DUKPT{KSN: tdesKSN, Variant: custody.Request},
			Algorithm: custody.MACAlg3, Message: unhex(t, published), Length: 8,
		}, "9CCC78173FC4FB64", audit.CustodyProcess},
		{"V8.1 TDES DUKPT response", custody.GenerateMAC{
			Key: ref("alias/bdk-tdes"), DUKPT: &custody.DUKPT{KSN: tdesKSN, Variant: custody.Response},
			Algorithm: custody.MACAlg3, Padding: custody.Padding1, Message: plain, Length: 8,
		}, "20364223C1FF00FA", audit.CustodyProcess},
		{"V10 AES DUKPT 2000, in the process", custody.GenerateMAC{
			Key: ref("alias/bdk-aes"), DUKPT: &custody.DUKPT{KSN: aesKSN, Variant: custody.Request},
			Algorithm: custody.MACCMAC, Message: plain,
		}, "A2EB5C1C35809E58404E873C3C411E31", audit.CustodyProcess},
		{"V10 AES DUKPT 2000, in the token", custody.GenerateMAC{
			Key: ref("alias/bdk-aes-token"), DUKPT: &custody.DUKPT{KSN: aesKSN, Variant: custody.Request},
			Algorithm: custody.MACCMAC, Message: plain,
		}, "A2EB5C1C35809E58404E873C3C411E31", audit.CustodyToken},
		{"V10 AES DUKPT 2001, in the token", custody.GenerateMAC{
			Key: ref("alias/bdk-aes-token"), DUKPT: &custody.DUKPT{KSN: aesKSN, Variant: custody.Response},
			Algorithm: custody.MACCMAC, Message: plain,
		}, "DD4E1895FD9BF53D8DAF25568ABF551D", audit.CustodyToken},
		{"V10 AES DUKPT 2002 of counter 3 goes through two steps", custody.GenerateMAC{
			Key: ref("alias/bdk-aes-token"), DUKPT: &custody.DUKPT{KSN: unhex(t, "123456789012345600000002"), Variant: custody.Bidirectional},
			Algorithm: custody.MACCMAC, Message: plain,
		}, "B481EA7B8E7B3B0EC94A3BBA509CAA33", audit.CustodyToken},
		{"gm-alg3", custody.GenerateMAC{
			Key: ref("alias/tak-42"), Algorithm: custody.MACAlg3, Message: unhex(t, cmacMessage+"000000000000"), Length: 8,
		}, "17A3F159FD8186A4", audit.CustodyToken},
		{"gm-cmac", custody.GenerateMAC{
			Key: ref("alias/tak-cmac"), Algorithm: custody.MACCMAC, Message: unhex(t, cmacMessage),
		}, "0AFF471619577EAB7CD780E385A0EF7B", audit.CustodyToken},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var made custody.GeneratedMAC
			err := r.act(t, app, func(a *custody.Act) (err error) {
				made, err = a.GenerateMAC(t.Context(), test.q)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%X", made.MAC); got != test.want || made.Custody != test.custody {
				t.Errorf("got %s in custody %v, want %s in %v", got, made.Custody, test.want, test.custody)
			}
		})
	}
}

func TestVerifyMAC(t *testing.T) {
	r := withKeys(t, newRoom(t, nil))
	ksn := unhex(t, "FFFF9876543210E00001")
	base := func() custody.VerifyMAC {
		return custody.VerifyMAC{
			Key: ref("alias/bdk-tdes"), DUKPT: &custody.DUKPT{KSN: ksn, Variant: custody.Request},
			Algorithm: custody.MACAlg3, Message: unhex(t, published), MAC: unhex(t, "9CCC78173FC4FB64"), Length: 8,
		}
	}
	tests := []struct {
		name   string
		change func(*custody.VerifyMAC)
		want   error
	}{
		{"right", func(*custody.VerifyMAC) {}, nil},
		{"D-04 one bit", func(q *custody.VerifyMAC) { q.MAC[7] ^= 1 }, custody.ErrMAC},
		{"D-04 first byte", func(q *custody.VerifyMAC) { q.MAC[0] ^= 0x80 }, custody.ErrMAC},
		{"A-14 response variant", func(q *custody.VerifyMAC) { q.DUKPT.Variant = custody.Response }, custody.ErrMAC},
		{"A-16 another device's KSN", func(q *custody.VerifyMAC) { q.DUKPT.KSN = unhex(t, "FFFF9876543211000001") }, custody.ErrMAC},
		{"A-11 a right prefix", func(q *custody.VerifyMAC) { q.MAC = q.MAC[:7] }, custody.ErrRequest},
		{"A-11 empty", func(q *custody.VerifyMAC) { q.MAC = nil }, custody.ErrRequest},
		{"A-11 three bytes without a named length", func(q *custody.VerifyMAC) { q.MAC, q.Length = q.MAC[:3], 0 }, custody.ErrRequest},
		{"A-15 eleven one bits", func(q *custody.VerifyMAC) { q.DUKPT.KSN = unhex(t, "FFFF9876543210E007FF") }, custody.ErrRequest},
		{"M-25 counter 0", func(q *custody.VerifyMAC) { q.DUKPT.KSN = unhex(t, "FFFF9876543210E00000") }, custody.ErrRequest},
		{"KSN of AES under a TDES BDK", func(q *custody.VerifyMAC) { q.DUKPT.KSN = make([]byte, 12) }, custody.ErrRequest},
		{"no variant", func(q *custody.VerifyMAC) { q.DUKPT.Variant = 0 }, custody.ErrRequest},
		{"empty message", func(q *custody.VerifyMAC) { q.Message = nil }, custody.ErrRequest},
		{"unknown key", func(q *custody.VerifyMAC) { q.Key = ref("alias/none") }, custody.ErrNoKey},
		{"A-19 a PIN key", func(q *custody.VerifyMAC) { q.Key, q.DUKPT = ref("alias/zpk-a"), nil }, custody.ErrKeyUse},
		{"a MAC key as BDK", func(q *custody.VerifyMAC) { q.Key = ref("alias/tak-42") }, custody.ErrKeyUse},
		{"A-11 shorter than the key's policy, named so", func(q *custody.VerifyMAC) {
			q.Key, q.DUKPT, q.MAC, q.Length = ref("alias/tak-long"), nil, q.MAC[:4], 4
		}, custody.ErrRequest},
		{"custody=token", func(q *custody.VerifyMAC) { q.Key = ref("alias/bdk-tdes-token") }, custody.ErrCustody},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			q := base()
			test.change(&q)
			err := r.act(t, app, func(a *custody.Act) error {
				_, err := a.VerifyMAC(t.Context(), q)
				return err
			})
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
	t.Run("mode of use", func(t *testing.T) {
		err := r.act(t, app, func(a *custody.Act) error {
			_, err := a.GenerateMAC(t.Context(), custody.GenerateMAC{Key: ref("alias/tak-verify"), Algorithm: custody.MACAlg3, Message: make([]byte, 8)})
			return err
		})
		if !errors.Is(err, custody.ErrKeyUse) {
			t.Errorf("a key for verification made a MAC: %v", err)
		}
	})
}

func TestTranslatePIN(t *testing.T) {
	r := withKeys(t, newRoom(t, nil))
	base := func() custody.TranslatePIN {
		return custody.TranslatePIN{
			In: custody.PINSide{
				Key: ref("alias/bdk-tdes"), DUKPT: &custody.DUKPT{KSN: unhex(t, "FFFF9876543210E00001")},
				Format: custody.ISO0, PAN: "4012345678909",
			},
			Out:   custody.PINSide{Key: ref("alias/zpk-a"), Format: custody.ISO0, PAN: "4012345678909"},
			Block: unhex(t, "1B9C1845EB993A7A"),
		}
	}
	tests := []struct {
		name   string
		change func(*custody.TranslatePIN)
		want   string
		err    error
	}{
		{"X9.24-1 A.4.2", func(*custody.TranslatePIN) {}, "DCBAC0ABA559F78B", nil},
		{"wrong key", func(q *custody.TranslatePIN) { q.In.DUKPT.KSN = unhex(t, "FFFF9876543210E00002") }, "", custody.ErrPINBlock},
		{"PAN changes", func(q *custody.TranslatePIN) { q.Out.PAN = "4012345678917" }, "", custody.ErrRequest},
		{"format 0 to 1", func(q *custody.TranslatePIN) { q.Out.Format, q.Out.PAN = custody.ISO1, "" }, "", custody.ErrRequest},
		{"format 4 under TDES", func(q *custody.TranslatePIN) { q.Out.Format = custody.ISO4 }, "", custody.ErrKeyUse},
		{"short block", func(q *custody.TranslatePIN) { q.Block = q.Block[:7] }, "", custody.ErrRequest},
		{"outgoing key only deciphers", func(q *custody.TranslatePIN) { q.Out.Key = ref("alias/zpk-in") }, "", custody.ErrKeyUse},
		{"MAC key as PIN key", func(q *custody.TranslatePIN) { q.Out.Key = ref("alias/tak-42") }, "", custody.ErrKeyUse},
		{"custody=token", func(q *custody.TranslatePIN) { q.In.Key = ref("alias/bdk-tdes-token") }, "", custody.ErrCustody},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			q := base()
			test.change(&q)
			var out custody.TranslatedPIN
			err := r.act(t, app, func(a *custody.Act) (err error) {
				out, err = a.TranslatePIN(t.Context(), q)
				return err
			})
			if !errors.Is(err, test.err) || fmt.Sprintf("%X", out.Block) != test.want {
				t.Errorf("got %X, %v; want %s, %v", out.Block, err, test.want, test.err)
			}
			if err != nil && strings.Contains(err.Error(), "4012345678909") {
				t.Error("the error holds the PAN")
			}
		})
	}
	t.Run("A-26 no PAN and no block in the log", func(t *testing.T) {
		for _, record := range r.records(t, opsLog()) {
			for _, canary := range []string{"4012345678909", "1B9C1845EB993A7A", "DCBAC0ABA559F78B", "1b9c1845eb993a7a"} {
				if strings.Contains(record, canary) {
					t.Fatalf("a record holds %s", canary)
				}
			}
		}
	})
}

// opsLog is the name of the month's log.
func opsLog() string { return "ops-" + time.Now().UTC().Format("2006-01") }
