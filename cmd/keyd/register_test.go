package main

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	_ "github.com/mattn/go-sqlite3"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// victim is a node whose database somebody can write to who is not keyd: the
// attacker of the issue "keys from birth to death". Keys a and b make CMACs, c
// PIN blocks; alias/a and alias/b point to the first two.
type victim struct {
	t       *testing.T
	dir     string
	r       *running
	a, b, c string // ids
}

func newVictim(t *testing.T) *victim {
	t.Helper()
	v := &victim{t: t, dir: t.TempDir()}
	v.r = startDev(t, v.dir, "--no-sim")
	const mac = `{"KeyUsage":"TR31_M6_ISO_9797_5_CMAC_KEY","KeyClass":"SYMMETRIC_KEY","KeyAlgorithm":"AES_128","KeyModesOfUse":{"Generate":true,"Verify":true}}`
	const pin = `{"KeyUsage":"TR31_P0_PIN_ENCRYPTION_KEY","KeyClass":"SYMMETRIC_KEY","KeyAlgorithm":"TDES_2KEY","KeyModesOfUse":{"Encrypt":true,"Decrypt":true,"Wrap":true,"Unwrap":true}}`
	v.a, v.b, v.c = v.create(mac, "alias/a"), v.create(mac, "alias/b"), v.create(pin, "alias/c")
	return v
}

// create makes a key with an alias and returns its id.
func (v *victim) create(attributes, alias string) string {
	v.t.Helper()
	var made struct{ Key struct{ KeyArn string } }
	v.admin("CreateKey", `{"Exportable":false,"KeyAttributes":`+attributes+`}`, &made)
	v.admin("CreateAlias", fmt.Sprintf(`{"AliasName":%q,"KeyArn":%q}`, alias, made.Key.KeyArn), nil)
	return made.Key.KeyArn[strings.LastIndexByte(made.Key.KeyArn, '/')+1:]
}

// admin does what must succeed.
func (v *victim) admin(operation, body string, into any) {
	v.t.Helper()
	a := (&doors{dev: &v.r.dev}).control(v.t, "admin", operation, body)
	if a.status != http.StatusOK {
		v.t.Fatalf("%s: %d %s", operation, a.status, a.body)
	}
	if into != nil {
		if err := json.Unmarshal([]byte(a.body), into); err != nil {
			v.t.Fatal(err)
		}
	}
}

// mac has a message authenticated under a key.
func (v *victim) mac(key string) apiAnswer {
	v.t.Helper()
	return (&doors{dev: &v.r.dev}).data(v.t, "switch", "/mac/generate",
		fmt.Sprintf(`{"KeyIdentifier":%q,"MessageData":"00112233","GenerationAttributes":{"Algorithm":"CMAC"}}`, key))
}

func (v *victim) stop() {
	v.t.Helper()
	v.r.stop()
	v.r = nil
}

func (v *victim) did(err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
}

func (v *victim) database() (*sql.DB, error) {
	return sql.Open("sqlite3", "file:"+filepath.Join(v.dir, "keyd.db")+"?_busy_timeout=5000")
}

// sql changes the database as whoever can write to its file.
func (v *victim) sql(statement string, args ...any) {
	v.t.Helper()
	db, err := v.database()
	v.did(err)
	defer db.Close()
	if _, err := db.Exec(statement, args...); err != nil {
		v.t.Fatalf("%s: %v", statement, err)
	}
}

// row returns how to put back the row of a key as it is now.
func (v *victim) row(id string) (putBack func()) {
	v.t.Helper()
	db, err := v.database()
	v.did(err)
	defer db.Close()
	rows, err := db.Query("SELECT * FROM key WHERE id = ?", id)
	v.did(err)
	defer rows.Close()
	names, err := rows.Columns()
	v.did(err)
	values, into := make([]any, len(names)), make([]any, len(names))
	for i := range values {
		into[i] = &values[i]
	}
	if !rows.Next() {
		v.t.Fatalf("no key %s", id)
	}
	v.did(rows.Scan(into...))
	return func() {
		v.sql("INSERT OR REPLACE INTO key ("+strings.Join(names, ", ")+") VALUES (?"+strings.Repeat(", ?", len(names)-1)+")", values...)
	}
}

