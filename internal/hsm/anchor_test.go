package hsm_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/softhsm-test"
)

func newAnchor(t testing.TB, token *hsm.Token, node string) *hsm.Anchor {
	t.Helper()
	a, err := hsm.NewAnchor(token, node)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// anchored checks which digests the token holds for the node.
func anchored(t testing.TB, a *hsm.Anchor, want ...[32]byte) {
	t.Helper()
	got, err := a.Roots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range [][][32]byte{got, want} {
		slices.SortFunc(list, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the token holds other anchors (-want +got):\n%s", diff)
	}
}

func did(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestAnchors runs on both modules; see TestOnSoftokn.
func TestAnchors(t *testing.T) {
	token := softhsmtest.Token(t)
	ctx := t.Context()
	one, two := newAnchor(t, token, "n1"), newAnchor(t, token, "n1-b")
	r1, r2 := [32]byte{1}, [32]byte{2, 31: 9}
	anchored(t, one)
	did(t, one.Add(ctx, r1))
	did(t, one.Add(ctx, r2))
	did(t, one.Add(ctx, r2)) // there already
	did(t, two.Add(ctx, r1))
	anchored(t, one, r1, r2)
	anchored(t, two, r1)
	did(t, one.Remove(ctx, r1))
	did(t, one.Remove(ctx, r1)) // gone already
	anchored(t, one, r2)
	anchored(t, two, r1)
	made, missing, err := hsm.NewManager(token).Exists(ctx)
	did(t, err)
	if len(missing) != 0 {
		t.Errorf("made %q, missing %q: anchors disturb the token's own keys", made, missing)
	}
	did(t, token.Check(ctx))
}

// TestAnchorsStay: what one process anchored the next one finds.
func TestAnchorsStay(t *testing.T) {
	cfg := softhsmtest.Config(t)
	token := softhsmtest.Open(t, cfg)
	did(t, hsm.NewManager(token).Init(t.Context()))
	root := [32]byte{7}
	did(t, newAnchor(t, token, "n1").Add(t.Context(), root))
	did(t, token.Close())
	anchored(t, newAnchor(t, softhsmtest.Open(t, cfg), "n1"), root)
}

func TestAnchorNeedsNode(t *testing.T) {
	if _, err := hsm.NewAnchor(softhsmtest.Token(t), ""); err == nil {
		t.Error("an anchor without a node was taken")
	}
}

func BenchmarkAnchor(b *testing.B) {
	token := softhsmtest.Token(b)
	a := newAnchor(b, token, "n1")
	for i := 0; b.Loop(); i++ {
		root := [32]byte{byte(i), byte(i >> 8), byte(i >> 16), 1}
		did(b, a.Add(b.Context(), root))
		did(b, a.Remove(b.Context(), root))
	}
}
