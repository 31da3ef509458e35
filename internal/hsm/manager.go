package hsm

import (
	"context"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// Manager makes, imports, seals and exports keys. It is for ceremonies and for
// the control plane; the path of transactions must not hold one. Safe for
// concurrent use. Its work is never repeated by itself: what failed half-way
// is reported, with the labels of what exists.
type Manager struct{ t *Token }

// NewManager returns the manager of a token.
func NewManager(t *Token) *Manager { return &Manager{t} }

// manageDeadlines is the number of a key's deadlines that the manager's work may take.
const manageDeadlines = 10

// manage does f in a session of its own, which ends with it, and with it every
// session object that f made.
func (t *Token) manage(ctx context.Context, name string, flags uint, f func(*epoch, *session) error) error {
	return t.manageFor(ctx, manageDeadlines*t.cfg.Deadline, name, flags, f)
}

// manageFor is manage for work that takes longer.
func (t *Token) manageFor(ctx context.Context, deadline time.Duration, name string, flags uint, f func(*epoch, *session) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := t.newCall(name, deadline)
	defer t.free(c)
	e, err := t.up(c)
	if err != nil {
		return err
	}
	queue := newQueue(false)
	defer e.finish(queue)
	s := e.newSession(flags)
	if !e.spawn(queue, s) {
		return errStale
	}
	return e.perform(c, queue, func(s *session) error { return f(e, s) })
}

// Exists returns which of keyd's own objects the token holds, and which are
// missing, by label. A token is fit for use when none is missing, and for Init
// when none is made.
func (m *Manager) Exists(ctx context.Context) (made, missing []string, err error) {
	err = m.t.manage(ctx, "find keyd's keys", 0, func(_ *epoch, s *session) error {
		made, missing, err = m.t.inventory(s)
		return err
	})
	return made, missing, err
}

func (t *Token) inventory(s *session) (made, missing []string, err error) {
	stored, err := t.storedMasters(s)
	if err != nil {
		return nil, nil, err
	}
	newest, err := t.newestLog(s)
	if err != nil {
		return nil, nil, err
	}
	labels := []string{t.logLabel(max(newest, 1))}
	for _, k := range ownKeys {
		if word := k.word; len(stored) == 0 || word != labelLMK && word != labelBlockMAC {
			labels = append(labels, t.label(word))
		}
	}
	for _, m := range stored {
		labels = append(labels, t.masterLabel(labelBlockMAC, m.generation))
		if m.wrap != 0 || !anyWhole(stored) { // else it is the rest of an addition or a retirement
			labels = append(labels, t.masterLabel(labelLMK, m.generation))
		}
	}
	for _, label := range labels {
		found, err := s.find([]*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, label), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		})
		if err != nil {
			return nil, nil, err
		}
		if len(found) > 0 {
			made = append(made, label)
		} else {
			missing = append(missing, label)
		}
	}
	return made, missing, nil
}

// Init makes keyd's own keys in the token: the local master key, the key of
// the blocks' MACs, those of [Token.System], and the log's key pair. Nobody
// ever sees their values, so no second token can hold them: see [Manager.InitFrom].
//
// It returns [ErrExists] with the labels when the token holds any of them; a
// half-made set is to be removed by hand.
func (m *Manager) Init(ctx context.Context) error {
	return m.init(ctx, new(lentSecret), func(s *session, k own) error {
		attrs := append(m.t.ownTemplate(k), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, ownBytes))
		mech := []*pkcs11.Mechanism{pkcs11.NewMechanism(generation(k.algorithm()), nil)}
		if _, err := s.mod.GenerateKey(s.handle, mech, attrs); err != nil {
			return s.failure("C_GenerateKey", err)
		}
		return nil
	})
}

