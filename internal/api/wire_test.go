package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// wireExample is an example of the API document.
type wireExample struct {
	ID, Plane, Operation string
	Request, Response    json.RawMessage
}

func loadWireExamples(tb testing.TB) map[string]wireExample {
	tb.Helper()
	raw, err := os.ReadFile("testdata/examples.json")
	if err != nil {
		tb.Fatal(err)
	}
	var file struct{ Examples []wireExample }
	if err := json.Unmarshal(raw, &file); err != nil {
		tb.Fatal(err)
	}
	all := make(map[string]wireExample)
	for _, e := range file.Examples {
		all[e.ID] = e
	}
	if len(all) != 46 {
		tb.Fatalf("%d examples, want 46", len(all))
	}
	return all
}

var requestID = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// success checks what every success has, and returns the body.
func (b *bench) success(tb testing.TB, a answer, operation string) map[string]any {
	tb.Helper()
	_, control := dataPath(operation)
	plane, kind := "data", "application/json"
	if control {
		plane, kind = "control", "application/x-amz-json-1.0"
	}
	if a.status != http.StatusOK {
		tb.Fatalf("status %d: %s", a.status, a.body)
	}
	if got := a.header.Get("Content-Type"); got != kind {
		tb.Errorf("content type %q, want %q", got, kind)
	}
	if got := a.header.Get("x-amzn-RequestId"); !requestID.MatchString(got) {
		tb.Errorf("request id %q is no UUID", got)
	}
	if a.header.Get("x-amzn-ErrorType") != "" {
		tb.Error("a success with the header of an error")
	}
	custody := a.header.Get("x-keyd-custody")
	if !control && custody != "token" && custody != "process" {
		tb.Errorf("x-keyd-custody is %q", custody)
	}
	loadModel(tb, plane).checkOutput(tb, operation, a.body)
	return a.json(tb)
}

// failure checks what every error has, and returns the body.
func (b *bench) failure(tb testing.TB, a answer, operation, name string, status int) map[string]any {
	tb.Helper()
	_, control := dataPath(operation)
	plane, kind := "data", "application/json"
	if control {
		plane, kind = "control", "application/x-amz-json-1.0"
	}
	if a.status != status || a.header.Get("x-amzn-ErrorType") != name {
		tb.Fatalf("got %d %s, want %d %s: %s", a.status, a.header.Get("x-amzn-ErrorType"), status, name, a.body)
	}
	if got := a.header.Get("Content-Type"); got != kind {
		tb.Errorf("content type %q, want %q", got, kind)
	}
	if got := a.header.Get("x-amzn-RequestId"); !requestID.MatchString(got) {
		tb.Errorf("request id %q is no UUID", got)
	}
	if a.header.Get("x-keyd-custody") != "" {
		tb.Error("an error with a custody class")
	}
	body := a.json(tb)
	if body["__type"] != name {
		tb.Errorf("__type is %v, want %s", body["__type"], name)
	}
	for member := range body {
		if strings.EqualFold(member, "code") {
			tb.Error("an error with a member called code")
		}
	}
	if name == "ValidationException" && !control && body["message"] != body["Message"] {
		tb.Errorf("message %v differs from Message %v", body["message"], body["Message"])
	}
	loadModel(tb, plane).checkError(tb, a.body)
	return body
}

