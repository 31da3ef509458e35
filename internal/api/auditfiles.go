package api

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

// AuditPath is where an auditor's copy is brought up to date. A POST of
//
//	{"Reading": "…", "Log": "sec", "Files": ["checkpoint", "tile/0/000.p/5"]}
//
// under a reading that GetAuditLog opened is answered with the files, in order:
// of each one byte, 1 when it is there and else 0, four bytes of length,
// big-endian, and its bytes. The log "" has the file manifest.json.
const AuditPath = "/audit/v1/files"

const (
	mostAuditBody  = 16 << 10
	mostAuditFiles = 32
	auditAtOnce    = 2 // answers that are being written: each holds a file of up to some MiB
	auditFileWait  = 30 * time.Second
)

// Published gives the files of the audit log that are shown to auditors;
// *audit.Reader does. Its errors are [audit.ErrFormat] for what is no such file
// and [audit.ErrNotFound].
type Published interface {
	Published(log, path string) ([]byte, error)
}

// AuditFiles is the door at [AuditPath]. It goes behind [Handler.Beside].
func (h *Handler) AuditFiles(files Published) http.Handler {
	slots := make(chan struct{}, auditAtOnce)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, ok := r.Context().Value(besideKey{}).(beside)
		if !ok {
			refuseAudit(w, http.StatusForbidden, "denied", noCertificate)
			return
		}
		q, ok := readAuditFiles(r)
		if !ok {
			refuseAudit(w, http.StatusBadRequest, "request", "the body must be a JSON object with Reading, Log and 1 to 32 Files")
			return
		}
		if err := h.custody.Read(r.Context(), who.caller, who.id, q.Reading); err != nil {
			h.refuseReading(w, who, err)
			return
		}
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-r.Context().Done():
			return
		}
		h.sendAudit(w, r.Context(), files, q)
	})
}

// auditFiles is the body of a request for files.
type auditFiles struct {
	Reading string
	Log     string
	Files   []string
}

func readAuditFiles(r *http.Request) (q auditFiles, ok bool) {
	if r.Method != http.MethodPost || !isJSON(r.Header["Content-Type"]) {
		return q, false
	}
	in := &io.LimitedReader{R: r.Body, N: mostAuditBody + 1}
	dec := json.NewDecoder(in)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&q); err != nil || in.N <= 0 {
		return q, false
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return q, false
	}
	return q, len(q.Files) >= 1 && len(q.Files) <= mostAuditFiles
}

// sendAudit writes the files. The first is read before the answer begins, so
// that what is no file of the log is refused; a failure behind it cuts the
// answer off, which the client sees.
func (h *Handler) sendAudit(w http.ResponseWriter, ctx context.Context, files Published, q auditFiles) {
	control := http.NewResponseController(w)
	for i, path := range q.Files {
		data, err := files.Published(q.Log, path)
		there := err == nil
		switch {
		case errors.Is(err, audit.ErrFormat) && i == 0:
			refuseAudit(w, http.StatusBadRequest, "request", "no file of the audit log has this path")
			return
		case err != nil && !errors.Is(err, audit.ErrNotFound):
			h.log.Error("file of the audit log not sent", "log", q.Log, "error", err)
			if i == 0 {
				refuseAudit(w, http.StatusInternalServerError, "internal", "internal error; see the daemon's log")
				return
			}
			panic(http.ErrAbortHandler)
		}
		if i == 0 {
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Cache-Control", "no-store")
		}
		// A large answer may take long, one file of it may not.
		if err := control.SetWriteDeadline(time.Now().Add(auditFileWait)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return
		}
		head := make([]byte, 5)
		if there {
			head[0] = 1
		}
		binary.BigEndian.PutUint32(head[1:], uint32(len(data)))
		if _, err := w.Write(head); err != nil {
			return // a client that is gone is not told
		}
		if _, err := w.Write(data); err != nil || ctx.Err() != nil {
			return
		}
	}
}

// refuseReading answers for a reading that does not let the caller in.
func (h *Handler) refuseReading(w http.ResponseWriter, who beside, err error) {
	switch {
	case errors.Is(err, custody.ErrNoReading):
		refuseAudit(w, http.StatusGone, "reading", "no such reading is open; begin another by GetAuditLog")
	case errors.Is(err, custody.ErrDenied):
		refuseAudit(w, http.StatusForbidden, "denied", "caller may not perform "+string(custody.OpGetAuditLog))
	default:
		h.log.Error("audit files not served", "request", who.id, "client", who.caller.Name, "error", err)
		refuseAudit(w, http.StatusServiceUnavailable, "unavailable", "the audit log is not available")
	}
}

// refuseAudit answers as ceremonies do.
func refuseAudit(w http.ResponseWriter, status int, code, message string) {
	text := append([]byte(`{"code":`), appendString(nil, code)...)
	text = append(append(text, `,"message":`...), appendString(nil, message)...)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A client that is gone is not told.
	_, _ = w.Write(append(text, '}'))
}
