package custody_test

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// version is what the model knows of one version of the key.
type version struct {
	id      keys.ID
	mac     []byte
	enabled bool
	pending time.Time // of its destruction; zero: none
	gone    bool
	retires time.Time // zero: not replaced
}

// makes reports whether the version makes MACs at the time.
func (v *version) makes() bool {
	return v.enabled && v.pending.IsZero() && !v.gone && v.retires.IsZero()
}

// takes reports whether it verifies them.
func (v *version) takes(now time.Time) bool {
	return v.enabled && v.pending.IsZero() && !v.gone && (v.retires.IsZero() || now.Before(v.retires))
}

// lifeModel is section 8.3 and rotation in a few lines, beside the room.
type lifeModel struct {
	t        *testing.T
	r        *lifeRoom
	versions []*version // the newest last
}

func (m *lifeModel) some(t *rapid.T) *version {
	return rapid.SampledFrom(m.versions).Draw(t, "version")
}

func (m *lifeModel) want(t *rapid.T, what string, err error, ok bool) {
	if ok && err != nil || !ok && !errors.Is(err, custody.ErrConflict) {
		t.Fatalf("%s: %v, want success: %t", what, err, ok)
	}
}

func (m *lifeModel) start(t *rapid.T) {
	v := m.some(t)
	_, err := m.r.StartKeyUsage(m.t.Context(), admin, "t", custody.KeyStep{Key: custody.Ref{ID: v.id}})
	ok := v.pending.IsZero() && !v.gone && (v.retires.IsZero() || m.r.clock.Now().Before(v.retires))
	m.want(t, "start", err, ok)
	v.enabled = v.enabled || ok
}

func (m *lifeModel) stop(t *rapid.T) {
	v := m.some(t)
	_, err := m.r.StopKeyUsage(m.t.Context(), admin, "t", custody.KeyStep{Key: custody.Ref{ID: v.id}})
	ok := v.pending.IsZero() && !v.gone
	m.want(t, "stop", err, ok)
	v.enabled = v.enabled && !ok
}

func (m *lifeModel) delete(t *rapid.T) {
	v, days := m.some(t), rapid.IntRange(3, 10).Draw(t, "days")
	_, err := m.r.DeleteKey(m.t.Context(), admin, "t", custody.KeyStep{Key: custody.Ref{ID: v.id}}, days)
	ok := v.pending.IsZero() && !v.gone
	m.want(t, "delete", err, ok)
	if ok {
		v.enabled, v.pending = false, m.r.clock.Now().AddDate(0, 0, days)
	}
}

func (m *lifeModel) restore(t *rapid.T) {
	v := m.some(t)
	_, err := m.r.RestoreKey(m.t.Context(), admin, "t", custody.KeyStep{Key: custody.Ref{ID: v.id}})
	ok := !v.pending.IsZero() && !v.gone
	m.want(t, "restore", err, ok)
	if ok {
		v.pending = time.Time{}
	}
}

func (m *lifeModel) rotate(t *rapid.T) {
	v := m.some(t)
	overlap := time.Duration(rapid.IntRange(0, 10).Draw(t, "days")) * 24 * time.Hour
	done, err := m.r.RotateKey(m.t.Context(), admin, "t", custody.RotateKey{Key: custody.Ref{ID: v.id}, Overlap: overlap})
	ok := v.pending.IsZero() && !v.gone && v.retires.IsZero()
	m.want(t, "rotate", err, ok)
	if !ok {
		return
	}
	v.retires = m.r.clock.Now().Add(overlap)
	v.enabled = v.enabled && overlap > 0
	next := &version{id: done.New.Block.ID, enabled: true}
	made, err := m.r.mac(m.t, custody.Ref{ID: next.id})
	if err != nil {
		t.Fatalf("the new version: %v", err)
	}
	next.mac = made.MAC
	m.versions = append(m.versions, next)
}

