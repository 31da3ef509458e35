//lint:file-ignore SA1019 there is no other official Go client of the data plane on the module proxy

package main

import (
	"context"
	"encoding/json"
	"errors"
	"path"
	"slices"
	"testing"

	awsv2 "github.com/aws/aws-sdk-go-v2/aws"
	control "github.com/aws/aws-sdk-go-v2/service/paymentcryptography"
	"github.com/aws/aws-sdk-go-v2/service/paymentcryptography/types"
	"github.com/aws/aws-sdk-go/aws"
	data "github.com/aws/aws-sdk-go/service/paymentcryptographydata"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"keyd.dev/keyd/audit"
)

// toldOf is what a test reads of a record of the audit log.
type toldOf struct {
	Action, Phase, Outcome string
	Replay                 bool
	Actor                  struct{ ID string }
	Keys                   []struct{ ID string }
}

// told are the records about a key, oldest first, of the phase "outcome" where
// an action has two.
func (r *running) told(key string) []toldOf {
	r.t.Helper()
	reader, err := audit.OpenReader(r.dev.AuditDir)
	if err != nil {
		r.t.Fatal(err)
	}
	logs, err := reader.Logs()
	if err != nil {
		r.t.Fatal(err)
	}
	var all []toldOf
	for _, log := range logs {
		for entry, err := range reader.Records(log, 0) {
			if err != nil {
				r.t.Fatal(err)
			}
			var one toldOf
			if err := json.Unmarshal(entry.Raw, &one); err != nil {
				r.t.Fatal(err)
			}
			if one.Phase != "intent" && slices.ContainsFunc(one.Keys, func(k struct{ ID string }) bool { return k.ID == key }) {
				all = append(all, one)
			}
		}
	}
	return all
}

func cmacKey() *control.CreateKeyInput {
	return &control.CreateKeyInput{
		Exportable: awsv2.Bool(false), KeyAttributes: attributes(types.KeyUsageTr31M6Iso97975CmacKey, types.KeyAlgorithmAes128, macMode()),
	}
}

// TestSDKRetries is section 7: one call, several deliveries, one effect.
func TestSDKRetries(t *testing.T) {
	r := startDev(t, t.TempDir(), "--no-sim")
	defer r.stop()
	t.Run("CreateKey, two answers lost", func(t *testing.T) { createLosesAnswers(t, r) })
	t.Run("one id for many deliveries and one body", func(t *testing.T) { oneInvocation(t, r) })
	t.Run("GenerateMac without an id", func(t *testing.T) { macLosesAnswer(t, r) })
}

// createLosesAnswers: the SDK asks again by itself and gets the key that it has
// made. The log says once that it was made, and twice that it was told again.
func createLosesAnswers(t *testing.T, r *running) {
	wire := r.wire("admin")
	wire.lose = 2
	admin := r.controlSDK(r.wire("admin"), 1)
	count := func() int {
		t.Helper()
		list, err := admin.ListKeys(t.Context(), &control.ListKeysInput{MaxResults: awsv2.Int32(100)})
		if err != nil {
			t.Fatal(err)
		}
		return len(list.Keys)
	}
	before := count()
	out, err := r.controlSDK(wire, 4).CreateKey(t.Context(), cmacKey())
	if err != nil {
		t.Fatal(err)
	}
	if ids := slices.Compact(slices.Clone(wire.ids)); len(wire.ids) != 3 || len(ids) != 1 || ids[0] == "" {
		t.Fatalf("deliveries with the ids %q, want three with one", wire.ids)
	}
	if made := count() - before; made != 1 {
		t.Errorf("%d keys were made, want 1", made)
	}
	id := path.Base(*out.Key.KeyArn)
	poll(t, "three records about the key", func() bool { return len(r.told(id)) == 3 })
	for i, one := range r.told(id) {
		if want := map[bool]string{true: "key.create", false: "key.attr"}[i == 0]; one.Action != want || one.Replay != (i > 0) || one.Outcome != "ok" || one.Actor.ID != "admin" {
			t.Errorf("record %d: %+v", i, one)
		}
	}
}

// underID lets all calls of a client be deliveries of one call.
func underID(id string) func(*control.Options) {
	set := middleware.FinalizeMiddlewareFunc("OneInvocation", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
		if request, ok := in.Request.(*smithyhttp.Request); ok {
			request.Header.Set("amz-sdk-invocation-id", id)
		}
		return next.HandleFinalize(ctx, in)
	})
	return func(o *control.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error { return stack.Finalize.Add(set, middleware.After) })
	}
}

func oneInvocation(t *testing.T, r *running) {
	admin := r.controlSDK(r.wire("admin"), 1)
	first, err := admin.CreateKey(t.Context(), cmacKey(), underID("call-1"))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		again, err := admin.CreateKey(t.Context(), cmacKey(), underID("call-1"))
		if err != nil || *again.Key.KeyArn != *first.Key.KeyArn {
			t.Errorf("another delivery: %v", err)
		}
	}
	other := cmacKey()
	other.Enabled = awsv2.Bool(false)
	var invalid *types.ValidationException
	if _, err := admin.CreateKey(t.Context(), other, underID("call-1")); !errors.As(err, &invalid) {
		t.Errorf("another body: %v", err)
	}
	if _, err := admin.DeleteKey(t.Context(), &control.DeleteKeyInput{KeyIdentifier: first.Key.KeyArn}, underID("call-1")); !errors.As(err, &invalid) {
		t.Errorf("another operation: %v", err)
	}
	second := r.controlSDK(r.wire("admin-2"), 1)
	if out, err := second.CreateKey(t.Context(), cmacKey(), underID("call-1")); err != nil || *out.Key.KeyArn == *first.Key.KeyArn {
		t.Errorf("the same id of another principal: %v", err)
	}
	alias := &control.CreateAliasInput{AliasName: awsv2.String("alias/sdk/once"), KeyArn: first.Key.KeyArn}
	for range 2 {
		if _, err := admin.CreateAlias(t.Context(), alias, underID("call-2")); err != nil {
			t.Errorf("CreateAlias: %v", err)
		}
	}
}

func macLosesAnswer(t *testing.T, r *running) {
	wire := r.wire("switch")
	wire.lose = 1
	out, err := r.dataSDK(wire, 2).GenerateMac(&data.GenerateMacInput{
		KeyIdentifier: aws.String("alias/dev/bdk-tdes"), MessageData: aws.String("343031323334353637383930394439383700000000000000"), MacLength: aws.Int64(8),
		GenerationAttributes: &data.MacAttributes{DukptIso9797Algorithm3: &data.MacAlgorithmDukpt{
			KeySerialNumber: aws.String("FFFF9876543210E00001"), DukptKeyVariant: aws.String("REQUEST"),
		}},
	})
	if err != nil || *out.Mac != "9CCC78173FC4FB64" {
		t.Errorf("after a lost answer: %v", err)
	}
	if !slices.Equal(wire.ids, []string{"", ""}) {
		t.Errorf("deliveries with the ids %q: this SDK has none", wire.ids)
	}
}
