package api

import (
	"context"
	"strconv"
	"time"

	"keyd.dev/keyd/internal/custody"
)

// startKeyUsage is StartKeyUsage (section 11.5).
func (c *call) startKeyUsage() error {
	return c.keyStep(custody.OpStartKeyUsage, c.custody.StartKeyUsage)
}

// stopKeyUsage is StopKeyUsage.
func (c *call) stopKeyUsage() error {
	return c.keyStep(custody.OpStopKeyUsage, c.custody.StopKeyUsage)
}

// restoreKey is RestoreKey.
func (c *call) restoreKey() error {
	return c.keyStep(custody.OpRestoreKey, c.custody.RestoreKey)
}

// deleteKey is DeleteKey.
func (c *call) deleteKey() error {
	days := c.form.int(0, "DeleteKeyInDays", custody.LeastDeleteDays, custody.MostDeleteDays)
	return c.keyStep(custody.OpDeleteKey, func(ctx context.Context, caller custody.Caller, corr string, q custody.KeyStep) (custody.KeyRecord, error) {
		return c.custody.DeleteKey(ctx, caller, corr, q, days)
	})
}

// keyStep is an operation that takes a key and answers with it.
func (c *call) keyStep(op custody.Operation, step func(context.Context, custody.Caller, string, custody.KeyStep) (custody.KeyRecord, error)) error {
	q := custody.KeyStep{Key: c.keyRef("KeyIdentifier")}
	if err := c.check(); err != nil {
		return err
	}
	err := c.once(op, func(repeat *custody.Repeat) error {
		repeat.Render = func(k custody.KeyRecord) ([]byte, error) { return c.appendKey(nil, k), nil }
		q.Once = repeat
		k, err := step(c.ctx, c.caller, c.id, q)
		if err != nil {
			return err
		}
		c.out = c.appendKey(c.out, k)
		return nil
	})
	if err != nil {
		c.named("KeyIdentifier")
	}
	return err
}

// rotateKey is keyd's own RotateKey: a new version under the same aliases. Its
// answer is the new version, and the ARN of the old one.
//
//	RotateKeyInput  { KeyIdentifier!: KeyId, SuccessorKeyIdentifier: KeyId, OverlapSeconds: int 0–7776000 }
//	RotateKeyOutput { Key!: Key, KeyVersion!: int, PreviousKeyArn!: KeyArn }
func (c *call) rotateKey() error {
	q := custody.RotateKey{Key: c.keyRef("KeyIdentifier")}
	if c.form.doc.member(0, "SuccessorKeyIdentifier") >= 0 {
		q.Successor = c.keyRef("SuccessorKeyIdentifier")
	}
	q.Overlap = custody.DefaultOverlap
	if c.form.doc.member(0, "OverlapSeconds") >= 0 {
		q.Overlap = time.Duration(c.form.int(0, "OverlapSeconds", 0, int(custody.MostOverlap/time.Second))) * time.Second
	}
	if err := c.check(); err != nil {
		return err
	}
	err := c.once(custody.OpRotateKey, func(repeat *custody.Repeat) error {
		repeat.Render = func(k custody.KeyRecord) ([]byte, error) { return c.appendRotated(nil, k), nil }
		q.Once = repeat
		done, err := c.custody.RotateKey(c.ctx, c.caller, c.id, q)
		if err != nil {
			return err
		}
		c.out = c.appendRotated(c.out, done.New)
		return nil
	})
	if err != nil {
		c.named("KeyIdentifier")
	}
	return err
}

func (c *call) appendRotated(b []byte, k custody.KeyRecord) []byte {
	b = c.appendKey(b, k)
	b = append(b[:len(b)-1], `,"KeyVersion":`...)
	b = strconv.AppendUint(b, uint64(k.Block.Version), 10)
	b = append(b, `,"PreviousKeyArn":"`...)
	b = c.names.appendARN(b, k.Life.Predecessor)
	return append(b, `"}`...)
}

// getKeyDetail is keyd's own GetKey: what the one of AWS has no members for.
//
//	GetKeyOutput { Key!: Key, KeyVersion!: int, LMKGeneration!: int, Aliases!: [AliasName], Tags!: [Tag], Uses!: int,
//	  MaxUses: int, FirstUseTimestamp: epoch, LastUseTimestamp: epoch, NotBeforeTimestamp: epoch, NotAfterTimestamp: epoch,
//	  RetiresTimestamp: epoch, SuccessorKeyArn: KeyArn, OlderVersions!: [KeyVersion] }
//	KeyVersion { KeyArn!: KeyArn, KeyVersion!: int, KeyState!: KeyState, Enabled!: bool, RetiresTimestamp: epoch }
func (c *call) getKeyDetail() error {
	ref := c.keyRef("KeyIdentifier")
	if err := c.check(); err != nil {
		return err
	}
	d, err := c.custody.KeyDetail(c.ctx, c.caller, c.id, ref)
	if err != nil {
		c.named("KeyIdentifier")
		return err
	}
	c.out = c.appendDetail(c.out, d)
	return nil
}

func (c *call) appendDetail(b []byte, d custody.KeyDetail) []byte {
	b = c.appendKey(b, d.KeyRecord)
	b = appendCount(b[:len(b)-1], "KeyVersion", uint64(d.Block.Version))
	b = appendCount(b, "LMKGeneration", uint64(d.Block.LMK))
	b = append(b, `,"Aliases":[`...)
	for i, name := range d.Aliases {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, name)
	}
	b = append(b, `],"Tags":`...)
	b = appendTags(b, d.AllTags())
	b = appendCount(b, "Uses", d.Use.Uses)
	if d.MaxUses > 0 {
		b = appendCount(b, "MaxUses", d.MaxUses)
	}
	b = appendTime(b, "FirstUseTimestamp", d.Use.First)
	b = appendTime(b, "LastUseTimestamp", d.Use.Last)
	b = appendTime(b, "NotBeforeTimestamp", d.NotBefore)
	b = appendTime(b, "NotAfterTimestamp", d.NotAfter)
	b = appendTime(b, "RetiresTimestamp", d.Life.Retires)
	if d.Newer != nil {
		b = append(b, `,"SuccessorKeyArn":"`...)
		b = c.names.appendARN(b, d.Newer.Block.ID)
		b = append(b, '"')
	}
	b = append(b, `,"OlderVersions":[`...)
	for i, k := range d.Older {
		if i > 0 {
			b = append(b, ',')
		}
		b = c.appendVersion(b, k)
	}
	return append(b, `]}`...)
}

func (c *call) appendVersion(b []byte, k custody.KeyRecord) []byte {
	b = append(b, `{"KeyArn":"`...)
	b = c.names.appendARN(b, k.Block.ID)
	b = appendCount(append(b, '"'), "KeyVersion", uint64(k.Block.Version))
	b = append(b, `,"KeyState":"`...)
	b = append(b, k.State...)
	b = append(b, `","Enabled":`...)
	b = appendBool(b, k.Enabled)
	b = appendTime(b, "RetiresTimestamp", k.Life.Retires)
	return append(b, '}')
}

func appendCount(b []byte, name string, n uint64) []byte {
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":`...)
	return strconv.AppendUint(b, n, 10)
}
