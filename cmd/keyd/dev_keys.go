package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/secret"
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
	BDK    string           `json:"bdk"` // alias
	KSN    string           `json:"ksn"` // the first that it uses
}

// loadTerminals is how many terminals there are for load, T0000100 and on.
const loadTerminals = 50

func testTerminals() []testTerminal {
	list := []testTerminal{
		{"T0000001", "M00000000000001", isoswitch.TDESDUKPT, aliasBDKTDES, "FFFF9876543210E00001"},
		{"T0000002", "M00000000000001", isoswitch.AESDUKPT, aliasBDKAES, "123456789012345600000001"},
		{"T0000003", "M00000000000002", isoswitch.TDESDUKPT, aliasBDKTDES, "FFFF9876543211000001"},
	}
	for n := range loadTerminals {
		list = append(list, testTerminal{
			fmt.Sprintf("T%07d", 100+n), "M00000000000100", isoswitch.TDESDUKPT, aliasBDKTDES, fmt.Sprintf("FFFF98765510%02X000001", n),
		})
	}
	return list
}

// loadTestKeys imports the keys and registers the terminals that are not there.
func (n *node) loadTestKeys(ctx context.Context) error {
	caller := custody.SystemCaller("keyd-dev", custody.RoleCustodian)
	for _, k := range testKeys() {
		_, err := n.db.Alias(ctx, k.alias)
		if err == nil {
			continue
		}
		if !errors.Is(err, custody.ErrNoAlias) {
			return err
		}
		value, err := hex.DecodeString(k.value)
		if err != nil {
			return err
		}
		clear := secret.From(value)
		_, err = n.custody.ImportClear(ctx, caller, "dev", custody.ImportClear{Attributes: k.as, Value: clear, Alias: k.alias})
		clear.Clear()
		if err != nil {
			return fmt.Errorf("importing the test key %s: %w", k.alias, err)
		}
	}
	return n.loadTestTerminals(ctx)
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
