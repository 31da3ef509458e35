package hsm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"
)

// Anchor keeps digests of a node's register in the token, where whoever can
// write to the database cannot change them. A digest is the end of the label of
// a small secret key that is used for nothing: every module stores keys, few
// store data objects. The keys are private, so that nobody without the PIN can
// make, see or destroy one. Safe for concurrent use.
type Anchor struct {
	t    *Token
	node string
}

// anchorWord is what the labels of anchors have between the prefix and the node.
const anchorWord = "register"

// errAnchor is an anchor that is still there after it was destroyed.
var errAnchor = errors.New("hsm: the token still has an anchor that was destroyed")

// NewAnchor returns the anchor of a node, whose name tells its digests from
// those of other nodes with keys in the same token.
func NewAnchor(t *Token, node string) (*Anchor, error) {
	if node == "" {
		return nil, fmt.Errorf("%w: an anchor belongs to a node, which has a name", ErrConfig)
	}
	return &Anchor{t, node}, nil
}

// Roots returns the digests that the token holds for the node, none for a node
// that the token does not know. It returns [keys.ErrUnavailable].
func (a *Anchor) Roots(ctx context.Context) ([][32]byte, error) {
	var roots [][32]byte
	err := a.t.manage(ctx, "find anchors", 0, func(_ *epoch, s *session) error {
		labels, err := s.labels(anchorMatch())
		if err != nil {
			return err
		}
		for _, label := range labels {
			if root, ok := a.root(label); ok {
				roots = append(roots, root)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("hsm: anchors of node %s: %w", a.node, err)
	}
	return roots, nil
}

// Add makes the token hold the digest. One that is there stays as it is. It
// returns [keys.ErrUnavailable], or the module's reason.
func (a *Anchor) Add(ctx context.Context, root [32]byte) error {
	a.t.making.Lock()
	defer a.t.making.Unlock()
	err := a.t.manage(ctx, "make an anchor", pkcs11.CKF_RW_SESSION, func(_ *epoch, s *session) error {
		found, err := s.find(a.match(root))
		if err != nil || len(found) > 0 {
			return err
		}
		_, err = s.mod.GenerateKey(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_GENERIC_SECRET_KEY_GEN, nil)}, a.template(root))
		if err != nil {
			return s.failure("C_GenerateKey", err)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("hsm: anchor of node %s: %w", a.node, err)
	}
	return nil
}

// Remove makes the token forget the digest, and looks for it afterwards. One
// that is not there is no error.
func (a *Anchor) Remove(ctx context.Context, root [32]byte) error {
	a.t.making.Lock()
	defer a.t.making.Unlock()
	err := a.t.manage(ctx, "remove an anchor", pkcs11.CKF_RW_SESSION, func(_ *epoch, s *session) error {
		found, err := s.find(a.match(root))
		if err != nil {
			return err
		}
		for _, h := range found {
			if err := s.mod.DestroyObject(s.handle, h); err != nil {
				return s.failure("C_DestroyObject", err)
			}
		}
		if found, err = s.find(a.match(root)); err == nil && len(found) > 0 {
			err = errAnchor
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("hsm: anchor of node %s: %w", a.node, err)
	}
	return nil
}

// label is that of the digest's key.
func (a *Anchor) label(root [32]byte) string {
	return a.start() + hex.EncodeToString(root[:])
}

func (a *Anchor) start() string { return a.t.cfg.Prefix + "-" + anchorWord + "-" + a.node + "-" }

// root is the digest of a label of this node's.
func (a *Anchor) root(label string) (root [32]byte, ok bool) {
	text, ok := strings.CutPrefix(label, a.start())
	if !ok || len(text) != hex.EncodedLen(len(root)) {
		return root, false
	}
	_, err := hex.Decode(root[:], []byte(text))
	return root, err == nil
}

// anchorMatch finds what can be an anchor: made inside a token by somebody who
// had the PIN.
func anchorMatch() []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
	}
}

func (a *Anchor) match(root [32]byte) []*pkcs11.Attribute {
	return append(anchorMatch(), pkcs11.NewAttribute(pkcs11.CKA_LABEL, a.label(root)))
}

// template is that of a key that may do nothing. Its CKA_ID differs from every
// other's: a module may put a second object of one id in the place of the first.
func (a *Anchor) template(root [32]byte) []*pkcs11.Attribute {
	id := sha256.Sum256([]byte(a.label(root)))
	return append(append(rights{}.list(), a.match(root)...),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_ID, id[:20]),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 16),
	)
}

// labels returns the labels of the objects that match.
func (s *session) labels(match []*pkcs11.Attribute) ([]string, error) {
	found, err := s.find(match)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, h := range found {
		attrs, err := s.mod.GetAttributeValue(s.handle, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, nil)})
		if err != nil {
			return nil, s.failure("C_GetAttributeValue", err)
		}
		all = append(all, string(bytes.TrimRight(attrs[0].Value, "\x00")))
	}
	return all, nil
}
