package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// record is what a test reads of an audit record.
type record struct {
	Action, Outcome, Reason, Corr string
	Replay                        bool
	Actor                         struct{ ID string }
	Src                           struct{ Addr, Conn string }
	Keys                          []struct{ ID string }
	Scrub                         []struct{ Field string }
}

// recordsOf returns the records of a request, oldest first, of which there
// should be want. They are durable; a log that is new this month is listed for
// readers by its first checkpoint, for which it waits.
func (b *bench) recordsOf(tb testing.TB, a answer, want int) []record {
	tb.Helper()
	for start := time.Now(); ; {
		found := b.readRecords(tb, a)
		if len(found) >= want || time.Since(start) > 10*time.Second {
			if len(found) != want {
				tb.Errorf("%d records, want %d", len(found), want)
			}
			return found
		}
	}
}

func (b *bench) readRecords(tb testing.TB, a answer) []record {
	tb.Helper()
	reader, err := audit.OpenReader(b.logDir)
	if err != nil {
		tb.Fatal(err)
	}
	logs, err := reader.Logs()
	if err != nil {
		tb.Fatal(err)
	}
	var found []record
	for _, log := range logs {
		for entry, err := range reader.Records(log, 0) {
			if err != nil {
				tb.Fatal(err)
			}
			var r record
			if err := json.Unmarshal(entry.Raw, &r); err != nil {
				tb.Fatal(err)
			}
			if r.Corr == a.header.Get("x-amzn-RequestId") {
				found = append(found, r)
			}
		}
	}
	return found
}

// TestRecords: when an answer is there its record is durable, under the request
// id of the answer; refusals of steps 4 to 8 have one too, and steps before
// have none (section 5).
func TestRecords(t *testing.T) {
	b := newBench(t)
	all := loadWireExamples(t)
	for _, c := range []struct {
		name, client, operation, body string
		action, outcome, reason       string
	}{
		{"TranslatePinData", "switch-a", "TranslatePinData", string(all["tp-dukpt-tdes"].Request), "pin.translate", "ok", ""},
		{"GenerateMac", "switch-a", "GenerateMac", string(all["gm-alg3"].Request), "mac.generate", "ok", ""},
		{"VerifyMac", "switch-a", "VerifyMac", string(all["vm-alg3"].Request), "mac.verify", "ok", ""},
		{"VerifyMac of a wrong MAC", "switch-a", "VerifyMac", edit(t, all["vm-alg3"], "17A3", "17A4"), "mac.verify", "refused", "mac_invalid"},
		{"PIN block not accepted", "switch-a", "TranslatePinData", edit(t, all["tp-dukpt-tdes"], "1B9C", "1B9D"), "pin.translate", "refused", "pin_block"},
		{"PAN changed", "switch-a", "TranslatePinData", edit(t, all["tp-dukpt-tdes"], "4012345678909", "4012345678917"), "pin.translate", "refused", "format_error"},
		{"key unknown", "switch-a", "VerifyMac", edit(t, all["vm-alg3"], "alias/tak-42", "alias/none"), "mac.verify", "refused", "key_unknown"},
		{"hash that is not the key's", "switch-a", "GenerateMac", edit(t, all["gm-hmac"], "HMAC_SHA256", "HMAC_SHA384"), "mac.generate", "refused", "key_usage"},
		{"data plane denied", "auditor", "VerifyMac", string(all["vm-alg3"].Request), "auth.deny", "refused", "role_denied"},
		{"control plane denied", "auditor", "CreateKey", string(all["create-key"].Request), "auth.deny", "refused", "role_denied"},
		{"certificate of nobody", "stranger", "VerifyMac", string(all["vm-alg3"].Request), "auth.refuse", "refused", "cert_unknown"},
		{"shape", "switch-a", "VerifyMac", `{}`, "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := b.call(t, b.client(t, c.client), c.operation, c.body)
			if c.action == "" {
				b.recordsOf(t, a, 0)
				return
			}
			found := b.recordsOf(t, a, 1)
			if len(found) == 0 {
				return
			}
			r := found[0]
			if r.Action != c.action || r.Outcome != c.outcome || r.Reason != c.reason {
				t.Errorf("got %s %s %s, want %s %s %s", r.Action, r.Outcome, r.Reason, c.action, c.outcome, c.reason)
			}
			actor := c.client
			if actor == "stranger" {
				actor = "unknown"
			}
			if r.Actor.ID != actor || !strings.HasPrefix(r.Src.Addr, "127.0.0.1:") || !strings.HasPrefix(r.Src.Conn, "api-") {
				t.Errorf("actor %s from %s on %s", r.Actor.ID, r.Src.Addr, r.Src.Conn)
			}
		})
	}
	t.Run("a change has its intent and its outcome, a repeat is marked", func(t *testing.T) {
		admin := b.client(t, "admin")
		create := string(all["create-key"].Request)
		first := b.call(t, admin, "CreateKey", create, invocationHeader, "recorded")
		if found := b.recordsOf(t, first, 2); len(found) != 2 || found[0].Action != "key.create" || found[1].Outcome != "ok" {
			t.Errorf("records %+v", found)
		}
		again := b.call(t, admin, "CreateKey", create, invocationHeader, "recorded")
		if found := b.recordsOf(t, again, 2); len(found) != 2 || !found[0].Replay || !found[1].Replay {
			t.Errorf("records %+v", found)
		} else if r := found[0]; len(r.Scrub) > 0 || len(r.Keys) != 1 || !strings.Contains(string(first.body), r.Keys[0].ID) {
			t.Errorf("the repeat's record names %+v and lost %+v; want the key of the answer", r.Keys, r.Scrub)
		}
		named := b.call(t, admin, "CreateAlias", `{"AliasName":"alias/none-yet"}`, invocationHeader, "recorded-2")
		b.recordsOf(t, named, 2)
		named = b.call(t, admin, "CreateAlias", `{"AliasName":"alias/none-yet"}`, invocationHeader, "recorded-2")
		if found := b.recordsOf(t, named, 2); len(found) != 2 || len(found[0].Scrub) > 0 || found[0].Keys[0].ID != "CreateAlias" {
			t.Errorf("a repeat about no key: %+v", found)
		}
	})
	t.Run("a stranger has one record a connection", func(t *testing.T) {
		stranger := b.client(t, "stranger")
		b.recordsOf(t, b.call(t, stranger, "ListKeys", `{}`), 1)
		b.recordsOf(t, b.call(t, stranger, "ListKeys", `{}`), 0)
	})
	t.Run("R-07 nothing secret is in the records", func(t *testing.T) {
		for _, value := range []string{"4012345678909", "1B9C1845EB993A7A", "DCBAC0ABA559F78B", "17A3F159FD8186A4", "3032303033323230"} {
			if where := b.found(t, value); where != "" {
				t.Errorf("a value of a request stands in %s", where)
			}
		}
	})
}

