package custody_test

import (
	"crypto/sha256"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// asking is an administrator with a request that can be approved.
func asking(name, body string) custody.Caller {
	who := caller(name, custody.RoleAdmin, "*")
	who.Subject, who.Request = "CN="+name, sha256.Sum256([]byte(body))
	return who
}

// TestPolicyNeedsTwo: the policy of a key changes when a second person has
// agreed, under a new MAC, and the record has what was before and after; other
// tags need nobody.
func TestPolicyNeedsTwo(t *testing.T) {
	r := newLifeRoom(t, func(cfg *custody.Config) {
		cfg.DualControl = custody.DualControl{On: true}
		for _, name := range []string{"anna-admin", "raj-admin"} {
			cfg.Clients = append(cfg.Clients, custody.Client{Name: name, URI: "keyd://client/" + name, Roles: []custody.Role{custody.RoleAdmin}, Keys: []string{"*"}})
		}
	})
	k := r.made(t, "alias/mac", cmacKey, nil)
	anna := asking("anna-admin", "tags")
	if err := r.TagKey(t.Context(), anna, "t", k.Block.ID, map[string]string{"team": "a"}, nil); err != nil {
		t.Fatalf("a tag that is no policy: %v", err)
	}
	policy := map[string]string{custody.TagMACMinBytes: "16", "team": "b"}
	err := r.TagKey(t.Context(), anna, "t", k.Block.ID, policy, nil)
	ref := custody.PendingRef(err)
	if !errors.Is(err, custody.ErrApproval) || ref == "" {
		t.Fatalf("got %v, want %v", err, custody.ErrApproval)
	}
	if got, _ := r.Key(t.Context(), admin, "t", byID(k)); got.Block.MAC != k.Block.MAC || got.Tags["team"] != "a" {
		t.Error("it changed something already")
	}
	if _, err := r.Approve(t.Context(), asking("raj-admin", ""), "t", ref); err != nil {
		t.Fatal(err)
	}
	if err := r.TagKey(t.Context(), anna, "t", k.Block.ID, policy, nil); err != nil {
		t.Fatal(err)
	}
	got, err := r.Key(t.Context(), admin, "t", byID(k))
	if err != nil || got.Block.MAC == k.Block.MAC || got.Block.Policy[custody.TagMACMinBytes] != "16" || got.Tags["team"] != "b" {
		t.Fatalf("got %+v, %v", got, err)
	}
	loaded, err := r.token.Load(t.Context(), got.Block)
	if err != nil {
		t.Fatalf("the new block is not genuine: %v", err)
	}
	loaded.Release()
	// The same again changes no policy and needs nobody; to take it away does.
	if err := r.TagKey(t.Context(), anna, "t", k.Block.ID, policy, nil); err != nil {
		t.Errorf("what is there already: %v", err)
	}
	if err := r.UntagKey(t.Context(), anna, "t", k.Block.ID, []string{"keyd:mac-min-bytes"}, nil); !errors.Is(err, custody.ErrApproval) {
		t.Errorf("taking a policy away: %v, want %v", err, custody.ErrApproval)
	}
	if err := r.UntagKey(t.Context(), anna, "t", k.Block.ID, []string{"team", "none"}, nil); err != nil {
		t.Error(err)
	}
	t.Run("keys that carry others", func(t *testing.T) {
		kek := r.kek(t)
		for name, err := range map[string]error{
			"delete": errOf(r.DeleteKey(t.Context(), anna, "t", custody.KeyStep{Key: byID(kek)}, 7)),
			"rotate": errOf(r.RotateKey(t.Context(), anna, "t", custody.RotateKey{Key: byID(kek)})),
		} {
			if !errors.Is(err, custody.ErrApproval) {
				t.Errorf("%s: %v, want %v", name, err, custody.ErrApproval)
			}
		}
		if _, err := r.StopKeyUsage(t.Context(), anna, "t", custody.KeyStep{Key: byID(kek)}); err != nil {
			t.Errorf("a key is stopped by whoever sees the need: %v", err)
		}
	})
	t.Run("the log", func(t *testing.T) {
		var approved []map[string]any
		for _, record := range r.recorded(t, "sec", "key.attr") {
			if _, ok := record["approvals"]; ok {
				approved = append(approved, record)
			}
		}
		if len(approved) != 2 { // intent and outcome
			t.Fatalf("%d records with an approval, want 2", len(approved))
		}
		change := approved[1]["change"].(map[string]any)
		if change["before"] == nil || change["after"] == nil || change["before"] == change["after"] {
			t.Errorf("change %v", change)
		}
	})
}

func errOf[T any](_ T, err error) error { return err }

// kek is a key-encryption key, made by a ceremony.
func (r *lifeRoom) kek(t *testing.T) custody.KeyRecord {
	t.Helper()
	k, err := r.CreateKey(t.Context(), ceremony(), "t", custody.CreateKey{
		Attributes: attributes(keys.UsageKEK, keys.AES256, keys.ModeBoth), Enabled: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.CreateAlias(t.Context(), admin, "t", custody.Alias{Name: "alias/kek", Key: k.Block.ID}, nil); err != nil {
		t.Fatal(err)
	}
	return k
}

// TestTags: all tags of a key are listed, and there is an end to them.
func TestTags(t *testing.T) {
	r := newLifeRoom(t, nil)
	k := r.made(t, "alias/mac", cmacKey, map[string]string{"a": "1", custody.TagMACMinBytes: "8"})
	got, err := r.Tags(t.Context(), app, "t", k.Block.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"a": "1", custody.TagMACMinBytes: "8"}, got); diff != "" {
		t.Error(diff)
	}
	many := make(map[string]string)
	for n := range custody.MostTags + 1 {
		many[string(rune('A'+n%26))+string(rune('a'+n/26))] = ""
	}
	if err := r.TagKey(t.Context(), admin, "t", k.Block.ID, many, nil); !errors.Is(err, custody.ErrRequest) {
		t.Errorf("%d tags: %v, want %v", len(many), err, custody.ErrRequest)
	}
	if err := r.TagKey(t.Context(), admin, "t", "00000000000000000000000000000000", map[string]string{"a": "b"}, nil); !errors.Is(err, custody.ErrNoKey) {
		t.Errorf("no key: %v", err)
	}
}

// TestAliasChanges: a name moves and goes at once, for those who may.
func TestAliasChanges(t *testing.T) {
	r := newLifeRoom(t, nil)
	one := r.made(t, "alias/shop/one", cmacKey, nil)
	two := r.made(t, "alias/shop/two", cmacKey, nil)
	foreign := r.made(t, "alias/bank/key", cmacKey, nil)
	narrow := caller("narrow", custody.RoleAdmin, "alias/shop/*")
	if made, err := r.mac(t, ref("alias/shop/one")); err != nil || made.Key.ID != one.Block.ID {
		t.Fatalf("made by %s, %v", made.Key.ID, err)
	}
	if _, err := r.UpdateAlias(t.Context(), narrow, "t", custody.Alias{Name: "alias/shop/one", Key: two.Block.ID}, nil); err != nil {
		t.Fatal(err)
	}
	if made, err := r.mac(t, ref("alias/shop/one")); err != nil || made.Key.ID != two.Block.ID {
		t.Errorf("made by %s, %v; want %s", made.Key.ID, err, two.Block.ID)
	}
	if k, err := r.Key(t.Context(), admin, "t", byID(one)); err != nil || len(k.Aliases) != 0 {
		t.Errorf("the key that lost its name: %q, %v", k.Aliases, err)
	}
	for name, tt := range map[string]struct {
		alias custody.Alias
		want  error
	}{
		"a name of others":         {custody.Alias{Name: "alias/bank/key", Key: two.Block.ID}, custody.ErrDenied},
		"a key of others":          {custody.Alias{Name: "alias/shop/one", Key: foreign.Block.ID}, custody.ErrDenied},
		"a name that is not there": {custody.Alias{Name: "alias/shop/none", Key: two.Block.ID}, custody.ErrNoAlias},
		"a key that is not there":  {custody.Alias{Name: "alias/shop/one", Key: "00000000000000000000000000000000"}, custody.ErrNoKey},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := r.UpdateAlias(t.Context(), narrow, "t", tt.alias, nil); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	list, err := r.Aliases(t.Context(), narrow, "t", custody.AliasQuery{Limit: 1})
	if err != nil || len(list) != 1 || list[0].Name != "alias/shop/one" {
		t.Errorf("%v, %v", list, err)
	}
	list, err = r.Aliases(t.Context(), narrow, "t", custody.AliasQuery{Limit: 10})
	if names := slices.Collect(func(yield func(string) bool) {
		for _, a := range list {
			if !yield(a.Name) {
				return
			}
		}
	}); err != nil || !slices.Equal(names, []string{"alias/shop/one", "alias/shop/two"}) {
		t.Errorf("%q, %v", names, err)
	}
	if err := r.DeleteAlias(t.Context(), narrow, "t", "alias/shop/two", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := r.mac(t, ref("alias/shop/two")); !errors.Is(err, custody.ErrNoKey) {
		t.Errorf("by a name that went: %v", err)
	}
	if err := r.DeleteAlias(t.Context(), narrow, "t", "alias/bank/key", nil); !errors.Is(err, custody.ErrDenied) {
		t.Errorf("a name of others: %v", err)
	}
}

// FuzzPolicyTags: whatever a tag says, it is refused or read back the same from
// the key's block, and never breaks a use.
func FuzzPolicyTags(f *testing.F) {
	for _, seed := range [][2]string{
		{custody.TagNotAfter, "2030-01-01T00:00:00Z"}, {custody.TagNotBefore, "2030-01-01T00:00:00.5Z"},
		{custody.TagMaxUses, "1000"}, {custody.TagWarnPercent, "50,80,99"}, {custody.TagMACMinBytes, "8"}, {"keyd:x", "="}, {"a\n", "b"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		if err := custody.CheckPolicy(name, value); err != nil && !errors.Is(err, custody.ErrRequest) {
			t.Errorf("%q=%q: %v", name, value, err)
		}
	})
}
