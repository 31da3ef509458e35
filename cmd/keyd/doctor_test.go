package main

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
)

// cmdSoftokn is softokn DIR LABEL, which makes a database of NSS without a PIN,
// and sets SOFTOKN to the module and SOFTOKN_RESERVED to its parameters.
func cmdSoftokn(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: softokn DIR LABEL")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	module, err := hsm.FindSoftokn()
	ts.Check(err)
	reserved, err := hsm.SoftoknReserved(dir, args[1])
	ts.Check(err)
	cfg := hsm.Config{Module: module, Reserved: reserved, TokenLabel: args[1], NoPIN: true}
	ts.Check(hsm.InitSoftokn(cfg, secret.Bytes{}))
	ts.Setenv("SOFTOKN", module)
	ts.Setenv("SOFTOKN_RESERVED", reserved)
}

// TestCustodyTable holds that the table follows from what was tried, and from
// nothing else.
func TestCustodyTable(t *testing.T) {
	all := []hsm.Function{
		hsm.TDES, hsm.AES, hsm.AESCMAC, hsm.HMAC256, hsm.DeriveECB, hsm.KeyWrap, hsm.TDESCMAC, hsm.HMAC224,
		hsm.HMAC384, hsm.HMAC512, hsm.ReencipherTDES, hsm.ReencipherAES, hsm.Ed25519, hsm.P256,
	}
	without := func(missing ...hsm.Function) map[string]custodyRow {
		info := hsm.Info{}
		for _, f := range all {
			works := true
			for _, m := range missing {
				works = works && m != f
			}
			info.Trials = append(info.Trials, hsm.Trial{Function: f, Works: works})
		}
		rows := make(map[string]custodyRow)
		for _, row := range newTokenReport(info).Operations {
			rows[row.Operation] = row
		}
		return rows
	}
	const pin8 = "PIN translation, formats 0, 1, 3, same format and PAN"
	for _, test := range []struct {
		name, operation string
		missing         []hsm.Function
		want            custodyRow
	}{
		{"all", pin8, nil, custodyRow{Any: "process", Token: "token"}},
		{"no re-encipherment", pin8, []hsm.Function{hsm.ReencipherTDES}, custodyRow{
			Any: "process", Token: "refused", Note: "the module lacks: unwrap and wrap 8 secret bytes, TDES ECB"}},
		{"that of AES does not matter", pin8, []hsm.Function{hsm.ReencipherAES}, custodyRow{Any: "process", Token: "token"}},
		{"no HMAC", "HMAC, SHA-384", []hsm.Function{hsm.HMAC384}, custodyRow{Any: "refused", Token: "refused", Note: "the module lacks: HMAC, SHA-384"}},
		{"TDES CMAC is chained", "CMAC, TDES, stored key", []hsm.Function{hsm.TDESCMAC}, custodyRow{
			Any: "token", Token: "token", Note: "chained by keyd: the CMAC's two subkeys are in the process, the key is not"}},
		{"no Ed25519", "signature of the audit log", []hsm.Function{hsm.Ed25519}, custodyRow{Any: "token", Token: "token", Note: "ECDSA P-256"}},
		{"whatever the module", "PIN translation, the format changes", nil, custodyRow{Any: "process", Token: "refused", Note: "the PIN is in the process"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.want.Operation = test.operation
			if d := cmp.Diff(test.want, without(test.missing...)[test.operation]); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