// found says in which file of the log a text stands.
func (b *bench) found(tb testing.TB, text string) string {
	tb.Helper()
	where := ""
	err := filepath.WalkDir(b.logDir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a temporary file, renamed since the directory was read
		}
		if strings.Contains(string(raw), text) {
			where = filepath.Base(path)
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return where
}

// failing is a log that refuses when it is told to.
type failing struct {
	custody.Log
	with atomic.Pointer[error]
}

func (f *failing) Reserve(ctx context.Context, id audit.LogID, n int) (*audit.Ticket, error) {
	if err := f.with.Load(); err != nil {
		return nil, *err
	}
	return f.Log.Reserve(ctx, id, n)
}

// absent is a token that is gone when it is told to be.
type absent struct {
	custody.Token
	gone atomic.Bool
}

func (a *absent) Load(ctx context.Context, b *keys.Block) (*keys.Loaded, error) {
	if a.gone.Load() {
		return nil, keys.ErrUnavailable
	}
	return a.Token.Load(ctx, b)
}

// TestFailClosed: without the log nothing is answered, without the token
// nothing is done, and clients learn no more than that (section 6).
func TestFailClosed(t *testing.T) {
	log, token := new(failing), new(absent)
	b := newBench(t, func(c *custody.Config) {
		log.Log, token.Token = c.Log, c.Token
		c.Log, c.Token = log, token
	})
	all := loadWireExamples(t)
	client, admin := b.client(t, "switch-a"), b.client(t, "admin")
	mac, create := string(all["vm-alg3"].Request), string(all["create-key"].Request)
	for _, c := range []struct {
		name, error string
		status      int
		err         error
	}{
		{"log unavailable", "InternalServerException", 500, audit.ErrUnavailable},
		{"disk critical", "InternalServerException", 500, audit.ErrDiskCritical},
		{"tail unsigned", "InternalServerException", 500, audit.ErrUnsigned},
		{"log closed", "InternalServerException", 500, audit.ErrClosed},
		{"another error of the log", "InternalServerException", 500, errors.New("something of the log")},
		{"queue full", "ServiceUnavailableException", 503, audit.ErrQueueFull},
	} {
		t.Run(c.name, func(t *testing.T) {
			log.with.Store(&c.err)
			defer log.with.Store(nil)
			b.failure(t, b.call(t, client, "VerifyMac", mac), "VerifyMac", c.error, c.status)
			if c.err == audit.ErrUnavailable || c.err == audit.ErrQueueFull {
				b.failure(t, b.call(t, admin, "CreateKey", create), "CreateKey", c.error, c.status)
			}
		})
	}
	t.Run("token away", func(t *testing.T) {
		token.gone.Store(true)
		defer token.gone.Store(false)
		answer := b.failure(t, b.call(t, client, "VerifyMac", mac), "VerifyMac", "ServiceUnavailableException", 503)
		if answer["Message"] != "no token is available" {
			t.Errorf("message %v", answer["Message"])
		}
		if !strings.Contains(b.errors.String(), "request not served") {
			t.Error("the daemon's log does not know")
		}
	})
	t.Run("all well again", func(t *testing.T) {
		b.success(t, b.call(t, client, "VerifyMac", mac), "VerifyMac")
	})
}

// TestThrottling: after too many refused PIN blocks the client waits (section
// 17, row 3); genuine blocks of others are not held up.
func TestThrottling(t *testing.T) {
	b := newBench(t, func(c *custody.Config) { c.Malformed = custody.Malformed{PerMinute: 3, PerHour: 100} })
	client := b.client(t, "switch-a")
	e := loadWireExamples(t)["tp-dukpt-tdes"]
	wrong := edit(t, e, "1B9C", "1B9D")
	for range 3 {
		answer := b.failure(t, b.call(t, client, "TranslatePinData", wrong), "TranslatePinData", "ValidationException", 400)
		if answer["Message"] != "the PIN block was not accepted" {
			t.Fatalf("message %v", answer["Message"])
		}
	}
	b.failure(t, b.call(t, client, "TranslatePinData", wrong), "TranslatePinData", "ThrottlingException", 429)
	b.failure(t, b.call(t, client, "TranslatePinData", string(e.Request)), "TranslatePinData", "ThrottlingException", 429)
	b.success(t, b.call(t, b.clientWith(t, b.certificate(t, byDNS)), "TranslatePinData", string(e.Request)), "TranslatePinData")
}
