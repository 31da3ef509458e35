package ceremony

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

// Prefix is where the door stands on the API's listener.
const Prefix = "/ceremony/v1/"

// The bounds of a body: an injection list may be long, nothing else is.
const (
	mostBody     = 64 << 10
	mostOpenBody = 1 << 20
)

// Handler is the door of the engine: JSON over HTTP behind mutual TLS. Components
// pass it sealed.
func (e *Engine) Handler() http.Handler {
	mux := http.NewServeMux()
	for path, serve := range map[string]func(r *http.Request, caller custody.Caller, q request) (any, error){
		"open": func(r *http.Request, caller custody.Caller, q request) (any, error) {
			return e.Open(r.Context(), caller, []byte(q.Script), []byte(q.List))
		},
		"list": func(r *http.Request, caller custody.Caller, _ request) (any, error) {
			return e.List(r.Context(), caller)
		},
		"status": func(r *http.Request, caller custody.Caller, q request) (any, error) {
			return e.Status(r.Context(), caller, q.ID, q.Revision)
		},
		"result": func(r *http.Request, caller custody.Caller, q request) (any, error) {
			return e.Result(r.Context(), caller, q.ID)
		},
		"join": func(r *http.Request, caller custody.Caller, q request) (any, error) {
			return e.Join(r.Context(), caller, q.ID, q.Public)
		},
		"give": func(r *http.Request, caller custody.Caller, q request) (any, error) {
			return e.Give(r.Context(), caller, q.ID, q.Sealed, q.Check)
		},
		"take": func(r *http.Request, caller custody.Caller, q request) (any, error) {
			return e.Take(r.Context(), caller, q.ID)
		},
		"took": func(r *http.Request, caller custody.Caller, q request) (any, error) {
			return e.Took(r.Context(), caller, q.ID, q.Check)
		},
		"confirm": func(r *http.Request, caller custody.Caller, q request) (any, error) {
			return e.Confirm(r.Context(), caller, q.ID, q.Object, q.Check)
		},
		"abort": func(r *http.Request, caller custody.Caller, q request) (any, error) {
			return struct{}{}, e.Abort(r.Context(), caller, q.ID, q.Why)
		},
	} {
		limit := int64(mostBody)
		if path == "open" {
			limit = mostOpenBody
		}
		mux.HandleFunc("POST "+Prefix+path, func(w http.ResponseWriter, r *http.Request) {
			answer, err := e.serve(r, limit, serve)
			if err != nil {
				e.refuse(w, err)
				return
			}
			write(w, http.StatusOK, answer)
		})
	}
	return mux
}

// serve identifies the caller and reads the body before anything else.
func (e *Engine) serve(r *http.Request, limit int64, serve func(*http.Request, custody.Caller, request) (any, error)) (any, error) {
	caller, err := e.identify(r)
	if err != nil {
		return nil, err
	}
	q, err := readRequest(r.Body, limit)
	if err != nil {
		return nil, err
	}
	return serve(r, caller, q)
}

// readRequest reads one JSON object of known members, and nothing after it.
func readRequest(body io.Reader, limit int64) (request, error) {
	var q request
	in := &io.LimitedReader{R: body, N: limit + 1}
	dec := json.NewDecoder(in)
	dec.DisallowUnknownFields()
	err := dec.Decode(&q)
	if in.N <= 0 {
		return request{}, fmt.Errorf("%w: the body is larger than %d bytes", ErrRequest, limit)
	}
	if err != nil {
		return request{}, fmt.Errorf("%w: the body is not one JSON object of known members", ErrRequest)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return request{}, fmt.Errorf("%w: something stands after the object", ErrRequest)
	}
	return q, nil
}

// identify gives the caller of a request by its verified certificate (C-06).
func (e *Engine) identify(r *http.Request) (custody.Caller, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.PeerCertificates) == 0 {
		return custody.Caller{}, fmt.Errorf("%w: a verified client certificate is required", ErrDenied)
	}
	cert := r.TLS.PeerCertificates[0]
	sum := sha256.Sum256(cert.Raw)
	caller := custody.Caller{
		Kind: audit.ActorOperator, Addr: r.RemoteAddr, Conn: "ceremony",
		Cert: hex.EncodeToString(sum[:]), Subject: cert.Subject.String(),
	}
	client, err := e.house.Identify(cert)
	why := audit.ReasonCertUnknown
	if err == nil && time.Now().After(cert.NotAfter) {
		why, err = audit.ReasonCertExpired, errors.New("the certificate has expired")
	}
	if err != nil {
		caller.Name, caller.Kind = "unknown", audit.ActorSystem
		r := e.house.Note(r.Context(), caller, "", audit.Record{Action: audit.AuthRefuse, Outcome: audit.OutcomeRefused, Reason: why})
		return caller, errors.Join(fmt.Errorf("%w: %w", ErrDenied, err), r)
	}
	caller.Client = client
	switch {
	case client.Has(custody.RoleCustodian):
		caller.Kind = audit.ActorCustodian
	case client.Has(custody.RoleAuditor):
		caller.Kind = audit.ActorAuditor
	}
	return caller, nil
}

// refuse answers with the code of an error. What has none is a defect or a part
// that is away; its text stays in the daemon's log.
func (e *Engine) refuse(w http.ResponseWriter, err error) {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			write(w, c.status, refusal{Code: c.code, Message: err.Error()})
			return
		}
	}
	e.log.Error("ceremony request not served", "error", err)
	write(w, http.StatusInternalServerError, refusal{Code: "internal", Message: "internal error; see the daemon's log"})
}

func write(w http.ResponseWriter, status int, answer any) {
	text, err := json.Marshal(answer)
	if err != nil {
		status, text = http.StatusInternalServerError, []byte(`{"code":"internal","message":"internal error"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A client that is gone is not told.
	_, _ = w.Write(text)
}
