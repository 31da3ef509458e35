package api

import (
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// Limits of Tr31KeyBlock in characters. keyd takes the printable ASCII of
// X9.143, wider than the model's pattern (section 17, row 5).
const leastKeyBlock, mostKeyBlock = 56, 9984

const (
	keyBlockText    = "must be 56 to 9984 characters of printable ASCII"
	checkMethodText = "must be ANSI_X9_24 or CMAC"
)

// wrappedKey reads a WrappedKey of the data plane; nil where it is absent.
// other is the member that it cannot stand beside.
func (c *call) wrappedKey(name, other string) *custody.WrappedKey {
	f := &c.form
	at := f.object(0, name, optional)
	if at < 0 {
		return nil
	}
	if other != "" && f.doc.member(0, other) >= 0 {
		f.failAt(at, "cannot be together with "+other)
		return nil
	}
	w := &custody.WrappedKey{CheckBy: c.wrappedCheck(at)}
	which, block := f.union(f.object(at, "WrappedKeyMaterial", required), []string{"Tr31KeyBlock"}, []string{"DiffieHellmanSymmetricKey"})
	if which < 0 {
		return nil
	}
	if f.doc.nodes[block].kind != kindString {
		f.failAt(block, "must be a string")
		return nil
	}
	text := f.doc.bytes(f.doc.nodes[block].text)
	if len(text) < leastKeyBlock || len(text) > mostKeyBlock || !isPrintable(text) {
		f.failAt(block, keyBlockText)
		return nil
	}
	w.Block = string(text)
	return w
}

// wrappedCheck reads the KeyCheckValueAlgorithm of a key that is a block
// cipher's, as all that keyd takes in this way are.
func (c *call) wrappedCheck(object int32) keys.CheckMethod {
	at, text := c.form.string(object, "KeyCheckValueAlgorithm", optional)
	if at < 0 {
		return 0
	}
	switch string(text) {
	case "ANSI_X9_24":
		return keys.CheckByZeros
	case "CMAC":
		return keys.CheckByCMAC
	}
	c.form.failAt(at, checkMethodText)
	return 0
}

func isPrintable(text []byte) bool {
	for _, c := range text {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// blameWrapped names the key that a translation with a wrapped key was refused
// for: the outgoing one where custody says so.
func (c *call) blameWrapped(err error) {
	c.named(incoming().key)
	if custody.Outgoing(err) {
		c.named(outgoing().key)
	}
}
