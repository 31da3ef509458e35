package api_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/paymentcryptography"
	"github.com/aws/aws-sdk-go-v2/service/paymentcryptography/types"

	"keyd.dev/keyd/internal/custody"
)

func dualControl(c *custody.Config) { c.DualControl.On = true }

// person is a client's certificate of a subject.
func (b *bench) person(tb testing.TB, client, subject string) tls.Certificate {
	tb.Helper()
	u, err := url.Parse("spiffe://keyd.test/" + client)
	if err != nil {
		tb.Fatal(err)
	}
	return b.certificate(tb, func(c *x509.Certificate) { c.URIs, c.Subject = []*url.URL{u}, pkix.Name{CommonName: subject} })
}

// reference is that of a refusal for want of approval.
func reference(tb testing.TB, a answer) string {
	tb.Helper()
	ref, ok := strings.CutPrefix(a.json(tb)["Message"].(string), "approval required: ")
	if !ok || a.status != http.StatusBadRequest || a.header.Get("x-amzn-ErrorType") != "AccessDeniedException" {
		tb.Fatalf("want a refusal with a reference, got %d %s", a.status, a.body)
	}
	return ref
}

const kekBody = `{"Exportable":true,"KeyAttributes":{"KeyAlgorithm":"AES_256","KeyClass":"SYMMETRIC_KEY",` +
	`"KeyModesOfUse":{"Encrypt":true,"Decrypt":true,"Wrap":true,"Unwrap":true},"KeyUsage":"TR31_K0_KEY_ENCRYPTION_KEY"}}`

