package api

import (
	"slices"
	"strconv"
	"strings"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/tr31"
)

const mostOptionalValue = 108 // characters of an optional block that a caller adds

func between(least, most int) string { return strconv.Itoa(least) + " to " + strconv.Itoa(most) }

// exportKey is ExportKey (section 11.3). Its answer is not stored: each block is
// filled with other random bytes.
func (c *call) exportKey() error {
	f := &c.form
	q := custody.ExportKey{Key: c.keyRef("ExportKeyIdentifier")}
	material := f.object(0, "KeyMaterial", required)
	which, _ := f.union(material, []string{"Tr31KeyBlock"}, []string{"Tr34KeyBlock", "KeyCryptogram", "DiffieHellmanTr31KeyBlock", "As2805KeyCryptogram"})
	block := int32(-1)
	if which >= 0 {
		if block = f.object(material, "Tr31KeyBlock", required); block >= 0 {
			q.KEK = c.keyRefOf(block, wrappingKeyMember)
			q.Headers = c.blockHeaders(f.object(block, "KeyBlockHeaders", optional))
		}
	}
	attributes := f.object(0, "ExportAttributes", optional)
	q.CheckBy = c.exportCheck(attributes)
	if initial := f.object(attributes, "ExportDukptInitialKey", optional); initial >= 0 {
		_, q.KSN = f.hex(initial, "KeySerialNumber", required, "must be 20 or 24 hexadecimal characters", 20, 24)
	}
	if err := c.check(); err != nil {
		return err
	}
	out, err := c.custody.ExportKey(c.ctx, c.caller, c.id, q)
	if err != nil {
		c.exchangeNamed(err, block, "ExportKeyIdentifier")
		return err
	}
	c.custodyIs = out.Custody
	c.out = append(c.out, `{"WrappedKey":{"WrappingKeyArn":"`...)
	c.out = c.names.appendARN(c.out, out.KEK)
	c.out = append(c.out, `","WrappedKeyMaterialFormat":"TR31_KEY_BLOCK","KeyMaterial":`...)
	c.out = appendString(c.out, out.Block)
	c.out = append(c.out, `,"KeyCheckValue":"`...)
	c.out = appendHex(c.out, out.Check[:])
	c.out = append(c.out, `","KeyCheckValueAlgorithm":"`...)
	c.out = append(c.out, out.CheckBy.String()...)
	c.out = append(c.out, `"}}`...)
	return nil
}

func (c *call) exportCheck(attributes int32) keys.CheckMethod {
	at, text := c.form.string(attributes, "KeyCheckValueAlgorithm", optional)
	if at < 0 {
		return 0
	}
	method, err := keys.ParseCheckMethod(string(text))
	if err != nil {
		c.form.failAt(at, "must be ANSI_X9_24, CMAC or HMAC")
	}
	return method
}

// blockHeaders reads KeyBlockHeaders.
func (c *call) blockHeaders(at int32) (h custody.BlockHeaders) {
	f := &c.form
	if modes := f.object(at, "KeyModesOfUse", optional); modes >= 0 {
		h.Mode = c.mode(modes)
	}
	if place, text := f.string(at, "KeyExportability", optional); place >= 0 {
		switch string(text) {
		case "EXPORTABLE":
			h.Exportability = keys.Exportable
		case "NON_EXPORTABLE":
			h.Exportability = keys.NonExportable
		case "SENSITIVE":
			h.Exportability = keys.Sensitive
		default:
			f.failAt(place, "must be EXPORTABLE, NON_EXPORTABLE or SENSITIVE")
		}
	}
	if place, text := f.string(at, "KeyVersion", optional); place >= 0 {
		if h.Version = string(text); len(text) != 2 || !upperAlphanumeric(text) {
			f.failAt(place, "must be two characters 0 to 9 or A to Z")
		}
	}
	h.Optional = c.optionalBlocks(f.object(at, "OptionalBlocks", optional))
	return h
}

// optionalBlocks reads a map, whose names are the identifiers, in their order.
func (c *call) optionalBlocks(at int32) []tr31.Optional {
	if at < 0 {
		return nil
	}
	f := &c.form
	var blocks []tr31.Optional
	for i := at + 1; i < f.doc.nodes[at].next; i = f.doc.nodes[i].next {
		n := f.doc.nodes[i]
		name, value := f.doc.bytes(n.name), []byte(nil)
		if n.kind == kindNull {
			continue
		}
		if n.kind == kindString {
			value = f.doc.bytes(n.text)
		}
		ok := len(name) == 2 && upperAlphanumeric(name) && len(value) >= 1 && len(value) <= mostOptionalValue
		for _, b := range value {
			ok = ok && b >= ' ' && b <= '~'
		}
		if !ok {
			f.failAt(at, "must map two characters 0 to 9 or A to Z to 1 to 108 printable characters")
			return nil
		}
		blocks = append(blocks, tr31.Optional{ID: string(name), Data: string(value)})
	}
	slices.SortFunc(blocks, func(a, b tr31.Optional) int { return strings.Compare(a.ID, b.ID) })
	return blocks
}

func upperAlphanumeric(text []byte) bool {
	for _, b := range text {
		if (b < '0' || b > '9') && (b < 'A' || b > 'Z') {
			return false
		}
	}
	return true
}

// exportCryptogram is keyd's own ExportCryptogram: a TDES key under a zone
// master key, as old hosts read it.
func (c *call) exportCryptogram() error {
	q := custody.ExportCryptogram{Key: c.keyRef("ExportKeyIdentifier"), ZMK: c.keyRef(wrappingKeyMember), Scheme: c.scheme()}
	if err := c.check(); err != nil {
		return err
	}
	out, err := c.custody.ExportCryptogram(c.ctx, c.caller, c.id, q)
	if err != nil {
		c.exchangeNamed(err, 0, "ExportKeyIdentifier")
		return err
	}
	c.custodyIs = out.Custody
	c.out = append(c.out, `{"WrappingKeyArn":"`...)
	c.out = c.names.appendARN(c.out, out.ZMK)
	c.out = append(c.out, `","Cryptogram":"`...)
	c.out = append(c.out, out.Cryptogram...)
	c.out = append(c.out, `","KeyCheckValue":"`...)
	c.out = appendHex(c.out, out.Check[:])
	c.out = append(c.out, `","KeyCheckValueAlgorithm":"ANSI_X9_24"}`...)
	return nil
}
