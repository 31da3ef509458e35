package api

import (
	"errors"

	"keyd.dev/keyd/internal/custody"
)

// updateAlias is UpdateAlias (section 11.4): without KeyArn the alias is left
// without a key.
func (c *call) updateAlias() error {
	alias := custody.Alias{Name: c.aliasName("AliasName"), Key: c.keyARN("KeyArn")}
	if err := c.check(); err != nil {
		return err
	}
	err := c.once(custody.OpUpdateAlias, func(repeat *custody.Repeat) error {
		repeat.Render = func(custody.KeyRecord) ([]byte, error) { return c.appendAlias(nil, alias), nil }
		done, err := c.custody.UpdateAlias(c.ctx, c.caller, c.id, alias, repeat)
		if err != nil {
			return err
		}
		c.out = c.appendAlias(c.out, done)
		return nil
	})
	switch {
	case errors.Is(err, custody.ErrNoAlias):
		c.named("AliasName")
	case err != nil:
		c.named("KeyArn")
	}
	return err
}

// deleteAlias is DeleteAlias.
func (c *call) deleteAlias() error {
	name := c.aliasName("AliasName")
	if err := c.check(); err != nil {
		return err
	}
	return c.emptyOnce(custody.OpDeleteAlias, "AliasName", func(repeat *custody.Repeat) error {
		return c.custody.DeleteAlias(c.ctx, c.caller, c.id, name, repeat)
	})
}

// listAliases is ListAliases: one page of the aliases that the caller may use.
func (c *call) listAliases() error {
	q := custody.AliasQuery{Key: c.keyARN("KeyArn")}
	page := c.page(string(custody.OpListAliases) + " " + string(q.Key))
	if err := c.check(); err != nil {
		return err
	}
	q.After, q.Limit = page.after, page.size+1 // one more tells whether there is another page
	list, err := c.custody.Aliases(c.ctx, c.caller, c.id, q)
	if err != nil {
		c.named("KeyArn")
		return err
	}
	more := len(list) > page.size
	list = list[:min(page.size, len(list))]
	c.out = append(c.out, `{"Aliases":[`...)
	for i, alias := range list {
		if i > 0 {
			c.out = append(c.out, ',')
		}
		c.out = c.appendAliasMembers(c.out, alias)
	}
	c.out = append(c.out, ']')
	if more {
		c.appendNext(page, list[len(list)-1].Name)
	}
	c.out = append(c.out, '}')
	return nil
}
