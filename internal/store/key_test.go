package store

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// allSet fails when a field of v has its zero value: a field that somebody adds
// must come through the database too.
func allSet(t *testing.T, v any, but ...string) {
	t.Helper()
	value := reflect.ValueOf(v)
fields:
	for i := range value.NumField() {
		name := value.Type().Field(i).Name
		for _, b := range but {
			if name == b {
				continue fields
			}
		}
		if value.Field(i).IsZero() {
			t.Fatalf("%T.%s is zero: set it, so that the test covers it", v, name)
		}
	}
}

func TestKeyRoundTrip(t *testing.T) {
	db := open(t)
	want := aKey(1)
	want.Aliases = []string{"alias/a", "alias/b"}
	allSet(t, want)
	if err := db.AddKey(t.Context(), want, nil); err != nil {
		t.Fatal(err)
	}
	got, err := db.Key(t.Context(), keyID(1))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestKeyWithNothingSet(t *testing.T) {
	db := open(t)
	want := custody.KeyRecord{Block: aKey(1).Block, State: custody.CreateInProgress}
	if err := db.AddKey(t.Context(), want, nil); err != nil {
		t.Fatal(err)
	}
	got, err := db.Key(t.Context(), keyID(1))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestKeyErrors(t *testing.T) {
	db := open(t)
	if err := db.AddKey(t.Context(), aKey(1), nil); err != nil {
		t.Fatal(err)
	}
	t.Run("not there", func(t *testing.T) {
		if _, err := db.Key(t.Context(), keyID(2)); !errors.Is(err, custody.ErrNoKey) {
			t.Errorf("got %v, want ErrNoKey", err)
		}
	})
	t.Run("there already", func(t *testing.T) {
		if err := db.AddKey(t.Context(), aKey(1), nil); !errors.Is(err, ErrExists) {
			t.Errorf("got %v, want ErrExists", err)
		}
	})
	t.Run("without a block", func(t *testing.T) {
		if err := db.AddKey(t.Context(), custody.KeyRecord{State: custody.CreateComplete}, nil); err == nil {
			t.Error("accepted")
		}
	})
	t.Run("unknown state", func(t *testing.T) {
		k := aKey(3)
		k.State = "GONE"
		if err := db.AddKey(t.Context(), k, nil); !errors.Is(err, ErrRule) {
			t.Errorf("got %v, want ErrRule", err)
		}
	})
	t.Run("enabled and being deleted", func(t *testing.T) {
		k := aKey(3)
		k.State = custody.DeletePending
		if err := db.AddKey(t.Context(), k, nil); !errors.Is(err, ErrRule) {
			t.Errorf("got %v, want ErrRule", err)
		}
	})
	t.Run("alias of another key", func(t *testing.T) {
		a := custody.Alias{Name: "alias/taken", Key: keyID(1)}
		if err := db.AddAlias(t.Context(), a, nil); err != nil {
			t.Fatal(err)
		}
		k := aKey(3)
		k.Aliases = []string{"alias/free", "alias/taken"}
		if err := db.AddKey(t.Context(), k, nil); !errors.Is(err, custody.ErrAliasExists) {
			t.Errorf("got %v, want ErrAliasExists", err)
		}
		if _, err := db.Key(t.Context(), keyID(3)); !errors.Is(err, custody.ErrNoKey) {
			t.Errorf("the key: %v, want ErrNoKey", err)
		}
		if _, err := db.Alias(t.Context(), "alias/free"); !errors.Is(err, custody.ErrNoAlias) {
			t.Errorf("the other alias: %v, want ErrNoAlias", err)
		}
	})
}

// A block that somebody moved to another row would be loaded in place of the
// key that is meant: its MAC is good.
func TestBlockUnderAnotherID(t *testing.T) {
	db := open(t)
	for n := range 2 {
		if err := db.AddKey(t.Context(), aKey(n), nil); err != nil {
			t.Fatal(err)
		}
	}
	err := db.update(t.Context(), func(s *session) error {
		_, err := s.exec("UPDATE key SET block = (SELECT block FROM key WHERE id = ?) WHERE id = ?",
			string(keyID(0)), string(keyID(1)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Key(t.Context(), keyID(1)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Key: %v, want ErrCorrupt", err)
	}
	if _, err := db.Keys(t.Context(), custody.KeyQuery{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Keys: %v, want ErrCorrupt", err)
	}
}

func TestKeys(t *testing.T) {
	db := open(t)
	states := []custody.KeyState{custody.CreateComplete, custody.DeleteComplete, custody.DeletePending,
		custody.CreateInProgress, custody.CreateComplete}
	for n, state := range states {
		k := aKey(n)
		k.State, k.Enabled = state, state == custody.CreateComplete
		if n == 4 {
			k.Aliases = []string{"alias/x", "alias/y"}
		}
		if err := db.AddKey(t.Context(), k, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.AddAlias(t.Context(), custody.Alias{Name: "alias/free"}, nil); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		query custody.KeyQuery
		want  []int
	}{
		{"all but the deleted", custody.KeyQuery{}, []int{0, 2, 3, 4}},
		{"deleted", custody.KeyQuery{State: custody.DeleteComplete}, []int{1}},
		{"complete", custody.KeyQuery{State: custody.CreateComplete}, []int{0, 4}},
		{"first page", custody.KeyQuery{Limit: 2}, []int{0, 2}},
		{"second page", custody.KeyQuery{Limit: 2, After: keyID(2)}, []int{3, 4}},
		{"after the last", custody.KeyQuery{After: keyID(4)}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			all, err := db.Keys(t.Context(), tt.query)
			if err != nil {
				t.Fatal(err)
			}
			var got, want []keys.ID
			for _, k := range all {
				got = append(got, k.Block.ID)
				if aliased := k.Block.ID == keyID(4); aliased != cmp.Equal(k.Aliases, []string{"alias/x", "alias/y"}) {
					t.Errorf("key %s has aliases %q", k.Block.ID, k.Aliases)
				}
			}
			for _, n := range tt.want {
				want = append(want, keyID(n))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAlias(t *testing.T) {
	db := open(t)
	for n := range 2 {
		if err := db.AddKey(t.Context(), aKey(n), nil); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name  string
		alias custody.Alias
		want  error
	}{
		{"new", custody.Alias{Name: "alias/zpk", Key: keyID(0)}, nil},
		{"the same again", custody.Alias{Name: "alias/zpk", Key: keyID(0)}, nil},
		{"to another key", custody.Alias{Name: "alias/zpk", Key: keyID(1)}, custody.ErrAliasExists},
		{"to no key", custody.Alias{Name: "alias/zpk"}, custody.ErrAliasExists},
		{"second of a key", custody.Alias{Name: "alias/zpk-2", Key: keyID(0)}, nil},
		{"without a key", custody.Alias{Name: "alias/later"}, nil},
		{"without a key again", custody.Alias{Name: "alias/later"}, nil},
		{"later to a key", custody.Alias{Name: "alias/later", Key: keyID(0)}, custody.ErrAliasExists},
		{"to a key that is not there", custody.Alias{Name: "alias/none", Key: keyID(9)}, custody.ErrNoKey},
		{"without the prefix", custody.Alias{Name: "zpk", Key: keyID(0)}, ErrRule},
		{"empty after the prefix", custody.Alias{Name: "alias/", Key: keyID(0)}, ErrRule},
		{"with a character that is not allowed", custody.Alias{Name: "alias/a b", Key: keyID(0)}, ErrRule},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before, beforeErr := db.Alias(t.Context(), tt.alias.Name)
			if err := db.AddAlias(t.Context(), tt.alias, nil); !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			got, err := db.Alias(t.Context(), tt.alias.Name)
			switch {
			case tt.want == nil && (err != nil || got != tt.alias):
				t.Errorf("Alias: %v, %v", got, err)
			case tt.want != nil && (got != before || errors.Is(err, custody.ErrNoAlias) != errors.Is(beforeErr, custody.ErrNoAlias)):
				t.Errorf("it was changed from %v to %v", before, got)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	now := day()
	cfg, err := config(filepath.Join(t.TempDir(), "keyd.db"), Serve)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Clock = func() time.Time { return now }
	db, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, db)
	once := custody.Once{Principal: "admin", Invocation: "i-1", Operation: custody.OpCreateKey,
		Body: hash(1), Answer: json.RawMessage(`{"Key": 1}`), At: now}
	allSet(t, once)

	if _, err := db.Recall(t.Context(), "admin", "i-1"); !errors.Is(err, custody.ErrNoAnswer) {
		t.Fatalf("before: %v, want ErrNoAnswer", err)
	}
	if err := db.AddKey(t.Context(), aKey(1), &once); err != nil {
		t.Fatal(err)
	}
	got, err := db.Recall(t.Context(), "admin", "i-1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(once, got); diff != "" {
		t.Error(diff)
	}

	t.Run("a repeat changes nothing", func(t *testing.T) {
		if err := db.AddKey(t.Context(), aKey(2), &once); !errors.Is(err, custody.ErrRepeated) {
			t.Errorf("AddKey: %v, want ErrRepeated", err)
		}
		if err := db.AddAlias(t.Context(), custody.Alias{Name: "alias/a", Key: keyID(1)}, &once); !errors.Is(err, custody.ErrRepeated) {
			t.Errorf("AddAlias: %v, want ErrRepeated", err)
		}
		if _, err := db.Key(t.Context(), keyID(2)); !errors.Is(err, custody.ErrNoKey) {
			t.Errorf("the key: %v, want ErrNoKey", err)
		}
	})
	t.Run("another principal's id is another", func(t *testing.T) {
		if _, err := db.Recall(t.Context(), "other", "i-1"); !errors.Is(err, custody.ErrNoAnswer) {
			t.Errorf("Recall: %v, want ErrNoAnswer", err)
		}
		theirs := once
		theirs.Principal = "other"
		if err := db.AddAlias(t.Context(), custody.Alias{Name: "alias/a", Key: keyID(1)}, &theirs); err != nil {
			t.Error(err)
		}
	})
	t.Run("a change that fails leaves no answer", func(t *testing.T) {
		failed := once
		failed.Invocation = "i-2"
		if err := db.AddKey(t.Context(), aKey(1), &failed); !errors.Is(err, ErrExists) {
			t.Fatalf("got %v, want ErrExists", err)
		}
		if _, err := db.Recall(t.Context(), "admin", "i-2"); !errors.Is(err, custody.ErrNoAnswer) {
			t.Errorf("Recall: %v, want ErrNoAnswer", err)
		}
	})
	t.Run("an answer lives for a day", func(t *testing.T) {
		now = day().Add(24*time.Hour - 1)
		if _, err := db.Recall(t.Context(), "admin", "i-1"); err != nil {
			t.Errorf("just before: %v", err)
		}
		now = day().Add(24 * time.Hour)
		if _, err := db.Recall(t.Context(), "admin", "i-1"); !errors.Is(err, custody.ErrNoAnswer) {
			t.Errorf("after: %v, want ErrNoAnswer", err)
		}
		again := once
		again.At = now
		if err := db.AddKey(t.Context(), aKey(3), &again); err != nil {
			t.Errorf("the id used anew: %v", err)
		}
		var left int
		count := func(s *session) error { return s.query("SELECT count(*) FROM answer").Scan(&left) }
		if err := db.view(t.Context(), count); err != nil || left != 1 {
			t.Errorf("%d answers left, %v; want 1", left, err)
		}
	})
}