func TestDualControlInTwoRounds(t *testing.T) {
	b := newBench(t, dualControl)
	anna, raj := b.clientWith(t, b.person(t, "admin", "anna")), b.clientWith(t, b.person(t, "admin-b", "raj"))
	id := []string{"amz-sdk-invocation-id", "one"}
	ref := reference(t, b.call(t, anna, "CreateKey", kekBody, id...))
	if again := reference(t, b.call(t, anna, "CreateKey", kekBody, id...)); again != ref {
		t.Errorf("the same request has the references %s and %s", ref, again)
	}
	for name, as := range map[string]*http.Client{
		"who asked": anna, "another certificate of the same subject": b.clientWith(t, b.person(t, "admin-b", "anna")),
	} {
		a := b.own(t, as, "Approve", `{"Reference":"`+ref+`"}`)
		if a.header.Get("x-amzn-ErrorType") != "AccessDeniedException" || !strings.Contains(string(a.body), "who asks cannot approve") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	approved := b.own(t, raj, "Approve", `{"Reference":"`+ref+`"}`)
	if got, _ := approved.json(t)["Approval"].(map[string]any); approved.status != http.StatusOK || got["State"] != "APPROVED" {
		t.Fatalf("approve: %d %s", approved.status, approved.body)
	}
	first := b.call(t, anna, "CreateKey", kekBody, id...)
	if first.status != http.StatusOK {
		t.Fatalf("second round: %d %s", first.status, first.body)
	}
	t.Run("the answer is kept for repeats, the refusal was not", func(t *testing.T) {
		if again := b.call(t, anna, "CreateKey", kekBody, id...); string(again.body) != string(first.body) {
			t.Errorf("got %d %s", again.status, again.body)
		}
	})
	t.Run("another invocation needs another approval", func(t *testing.T) {
		if again := reference(t, b.call(t, anna, "CreateKey", kekBody, "amz-sdk-invocation-id", "two")); again == ref {
			t.Error("the reference was good twice")
		}
	})
	t.Run("rejected, unknown, ill formed", func(t *testing.T) {
		ref := reference(t, b.call(t, anna, "CreateKey", strings.Replace(kekBody, "{", "{ ", 1)))
		if a := b.own(t, raj, "Reject", `{"Reference":"`+strings.ToLower(ref)+`"}`); a.status != http.StatusOK {
			t.Errorf("%d %s", a.status, a.body)
		}
		for body, want := range map[string]string{
			`{"Reference":"` + ref + `"}`: "ConflictException", `{"Reference":"0000000000"}`: "ResourceNotFoundException",
			`{"Reference":"short"}`: "ValidationException", `{}`: "ValidationException", `{"Reference":7}`: "ValidationException",
		} {
			if a := b.own(t, raj, "Approve", body); a.header.Get("x-amzn-ErrorType") != want {
				t.Errorf("%s: %s", body, a.body)
			}
		}
	})
	t.Run("the list", func(t *testing.T) {
		open := b.own(t, b.client(t, "auditor"), "ListApprovals", `{}`).json(t)["Approvals"].([]any)
		all := b.own(t, b.client(t, "operator"), "ListApprovals", `{"All":true}`).json(t)["Approvals"].([]any)
		one := b.own(t, raj, "ListApprovals", `{"Reference":"`+ref+`"}`).json(t)["Approvals"].([]any)
		if len(open) != 1 || len(all) != 3 || len(one) != 1 || one[0].(map[string]any)["State"] != "SPENT" {
			t.Errorf("%d open, %d in all, %v", len(open), len(all), one)
		}
	})
}

// TestDualControlSDK: the official SDK repeats the same body.
func TestDualControlSDK(t *testing.T) {
	b := newBench(t, dualControl)
	c := controlClient(t, b, "admin")
	ask := func() (ref string) {
		_, err := c.CreateKey(t.Context(), bdkInput())
		var denied *types.AccessDeniedException
		if !errors.As(err, &denied) {
			t.Fatalf("want AccessDeniedException, got %v", err)
		}
		return strings.TrimPrefix(denied.ErrorMessage(), "approval required: ")
	}
	ref := ask()
	if a := b.own(t, b.clientWith(t, b.person(t, "admin-b", "raj")), "Approve", `{"Reference":"`+ref+`"}`); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if _, err := c.CreateKey(t.Context(), bdkInput()); err != nil {
		t.Errorf("after the approval: %v", err)
	}
	if again := ask(); again == ref {
		t.Error("the approval was good twice")
	}
	if _, err := c.ListKeys(t.Context(), &paymentcryptography.ListKeysInput{}); err != nil {
		t.Errorf("reading needs nobody: %v", err)
	}
}

func TestRolesOfOpenConnections(t *testing.T) {
	b := newBench(t)
	operator, admin := b.client(t, "operator"), b.client(t, "admin")
	list := func() int { return b.call(t, operator, "ListKeys", `{}`).status }
	if got := list(); got != http.StatusOK {
		t.Fatalf("status %d", got)
	}
	if a := b.own(t, admin, "SetRoles", `{"Client":"operator","Roles":["auditor"]}`); a.status != http.StatusOK ||
		!strings.Contains(string(a.body), `"Roles":["auditor"],"ConfiguredRoles":["operator"],"Changed":true`) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if got := list(); got != http.StatusBadRequest {
		t.Errorf("the open connection kept its role: status %d", got)
	}
	for body, want := range map[string]string{
		`{"Client":"operator","Roles":["admin","auditor"]}`: "ValidationException",
		`{"Client":"operator","Roles":["emperor"]}`:         "ValidationException",
		`{"Client":"operator","Roles":"admin"}`:             "ValidationException",
		`{"Client":"operator","Roles":[1]}`:                 "ValidationException",
		`{"Client":"operator"}`:                             "ValidationException",
		`{"Client":"","Roles":[]}`:                          "ValidationException",
		`{"Client":"emperor","Roles":[]}`:                   "ResourceNotFoundException",
	} {
		if a := b.own(t, admin, "SetRoles", body); a.header.Get("x-amzn-ErrorType") != want {
			t.Errorf("%s: %s", body, a.body)
		}
	}
	a := b.own(t, admin, "GetClients", `{}`)
	if clients := a.json(t)["Clients"].([]any); len(clients) != len(testClients()) {
		t.Errorf("%d clients", len(clients))
	}
}
