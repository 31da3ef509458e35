package api

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// Names that the config may leave out (section 4).
const (
	DefaultRegion  = "xx-keyd-1"
	DefaultAccount = "000000000000"
)

const (
	arnPrefix   = "arn:aws:payment-cryptography:"
	aliasPrefix = "alias/"
	keyPrefix   = "key/"

	leastAlias, mostAlias   = 7, 256
	leastKeyARN, mostKeyARN = 70, 150
	mostAliasARN            = 322
	leastID, mostID         = 16, 64
	mostRecordID            = 128 // of an identifier in an audit record
)

// namer knows the ARNs of this keyd.
type namer struct {
	local string // up to and with the colon after the account
}

func newNamer(region, account string) (namer, error) {
	if region == "" {
		region = DefaultRegion
	}
	if account == "" {
		account = DefaultAccount
	}
	if !isRegion(region) {
		return namer{}, fmt.Errorf("api: region %q: want two letters, a word of at most 16 letters and a number, like %s", region, DefaultRegion)
	}
	if !isAccount(account) {
		return namer{}, errors.New("api: the account must be 12 digits")
	}
	return namer{local: arnPrefix + region + ":" + account + ":"}, nil
}

func (n namer) appendARN(b []byte, id keys.ID) []byte {
	b = append(b, n.local...)
	b = append(b, keyPrefix...)
	return append(b, id...)
}

// ref reads a KeyId: a key ARN, an alias ARN or an alias name. An ARN of
// another region or account is well formed and names no key here, so it becomes
// an id that no key can have, for which custody answers as for any unknown one.
func (n namer) ref(text []byte) (custody.Ref, bool) {
	if isAlias(text) {
		return custody.Ref{Alias: string(text)}, true
	}
	resource, local, ok := n.splitARN(text)
	if !ok {
		return custody.Ref{}, false
	}
	id, isKey := cut(resource, keyPrefix)
	switch {
	case isKey && (!isID(id) || len(text) < leastKeyARN || len(text) > mostKeyARN):
		return custody.Ref{}, false
	case !isKey && (!isAlias(resource) || len(text) > mostAliasARN):
		return custody.Ref{}, false
	case !local:
		return custody.Ref{ID: keys.ID(text[:min(len(text), mostRecordID)])}, true
	case isKey:
		return custody.Ref{ID: keys.ID(id)}, true
	}
	return custody.Ref{Alias: string(resource)}, true
}

// keyARN reads the ARN of a key, here or elsewhere.
func (n namer) keyARN(text []byte) (keys.ID, bool) {
	ref, ok := n.ref(text)
	resource, _, _ := n.splitARN(text)
	_, isKey := cut(resource, keyPrefix)
	return ref.ID, ok && isKey
}

// splitARN checks an ARN as far as its account and returns what follows.
func (n namer) splitARN(text []byte) (resource []byte, local, ok bool) {
	if resource, local = cut(text, n.local); local {
		return resource, true, true
	}
	rest, ok := cut(text, arnPrefix)
	if !ok {
		return nil, false, false
	}
	region, rest := word(rest)
	account, resource := word(rest)
	return resource, false, isRegion(string(region)) && isAccount(string(account))
}

func cut(text []byte, prefix string) ([]byte, bool) {
	if len(text) < len(prefix) || string(text[:len(prefix)]) != prefix {
		return nil, false
	}
	return text[len(prefix):], true
}

// word splits at the first colon.
func word(text []byte) (head, tail []byte) {
	for i, c := range text {
		if c == ':' {
			return text[:i], text[i+1:]
		}
	}
	return text, nil
}

func isAlias(text []byte) bool {
	name, ok := cut(text, aliasPrefix)
	if !ok || len(text) < leastAlias || len(text) > mostAlias {
		return false
	}
	for _, c := range name {
		if !isLetterOrDigit(c) && c != '/' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func isID(text []byte) bool {
	for _, c := range text {
		if !isLetterOrDigit(c) {
			return false
		}
	}
	return len(text) >= leastID && len(text) <= mostID
}

func isLetterOrDigit(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// isRegion reports whether text is [a-z]{2}-[a-z]{1,16}-[0-9]+.
func isRegion(text string) bool {
	land, rest, ok := strings.Cut(text, "-")
	place, number, ok2 := strings.Cut(rest, "-")
	return ok && ok2 && len(land) == 2 && len(place) >= 1 && len(place) <= 16 && number != "" &&
		strings.Trim(land+place, "abcdefghijklmnopqrstuvwxyz") == "" && strings.Trim(number, "0123456789") == ""
}

func isAccount(text string) bool {
	return len(text) == 12 && strings.Trim(text, "0123456789") == ""
}

const keyRefText = "must be a key ARN, an alias ARN or an alias name"

// keyRef reads a member of type KeyId.
func (c *call) keyRef(name string) custody.Ref { return c.keyRefOf(0, name) }

// keyRefInPath reads it from the path, where it stands escaped, and decodes it
// once. member is the one that the model has it for.
func (c *call) keyRefInPath(member string) custody.Ref {
	label, _, _ := keyLabel(c.path)
	name, err := url.PathUnescape(label)
	ref, ok := c.names.ref([]byte(name))
	if err != nil || !ok {
		c.form.fail(member, keyRefText)
		return custody.Ref{}
	}
	c.inPath = name
	return ref
}

// keyRefOf reads it as a member of an object.
func (c *call) keyRefOf(object int32, name string) custody.Ref {
	at, text := c.form.string(object, name, required)
	if at < 0 {
		return custody.Ref{}
	}
	ref, ok := c.names.ref(text)
	if !ok {
		c.form.failAt(at, keyRefText)
	}
	return ref
}

// aliasName reads a member of type AliasName.
func (c *call) aliasName(name string) string {
	at, text := c.form.string(0, name, required)
	if at < 0 {
		return ""
	}
	if !isAlias(text) {
		c.form.failAt(at, "must be alias/ and letters, digits, /, _ or -, 7 to 256 characters in all")
		return ""
	}
	return string(text)
}
