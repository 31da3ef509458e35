package main

import (
	"fmt"
	"strings"
)

type keyTagCmd struct {
	doorFlags
	keyNamed
	Tags []string `arg:"" name:"tag" help:"NAME=VALUE; those that begin with keyd: are the key's policy and take a second person."`
}

// Run sets tags of a key.
func (c *keyTagCmd) Run(p *program) error {
	tags, err := tagPairs(c.Tags)
	if err != nil {
		return err
	}
	return c.retag(p, &c.doorFlags, "TagResource", "Tags", tags)
}

type keyUntagCmd struct {
	doorFlags
	keyNamed
	Names []string `arg:"" name:"name" help:"Names of tags."`
}

// Run takes tags of a key away.
func (c *keyUntagCmd) Run(p *program) error {
	return c.retag(p, &c.doorFlags, "UntagResource", "TagKeys", c.Names)
}

// retag calls an operation that names a key by its ARN alone.
func (k keyNamed) retag(p *program, f *doorFlags, operation, member string, value any) error {
	d, err := f.open()
	if err != nil {
		return err
	}
	arn, err := d.arnOf(p, k.Named)
	if err != nil {
		return err
	}
	return d.aws(p.ctx, operation, map[string]any{"ResourceArn": arn, member: value}, nil)
}

// arnOf returns the ARN of a key that may be named by an alias.
func (d *door) arnOf(p *program, name string) (string, error) {
	if !strings.HasPrefix(name, "alias/") {
		return name, nil
	}
	var out struct{ Key keyAnswer }
	if err := d.aws(p.ctx, "GetKey", map[string]any{"KeyIdentifier": name}, &out); err != nil {
		return "", err
	}
	return out.Key.KeyArn, nil
}

type keyAliasCmd struct {
	Add keyAliasAddCmd `cmd:"" help:"Give a key a new name."`
	Set keyAliasSetCmd `cmd:"" help:"Point a name to another key, or to none."`
	Rm  keyAliasRmCmd  `cmd:"" help:"Take a name away; its key stays."`
	Ls  keyAliasLsCmd  `cmd:"" help:"List the names."`
}

type keyAliasAddCmd struct {
	doorFlags
	Alias string `arg:"" help:"alias/NAME."`
	Named string `arg:"" optional:"" name:"key" help:"The key: another alias of it, or its ARN."`
}

// Run names a key.
func (c *keyAliasAddCmd) Run(p *program) error {
	return setAlias(p, &c.doorFlags, "CreateAlias", c.Alias, c.Named)
}

type keyAliasSetCmd struct {
	doorFlags
	Alias string `arg:"" help:"alias/NAME."`
	Named string `arg:"" optional:"" name:"key" help:"The key: another alias of it, or its ARN. Without it the name has no key."`
}

// Run points a name elsewhere.
func (c *keyAliasSetCmd) Run(p *program) error {
	return setAlias(p, &c.doorFlags, "UpdateAlias", c.Alias, c.Named)
}

func setAlias(p *program, f *doorFlags, operation, alias, key string) error {
	d, err := f.open()
	if err != nil {
		return err
	}
	body := map[string]any{"AliasName": alias}
	if key != "" {
		if body["KeyArn"], err = d.arnOf(p, key); err != nil {
			return err
		}
	}
	return d.aws(p.ctx, operation, body, nil)
}

type keyAliasRmCmd struct {
	doorFlags
	Alias string `arg:"" help:"alias/NAME."`
}

// Run takes a name away.
func (c *keyAliasRmCmd) Run(p *program) error {
	d, err := c.open()
	if err != nil {
		return err
	}
	return d.aws(p.ctx, "DeleteAlias", map[string]any{"AliasName": c.Alias}, nil)
}

type keyAliasLsCmd struct {
	doorFlags
	Of   string `placeholder:"KEY" name:"of" help:"Those of one key only."`
	JSON bool   `help:"Print JSON lines."`
}

// Run lists the names that the client may use.
func (c *keyAliasLsCmd) Run(p *program) error {
	d, err := c.open()
	if err != nil {
		return err
	}
	body := map[string]any{"MaxResults": 100}
	if c.Of != "" {
		if body["KeyArn"], err = d.arnOf(p, c.Of); err != nil {
			return err
		}
	}
	out := newTable(p.stdout, c.JSON, "ALIAS", "KEY")
	for {
		var page struct {
			Aliases []struct {
				AliasName string
				KeyArn    string `json:",omitempty"`
			}
			NextToken string
		}
		if err := d.aws(p.ctx, "ListAliases", body, &page); err != nil {
			return err
		}
		for _, a := range page.Aliases {
			out.row(a, a.AliasName, fmt.Sprint(a.KeyArn))
		}
		if page.NextToken == "" {
			return out.flush()
		}
		body["NextToken"] = page.NextToken
	}
}
