package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	control "github.com/aws/aws-sdk-go-v2/service/paymentcryptography"
	"github.com/aws/aws-sdk-go-v2/service/paymentcryptography/types"
	"github.com/google/go-cmp/cmp"
)

// TestLifeSDK: aws-sdk-go-v2 takes a key through its life.
func TestLifeSDK(t *testing.T) {
	b := newBench(t)
	c := controlClient(t, b, "admin")
	arn := b.arn("alias/zpk-a")
	ctx := t.Context()

	stopped, err := c.StopKeyUsage(ctx, &control.StopKeyUsageInput{KeyIdentifier: aws.String("alias/zpk-a")})
	if err != nil {
		t.Fatal(err)
	}
	if k := stopped.Key; *k.Enabled || k.UsageStopTimestamp == nil || aws.ToString(k.KeyArn) != arn {
		t.Errorf("stopped: %+v", k)
	}
	started, err := c.StartKeyUsage(ctx, &control.StartKeyUsageInput{KeyIdentifier: &arn})
	if err != nil {
		t.Fatal(err)
	}
	if k := started.Key; !*k.Enabled || k.UsageStopTimestamp != nil || k.UsageStartTimestamp == nil {
		t.Errorf("started: %+v", k)
	}
	deleted, err := c.DeleteKey(ctx, &control.DeleteKeyInput{KeyIdentifier: &arn, DeleteKeyInDays: aws.Int32(3)})
	if err != nil {
		t.Fatal(err)
	}
	k := deleted.Key
	if left := time.Until(*k.DeletePendingTimestamp); *k.Enabled || k.KeyState != types.KeyStateDeletePending || left > 72*time.Hour || left < 71*time.Hour {
		t.Errorf("deleted: %+v", k)
	}
	var conflict *types.ConflictException
	if _, err := c.StartKeyUsage(ctx, &control.StartKeyUsageInput{KeyIdentifier: &arn}); !errors.As(err, &conflict) {
		t.Errorf("starting a pending key: %v", err)
	}
	pending, err := c.ListKeys(ctx, &control.ListKeysInput{KeyState: types.KeyStateDeletePending})
	if err != nil || len(pending.Keys) != 1 || aws.ToString(pending.Keys[0].KeyArn) != arn {
		t.Errorf("pending keys: %+v, %v", pending, err)
	}
	restored, err := c.RestoreKey(ctx, &control.RestoreKeyInput{KeyIdentifier: &arn})
	if err != nil {
		t.Fatal(err)
	}
	if k := restored.Key; *k.Enabled || k.KeyState != types.KeyStateCreateComplete || k.DeletePendingTimestamp != nil {
		t.Errorf("restored: %+v", k)
	}
	if _, err := c.RestoreKey(ctx, &control.RestoreKeyInput{KeyIdentifier: &arn}); !errors.As(err, &conflict) {
		t.Errorf("restored twice: %v", err)
	}
	var invalid *types.ValidationException
	for _, days := range []int32{0, 2, 181} {
		if _, err := c.DeleteKey(ctx, &control.DeleteKeyInput{KeyIdentifier: &arn, DeleteKeyInDays: &days}); !errors.As(err, &invalid) {
			t.Errorf("%d days: %v", days, err)
		}
	}
	got, err := c.GetKey(ctx, &control.GetKeyInput{KeyIdentifier: &arn})
	if err != nil || *got.Key.Enabled || got.Key.KeyState != types.KeyStateCreateComplete {
		t.Errorf("at the end: %+v, %v", got, err)
	}
}

