package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// unionPay is the profile of the listener that --unionpay adds, and of its
// terminals in the registry.
const unionPay = "unionpay"

// The first UnionPay terminal is that of the worked dialogue of the interface, and
// so is its master key, which is published. The further ones are for load; their
// keys are made of their numbers.
const (
	masterTID   = "10000198"
	masterMID   = "501000824100020"
	masterKey   = "CA5D92598DCA48CE8A4C76361A9269E9"
	aliasMaster = "alias/dev/tmk"

	loadMasters = 10 // 20000100 and on
)

// masterTerminals are the UnionPay terminals of a development daemon.
func masterTerminals() []testTerminal {
	list := []testTerminal{{TID: masterTID, MID: masterMID, Scheme: isoswitch.MasterKey, TMK: aliasMaster}}
	for n := range loadMasters {
		list = append(list, testTerminal{
			TID: fmt.Sprintf("%08d", 20000100+n), MID: masterMID, Scheme: isoswitch.MasterKey, TMK: fmt.Sprintf("%s-%02d", aliasMaster, n),
		})
	}
	return list
}

// masterKeys are their master keys.
func masterKeys() []testKey {
	as := keys.Attributes{Usage: keys.UsageKEK, Algorithm: keys.TDES2, Mode: keys.ModeBoth, Exportability: keys.Exportable}
	list := []testKey{{aliasMaster, masterKey, as}}
	for n := range loadMasters {
		sum := sha256.Sum256(fmt.Appendf(nil, "keyd dev: published terminal master key %d", n))
		list = append(list, testKey{fmt.Sprintf("%s-%02d", aliasMaster, n), fmt.Sprintf("%X", sum[:16]), as})
	}
	return list
}

// unionPayAddr is where UnionPay terminals are let in; empty where they are not.
func (c *config) unionPayAddr() string {
	if c.Switch.Profile == unionPay {
		return c.Switch.Listen
	}
	for _, l := range c.Listener {
		if l.Profile == unionPay {
			return l.Listen
		}
	}
	return ""
}

// serveUnionPay adds a listener for UnionPay terminals, unless there is one. Its
// port is picked with the others.
func (c *config) serveUnionPay() {
	if c.unionPayAddr() == "" {
		c.Listener = append(c.Listener, listenerConfig{Profile: unionPay})
	}
}

// loadMasterTerminals registers the UnionPay terminals that are not there, with
// published master keys.
func (n *node) loadMasterTerminals(ctx context.Context) error {
	caller := custody.SystemCaller("keyd-dev", custody.RoleCustodian, custody.RoleAdmin)
	var list []custody.NewTerminal
	for _, t := range masterTerminals() {
		if _, err := n.db.Terminal(ctx, t.TID); err == nil {
			continue
		} else if !errors.Is(err, isoswitch.ErrNoTerminal) {
			return err
		}
		list = append(list, custody.NewTerminal{
			TID: t.TID, MID: t.MID, Scheme: custody.SchemeMaster, Profile: unionPay, Master: custody.NewMaster{Key: custody.Ref{Alias: t.TMK}},
		})
	}
	for _, k := range masterKeys() {
		if err := n.loadTestKey(ctx, caller, k); err != nil {
			return err
		}
	}
	if len(list) == 0 {
		return nil
	}
	got, err := n.custody.AddTerminals(ctx, caller, "dev", list)
	if err != nil {
		return fmt.Errorf("registering the UnionPay terminals: %w", err)
	}
	var errs []error
	for _, r := range got.Refused {
		errs = append(errs, fmt.Errorf("registering the UnionPay terminal %s: %s", r.TID, r.Text))
	}
	return errors.Join(errs...)
}

// loadTestKey imports a key that is not there.
func (n *node) loadTestKey(ctx context.Context, caller custody.Caller, k testKey) error {
	_, err := n.db.Alias(ctx, k.alias)
	if err == nil {
		return nil
	}
	if !errors.Is(err, custody.ErrNoAlias) {
		return err
	}
	value, err := hex.DecodeString(k.value)
	if err != nil {
		return err
	}
	clear := secret.From(value)
	defer clear.Clear()
	if _, err = n.custody.ImportClear(ctx, caller, "dev", custody.ImportClear{Attributes: k.as, Value: clear, Alias: k.alias}); err != nil {
		return fmt.Errorf("importing the test key %s: %w", k.alias, err)
	}
	return nil
}
