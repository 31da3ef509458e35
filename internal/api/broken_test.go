package api

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestBroken: a defect is answered, and its report has no value in it.
func TestBroken(t *testing.T) {
	var log bytes.Buffer
	h := &Handler{log: slog.New(slog.NewTextHandler(&log, nil)), contentType: [2][]string{{"application/json"}, {"application/x-amz-json-1.0"}}}
	h.calls.New = func() any { return &call{Handler: h} }
	try := func(thrown any) (w *httptest.ResponseRecorder) {
		w = httptest.NewRecorder()
		c := &call{Handler: h, id: "id"}
		defer func() { c.broken(w, recover()) }()
		panic(thrown)
	}
	w := try("PIN 1234 under key 0123456789ABCDEF")
	if w.Code != http.StatusInternalServerError || w.Header().Get("x-amzn-ErrorType") != "InternalServerException" {
		t.Errorf("got %d %s", w.Code, w.Header().Get("x-amzn-ErrorType"))
	}
	for _, text := range []string{w.Body.String(), log.String()} {
		if strings.Contains(text, "1234") {
			t.Error("what was thrown is told")
		}
	}
	if !strings.Contains(log.String(), "TestBroken") || !strings.Contains(log.String(), "thrown=string") {
		t.Errorf("the report does not say where: %s", log.String())
	}
	defer func() {
		if err, ok := recover().(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
			t.Errorf("the abort of a handler became %v", err)
		}
	}()
	try(http.ErrAbortHandler)
}