// TestAliasSDK: names move between keys, and go.
func TestAliasSDK(t *testing.T) {
	b := newBench(t)
	c := controlClient(t, b, "admin")
	ctx := t.Context()
	name, other := aws.String("alias/zpk-a"), b.arn("alias/zpk-b")
	moved, err := c.UpdateAlias(ctx, &control.UpdateAliasInput{AliasName: name, KeyArn: &other})
	if err != nil || aws.ToString(moved.Alias.KeyArn) != other {
		t.Fatalf("got %+v, %v", moved, err)
	}
	got, err := c.GetKey(ctx, &control.GetKeyInput{KeyIdentifier: name})
	if err != nil || aws.ToString(got.Key.KeyArn) != other {
		t.Errorf("the key of the alias: %+v, %v", got, err)
	}
	list, err := c.ListAliases(ctx, &control.ListAliasesInput{KeyArn: &other})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, a := range list.Aliases {
		names = append(names, *a.AliasName)
	}
	if diff := cmp.Diff([]string{"alias/zpk-a", "alias/zpk-b"}, names); diff != "" {
		t.Error(diff)
	}
	if _, err := c.UpdateAlias(ctx, &control.UpdateAliasInput{AliasName: name}); err != nil {
		t.Fatal(err)
	}
	var missing *types.ResourceNotFoundException
	if _, err := c.GetKey(ctx, &control.GetKeyInput{KeyIdentifier: name}); !errors.As(err, &missing) {
		t.Errorf("an alias without a key: %v", err)
	}
	if _, err := c.DeleteAlias(ctx, &control.DeleteAliasInput{AliasName: name}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DeleteAlias(ctx, &control.DeleteAliasInput{AliasName: name}); !errors.As(err, &missing) || aws.ToString(missing.ResourceId) != *name {
		t.Errorf("deleted twice: %v", err)
	}
	pages, count := control.NewListAliasesPaginator(c, &control.ListAliasesInput{MaxResults: aws.Int32(4)}), 0
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		count += len(page.Aliases)
	}
	if want := len(exampleKeys()) - 1; count != want {
		t.Errorf("%d aliases, want %d", count, want)
	}
}

// TestTagSDK: tags of both kinds come and go, and what they say is honoured.
func TestTagSDK(t *testing.T) {
	b := newBench(t)
	c := controlClient(t, b, "admin")
	ctx := t.Context()
	arn := b.arn("alias/tak-cmac")
	tag := func(name, value string) types.Tag { return types.Tag{Key: &name, Value: &value} }
	_, err := c.TagResource(ctx, &control.TagResourceInput{ResourceArn: &arn, Tags: []types.Tag{tag("keyd:mac-min-bytes", "16"), tag("estate", "north")}})
	if err != nil {
		t.Fatal(err)
	}
	tags := func() map[string]string {
		t.Helper()
		all := make(map[string]string)
		pages := control.NewListTagsForResourcePaginator(c, &control.ListTagsForResourceInput{ResourceArn: &arn, MaxResults: aws.Int32(1)})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, tag := range page.Tags {
				all[*tag.Key] = *tag.Value
			}
		}
		return all
	}
	if diff := cmp.Diff(map[string]string{"keyd:mac-min-bytes": "16", "estate": "north"}, tags()); diff != "" {
		t.Error(diff)
	}
	short := `{"KeyIdentifier":"alias/tak-cmac","Mac":"00112233","MessageData":"00","VerificationAttributes":{"Algorithm":"CMAC"}}`
	b.failure(t, b.call(t, b.client(t, "switch-a"), "VerifyMac", short), "VerifyMac", "ValidationException", http.StatusBadRequest)
	if _, err := c.UntagResource(ctx, &control.UntagResourceInput{ResourceArn: &arn, TagKeys: []string{"keyd:mac-min-bytes", "none"}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"estate": "north"}, tags()); diff != "" {
		t.Error(diff)
	}
	b.failure(t, b.call(t, b.client(t, "switch-a"), "VerifyMac", short), "VerifyMac", "VerificationFailedException", http.StatusBadRequest)
}

