package api

import (
	"maps"
	"slices"
	"unicode/utf8"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// tagResource is TagResource (section 11.6).
func (c *call) tagResource() error {
	id := c.resourceARN()
	c.form.list(0, "Tags", required)
	tags := c.tags()
	if err := c.check(); err != nil {
		return err
	}
	return c.emptyOnce(custody.OpTagResource, "ResourceArn", func(repeat *custody.Repeat) error {
		return c.custody.TagKey(c.ctx, c.caller, c.id, id, tags, repeat)
	})
}

// untagResource is UntagResource.
func (c *call) untagResource() error {
	id := c.resourceARN()
	names := c.tagNames()
	if err := c.check(); err != nil {
		return err
	}
	return c.emptyOnce(custody.OpUntagResource, "ResourceArn", func(repeat *custody.Repeat) error {
		return c.custody.UntagKey(c.ctx, c.caller, c.id, id, names, repeat)
	})
}

// listTags is ListTagsForResource: the tags in the order of their names, those
// of the policy among them.
func (c *call) listTags() error {
	id := c.resourceARN()
	page := c.page(string(custody.OpListTags) + " " + string(id))
	if err := c.check(); err != nil {
		return err
	}
	all, err := c.custody.Tags(c.ctx, c.caller, c.id, id)
	if err != nil {
		c.named("ResourceArn")
		return err
	}
	names := slices.Sorted(maps.Keys(all))
	at, found := slices.BinarySearch(names, page.after)
	if found {
		at++
	}
	names = names[at:]
	shown := make(map[string]string, page.size)
	for _, name := range names[:min(page.size, len(names))] {
		shown[name] = all[name]
	}
	c.out = append(c.out, `{"Tags":`...)
	c.out = appendTags(c.out, shown)
	if len(names) > page.size {
		c.appendNext(page, names[page.size-1])
	}
	c.out = append(c.out, '}')
	return nil
}

// emptyOnce carries out a change whose answer has no members.
func (c *call) emptyOnce(op custody.Operation, member string, change func(*custody.Repeat) error) error {
	err := c.once(op, func(repeat *custody.Repeat) error {
		repeat.Render = func(custody.KeyRecord) ([]byte, error) { return []byte("{}"), nil }
		if err := change(repeat); err != nil {
			return err
		}
		c.out = append(c.out, "{}"...)
		return nil
	})
	if err != nil {
		c.named(member)
	}
	return err
}

// resourceARN reads the member that names what tags belong to: the ARN of a key.
func (c *call) resourceARN() keys.ID {
	at, text := c.form.string(0, "ResourceArn", required)
	if at < 0 {
		return ""
	}
	id, ok := c.names.keyARN(text)
	if !ok {
		c.form.failAt(at, "must be a key ARN")
	}
	return id
}

func (c *call) tagNames() []string {
	f := &c.form
	list := f.list(0, "TagKeys", required)
	if list < 0 {
		return nil
	}
	var names []string
	for at := list + 1; at < f.doc.nodes[list].next; at = f.doc.nodes[at].next {
		if len(names) == custody.MostTags {
			f.failAt(list, "must have at most 200 names")
			return nil
		}
		if f.doc.nodes[at].kind != kindString {
			f.failAt(at, "must be a string")
			continue
		}
		name := f.doc.bytes(f.doc.nodes[at].text)
		if n := utf8.RuneCount(name); n < 1 || n > mostTagName || !printable(name) {
			f.failAt(at, "must be 1 to 128 printable characters")
		}
		names = append(names, string(name))
	}
	return names
}

// appendTags appends a list of Tag in the order of their names.
func appendTags(b []byte, tags map[string]string) []byte {
	b = append(b, '[')
	for i, name := range slices.Sorted(maps.Keys(tags)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"Key":`...)
		b = appendString(b, name)
		b = append(b, `,"Value":`...)
		b = appendString(b, tags[name])
		b = append(b, '}')
	}
	return append(b, ']')
}

// listing is a page that was asked for.
type listing struct {
	query string // what the token of the next page is bound to
	after string
	size  int
}

// page reads MaxResults and NextToken.
func (c *call) page(query string) listing {
	p := listing{query: query, size: c.form.int(0, "MaxResults", 1, mostPage)}
	if p.size == 0 {
		p.size = defaultPage
	}
	if at, token := c.form.string(0, "NextToken", optional); at >= 0 {
		after, ok := c.pages.after(c.caller.Name, query, token)
		if !ok || len(token) > mostToken {
			c.form.failAt(at, "is not a token of this query and caller, or has expired")
		}
		p.after = after
	}
	return p
}

// appendNext appends the token of the next page to an answer.
func (c *call) appendNext(p listing, last string) {
	c.out = append(c.out, `,"NextToken":`...)
	c.out = appendString(c.out, c.pages.token(c.caller.Name, p.query, last))
}