// destroy leaves of a key what its destruction leaves, as keyd does at the end of
// the waiting time; keyd starts again after it.
func (v *victim) destroy(id string) {
	v.t.Helper()
	v.stop()
	ctx := v.t.Context()
	cfg, err := loadConfig(filepath.Join(v.dir, "keyd.toml"))
	v.did(err)
	n, err := openNode(ctx, cfg, newLogger(io.Discard, "error"), newMetrics())
	v.did(err)
	k, err := n.db.Key(ctx, keys.ID(id))
	v.did(err)
	k.Block, err = n.manager.Erase(ctx, k.Block)
	v.did(err)
	k.State, k.Enabled = custody.DeleteComplete, false
	v.did(n.db.ChangeKeys(ctx, nil, func(ch custody.KeyChange) error { return ch.SetKey(k) }))
	v.did(n.close(ctx))
	v.r = startDev(v.t, v.dir, "--no-sim")
}

// block returns a key's block as it is stored.
func (v *victim) block(id string) []byte {
	v.t.Helper()
	db, err := v.database()
	v.did(err)
	defer db.Close()
	var block []byte
	v.did(db.QueryRow("SELECT block FROM key WHERE id = ?", id).Scan(&block))
	return block
}

// swap exchanges a part of the blocks of two keys.
func (v *victim) swap(a, b string, from, to int) {
	v.t.Helper()
	one, two := v.block(a), v.block(b)
	if from == 0 {
		one, two = two, one
	} else {
		kept := bytes.Clone(one[from:to])
		copy(one[from:to], two[from:to])
		copy(two[from:to], kept)
	}
	v.sql("UPDATE key SET block = CASE id WHEN ? THEN ? ELSE ? END WHERE id IN (?, ?)", a, one, two, a, b)
}

// alarmed wants an alarm of this code in the audit log, about the object.
func (v *victim) alarmed(code, object string) {
	v.t.Helper()
	var out, errs strings.Builder
	poll(v.t, "the alarm "+code+" about "+object+" in the audit log", func() bool {
		out.Reset()
		if got := run(v.t.Context(), []string{"audit", "ls", "--dir", filepath.Join(v.dir, "audit"), "--json"}, strings.NewReader(""), &out, &errs); got != exitDone {
			v.t.Fatalf("audit ls: %d %s", got, &errs)
		}
		for line := range strings.Lines(out.String()) {
			if strings.Contains(line, `"sys.alarm"`) && strings.Contains(line, `"`+code+`"`) && strings.Contains(line, `"`+object+`"`) {
				return true
			}
		}
		return false
	})
}