// TestLifeRefusals: one of each class of error, by operation.
func TestLifeRefusals(t *testing.T) {
	b := newBench(t)
	admin := b.client(t, "admin")
	arn := b.arn("alias/zpk-a")
	const elsewhere = "arn:aws:payment-cryptography:us-east-1:111122223333:key/6g1dpp3ele1d02exhhsxvp74f7g7onlp"
	key := func(id string) string { return fmt.Sprintf(`{"KeyIdentifier":%q}`, id) }
	for _, tt := range []struct {
		name, who, operation, body, want string
	}{
		{"no such key", "admin", "StopKeyUsage", key("alias/none"), "ResourceNotFoundException"},
		{"a key elsewhere", "admin", "DeleteKey", key(elsewhere), "ResourceNotFoundException"},
		{"an application", "switch-a", "StopKeyUsage", key(arn), "AccessDeniedException"},
		{"an operator", "operator", "DeleteKey", key(arn), "AccessDeniedException"},
		{"a custodian", "custodian", "RestoreKey", key(arn), "AccessDeniedException"},
		{"an auditor", "auditor", "TagResource", fmt.Sprintf(`{"ResourceArn":%q,"Tags":[]}`, arn), "AccessDeniedException"},
		{"not pending", "admin", "RestoreKey", key(arn), "ConflictException"},
		{"no key named", "admin", "StartKeyUsage", `{}`, "ValidationException"},
		{"a bare id", "admin", "StartKeyUsage", key(b.ids["alias/zpk-a"]), "ValidationException"},
		{"days that are text", "admin", "DeleteKey", fmt.Sprintf(`{"KeyIdentifier":%q,"DeleteKeyInDays":"7"}`, arn), "ValidationException"},
		{"an alias of no form", "admin", "UpdateAlias", `{"AliasName":"zpk"}`, "ValidationException"},
		{"an alias that is not there", "admin", "UpdateAlias", fmt.Sprintf(`{"AliasName":"alias/none","KeyArn":%q}`, arn), "ResourceNotFoundException"},
		{"to a key that is not there", "admin", "UpdateAlias", fmt.Sprintf(`{"AliasName":"alias/zpk-a","KeyArn":%q}`, elsewhere), "ResourceNotFoundException"},
		{"an alias as a resource", "admin", "TagResource", `{"ResourceArn":"alias/zpk-a","Tags":[]}`, "ValidationException"},
		{"no tags", "admin", "TagResource", fmt.Sprintf(`{"ResourceArn":%q}`, arn), "ValidationException"},
		{"an unknown policy tag", "admin", "TagResource", fmt.Sprintf(`{"ResourceArn":%q,"Tags":[{"Key":"keyd:unknown","Value":"x"}]}`, arn), "ValidationException"},
		{"a reserved tag", "admin", "TagResource", fmt.Sprintf(`{"ResourceArn":%q,"Tags":[{"Key":"aws:x","Value":"x"}]}`, arn), "ValidationException"},
		{"names that are no list", "admin", "UntagResource", fmt.Sprintf(`{"ResourceArn":%q,"TagKeys":"a"}`, arn), "ValidationException"},
		{"a foreign token", "admin", "ListAliases", `{"NextToken":"bm90IG91cnM"}`, "ValidationException"},
		{"tags of no key", "admin", "ListTagsForResource", fmt.Sprintf(`{"ResourceArn":%q}`, elsewhere), "ResourceNotFoundException"},
		{"aliases for a custodian", "custodian", "ListAliases", `{}`, "AccessDeniedException"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b.failure(t, b.call(t, b.client(t, tt.who), tt.operation, tt.body), tt.operation, tt.want, http.StatusBadRequest)
		})
	}
	t.Run("through a stopped key", func(t *testing.T) {
		b.success(t, b.call(t, admin, "StopKeyUsage", key("alias/tak-cmac")), "StopKeyUsage")
		body := `{"KeyIdentifier":"alias/tak-cmac","MessageData":"00","GenerationAttributes":{"Algorithm":"CMAC"}}`
		b.failure(t, b.call(t, b.client(t, "switch-a"), "GenerateMac", body), "GenerateMac", "ValidationException", http.StatusBadRequest)
	})
}

// TestLifeIdempotency: a repeat of a request gets the stored answer and changes
// nothing (section 7).
func TestLifeIdempotency(t *testing.T) {
	b := newBench(t)
	admin := b.client(t, "admin")
	arn := b.arn("alias/zpk-a")
	for _, tt := range []struct{ operation, body string }{
		{"StopKeyUsage", fmt.Sprintf(`{"KeyIdentifier":%q}`, arn)},
		{"StartKeyUsage", fmt.Sprintf(`{"KeyIdentifier":%q}`, arn)},
		{"DeleteKey", fmt.Sprintf(`{"KeyIdentifier":%q}`, arn)},
		{"RestoreKey", fmt.Sprintf(`{"KeyIdentifier":%q}`, arn)},
		{"TagResource", fmt.Sprintf(`{"ResourceArn":%q,"Tags":[{"Key":"a","Value":"b"}]}`, arn)},
		{"UntagResource", fmt.Sprintf(`{"ResourceArn":%q,"TagKeys":["a"]}`, arn)},
		{"UpdateAlias", fmt.Sprintf(`{"AliasName":"alias/zpk-b","KeyArn":%q}`, arn)},
		{"DeleteAlias", `{"AliasName":"alias/zpk-b"}`},
	} {
		t.Run(tt.operation, func(t *testing.T) {
			first := b.call(t, admin, tt.operation, tt.body, invocationHeader, "life-"+tt.operation)
			b.success(t, first, tt.operation)
			again := b.call(t, admin, tt.operation, tt.body, invocationHeader, "life-"+tt.operation)
			b.success(t, again, tt.operation)
			if string(first.body) != string(again.body) {
				t.Errorf("another answer:\n%s\n%s", first.body, again.body)
			}
		})
	}
}

// own calls an operation that keyd alone has.
func (b *bench) own(t *testing.T, client *http.Client, operation, body string, headers ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	r.Header.Set("X-Amz-Target", "KeydControlPlane."+operation)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return b.do(t, client, r)
}

