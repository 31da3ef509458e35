package softhsmtest

import (
	"testing"

	"keyd.dev/keyd/internal/hsm"
)

// Node is the node of [Anchor].
const Node = "n1"

// Anchor returns where the token keeps what it knows of the database of [Node].
// A test that opens a database founds its register first.
func Anchor(tb testing.TB, token *hsm.Token) *hsm.Anchor {
	tb.Helper()
	a, err := hsm.NewAnchor(token, Node)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}