// refusedStart wants keyd not to start, with a reason and what to do, and the
// alarm in the log.
func (v *victim) refusedStart() {
	v.t.Helper()
	var errs strings.Builder
	code := run(v.t.Context(), []string{"serve", "--config", filepath.Join(v.dir, "keyd.toml")}, strings.NewReader(""), io.Discard, &errs)
	if code != exitFailed {
		v.t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	for _, says := range []string{"not the one that the token knows", "keyd.db", "rolled back", "keyd register adopt --config"} {
		if !strings.Contains(errs.String(), says) {
			v.t.Errorf("the start says %q, which lacks %q", &errs, says)
		}
	}
	v.alarmed(alarmRegister, "database")
}

// The places of parts in a key block; section 4 of docs/ARCHITECTURE.md.
const (
	versionAt = 5 + 4 + 2 + 32
	usageAt   = versionAt + 4 + 2
)

// assault is something that an attacker does who can write to the database.
type assault struct {
	name string
	// prepare has keyd do what comes before, and returns the attack.
	prepare func(*victim) (attack func())
	object  func(*victim) string // of the alarm
	dead    []string             // aliases that must not work any more
}

func assaults() []assault {
	keyA := func(v *victim) string { return "key/" + v.a }
	aliasA := func(*victim) string { return "alias/alias/a" }
	return []assault{
		{"usages swapped between two keys", func(v *victim) func() {
			return func() { v.swap(v.a, v.c, usageAt, usageAt+2) }
		}, keyA, []string{"alias/a"}},

		{"values swapped between two keys", func(v *victim) func() {
			return func() { v.swap(v.a, v.b, 0, 0) }
		}, keyA, []string{"alias/a", "alias/b"}},

		{"versions swapped between a key and its successor", func(v *victim) func() {
			old := v.a
			v.a = v.rotate("alias/a")
			return func() { v.swap(old, v.a, versionAt, versionAt+4) }
		}, keyA, []string{"alias/a"}},

		{"two aliases swapped", func(v *victim) func() {
			return func() {
				v.sql("UPDATE alias SET key = CASE name WHEN 'alias/a' THEN ? ELSE ? END WHERE name IN ('alias/a', 'alias/b')", v.b, v.a)
			}
		}, aliasA, []string{"alias/a", "alias/b"}},

		{"an alias rolled back to the version before", func(v *victim) func() {
			old := v.a
			v.a = v.rotate("alias/a")
			return func() { v.sql("UPDATE alias SET key = ? WHERE name = 'alias/a'", old) }
		}, aliasA, []string{"alias/a"}},

		{"a destroyed key restored", func(v *victim) func() {
			putBack := v.row(v.a)
			v.destroy(v.a)
			return putBack
		}, keyA, []string{"alias/a"}},

		{"a stopped key rolled back", func(v *victim) func() {
			putBack := v.row(v.a)
			v.admin("StopKeyUsage", `{"KeyIdentifier":"alias/a"}`, nil)
			return putBack
		}, keyA, []string{"alias/a"}},

		{"an alias put in", func(v *victim) func() {
			return func() {
				v.sql("INSERT INTO alias (name, key) VALUES ('alias/mine', ?)", v.a)
			}
		}, func(*victim) string { return "alias/alias/mine" }, []string{"alias/mine"}},
	}
}

// rotate makes a new version of a key and returns its id.
func (v *victim) rotate(alias string) string {
	v.t.Helper()
	h := &doors{dev: &v.r.dev}
	a := h.post(v.t, h.as(v.t, "admin"), "/", "KeydControlPlane.RotateKey", strings.NewReader(fmt.Sprintf(`{"KeyIdentifier":%q}`, alias)))
	var made struct{ Key struct{ KeyArn string } }
	if a.status != http.StatusOK || json.Unmarshal([]byte(a.body), &made) != nil {
		v.t.Fatalf("RotateKey: %d %s", a.status, a.body)
	}
	return made.Key.KeyArn[strings.LastIndexByte(made.Key.KeyArn, '/')+1:]
}

// TestDatabaseAttacked is R-50 for keys and aliases: an attacker who can write to
// the database of a running node gets nothing for it, an alarm tells of each
// attempt, and the node does not start again on what was written.
func TestDatabaseAttacked(t *testing.T) {
	for _, c := range assaults() {
		t.Run(c.name, func(t *testing.T) {
			v := newVictim(t)
			attack := c.prepare(v)
			attack()
			for _, alias := range c.dead {
				if a := v.mac(alias); a.status == http.StatusOK || strings.Contains(a.body, "Mac") {
					t.Errorf("a MAC was made with %s: %d %s", alias, a.status, a.body)
				}
			}
			v.alarmed(alarmRow, c.object(v))
			if _, body := v.r.get("/metrics"); !strings.Contains(body, `code="`+alarmRow+`"`) {
				t.Error("no metric tells of the alarm")
			}
			if a := v.mac("alias/b"); !slices.Contains(c.dead, "alias/b") && a.status != http.StatusOK {
				t.Errorf("another key is of no use either: %d %s", a.status, a.body)
			}
			v.stop()
			v.refusedStart()
		})
	}
}

// TestDatabaseRolledBack is R-50 for the whole file: an older copy of it is not
// taken, whether a key was changed since or not; an administrator may adopt it,
// which the log tells.
func TestDatabaseRolledBack(t *testing.T) {
	for name, since := range map[string]func(*victim){
		"past the deletion of a key": func(v *victim) {
			v.admin("DeleteKey", `{"KeyIdentifier":"alias/a"}`, nil)
		},
		"past no change of keys": func(*victim) {},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVictim(t)
			v.stop()
			path := filepath.Join(v.dir, "keyd.db")
			old, err := os.ReadFile(path)
			v.did(err)
			v.r = startDev(t, v.dir, "--no-sim")
			since(v)
			v.stop()
			v.did(os.WriteFile(path, old, 0o600))
			v.refusedStart()
			v.adopt(false, exitFailed)
			v.refusedStart()
			v.adopt(true, exitDone)
			v.r = startDev(t, v.dir, "--no-sim")
			if a := v.mac("alias/a"); a.status != http.StatusOK {
				t.Errorf("after the adoption: %d %s", a.status, a.body)
			}
			v.stop()
		})
	}
}

