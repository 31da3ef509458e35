//lint:file-ignore SA1019 there is no other official Go client of the data plane on the module proxy

package main

import (
	"bytes"
	"errors"
	"path"
	"regexp"
	"strings"
	"testing"

	awsv2 "github.com/aws/aws-sdk-go-v2/aws"
	control "github.com/aws/aws-sdk-go-v2/service/paymentcryptography"
	"github.com/aws/aws-sdk-go/aws"
	data "github.com/aws/aws-sdk-go/service/paymentcryptographydata"
	"github.com/google/go-cmp/cmp"
)

// storyLine is a line of `keyd audit find --key`: what, how it went, who.
var storyLine = regexp.MustCompile(`(?m)\b((?:key|mac)\.[a-z]+) +(ok|refused(?: [a-z_]+)?) +([a-z0-9-]+) `)

// TestSDKStory: a key is made, used, rotated and deleted by SDK calls alone, and
// the log tells that story in order.
func TestSDKStory(t *testing.T) {
	const name = "alias/shop/mac"
	r := startDev(t, t.TempDir(), "--no-sim")
	defer r.stop()
	ctx := t.Context()
	admin, shop := r.controlSDK(r.wire("admin"), 1), r.dataSDK(r.wire("switch"), 0)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	generate := func(key string) string {
		t.Helper()
		out, err := shop.GenerateMac(&data.GenerateMacInput{KeyIdentifier: &key, MessageData: aws.String("00"), GenerationAttributes: &data.MacAttributes{Algorithm: aws.String("CMAC")}})
		must(err)
		return *out.Mac
	}
	verify := func(key, mac string) error {
		_, err := shop.VerifyMac(&data.VerifyMacInput{KeyIdentifier: &key, MessageData: aws.String("00"), Mac: &mac, VerificationAttributes: &data.MacAttributes{Algorithm: aws.String("CMAC")}})
		return err
	}

	first, err := admin.CreateKey(ctx, cmacKey())
	must(err)
	_, err = admin.CreateAlias(ctx, &control.CreateAliasInput{AliasName: awsv2.String(name), KeyArn: first.Key.KeyArn})
	must(err)
	mac := generate(name)
	must(verify(name, mac))
	var failed *data.VerificationFailedException
	if err := verify(name, strings.Repeat("00", 16)); !errors.As(err, &failed) {
		t.Errorf("a wrong MAC: %v", err)
	}
	// A rotation in the words of AWS: another key, and the name moves to it.
	second, err := admin.CreateKey(ctx, cmacKey())
	must(err)
	_, err = admin.UpdateAlias(ctx, &control.UpdateAliasInput{AliasName: awsv2.String(name), KeyArn: second.Key.KeyArn})
	must(err)
	if generate(name) == mac {
		t.Error("the new key makes the MAC of the old one")
	}
	must(verify(*first.Key.KeyArn, mac))
	_, err = admin.StopKeyUsage(ctx, &control.StopKeyUsageInput{KeyIdentifier: first.Key.KeyArn})
	must(err)
	var invalid *data.ValidationException
	if err := verify(*first.Key.KeyArn, mac); !errors.As(err, &invalid) {
		t.Errorf("a stopped key: %v", err)
	}
	_, err = admin.DeleteKey(ctx, &control.DeleteKeyInput{KeyIdentifier: first.Key.KeyArn, DeleteKeyInDays: awsv2.Int32(3)})
	must(err)

	old, next := path.Base(*first.Key.KeyArn), path.Base(*second.Key.KeyArn)
	want := [][]string{
		{"key.create", "ok", "admin"}, {"key.attr", "ok", "admin"},
		{"mac.generate", "ok", "switch"}, {"mac.verify", "ok", "switch"}, {"mac.verify", "refused mac_invalid", "switch"},
		{"key.create", "ok", "admin"}, {"key.attr", "ok", "admin"},
		{"mac.generate", "ok", "switch"}, {"mac.verify", "ok", "switch"},
		{"key.suspend", "ok", "admin"}, {"mac.verify", "refused key_state", "switch"}, {"key.suspend", "ok", "admin"},
	}
	var text string
	poll(t, "the story's end", func() bool {
		text = r.find(name)
		return len(storyLine.FindAllString(text, -1)) >= len(want)
	})
	var got [][]string
	for _, line := range storyLine.FindAllStringSubmatch(text, -1) {
		got = append(got, line[1:])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the story (-want +told):\n%s\nin whole:\n%s", diff, text)
	}
	if !strings.Contains(text, old) || !strings.Contains(text, next) {
		t.Errorf("the story does not name both keys:\n%s", text)
	}
	for _, id := range []string{old, *first.Key.KeyArn} {
		if only := r.find(id); !strings.Contains(only, "key.suspend") || strings.Contains(only, next+",") {
			t.Errorf("the story of the first key alone:\n%s", only)
		}
	}
}

// find is what `keyd audit find --key` prints.
func (r *running) find(key string) string {
	r.t.Helper()
	var out, complaint bytes.Buffer
	if code := run(r.t.Context(), []string{"audit", "find", "--dir", r.dev.AuditDir, "--key", key}, strings.NewReader(""), &out, &complaint); code != exitDone {
		r.t.Logf("audit find ended with %d: %s", code, complaint.String())
	}
	return out.String()
}