// InitFrom is Init with a local master key of 32 bytes that a ceremony has put
// together, so that another token can hold the same. The other keys, but for
// the log's, are derived from it (HKDF-SHA-256), so that they are the same
// there as well. The value is not kept; the caller clears it. Besides the
// errors of Init it returns [keys.ErrMaterial].
func (m *Manager) InitFrom(ctx context.Context, lmk secret.Bytes) error {
	return m.InitAt(ctx, lmk, firstLMK)
}

// InitAt is InitFrom with the local master key of a later generation: for a
// token that is to hold it where the earlier ones are retired and gone. All
// other keys are derived from this one, so that those of [Token.System] are not
// those of a token that began with another generation. It returns
// [keys.ErrMaterial] for generation 0 too.
func (m *Manager) InitAt(ctx context.Context, lmk secret.Bytes, generation uint32) error {
	if err := keys.CheckMaterial(keys.AES256, lmk.Reveal()); err != nil {
		return fmt.Errorf("hsm: local master key: %w", err)
	}
	if generation == 0 {
		return fmt.Errorf("hsm: local master key: %w: generations begin at 1", keys.ErrMaterial)
	}
	held := lend(lmk)
	return m.init(ctx, held, func(s *session, k own) error {
		value, err := ownValue(held.Bytes, k.word, generation)
		if err != nil {
			return err
		}
		defer secret.Clear(value)
		if _, err := s.mod.create(s.handle, m.t.labelled(k, m.t.labelIn(k.word, generation)), value); err != nil {
			return s.failure("C_CreateObject", err)
		}
		return nil
	})
}

// ownBytes is the length of keyd's own secret keys.
const ownBytes = 32

func (k own) algorithm() keys.Algorithm {
	if k.spec.Algorithm != 0 {
		return k.spec.Algorithm
	}
	return keys.AES256
}

