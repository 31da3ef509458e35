package api_test

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/api"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// TestErrorBodiesAtTheDoor brings each error of section 6.2 about by a request,
// and compares status, header and body. Three belong to operations that keyd
// does not serve yet; TestErrorBodies makes those from their parts.
func TestErrorBodiesAtTheDoor(t *testing.T) {
	log, token := new(failing), new(absent)
	b := newBench(t, func(c *custody.Config) {
		log.Log, token.Token = c.Log, c.Token
		c.Log, c.Token = log, token
		c.Malformed = custody.Malformed{PerMinute: 1, PerHour: 100}
		dualControl(c)
	})
	b.importKey(t, exampleKey{"alias/tak-verify", "", keys.UsageMACAlg3, keys.TDES2, keys.ModeVerify, dataTDES2, nil})
	app, admin := b.client(t, "switch-a"), b.client(t, "admin")
	all := loadWireExamples(t)
	vm, pin := string(all["vm-alg3"].Request), string(all["tp-dukpt-tdes"].Request)
	wrongPIN := strings.Replace(pin, "1B9C", "1B9D", 1)
	unlogged := func(do func() answer) answer {
		err := audit.ErrUnavailable
		log.with.Store(&err)
		defer log.with.Store(nil)
		return do()
	}
	tokenless := func(do func() answer) answer {
		token.gone.Store(true)
		defer token.gone.Store(false)
		return do()
	}
	bdk := `{"Exportable":true,"KeyAttributes":{"KeyUsage":"TR31_B0_BASE_DERIVATION_KEY","KeyClass":"SYMMETRIC_KEY","KeyAlgorithm":"AES_128","KeyModesOfUse":{%}}}`
	made := map[string]func(*testing.T) answer{
		"err-validation-data": func(t *testing.T) answer {
			return b.call(t, app, "TranslatePinData", strings.Replace(pin, "1B9C1845EB993A7A", "1B9C", 1))
		},
		"err-validation-pin": func(t *testing.T) answer { return b.call(t, app, "TranslatePinData", wrongPIN) },
		"err-validation-key": func(t *testing.T) answer {
			return b.call(t, app, "GenerateMac", strings.Replace(string(all["gm-alg3"].Request), "alias/tak-42", "alias/tak-verify", 1))
		},
		"err-verification-invalid-mac": func(t *testing.T) answer { return b.call(t, app, "VerifyMac", strings.Replace(vm, "17A3", "17A4", 1)) },
		"err-notfound-data": func(t *testing.T) answer {
			return b.call(t, app, "VerifyMac", strings.Replace(vm, "alias/tak-42", "alias/zpk-unknown", 1))
		},
		"err-denied-data": func(t *testing.T) answer { return b.call(t, b.client(t, "switch-b"), "VerifyMac", vm) },
		"err-throttling-data": func(t *testing.T) answer {
			b.call(t, b.clientWith(t, b.certificate(t, byDNS)), "TranslatePinData", wrongPIN)
			return b.call(t, b.clientWith(t, b.certificate(t, byDNS)), "TranslatePinData", wrongPIN)
		},
		"err-internal-data":    func(t *testing.T) answer { return unlogged(func() answer { return b.call(t, app, "VerifyMac", vm) }) },
		"err-unavailable-data": func(t *testing.T) answer { return tokenless(func() answer { return b.call(t, app, "VerifyMac", vm) }) },
		"err-unknownop-data": func(t *testing.T) answer {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+"/pindata/generate", strings.NewReader(`{}`))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			return b.do(t, app, r)
		},
		"err-validation-keyblock": func(t *testing.T) answer {
			return b.call(t, admin, "ImportKey", strings.Replace(string(all["import-tr31"].Request), "2011B37A", "2011B37B", 1))
		},
		"err-validation-control": func(t *testing.T) answer {
			return b.call(t, admin, "CreateKey", strings.Replace(bdk, "%", `"Generate":true`, 1))
		},
		"err-notfound-control": func(t *testing.T) answer { return b.call(t, admin, "GetKey", `{"KeyIdentifier":"alias/zpk-unknown"}`) },
		"err-denied-control":   func(t *testing.T) answer { return b.call(t, app, "CreateKey", string(all["create-key"].Request)) },
		"err-denied-approval": func(t *testing.T) answer {
			return b.call(t, admin, "CreateKey", strings.Replace(bdk, "%", `"DeriveKey":true`, 1))
		},
		"err-conflict": func(t *testing.T) answer {
			return b.call(t, admin, "CreateAlias", `{"AliasName":"alias/zpk-a","KeyArn":"`+b.arn("alias/zpk-b")+`"}`)
		},
		"err-quota": func(t *testing.T) answer {
			pin := strings.NewReplacer("B0_BASE_DERIVATION_KEY", "P0_PIN_ENCRYPTION_KEY", "%", `"NoRestrictions":true`).Replace(bdk)
			if err := b.custody.SetQuotas(custody.Quotas{Keys: 1}); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = b.custody.SetQuotas(custody.Quotas{}) }()
			return b.call(t, admin, "CreateKey", pin)
		},
		"err-internal-control": func(t *testing.T) answer {
			return unlogged(func() answer { return b.call(t, app, "CreateKey", string(all["create-key"].Request)) })
		},
		"err-unavailable-control": func(t *testing.T) answer {
			return tokenless(func() answer { return b.call(t, admin, "ImportKey", string(all["import-tr31"].Request)) })
		},
		"err-unknownop-control": func(t *testing.T) answer { return b.call(t, admin, "PutResourcePolicy", `{}`) },
	}
	elsewhere := map[string]bool{
		"err-verification-invalid-pin": true, "err-verification-invalid-validation-data": true, "err-verification-invalid-auth-request-cryptogram": true,
		"err-throttling-control": true, // TestThrottlingOfTheControlPlane
	}
	for _, e := range errorExamples(t) {
		if elsewhere[e.ID] {
			continue
		}
		t.Run(e.ID, func(t *testing.T) {
			make := made[e.ID]
			if make == nil {
				t.Fatal("nothing brings it about")
			}
			e.compare(t, make(t))
		})
	}
}

