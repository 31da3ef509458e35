package api_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// modelled holds every answer of a bench's listener against the service models,
// whichever test asked and by whichever client: the SDKs take an answer that
// lacks members, or has others, without a word (section 14.1). Benchmarks are
// left alone.
func modelled(tb testing.TB, next http.Handler) http.Handler {
	if _, ok := tb.(*testing.B); ok {
		return next
	}
	both, err := models()
	if err != nil {
		tb.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := &copied{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(seen, r)
		plane, operation := modelledOperation(both, r)
		var wrong []string
		switch {
		case seen.status != http.StatusOK:
			wrong = both[plane].errorFaults(seen.body.Bytes())
		case operation != "":
			wrong = both[plane].outputFaults(operation, seen.body.Bytes())
		}
		for _, each := range wrong {
			tb.Errorf("%s %s answered %d, against the model: %s", r.Method, r.URL.EscapedPath(), seen.status, each)
		}
	})
}

// copied keeps what a handler writes.
type copied struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (c *copied) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (c *copied) Write(p []byte) (int, error) {
	c.body.Write(p)
	return c.ResponseWriter.Write(p)
}

// Unwrap lets [http.ResponseController] find the connection.
func (c *copied) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// modelledOperation is the operation of a request by the models' own paths and
// targets, "" for one of keyd alone.
func modelledOperation(both map[string]*model, r *http.Request) (plane, operation string) {
	const target = "PaymentCryptographyControlPlane."
	if name := r.Header.Get("X-Amz-Target"); name != "" && r.URL.Path == "/" {
		name, ok := strings.CutPrefix(name, target)
		if !ok {
			return "control", ""
		}
		return "control", name
	}
	path := strings.Split(r.URL.EscapedPath(), "/")
	for name, op := range both["data"].Operations {
		want := strings.Split(op.HTTP.RequestURI, "/")
		same := len(want) == len(path)
		for i := 0; same && i < len(want); i++ {
			same = want[i] == path[i] || strings.HasPrefix(want[i], "{")
		}
		if same {
			return "data", name
		}
	}
	return "data", ""
}

// TestModelled: an answer that lacks a member, or has one of another type, fails
// the test that asked for it, whatever the test looks at.
func TestModelled(t *testing.T) {
	arn := `"arn:aws:payment-cryptography:xx-keyd-1:000000000000:key/6g1dpp3ele1d02exhhsxvp74f7g7onlp"`
	for _, c := range []struct {
		name, path, target string
		status             int
		body               string
		fails              bool
	}{
		{"good", "/mac/verify", "", 200, `{"KeyArn":` + arn + `,"KeyCheckValue":"08D7B4"}`, false},
		{"member missing", "/mac/verify", "", 200, `{"KeyArn":` + arn + `}`, true},
		{"member ill-typed", "/mac/verify", "", 200, `{"KeyArn":` + arn + `,"KeyCheckValue":8}`, true},
		{"key in the path", "/keys/alias%2Fa/encrypt", "", 200, `{"KeyArn":` + arn + `,"CipherText":"00"}`, false},
		{"key in the path, member missing", "/keys/alias%2Fa/encrypt", "", 200, `{"KeyArn":` + arn + `}`, true},
		{"not JSON", "/mac/verify", "", 200, `{`, true},
		{"control", "/", "PaymentCryptographyControlPlane.DeleteAlias", 200, `{}`, false},
		{"control, member missing", "/", "PaymentCryptographyControlPlane.GetAlias", 200, `{}`, true},
		{"control, not in the model", "/", "PaymentCryptographyControlPlane.Nothing", 200, `{}`, true},
		{"keyd's own", "/", "KeydControlPlane.GetKey", 200, `{"Anything":1}`, false},
		{"good error", "/mac/verify", "", 404, `{"__type":"ResourceNotFoundException","ResourceId":"alias/x","Message":"no such key or alias"}`, false},
		{"error without a name", "/mac/verify", "", 400, `{"Message":"x"}`, true},
		{"error with a reason of no kind", "/mac/verify", "", 400, `{"__type":"VerificationFailedException","Reason":"BECAUSE","Message":"x"}`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			heard := &failures{TB: t}
			h := modelled(heard, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			}))
			r := httptest.NewRequest(http.MethodPost, c.path, nil)
			if c.target != "" {
				r.Header.Set("X-Amz-Target", c.target)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if (heard.count > 0) != c.fails {
				t.Errorf("%d complaints, want some = %v", heard.count, c.fails)
			}
			if w.Code != c.status || w.Body.String() != c.body {
				t.Errorf("the answer was changed: %d %s", w.Code, w.Body)
			}
		})
	}
}

// failures counts what a test would have failed for.
type failures struct {
	testing.TB
	count int
}

func (f *failures) Errorf(string, ...any) { f.count++ }