func (m *Manager) init(ctx context.Context, held *lentSecret, put func(*session, own) error) error {
	m.t.making.Lock()
	defer m.t.making.Unlock()
	defer held.settle()
	err := m.t.manage(ctx, "initialise the token", pkcs11.CKF_RW_SESSION, func(_ *epoch, s *session) error {
		defer held.begin()()
		made, _, err := m.t.inventory(s)
		if err != nil {
			return err
		}
		if len(made) > 0 {
			return fmt.Errorf("%w: %q", ErrExists, made)
		}
		for _, k := range ownKeys {
			if err := put(s, k); err != nil {
				return m.t.halfMade(s, k.word, err)
			}
		}
		if err := m.t.makeLogKey(s); err != nil {
			return m.t.halfMade(s, labelLog, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return m.t.renewed(ctx)
}

// halfMade adds to an error what exists in the token all the same.
func (t *Token) halfMade(s *session, word string, cause error) error {
	made, _, err := t.inventory(s)
	if err != nil {
		return fmt.Errorf("hsm: make key %s: %w; what the token holds now is unknown: %w", t.label(word), cause, err)
	}
	return fmt.Errorf("hsm: make key %s: %w; the token now holds %q, which must be removed by hand", t.label(word), cause, made)
}

// ownTemplate is the template of one of keyd's own secret keys.
func (t *Token) ownTemplate(k own) []*pkcs11.Attribute { return t.labelled(k, t.label(k.word)) }

func (t *Token) labelled(k own, label string) []*pkcs11.Attribute {
	return append(k.r.list(),
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, keyType(k.algorithm())),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
		pkcs11.NewAttribute(pkcs11.CKA_ID, []byte(label)),
	)
}

// Generate makes a new key as the template says, which carries ID, Version,
// Attributes, Exportability, Policy, CheckBy (0: the algorithm's default) and
// CreatedMs, and returns the whole block. The value is made in the token,
// which never lets it out; inProcess reports that it crossed this process
// instead, because the usage needs a companion that no module here can make of
// an unseen value: TDES base derivation keys, and keys of MAC algorithm 3.
//
// It returns [keys.ErrCustody] where the policy forbids that,
// [keys.ErrAttributes], [keys.ErrCheckValue], [keys.ErrNoKey] while the token
// has no local master key, or [keys.ErrUnavailable].
func (m *Manager) Generate(ctx context.Context, template keys.Block) (b *keys.Block, inProcess bool, err error) {
	b, err = m.prepare(template, keys.Generated)
	if err != nil {
		return nil, false, err
	}
	if needsCompanion(b.Attributes) {
		if b.TokenOnly() {
			return nil, false, fmt.Errorf("hsm: generate key %s: %w: a key of usage %s and algorithm %s is two objects, of which no module makes the second from the first",
				b.ID, keys.ErrCustody, b.Attributes.Usage, b.Attributes.Algorithm)
		}
		value, err := m.draw(b.Attributes.Algorithm)
		if err != nil {
			return nil, true, err
		}
		defer value.Clear()
		b, err = m.put(ctx, b, value)
		return b, true, err
	}
	err = m.t.manage(ctx, "generate key", 0, func(e *epoch, s *session) error {
		alg := b.Attributes.Algorithm
		attrs := keyTemplate(alg, rights{extractable: true})
		if needsLength(alg) {
			attrs = append(attrs, pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, alg.KeyBytes()))
		}
		mech := []*pkcs11.Mechanism{pkcs11.NewMechanism(generation(alg), nil)}
		h, err := s.mod.GenerateKey(s.handle, mech, attrs)
		if err != nil {
			return s.failure("C_GenerateKey", err)
		}
		if b.Wrapped, err = s.wrap(e, b, h); err != nil {
			return err
		}
		return m.finish(e, s, b)
	})
	if err != nil {
		return nil, false, fmt.Errorf("hsm: generate key %s: %w", b.ID, err)
	}
	return b, false, nil
}

// Import makes a block of a clear value, as Generate does of a new one. TDES
// values get odd parity; CheckMaterial of package keys must find nothing to
// say. The value is not changed and not kept; the caller clears it. Besides
// the errors of Generate it returns [keys.ErrMaterial].
func (m *Manager) Import(ctx context.Context, template keys.Block, value secret.Bytes) (*keys.Block, error) {
	b, err := m.prepare(template, keys.External)
	if err != nil {
		return nil, err
	}
	alg := b.Attributes.Algorithm
	own := secret.New(value.Len())
	defer own.Clear()
	copy(own.Reveal(), value.Reveal())
	if alg.IsTDES() {
		keys.AdjustParity(own.Reveal())
	}
	if err := keys.CheckMaterial(alg, own.Reveal()); err != nil {
		return nil, fmt.Errorf("hsm: import key %s: %w", b.ID, err)
	}
	if own.Len()%8 != 0 {
		return nil, fmt.Errorf("hsm: import key %s: %w: %d bytes; the key wrap takes multiples of 8", b.ID, keys.ErrMaterial, own.Len())
	}
	return m.put(ctx, b, own)
}

// Seal returns the block with another policy and a new MAC. The old block must
// be genuine: [keys.ErrBlockMAC].
func (m *Manager) Seal(ctx context.Context, old *keys.Block, policy map[string]string) (*keys.Block, error) {
	if err := m.t.checkLMK(old); err != nil {
		return nil, err
	}
	b := cloneBlock(old)
	err := m.t.manage(ctx, "seal key block", 0, func(e *epoch, s *session) error {
		if err := s.checkMAC(e, old); err != nil {
			return err
		}
		b.Policy = maps.Clone(policy)
		return m.seal(e, s, b)
	})
	if err != nil {
		return nil, fmt.Errorf("hsm: seal key %s: %w", old.ID, err)
	}
	return b, nil
}

// Export returns the clear value of a key that may leave, for the caller to
// put under another key at once and to clear. It returns [keys.ErrForbidden]
// for one that may not, and otherwise the errors of [Token.Load].
func (m *Manager) Export(ctx context.Context, b *keys.Block) (secret.Bytes, error) {
	if err := m.t.checkLMK(b); err != nil {
		return secret.Bytes{}, err
	}
	if b.Attributes.Exportability == keys.NonExportable {
		return secret.Bytes{}, fmt.Errorf("hsm: export key %s: %w: it is not exportable", b.ID, keys.ErrForbidden)
	}
	value, err := m.read(ctx, b)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("hsm: export key %s: %w", b.ID, err)
	}
	return value, nil
}

// read takes the value of a key out of the token, whether or not it may leave
// keyd. The caller clears it.
func (m *Manager) read(ctx context.Context, b *keys.Block) (secret.Bytes, error) {
	b = cloneBlock(b)
	var value secret.Bytes
	err := m.t.manage(ctx, "export key", 0, func(e *epoch, s *session) error {
		if err := s.checkMAC(e, b); err != nil {
			return err
		}
		attrs := keyTemplate(b.Attributes.Algorithm, rights{extractable: true})
		for _, a := range attrs {
			if a.Type == pkcs11.CKA_SENSITIVE {
				a.Value = pkcs11.NewAttribute(a.Type, false).Value
			}
		}
		h, err := s.unwrapBlock(e, b, attrs)
		if err != nil {
			return err
		}
		got, err := s.mod.GetAttributeValue(s.handle, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
		if err != nil {
			return s.failure("C_GetAttributeValue", err)
		}
		value = secret.From(got[0].Value)
		return nil
	})
	return value, err
}

// Hold puts a clear value into the token as a session object of its own, for
// keys that live for one operation, and with abilities of the caller's choice;
// weak values too. The caller must Close it. It is gone with the session that
// holds it: from then on the key gives [keys.ErrUnavailable]. The value is not
// kept; the caller clears it.
func (m *Manager) Hold(value secret.Bytes, as keys.Spec) (keys.Derived, error) {
	if err := checkAbilities(as.Can); err != nil {
		return nil, fmt.Errorf("hsm: hold key: %w", err)
	}
	held := secret.New(value.Len())
	defer held.Clear()
	copy(held.Reveal(), value.Reveal())
	attrs := keyTemplate(as.Algorithm, m.t.attributes(as.Algorithm, as.Can))
	var standing atomic.Bool
	o := &object{t: m.t, build: func(c *call, e *epoch) (pair, error) {
		if standing.Load() {
			return pair{}, errStale
		}
		own := secret.New(held.Len()) // the worker's, because this caller may give up before it does
		copy(own.Reveal(), held.Reveal())
		return c.make(e, func(s *session) (pkcs11.ObjectHandle, error) {
			defer own.Clear()
			h, err := s.mod.create(s.handle, attrs, own.Reveal())
			if err != nil {
				return 0, s.failure("C_CreateObject", err)
			}
			return h, nil
		})
	}}
	if err := m.t.stand(o, "hold key"); err != nil {
		return nil, err
	}
	standing.Store(true)
	return newDerived(o, as), nil
}

// prepare returns the template as a block that lacks its value.
func (m *Manager) prepare(template keys.Block, origin keys.Origin) (*keys.Block, error) {
	b := cloneBlock(&template)
	b.LMK, b.Wrapped, b.Companion, b.Check, b.MAC = 0, nil, nil, [3]byte{}, [16]byte{} // the generation is the newest where it is wrapped
	if b.Origin == 0 {
		b.Origin = origin
	}
	if b.CheckBy == 0 {
		b.CheckBy = b.Attributes.Algorithm.CheckMethod()
	}
	if err := b.Attributes.Validate(); err != nil {
		return nil, fmt.Errorf("hsm: make key %s: %w", b.ID, err)
	}
	if !b.Attributes.Algorithm.CheckableBy(b.CheckBy) {
		return nil, fmt.Errorf("hsm: make key %s: %w: %s for %s", b.ID, keys.ErrCheckValue, b.CheckBy, b.Attributes.Algorithm)
	}
	if b.Version == 0 {
		return nil, fmt.Errorf("%w: version 0; versions begin at 1", errTemplate)
	}
	if err := checkForm(b); err != nil {
		return nil, err
	}
	return b, nil
}
