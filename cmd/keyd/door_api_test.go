package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// apiAnswer is what the API said.
type apiAnswer struct {
	status  int
	kind    string // of the error
	message string
	body    string
}

func (h *doors) post(t *testing.T, config *tls.Config, path, target string, body io.Reader) apiAnswer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.dev.APIURL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if target != "" {
		req.Header.Set("Content-Type", "application/x-amz-json-1.0")
		req.Header.Set("X-Amz-Target", target)
	}
	// Not DisableKeepAlives: net/http resets a connection at once whose client
	// has announced its end and whose body it has not read.
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Timeout: 20 * time.Second, Transport: transport}).Do(req)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := apiAnswer{status: resp.StatusCode, body: string(raw)}
	var said map[string]any
	if err := json.Unmarshal(raw, &said); err != nil {
		t.Errorf("answer %d is no JSON: %v: %.200q", a.status, err, raw)
	}
	a.kind, _, _ = strings.Cut(resp.Header.Get("x-amzn-ErrorType"), ":")
	for _, member := range []string{"message", "Message"} {
		if text, ok := said[member].(string); ok {
			a.message = text
		}
	}
	return a
}

const controlTarget = "PaymentCryptographyControlPlane."

func (h *doors) control(t *testing.T, client, operation, body string) apiAnswer {
	t.Helper()
	return h.post(t, h.as(t, client), "/", controlTarget+operation, strings.NewReader(body))
}

func (h *doors) data(t *testing.T, client, path, body string) apiAnswer {
	t.Helper()
	return h.post(t, h.as(t, client), path, "", strings.NewReader(body))
}

func (h *doors) as(t *testing.T, client string) *tls.Config {
	t.Helper()
	config, err := devTLS(h.dev, client)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// refused wants an error of this kind that says something.
func (a apiAnswer) refused(t *testing.T, what, kind, says string) {
	t.Helper()
	if a.status/100 != 4 || a.kind != kind || !strings.Contains(a.message, says) {
		t.Errorf("%s: answered %d %s %q, want 4xx %s with %q", what, a.status, a.kind, a.message, kind, says)
	}
}

func (h *doors) largeBodies(t *testing.T) {
	const controlLimit, dataLimit = 128 << 10, 256 << 10
	h.control(t, "switch", "ListKeys", strings.Repeat(" ", controlLimit-1)+"{}").refused(t, "control plane", "ValidationException", "larger than 128 KiB")
	large := strings.Repeat(" ", dataLimit-1) + "{}"
	h.data(t, "switch", "/mac/generate", large).refused(t, "data plane", "ValidationException", "larger than 256 KiB")
	// The same without a Content-Length to judge by.
	h.post(t, h.as(t, "switch"), "/mac/generate", "", io.MultiReader(strings.NewReader(large))).
		refused(t, "in chunks", "ValidationException", "larger than 256 KiB")
}

func (h *doors) badJSON(t *testing.T) {
	for _, body := range []string{"{", "[]", "null", `{"a":1}{"b":2}`, `{"MaxResults":}`, "\xff\xfe", strings.Repeat("[", 10000)} {
		h.control(t, "switch", "ListKeys", body).refused(t, fmt.Sprintf("control plane %.20q", body), "ValidationException", "")
		h.data(t, "switch", "/mac/generate", body).refused(t, fmt.Sprintf("data plane %.20q", body), "ValidationException", "")
	}
}

func (h *doors) unknownOperations(t *testing.T) {
	h.control(t, "switch", "NoSuchOperation", "{}").refused(t, "control plane", "UnknownOperationException", "does not implement")
	h.post(t, h.as(t, "switch"), "/", "Other.ListKeys", strings.NewReader("{}")).refused(t, "other service", "UnknownOperationException", "does not implement")
	h.data(t, "switch", "/no/such/path", "{}").refused(t, "data plane", "UnknownOperationException", "")
}

func (h *doors) mayNothing(t *testing.T) {
	for _, client := range []string{"nobody", "terminal"} {
		h.data(t, client, "/mac/generate", `{"KeyIdentifier":"alias/dev/zak","MessageData":"00","GenerationAttributes":{"Algorithm":"ISO9797_ALGORITHM3"}}`).
			refused(t, client+" makes a MAC", "AccessDeniedException", "")
		h.control(t, client, "GetKey", `{"KeyIdentifier":"alias/dev/zak"}`).refused(t, client+" looks at a key", "AccessDeniedException", "")
	}
	h.post(t, h.unlisted(t), "/", controlTarget+"ListKeys", strings.NewReader("{}")).
		refused(t, "a certificate that is in no table", "AccessDeniedException", "")
}
