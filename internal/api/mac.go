package api

import (
	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

const (
	mostMessage           = 131072 // characters: 65,536 bytes (section 10.3)
	leastMAC, mostMAC     = 4, 32  // bytes, of MacLength
	leastMACHex           = 4      // characters, of Mac
	mostMACHex            = 128
	macLengthText         = "must be the number of bytes of Mac"
	macKeyMember          = "KeyIdentifier"
	namedHashText         = "the hash named is not that of the key"
	unsuitableKeyText     = "the key cannot be used for this operation"
	generationAttributes  = "GenerationAttributes"
	verificationAttribute = "VerificationAttributes"
)

// macHow is what the union MacAttributes says.
type macHow struct {
	algorithm custody.MACAlgorithm
	hash      keys.Algorithm // that the key must have; 0 for any
	dukpt     *custody.DUKPT
}

// generateMAC is GenerateMac (section 10.3).
func (c *call) generateMAC() error {
	how := c.macAttributes(generationAttributes)
	q := custody.GenerateMAC{Key: c.keyRef(macKeyMember), DUKPT: how.dukpt, Algorithm: how.algorithm}
	_, q.Message = c.form.hexRange(0, "MessageData", required, 2, mostMessage)
	if how.hash != 0 {
		q.Expected = custody.HMACName(how.hash)
	}
	q.Length = c.form.int(0, "MacLength", leastMAC, mostMAC)
	if err := c.check(); err != nil {
		return err
	}
	act, err := c.begin()
	if err != nil {
		return err
	}
	defer act.Close()
	if err := c.checkHash(act, audit.MACGenerate, q.Key, how.hash); err != nil {
		return err
	}
	made, err := act.GenerateMAC(c.ctx, q)
	if err := c.commit(act); err != nil {
		return err
	}
	if err != nil {
		c.named(macKeyMember)
		return err
	}
	c.custodyIs = made.Custody
	c.out = append(c.out, `{"Mac":"`...)
	c.out = appendHex(c.out, made.MAC)
	c.out = append(c.out, `",`...)
	c.out = c.appendKeyInfo(c.out, made.Key)
	c.out = append(c.out, '}')
	return nil
}

// verifyMAC is VerifyMac (section 10.3). A wrong MAC is an outcome that the
// log has; the caller sees it as an error.
func (c *call) verifyMAC() error {
	how := c.macAttributes(verificationAttribute)
	q := custody.VerifyMAC{Key: c.keyRef(macKeyMember), DUKPT: how.dukpt, Algorithm: how.algorithm}
	_, q.Message = c.form.hexRange(0, "MessageData", required, 2, mostMessage)
	_, q.MAC = c.form.hexRange(0, "Mac", required, leastMACHex, mostMACHex)
	if how.hash != 0 {
		q.Expected = custody.HMACName(how.hash)
	}
	// MacLength adds nothing to Mac, so custody is not told of it: how short a
	// MAC may be is for the key's policy, not for the caller.
	if n := c.form.int(0, "MacLength", leastMAC, mostMAC); n != 0 && q.MAC != nil && n != len(q.MAC) {
		c.form.fail("MacLength", macLengthText)
	}
	if err := c.check(); err != nil {
		return err
	}
	act, err := c.begin()
	if err != nil {
		return err
	}
	defer act.Close()
	if err := c.checkHash(act, audit.MACVerify, q.Key, how.hash); err != nil {
		return err
	}
	good, err := act.VerifyMAC(c.ctx, q)
	if err := c.commit(act); err != nil {
		return err
	}
	if err != nil {
		c.named(macKeyMember)
		return err
	}
	c.custodyIs = good.Custody
	c.out = append(c.out, '{')
	c.out = c.appendKeyInfo(c.out, good.Key)
	c.out = append(c.out, '}')
	return nil
}

// macAttributes reads the union MacAttributes.
func (c *call) macAttributes(name string) macHow {
	f := &c.form
	which, at := f.union(f.object(0, name, required),
		[]string{"Algorithm", "DukptIso9797Algorithm1", "DukptIso9797Algorithm3", "DukptCmac"}, []string{"EmvMac"})
	if which < 0 {
		return macHow{}
	}
	if which == 0 {
		return c.macAlgorithm(at)
	}
	if f.doc.nodes[at].kind != kindObject {
		f.failAt(at, "must be an object")
		return macHow{}
	}
	how := macHow{algorithm: [...]custody.MACAlgorithm{custody.MACAlg1, custody.MACAlg3, custody.MACCMAC}[which-1]}
	_, ksn := f.hex(at, "KeySerialNumber", required, ksnText, 20, 24)
	how.dukpt = &custody.DUKPT{
		KSN:     ksn,
		Variant: c.variant(at, required),
		Derive:  c.derivationType(at, "DukptDerivationType"),
	}
	return how
}

// macAlgorithm reads a MacAlgorithm.
func (c *call) macAlgorithm(at int32) macHow {
	f := &c.form
	if f.doc.nodes[at].kind != kindString {
		f.failAt(at, "must be a string")
		return macHow{}
	}
	switch string(f.doc.bytes(f.doc.nodes[at].text)) {
	case "ISO9797_ALGORITHM1":
		return macHow{algorithm: custody.MACAlg1}
	case "ISO9797_ALGORITHM3":
		return macHow{algorithm: custody.MACAlg3}
	case "CMAC":
		return macHow{algorithm: custody.MACCMAC}
	case "KEYD_UNIONPAY_ECB":
		return macHow{algorithm: custody.MACUnionPay}
	case "HMAC":
		return macHow{algorithm: custody.MACHMAC}
	case "HMAC_SHA224":
		return macHow{algorithm: custody.MACHMAC, hash: keys.HMACSHA224}
	case "HMAC_SHA256":
		return macHow{algorithm: custody.MACHMAC, hash: keys.HMACSHA256}
	case "HMAC_SHA384":
		return macHow{algorithm: custody.MACHMAC, hash: keys.HMACSHA384}
	case "HMAC_SHA512":
		return macHow{algorithm: custody.MACHMAC, hash: keys.HMACSHA512}
	}
	f.refuse(at)
	return macHow{}
}

// checkHash refuses, and records, an HMAC that names another hash than the
// key's. Whether the caller may use the key at all is left to the operation.
func (c *call) checkHash(act *custody.Act, action audit.Action, ref custody.Ref, hash keys.Algorithm) error {
	if hash == 0 {
		return nil
	}
	k, err := c.custody.Key(c.ctx, c.caller, c.id, ref)
	if err != nil || !k.Block.Attributes.Algorithm.IsHMAC() || k.Block.Attributes.Algorithm == hash {
		return nil
	}
	act.Note(audit.Record{
		Action:  action,
		Outcome: audit.OutcomeRefused,
		Reason:  audit.ReasonKeyUsage,
		MAC:     audit.MAC{Alg: custody.HMACName(hash), Verdict: audit.VerdictError},
		Keys: []audit.Key{{
			Role: audit.KeyRoleMAC, ID: string(k.Block.ID), Version: int(k.Block.Version), KCV: k.Block.Check.String(),
		}},
	})
	if err := c.commit(act); err != nil {
		return err
	}
	return &fault{name: validation, message: unsuitableKeyText, fields: []fieldError{{path: macKeyMember, message: namedHashText}}}
}