// TestRotateOperation is keyd's own RotateKey and GetKey.
func TestRotateOperation(t *testing.T) {
	b := newBench(t)
	admin := b.client(t, "admin")
	arn := b.arn("alias/tak-cmac")
	body := `{"KeyIdentifier":"alias/tak-cmac","OverlapSeconds":3600}`
	first := b.own(t, admin, "RotateKey", body, invocationHeader, "rotate-1")
	if first.status != http.StatusOK {
		t.Fatalf("%d %s", first.status, first.body)
	}
	if again := b.own(t, admin, "RotateKey", body, invocationHeader, "rotate-1"); string(again.body) != string(first.body) {
		t.Errorf("a repeat: %s", again.body)
	}
	var rotated struct {
		Key            struct{ KeyArn string }
		KeyVersion     int
		PreviousKeyArn string
	}
	if err := json.Unmarshal(first.body, &rotated); err != nil {
		t.Fatal(err)
	}
	if rotated.KeyVersion != 2 || rotated.PreviousKeyArn != arn || rotated.Key.KeyArn == arn {
		t.Errorf("got %+v", rotated)
	}
	var detail struct {
		KeyVersion    int
		Aliases       []string
		MaxUses, Uses int
		OlderVersions []struct {
			KeyArn           string
			KeyVersion       int
			KeyState         string
			Enabled          bool
			RetiresTimestamp float64
		}
	}
	a := b.own(t, b.client(t, "operator"), "GetKey", `{"KeyIdentifier":"alias/tak-cmac"}`)
	if err := json.Unmarshal(a.body, &detail); err != nil || a.status != http.StatusOK {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	if detail.KeyVersion != 2 || len(detail.Aliases) != 1 || len(detail.OlderVersions) != 1 {
		t.Fatalf("got %+v", detail)
	}
	old := detail.OlderVersions[0]
	retires := time.Until(time.UnixMilli(int64(old.RetiresTimestamp * 1000)))
	if old.KeyArn != arn || old.KeyVersion != 1 || !old.Enabled || retires > time.Hour || retires < 50*time.Minute {
		t.Errorf("got %+v", old)
	}
	for _, tt := range []struct{ name, who, body, want string }{
		{"again under its old name", "admin", fmt.Sprintf(`{"KeyIdentifier":%q}`, arn), "ConflictException"},
		{"a base derivation key", "admin", `{"KeyIdentifier":"alias/bdk-aes"}`, "ConflictException"},
		{"an overlap of too long", "admin", `{"KeyIdentifier":"alias/zpk-a","OverlapSeconds":7776001}`, "ValidationException"},
		{"no such successor", "admin", `{"KeyIdentifier":"alias/zpk-a","SuccessorKeyIdentifier":"alias/none"}`, "ResourceNotFoundException"},
		{"a successor in use", "admin", `{"KeyIdentifier":"alias/zpk-a","SuccessorKeyIdentifier":"alias/tpk-17"}`, "ConflictException"},
		{"an application", "switch-a", `{"KeyIdentifier":"alias/zpk-a"}`, "AccessDeniedException"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := b.own(t, b.client(t, tt.who), "RotateKey", tt.body)
			if a.status != http.StatusBadRequest || a.header.Get("x-amzn-ErrorType") != tt.want {
				t.Errorf("got %d %s: %s; want %s", a.status, a.header.Get("x-amzn-ErrorType"), a.body, tt.want)
			}
		})
	}
}

// TestExamplesLife runs the examples of sections 11.4 to 11.6 that change a key.
func TestExamplesLife(t *testing.T) {
	b := newBench(t)
	admin := b.client(t, "admin")
	all := loadWireExamples(t)
	times := []string{"CreateTimestamp", "UsageStartTimestamp", "UsageStopTimestamp", "DeletePendingTimestamp"}
	for _, id := range []string{"list-aliases", "stop", "delete", "restore", "start", "tag", "list-tags", "untag", "update-alias", "delete-alias"} {
		t.Run(id, func(t *testing.T) {
			e := all[id]
			got := b.success(t, b.call(t, admin, e.Operation, b.local(string(e.Request))), e.Operation)
			executed(id)
			var want map[string]any
			if err := json.Unmarshal([]byte(b.local(string(e.Response))), &want); err != nil {
				t.Fatal(err)
			}
			if key, ok := want["Key"].(map[string]any); ok {
				for _, at := range times {
					if own, ok := got["Key"].(map[string]any)[at]; ok && key[at] != nil {
						key[at] = own
					}
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}