// TestExamplesDataPlane runs each example of section 10 through the listener.
func TestExamplesDataPlane(t *testing.T) {
	b := newBench(t)
	client := b.client(t, "switch-a")
	random := map[string]bool{"tp-static-0-to-4": true, "tp-static-1-to-3": true, "tp-out-dukpt-aes": true}
	ran := 0
	for id, e := range loadWireExamples(t) {
		if e.Plane != "data" {
			continue
		}
		ran++
		t.Run(id, func(t *testing.T) {
			got := b.call(t, client, e.Operation, b.local(string(e.Request)))
			body := b.success(t, got, e.Operation)
			executed(id)
			var want map[string]any
			if err := json.Unmarshal([]byte(b.local(string(e.Response))), &want); err != nil {
				t.Fatal(err)
			}
			class := "token"
			if e.Operation == "TranslatePinData" || strings.Contains(id, "dukpt") {
				class = "process"
			}
			if got := got.header.Get("x-keyd-custody"); got != class {
				t.Errorf("custody class %q, want %q", got, class)
			}
			if random[id] {
				want["PinBlock"] = body["PinBlock"] // compared by TestRandomFiller
			}
			if diff := cmp.Diff(want, body); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
	if ran != 22 {
		t.Errorf("%d examples ran, want 22", ran)
	}
}

// TestRandomFiller: blocks with random filler differ each time and hold the
// same PIN: brought to format 0 they are the block that the original becomes.
func TestRandomFiller(t *testing.T) {
	b := newBench(t)
	client := b.client(t, "switch-a")
	const pan = `"PrimaryAccountNumber":"4111111111111111"`
	translate := func(t *testing.T, body string) string {
		t.Helper()
		return b.success(t, b.call(t, client, "TranslatePinData", body), "TranslatePinData")["PinBlock"].(string)
	}
	toISO0 := func(t *testing.T, key, format, block, dukpt string) string {
		t.Helper()
		return translate(t, fmt.Sprintf(`{"IncomingKeyIdentifier":%q,"OutgoingKeyIdentifier":"alias/zpk-b","IncomingTranslationAttributes":{%q:{%s}},
			"OutgoingTranslationAttributes":{"IsoFormat0":{%s}},"EncryptedPinBlock":%q%s}`, key, format, pan, pan, block, dukpt))
	}
	for _, c := range []struct {
		name, inKey, inFormat, inPAN, inBlock, outKey, outFormat string
		outDUKPT, backDUKPT                                      string
	}{
		{"static 0 to 4", "alias/tpk-17", "IsoFormat0", pan, "59E8F963CDF70695", "alias/zpk-aes", "IsoFormat4", "", ""},
		{"static 1 to 3", "alias/tpk-17", "IsoFormat1", "", "D639ABA95CE6BD92", "alias/zpk-a", "IsoFormat3", "", ""},
		{"static 1 to 1", "alias/tpk-17", "IsoFormat1", "", "D639ABA95CE6BD92", "alias/zpk-a", "IsoFormat1", "", ""},
		{"static 1 to 4", "alias/tpk-17", "IsoFormat1", "", "D639ABA95CE6BD92", "alias/zpk-aes", "IsoFormat4", "", ""},
		{"AES DUKPT out", "alias/zpk-aes", "IsoFormat4", pan, "AE03C845A8C30C63D48A6DC34EC454C6", "alias/bdk-aes", "IsoFormat4",
			`,"OutgoingDukptAttributes":{"KeySerialNumber":"123456789012345600000002","DukptKeyDerivationType":"AES_128"}`,
			`,"IncomingDukptAttributes":{"KeySerialNumber":"123456789012345600000002"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			outPAN := pan
			if c.outFormat == "IsoFormat1" {
				outPAN = ""
			}
			body := fmt.Sprintf(`{"IncomingKeyIdentifier":%q,"OutgoingKeyIdentifier":%q,"IncomingTranslationAttributes":{%q:{%s}},
				"OutgoingTranslationAttributes":{%q:{%s}},"EncryptedPinBlock":%q%s}`, c.inKey, c.outKey, c.inFormat, c.inPAN, c.outFormat, outPAN, c.inBlock, c.outDUKPT)
			first, second := translate(t, body), translate(t, body)
			if first == second {
				t.Error("the filler is not fresh")
			}
			inBack := c.inPAN
			if inBack == "" {
				inBack = pan
			}
			want := translate(t, fmt.Sprintf(`{"IncomingKeyIdentifier":%q,"OutgoingKeyIdentifier":"alias/zpk-b","IncomingTranslationAttributes":{%q:{%s}},
				"OutgoingTranslationAttributes":{"IsoFormat0":{%s}},"EncryptedPinBlock":%q}`, c.inKey, c.inFormat, c.inPAN, pan, c.inBlock))
			for _, block := range []string{first, second} {
				if c.outFormat == "IsoFormat1" {
					continue
				}
				if got := toISO0(t, c.outKey, c.outFormat, block, c.backDUKPT); got != want {
					t.Errorf("another PIN")
				}
			}
		})
	}
}

// TestExamplesControlPlane runs the examples of sections 11.1 and 11.4.
func TestExamplesControlPlane(t *testing.T) {
	b := newBench(t)
	admin := b.client(t, "admin")
	all := loadWireExamples(t)
	want := func(t *testing.T, id string) map[string]any {
		t.Helper()
		var v map[string]any
		if err := json.Unmarshal([]byte(b.local(string(all[id].Response))), &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	run := func(t *testing.T, id string) map[string]any {
		t.Helper()
		e := all[id]
		got := b.success(t, b.call(t, admin, e.Operation, b.local(string(e.Request))), e.Operation)
		executed(id)
		return got
	}
	t.Run("create-key", func(t *testing.T) {
		want, got := want(t, "create-key")["Key"].(map[string]any), run(t, "create-key")["Key"].(map[string]any)
		if got["CreateTimestamp"] != got["UsageStartTimestamp"] {
			t.Errorf("made at %v, in use since %v", got["CreateTimestamp"], got["UsageStartTimestamp"])
		}
		for _, own := range []string{"KeyArn", "KeyCheckValue", "CreateTimestamp", "UsageStartTimestamp"} {
			if got[own] == nil {
				t.Errorf("%s is missing", own)
			}
			got[own] = want[own]
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("answer (-want +got):\n%s", diff)
		}
	})
	t.Run("get-key", func(t *testing.T) {
		want, got := want(t, "get-key")["Key"].(map[string]any), run(t, "get-key")["Key"].(map[string]any)
		for _, own := range []string{"CreateTimestamp", "UsageStartTimestamp"} {
			want[own] = got[own]
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("answer (-want +got):\n%s", diff)
		}
	})
	t.Run("list-keys", func(t *testing.T) {
		want := want(t, "list-keys")["Keys"].([]any)
		found := make(map[any]any)
		first := run(t, "list-keys")
		if len(first["Keys"].([]any)) != 2 || first["NextToken"] == nil {
			t.Fatalf("the first page has %d keys and token %v", len(first["Keys"].([]any)), first["NextToken"])
		}
		list := b.success(t, b.call(t, admin, "ListKeys", `{}`), "ListKeys")["Keys"].([]any)
		for _, k := range list {
			found[k.(map[string]any)["KeyArn"]] = k
		}
		for _, k := range want {
			if diff := cmp.Diff(k, found[k.(map[string]any)["KeyArn"]]); diff != "" {
				t.Errorf("summary (-want +got):\n%s", diff)
			}
		}
	})
	for _, id := range []string{"create-alias", "get-alias"} {
		t.Run(id, func(t *testing.T) {
			if diff := cmp.Diff(want(t, id), run(t, id)); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("every operation of the examples is there", func(t *testing.T) {
		for id, e := range all {
			if e.Plane != "control" {
				continue
			}
			if a := b.call(t, admin, e.Operation, `{}`); a.header.Get("x-amzn-ErrorType") == "UnknownOperationException" {
				t.Errorf("%s: %s", id, a.body)
			}
		}
	})
}
