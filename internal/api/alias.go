package api

import (
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// createAlias is CreateAlias (section 11.4).
func (c *call) createAlias() error {
	alias := custody.Alias{Name: c.aliasName("AliasName"), Key: c.keyARN("KeyArn")}
	if err := c.check(); err != nil {
		return err
	}
	err := c.once(custody.OpCreateAlias, func(repeat *custody.Repeat) error {
		repeat.Render = func(custody.KeyRecord) ([]byte, error) { return c.appendAlias(nil, alias), nil }
		made, err := c.custody.CreateAlias(c.ctx, c.caller, c.id, alias, repeat)
		if err != nil {
			return err
		}
		c.out = c.appendAlias(c.out, made)
		return nil
	})
	if err != nil {
		c.named("KeyArn")
		c.taken = alias.Name
	}
	return err
}

// getAlias is GetAlias.
func (c *call) getAlias() error {
	name := c.aliasName("AliasName")
	if err := c.check(); err != nil {
		return err
	}
	alias, err := c.custody.Alias(c.ctx, c.caller, c.id, name)
	if err != nil {
		c.named("AliasName")
		return err
	}
	c.out = c.appendAlias(c.out, alias)
	return nil
}

// keyARN reads an optional member of type KeyArn. The ARN of a key elsewhere is
// well formed and names no key here.
func (c *call) keyARN(name string) keys.ID {
	at, text := c.form.string(0, name, optional)
	if at < 0 {
		return ""
	}
	id, ok := c.names.keyARN(text)
	if !ok {
		c.form.failAt(at, "must be a key ARN")
	}
	return id
}

func (c *call) appendAlias(b []byte, alias custody.Alias) []byte {
	b = append(b, `{"Alias":`...)
	return append(c.appendAliasMembers(b, alias), '}')
}

func (c *call) appendAliasMembers(b []byte, alias custody.Alias) []byte {
	b = append(b, `{"AliasName":`...)
	b = appendString(b, alias.Name)
	if alias.Key != "" {
		b = append(b, `,"KeyArn":"`...)
		b = c.names.appendARN(b, alias.Key)
		b = append(b, '"')
	}
	return append(b, '}')
}