func (m *lifeModel) wait(t *rapid.T) {
	m.r.clock.turn(time.Duration(rapid.IntRange(1, 96).Draw(t, "hours")) * time.Hour)
}

func (m *lifeModel) sweep(t *rapid.T) {
	if err := m.r.Sweep(m.t.Context()); err != nil {
		t.Fatal(err)
	}
	now := m.r.clock.Now()
	for _, v := range m.versions {
		if !v.pending.IsZero() && !v.gone && !now.Before(v.pending) {
			v.gone = true
		}
		if !v.retires.IsZero() && !now.Before(v.retires) {
			v.enabled = false
		}
	}
}

// restartProcess begins another process over the same token and database.
func (m *lifeModel) restartProcess(t *rapid.T) {
	c, err := custody.New(m.r.config)
	if err != nil {
		t.Fatal(err)
	}
	m.r.Custody = c
}

// agree compares every version with the model, and what the alias does.
func (m *lifeModel) agree(t *rapid.T) {
	now := m.r.clock.Now()
	for i, v := range m.versions {
		k, err := m.r.Key(m.t.Context(), admin, "t", custody.Ref{ID: v.id})
		if err != nil {
			t.Fatal(err)
		}
		if k.Enabled != v.enabled || (k.State == custody.DeleteComplete) != v.gone || (len(k.Block.Wrapped) == 0) != v.gone || int(k.Block.Version) != i+1 {
			t.Fatalf("version %d: %s, enabled %t, %d bytes; the model has %+v", i+1, k.State, k.Enabled, len(k.Block.Wrapped), v)
		}
		if _, err := m.r.mac(m.t, custody.Ref{ID: v.id}); (err == nil) != v.makes() {
			t.Fatalf("version %d makes a MAC: %v, want %t", i+1, err, v.makes())
		}
		if _, err := m.r.verify(m.t, custody.Ref{ID: v.id}, v.mac); (err == nil) != v.takes(now) {
			t.Fatalf("version %d verifies its MAC: %v, want %t", i+1, err, v.takes(now))
		}
	}
	newest := m.versions[len(m.versions)-1]
	// By the alias older versions are found only while the newest is in use.
	for i, v := range m.versions[max(0, len(m.versions)-4):] {
		want := newest.takes(now) && (v == newest || v.takes(now))
		if _, err := m.r.verify(m.t, ref("alias/model"), v.mac); (err == nil) != want {
			t.Fatalf("the MAC of the %d. of the last versions by the alias: %v, want %t", i+1, err, want)
		}
	}
}

// TestLifeModel drives the life of keys at random.
func TestLifeModel(t *testing.T) {
	r := newLifeRoom(t, nil)
	runs, failed := 0, false
	rapid.Check(t, func(rt *rapid.T) {
		if runs++; runs > modelRuns && !failed {
			return
		}
		defer func() { failed = failed || rt.Failed() }()
		first := r.made(t, "", cmacKey, nil)
		alias := custody.Alias{Name: "alias/model", Key: first.Block.ID}
		if _, err := r.CreateAlias(t.Context(), admin, "t", custody.Alias{Name: alias.Name}, nil); err != nil && !errors.Is(err, custody.ErrAliasExists) {
			rt.Fatal(err)
		}
		if _, err := r.UpdateAlias(t.Context(), admin, "t", alias, nil); err != nil {
			rt.Fatal(err)
		}
		made, err := r.mac(t, ref(alias.Name))
		if err != nil {
			rt.Fatal(err)
		}
		m := &lifeModel{t: t, r: r, versions: []*version{{id: first.Block.ID, mac: made.MAC, enabled: true}}}
		rt.Repeat(map[string]func(*rapid.T){
			"start": m.start, "stop": m.stop, "delete": m.delete, "restore": m.restore, "rotate": m.rotate,
			"wait": m.wait, "sweep": m.sweep, "restart": m.restartProcess,
			"": m.agree,
		})
	})
}
