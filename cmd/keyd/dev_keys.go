package main

import (
	"context"
	"errors"
	"fmt"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/store"
	"keyd.dev/keyd/keys"
)

// The published test keys of a development daemon (W-10, W-11). They are known
// to everybody and stand in dev.json.
const (
	testBDKTDES = "0123456789ABCDEFFEDCBA9876543210"
	testBDKAES  = "FEDCBA9876543210F1F1F1F1F1F1F1F1"
	testKEK     = "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F"
	testZPK     = "404142434445464748494A4B4C4D4E4F"
	testZAK     = "505152535455565758595A5B5C5D5E5F"

	aliasBDKTDES = "alias/dev/bdk-tdes"
	aliasBDKAES  = "alias/dev/bdk-aes"
	aliasKEK     = "alias/dev/kek"
	aliasZPK     = "alias/dev/zpk"
	aliasZAK     = "alias/dev/zak"
)

// testKey is a key of W-10 or W-11.
type testKey struct {
	alias string
	value string // hexadecimal
	as    keys.Attributes
}

func testKeys() []testKey {
	attr := func(u keys.Usage, a keys.Algorithm, m keys.Mode) keys.Attributes {
		return keys.Attributes{Usage: u, Algorithm: a, Mode: m, Exportability: keys.Exportable}
	}
	return []testKey{
		{aliasBDKTDES, testBDKTDES, attr(keys.UsageBDK, keys.TDES2, keys.ModeDerive)},
		{aliasBDKAES, testBDKAES, attr(keys.UsageBDK, keys.AES128, keys.ModeDerive)},
		{aliasKEK, testKEK, attr(keys.UsageKEK, keys.AES256, keys.ModeBoth)},
		{aliasZPK, testZPK, attr(keys.UsagePIN, keys.TDES2, keys.ModeBoth)},
		{aliasZAK, testZAK, attr(keys.UsageMACAlg3, keys.TDES2, keys.ModeMAC)},
	}
}

// testTerminal is a terminal of W-10.
type testTerminal struct {
	TID    string           `json:"tid"`
	MID    string           `json:"mid"`
	Scheme isoswitch.Scheme `json:"scheme"`
	BDK    string           `json:"bdk,omitempty"` // alias
	KSN    string           `json:"ksn,omitempty"` // the first that it uses
	TMK    string           `json:"tmk,omitempty"` // alias of the master key, in place of these
}

// loadTerminals is how many terminals there are for load, T0000100 and on.
const loadTerminals = 50

func testTerminals() []testTerminal {
	list := []testTerminal{
		{TID: "T0000001", MID: "M00000000000001", Scheme: isoswitch.TDESDUKPT, BDK: aliasBDKTDES, KSN: "FFFF9876543210E00001"},
		{TID: "T0000002", MID: "M00000000000001", Scheme: isoswitch.AESDUKPT, BDK: aliasBDKAES, KSN: "123456789012345600000001"},
		{TID: "T0000003", MID: "M00000000000002", Scheme: isoswitch.TDESDUKPT, BDK: aliasBDKTDES, KSN: "FFFF9876543211000001"},
	}
	for n := range loadTerminals {
		list = append(list, testTerminal{
			TID: fmt.Sprintf("T%07d", 100+n), MID: "M00000000000100", Scheme: isoswitch.TDESDUKPT, BDK: aliasBDKTDES,
			KSN: fmt.Sprintf("FFFF98765510%02X000001", n),
		})
	}
	return list
}

// loadTestKeys imports the keys and registers the terminals that are not there.
func (n *node) loadTestKeys(ctx context.Context) error {
	caller := custody.SystemCaller("keyd-dev", custody.RoleCustodian)
	for _, k := range testKeys() {
		if err := n.loadTestKey(ctx, caller, k); err != nil {
			return err
		}
	}
	if err := n.loadTestTerminals(ctx); err != nil || n.cfg.unionPayAddr() == "" {
		return err
	}
	return n.loadMasterTerminals(ctx)
}

func (n *node) loadTestTerminals(ctx context.Context) error {
	who := audit.Record{Actor: audit.System()}
	for _, t := range testTerminals() {
		if _, err := n.db.Terminal(ctx, t.TID); err == nil {
			continue
		} else if !errors.Is(err, isoswitch.ErrNoTerminal) {
			return err
		}
		device, err := deviceOf(t.Scheme, t.KSN)
		if err != nil {
			return fmt.Errorf("test terminal %s: %w", t.TID, err)
		}
		err = n.addTerminal(ctx, who, isoswitch.Terminal{TID: t.TID, MID: t.MID, Scheme: t.Scheme, BDK: t.BDK, Device: device, MACBytes: 8})
		if err != nil && !errors.Is(err, store.ErrExists) {
			return fmt.Errorf("registering the test terminal %s: %w", t.TID, err)
		}
	}
	return nil
}