// adopt runs `keyd register adopt`.
func (v *victim) adopt(yes bool, want int) {
	v.t.Helper()
	args := []string{"register", "adopt", "--config", filepath.Join(v.dir, "keyd.toml")}
	if yes {
		args = append(args, "--yes")
	}
	var out, errs strings.Builder
	if code := run(v.t.Context(), args, strings.NewReader(""), &out, &errs); code != want {
		v.t.Fatalf("adopt: %d, want %d: %s", code, want, &errs)
	}
	for _, says := range []string{"key ", "alias ", "terminal ", "root "} {
		if !strings.Contains(out.String(), says) {
			v.t.Errorf("adopt says %q, which lacks %q", &out, says)
		}
	}
	if !yes {
		var shown strings.Builder
		if code := run(v.t.Context(), []string{"register", "show", "--config", args[3]}, strings.NewReader(""), &shown, io.Discard); code != exitDone || shown.String() != out.String() {
			v.t.Errorf("show: %d, %q; adopt has printed %q", code, &shown, &out)
		}
		return
	}
	var listed strings.Builder
	run(v.t.Context(), []string{"audit", "ls", "--dir", filepath.Join(v.dir, "audit"), "--json"}, strings.NewReader(""), &listed, io.Discard)
	if !strings.Contains(listed.String(), `"object":"register"`) {
		v.t.Error("the adoption is not in the audit log")
	}
}

// TestUpgradeIsAdopted: a node of before registers starts again once its
// database was adopted, and not before.
func TestUpgradeIsAdopted(t *testing.T) {
	v := newVictim(t)
	v.stop()
	v.toFirstSchema()
	var errs strings.Builder
	if code := run(t.Context(), []string{"serve", "--config", filepath.Join(v.dir, "keyd.toml")}, strings.NewReader(""), io.Discard, &errs); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	if !strings.Contains(errs.String(), "the token knows no database of this node") || !strings.Contains(errs.String(), "keyd was upgraded") {
		t.Errorf("the start says %q", &errs)
	}
	v.adopt(true, exitDone)
	v.r = startDev(t, v.dir, "--no-sim")
	if a := v.mac("alias/b"); a.status != http.StatusOK {
		t.Errorf("after the upgrade: %d %s", a.status, a.body)
	}
	v.stop()
}

// toFirstSchema makes of the node one of the first release: its database has the
// first schema, and its token no anchor.
func (v *victim) toFirstSchema() {
	v.t.Helper()
	schema, err := os.ReadFile("../../internal/store/schema/0001.sql")
	v.did(err)
	path := filepath.Join(v.dir, "keyd.db")
	old := path + ".newer"
	v.did(os.Rename(path, old))
	v.did(os.WriteFile(path, nil, 0o600))
	db, err := v.database()
	v.did(err)
	db.SetMaxOpenConns(1) // ATTACH is of one connection
	defer db.Close()
	for _, statement := range []string{
		"PRAGMA journal_mode = WAL", string(schema), "ATTACH '" + old + "' AS newer",
		"INSERT INTO key SELECT id, block, state, enabled, usage_start, usage_stop, delete_pending, deleted, tags FROM newer.key",
		"INSERT INTO alias SELECT name, key FROM newer.alias",
		"INSERT INTO terminal SELECT tid, mid, scheme, bdk, device, mac_bytes, disabled FROM newer.terminal",
		"PRAGMA application_id = 0x6b657964", "PRAGMA user_version = 1",
	} {
		if _, err := db.Exec(statement); err != nil {
			v.t.Fatalf("%.40s: %v", statement, err)
		}
	}
	cfg, err := loadConfig(filepath.Join(v.dir, "keyd.toml"))
	v.did(err)
	token, err := openToken(v.t.Context(), cfg, newLogger(io.Discard, "error"), newMetrics())
	v.did(err)
	anchor, err := newAnchor(cfg, token)
	v.did(err)
	roots, err := anchor.Roots(v.t.Context())
	v.did(err)
	for _, root := range roots {
		v.did(anchor.Remove(v.t.Context(), root))
	}
	v.did(token.Close())
}