// TestThrottlingOfTheControlPlane is the one of these that needs a listener with
// another limit.
func TestThrottlingOfTheControlPlane(t *testing.T) {
	b := limited(t, api.Limits{Clients: map[string]api.ClientLimits{"admin": {PerSecond: 1, Burst: 1}}})
	admin := b.client(t, "admin")
	for _, e := range errorExamples(t) {
		if e.ID != "err-throttling-control" {
			continue
		}
		for range 20 {
			if a := b.call(t, admin, "ListKeys", `{}`); a.status != 200 {
				e.compare(t, a)
				return
			}
		}
	}
	t.Error("nothing was throttled")
}

// errorExample is an error body of the API document.
type errorExample struct {
	ID, Plane, Name string
	Status          int
	Body            json.RawMessage
}

func errorExamples(tb testing.TB) []errorExample {
	tb.Helper()
	raw, err := os.ReadFile("testdata/examples.json")
	if err != nil {
		tb.Fatal(err)
	}
	var file struct{ Errors []errorExample }
	if err := json.Unmarshal(raw, &file); err != nil {
		tb.Fatal(err)
	}
	if len(file.Errors) != 24 {
		tb.Fatalf("%d errors, want 24", len(file.Errors))
	}
	return file.Errors
}

// compare holds an answer against the example.
func (e errorExample) compare(t *testing.T, a answer) {
	t.Helper()
	kind := map[string]string{"data": "application/json", "control": "application/x-amz-json-1.0"}[e.Plane]
	if a.status != e.Status || a.header.Get("x-amzn-ErrorType") != e.Name || a.header.Get("Content-Type") != kind {
		t.Errorf("got %d %s %s, want %d %s %s", a.status, a.header.Get("x-amzn-ErrorType"), a.header.Get("Content-Type"), e.Status, e.Name, kind)
	}
	var want map[string]any
	if err := json.Unmarshal(e.Body, &want); err != nil {
		t.Fatal(err)
	}
	got := a.json(t)
	if e.ID == "err-denied-approval" { // whose reference is drawn
		want["Message"] = strings.Split(want["Message"].(string), ": ")[0]
		got["Message"] = strings.Split(got["Message"].(string), ": ")[0]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
}
