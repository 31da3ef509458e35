package api_test

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"keyd.dev/keyd/internal/custody"
)

const aKey = `{"Exportable":false,"KeyAttributes":{"KeyAlgorithm":"AES_128","KeyClass":"SYMMETRIC_KEY",` +
	`"KeyModesOfUse":{"Generate":true,"Verify":true},"KeyUsage":"TR31_M6_ISO_9797_5_CMAC_KEY"}}`

// overQuota checks the refusal (section 6).
func (a answer) overQuota(t *testing.T, what string) {
	t.Helper()
	object := a.json(t)
	if a.status != http.StatusBadRequest || a.header.Get("x-amzn-ErrorType") != "ServiceQuotaExceededException" ||
		object["__type"] != "ServiceQuotaExceededException" || object["Message"] != "the configured number of "+what+" is in use" {
		t.Errorf("answered %d %s: %s", a.status, a.header.Get("x-amzn-ErrorType"), a.body)
	}
}

// TestQuotas: the configured number of keys and of aliases, and not one more.
func TestQuotas(t *testing.T) {
	n := len(exampleKeys())
	b := newBench(t, func(c *custody.Config) { c.Quotas = custody.Quotas{Keys: n + 1, Aliases: n + 1} })
	admin := b.client(t, "admin")
	var through, refused atomic.Int64
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			a := b.call(t, admin, "CreateKey", aKey)
			if a.status == http.StatusOK {
				through.Add(1)
				return
			}
			a.overQuota(t, "keys")
			refused.Add(1)
		})
	}
	work.Wait()
	if through.Load() != 1 || refused.Load() != 7 {
		t.Errorf("of 8 at once %d were made and %d refused, want 1 and 7", through.Load(), refused.Load())
	}
	alias := func(name string) answer {
		return b.call(t, admin, "CreateAlias", `{"AliasName":"alias/`+name+`"}`)
	}
	b.success(t, alias("one-more"), "CreateAlias")
	alias("too-many").overQuota(t, "aliases")
	b.success(t, alias("one-more"), "CreateAlias") // it is there: nothing is added

	if err := b.custody.SetQuotas(custody.Quotas{Keys: n + 2}); err != nil {
		t.Fatal(err)
	}
	b.success(t, b.call(t, admin, "CreateKey", aKey), "CreateKey")
	b.call(t, admin, "CreateKey", aKey).overQuota(t, "keys")
	b.success(t, alias("too-many"), "CreateAlias")
	if err := b.custody.SetQuotas(custody.Quotas{Keys: -1}); err == nil {
		t.Error("a negative quota was taken")
	}
}

// TestClientsAreExchanged: a new table of clients holds for connections that are
// open.
func TestClientsAreExchanged(t *testing.T) {
	b := newBench(t)
	client := b.client(t, "switch-a")
	b.success(t, b.call(t, client, "GenerateMac", aMAC), "GenerateMac")
	renew := func(list []custody.Client) error {
		_, err := b.custody.Renew(t.Context(), custody.Settings{Clients: list})
		return err
	}
	table := testClients()
	table[0].Keys = []string{"alias/zpk-*"}
	if err := renew(table); err != nil {
		t.Fatal(err)
	}
	if a := b.call(t, client, "GenerateMac", aMAC); a.status != http.StatusForbidden {
		t.Errorf("after its keys were taken: %d %s", a.status, a.body)
	}
	if err := renew(table[1:]); err != nil {
		t.Fatal(err)
	}
	if a := b.call(t, client, "ListKeys", "{}"); a.header.Get("x-amzn-ErrorType") != "AccessDeniedException" {
		t.Errorf("after it was taken out: %d %s", a.status, a.body)
	}
	bad := testClients()
	bad[1].URI = bad[0].URI
	if err := renew(bad); err == nil || !strings.Contains(err.Error(), "two clients") {
		t.Errorf("a table with two of one identity: %v", err)
	}
	if a := b.call(t, b.client(t, "switch-b"), "ListKeys", "{}"); a.status != http.StatusOK {
		t.Errorf("after a bad table: %d %s", a.status, a.body)
	}
}
