package softhsmtest_test

import (
	"encoding/hex"
	"fmt"
	"testing"

	"keyd.dev/keyd/dukpt"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/profile"
	"keyd.dev/keyd/mac"
)

// dukptMAC makes a MAC of a DUKPT terminal by hand, from its published keys.
func dukptMAC(t *testing.T, ksn string, use dukpt.Use, algorithm string, padding mac.Padding, input []byte) []byte {
	t.Helper()
	if len(ksn) == 24 {
		bdk, err := hex.DecodeString(testKeys()["alias/dev/bdk-aes"])
		must(t, err)
		at, err := dukpt.ParseAESKSN(ksn)
		must(t, err)
		base, err := dukpt.NewKey(dukpt.AES128, bdk)
		must(t, err)
		ik, err := dukpt.AESInitialKey(&base, at.InitialKeyID())
		must(t, err)
		transaction, err := dukpt.AESWalk(&ik, at)
		must(t, err)
		key, err := dukpt.AESWorkingKey(&transaction, at, use, dukpt.AES128)
		must(t, err)
		c, err := mac.NewAES(key.Bytes())
		must(t, err)
		full, err := mac.CMAC(c, input)
		must(t, err)
		return full
	}
	ik, err := hex.DecodeString("6AC292FAA1315B4D858AB3A3D7D5933A") // X9.24-1, A.4.2
	must(t, err)
	at, err := dukpt.ParseTDESKSN(ksn)
	must(t, err)
	initial := [16]byte(ik)
	transaction, err := dukpt.Walk(&initial, at)
	must(t, err)
	key, err := dukpt.WorkingKey(&transaction, use)
	must(t, err)
	if algorithm == "cmac" {
		c, err := mac.NewTDES(key[:])
		must(t, err)
		full, err := mac.CMAC(c, input)
		must(t, err)
		return full
	}
	full, err := retail(padding)(key[:], input)
	must(t, err)
	return full
}

// TestDUKPTVariants are DUKPT terminals whose profile says another algorithm,
// padding or variant than ascii87: their messages are believed and their answers
// made so, and the usual MAC is wrong there.
func TestDUKPTVariants(t *testing.T) {
	for _, c := range []struct {
		name, section   string
		terminal        int
		algorithm       string
		padding         mac.Padding
		request, answer dukpt.Use
	}{
		{"V8 TDES CMAC", "[mac.tdes-dukpt]\nalgorithm = \"cmac\"\n", 0, "cmac", mac.Padding1, dukpt.MACRequest, dukpt.MACResponse},
		{"algorithm 3, padding 2", "[mac.tdes-dukpt]\nalgorithm = \"x9_19\"\npadding = 2\n", 0, "x9_19", mac.Padding2, dukpt.MACRequest, dukpt.MACResponse},
		{"edition 2004", "[mac.tdes-dukpt]\nalgorithm = \"x9_19\"\nvariant = \"both\"\n", 0, "x9_19", mac.Padding1, dukpt.MACBoth, dukpt.MACBoth},
		{"AES, one key", "[mac.aes-dukpt]\nalgorithm = \"cmac\"\nvariant = \"both\"\n", 1, "cmac", mac.Padding1, dukpt.MACBoth, dukpt.MACBoth},
	} {
		t.Run(c.name, func(t *testing.T) {
			speaks, err := profile.Parse("own.toml", []byte("name = \"own\"\nbase = \"ascii87\"\nabout = \"test\"\n"+c.section))
			must(t, err)
			h := newHouse(t, nil, func(cfg *isoswitch.Config) { cfg.Profile = speaks })
			p := h.pos(c.terminal)
			sale, err := p.Sale(1000, visa, nil)
			must(t, err)
			if c.request != dukpt.MACBoth || c.terminal == 1 { // of edition 2004 the request key is the same
				wantCode(t, p.parsed(sale.Raw), "63")
			}
			input := sale.Message.MACInput()
			full := dukptMAC(t, sale.KSN, c.request, c.algorithm, c.padding, input)
			m := p.parsed(fmt.Appendf(append([]byte(nil), input...), "%X", full[:8]))
			wantCode(t, m, "00")
			got, err := m.MAC()
			must(t, err)
			if want := dukptMAC(t, sale.KSN, c.answer, c.algorithm, c.padding, m.MACInput()); string(got[:]) != string(want[:8]) {
				t.Error("the MAC of the answer is another")
			}
			if e := h.booked(sale); e == nil || e.PIN != "right" {
				t.Errorf("the issuer has %+v", e)
			}
			if m.MTI() != iso8583.FinancialRequest.Response() {
				t.Errorf("the answer is a %s", m.MTI())
			}
		})
	}
}
