package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

// Limits of a body in bytes (section 3.4).
const (
	mostDataBody    = 256 << 10
	mostControlBody = 128 << 10
)

const (
	mostInvocation = 128      // characters of an invocation id
	mostKept       = 16 << 10 // bytes of a buffer that waits for its next use
)

// Config is what a handler is made of. Custody is needed.
type Config struct {
	Custody  *custody.Custody
	Region   string           // in ARNs; "" is DefaultRegion
	Account  string           // in ARNs, 12 digits; "" is DefaultAccount
	Log      *slog.Logger     // what clients are not told; nil keeps it to itself
	Clock    func() time.Time // nil is time.Now
	PageLife time.Duration    // of a NextToken; 0 is an hour
	Limits   Limits           // zero is the defaults
	Peers    Peers            // nil: certificates are checked in the handshake alone, and for their end
}

// Handler serves both planes. It is safe for concurrent use.
type Handler struct {
	custody *custody.Custody
	names   namer
	log     *slog.Logger
	clock   func() time.Time
	pages   pager

	data       map[string]*operation
	keys       map[string]*operation
	control    map[string]*operation
	extensions map[string]*operation

	shares *shares
	gates  [2]gate // by plane
	tally  tally
	peers  Peers

	greeter *greeter
	openMu  sync.Mutex
	open    map[net.Conn]*share // connections whose handshake is done

	contentType [2][]string // by plane
	custodyText [3][]string // by audit.Custody
	calls       sync.Pool   // of *call
	connections atomic.Uint64
}

// New checks the configuration and returns a handler.
func New(cfg Config) (*Handler, error) {
	if cfg.Custody == nil {
		return nil, errors.New("api: a custody is needed")
	}
	if cfg.PageLife < 0 {
		return nil, fmt.Errorf("api: page life of %v: want a time that passes, or 0 for the default", cfg.PageLife)
	}
	names, err := newNamer(cfg.Region, cfg.Account)
	if err != nil {
		return nil, err
	}
	limits, err := cfg.Limits.resolved()
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	h := &Handler{
		custody:     cfg.Custody,
		names:       names,
		log:         cfg.Log,
		clock:       cfg.Clock,
		pages:       newPager(cfg.PageLife, cfg.Clock),
		shares:      newShares(limits),
		peers:       cfg.Peers,
		greeter:     newGreeter(),
		open:        make(map[net.Conn]*share),
		data:        dataOperations(),
		keys:        keyOperations(),
		control:     controlOperations(),
		extensions:  extensionOperations(),
		contentType: [2][]string{dataPlane: {"application/json"}, controlPlane: {"application/x-amz-json-1.0"}},
		custodyText: [3][]string{
			audit.CustodyToken:   {audit.CustodyToken.String()},
			audit.CustodyProcess: {audit.CustodyProcess.String()},
		},
	}
	h.tally.clock = cfg.Clock
	h.gates[dataPlane] = gate{width: limits.InWork, each: limits.InWork, pick: func(s *share) *queue { return &s.data }}
	h.gates[controlPlane] = gate{width: mostControl, each: mostControl / 2, pick: func(s *share) *queue { return &s.control }}
	h.calls.New = func() any { return &call{Handler: h} }
	return h, nil
}

// call is one request on its way. It is used again for later ones.
type call struct {
	*Handler
	ctx        context.Context
	plane      plane
	op         *operation
	caller     custody.Caller
	share      *share    // of the caller, once the request is counted in
	deadline   time.Time // after which nobody waits for the answer; zero for none
	id         string    // x-amzn-RequestId, and in every record
	invocation string    // amz-sdk-invocation-id
	path       string    // as it was escaped
	digest     [32]byte
	form       form
	body       []byte
	out        []byte
	custodyIs  audit.Custody // of a result
	ids        requestIDs

	asked     string // the name of the key or alias, as given
	keyMember string // the member that named it
	inPath    string // the name of the key that the path names
	taken     string // the alias that exists already
}

// ServeHTTP answers one request (section 5 of the API).
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := h.calls.Get().(*call)
	defer h.release(c)
	path := r.URL.EscapedPath()
	c.ctx, c.plane, c.id, c.path = r.Context(), planeOf(r, path), c.ids.next(), path
	defer func() {
		if p := recover(); p != nil {
			c.broken(w, p)
		}
	}()
	if err := c.serve(r, path); err != nil {
		f := c.faultOf(err)
		c.pace(f)
		c.fail(w, f)
		return
	}
	c.succeed(w)
}

func (c *call) serve(r *http.Request, path string) error {
	caller, err := c.identify(r)
	if err != nil {
		return err
	}
	c.caller = caller
	if err := c.admit(r); err != nil {
		return err
	}
	op, f := c.route(r, path, c.plane)
	if f != nil {
		return f
	}
	c.op = op
	if !isJSON(r.Header["Content-Type"]) {
		return refusal(validation, "the content type must be application/json or application/x-amz-json-1.0")
	}
	if c.invocation, err = invocation(r.Header["Amz-Sdk-Invocation-Id"]); err != nil {
		return err
	}
	if err := c.read(r); err != nil {
		return err
	}
	return c.work(op)
}

// release makes the call ready for another request. Nothing of this one stays.
func (h *Handler) release(c *call) {
	if c.share != nil {
		c.share.leave()
	}
	clear(c.body)
	clear(c.out)
	kept := call{Handler: h, body: c.body[:0], out: c.out[:0], ids: c.ids}
	if cap(c.form.doc.nodes) <= mostValues {
		kept.form.doc.nodes = c.form.doc.nodes[:0]
	}
	if cap(c.body) > mostKept || cap(c.out) > mostKept {
		kept.body, kept.out = nil, nil
	}
	*c = kept
	h.calls.Put(c)
}

// read takes the body, up to the plane's limit, and parses it.
func (c *call) read(r *http.Request) error {
	limit := mostDataBody
	if c.plane == controlPlane {
		limit = mostControlBody
	}
	if c.op.name == string(custody.OpAddTerminals) {
		limit, c.form.doc.most = mostTerminalBody, mostTerminalValues
	}
	tooLarge := &fault{name: validation, message: "the body is larger than " + strconv.Itoa(limit>>10) + " KiB", hangUp: true}
	if r.ContentLength > int64(limit) {
		return tooLarge
	}
	if need := int(r.ContentLength) + 1; need > cap(c.body) {
		c.body = make([]byte, 0, max(need, 1024))
	}
	for {
		if len(c.body) == cap(c.body) {
			c.body = append(c.body, 0)[:len(c.body)]
		}
		n, err := r.Body.Read(c.body[len(c.body):cap(c.body)])
		c.body = c.body[:len(c.body)+n]
		if len(c.body) > limit {
			return tooLarge
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return &fault{name: validation, message: "the body did not arrive whole", hangUp: true}
		}
	}
	if c.plane == controlPlane || c.invocation != "" {
		c.fingerprint()
	}
	return c.form.read(c.body)
}

// fingerprint is by what a repeat of the request is known. On the data plane the
// path is part of it, which names the operation, and some keys.
func (c *call) fingerprint() {
	c.digest = sha256.Sum256(c.body)
	c.caller.Request, c.caller.Invocation = c.digest, c.invocation
	if c.plane == dataPlane {
		h := sha256.New()
		h.Write(c.digest[:])
		h.Write([]byte(c.path))
		h.Sum(c.caller.Request[:0])
	}
}

// check ends a request whose form is wrong.
func (c *call) check() error {
	if len(c.form.wrong) > 0 {
		return c.form.fault(c.plane)
	}
	return nil
}

func (c *call) succeed(w http.ResponseWriter) {
	header := w.Header()
	if c.custodyIs != 0 {
		header["X-Keyd-Custody"] = c.custodyText[c.custodyIs]
	}
	c.write(w, http.StatusOK)
}

func (c *call) fail(w http.ResponseWriter, f *fault) {
	status := f.status
	if status == 0 {
		status = f.name.status(c.plane)
	}
	header := w.Header()
	header["X-Amzn-Errortype"] = []string{string(f.name)}
	if status == http.StatusMethodNotAllowed {
		header["Allow"] = []string{http.MethodPost}
	}
	if f.hangUp {
		header["Connection"] = []string{"close"}
	}
	if status >= http.StatusInternalServerError {
		c.report(f)
	}
	c.out = appendFault(c.out[:0], f, c.plane)
	c.write(w, status)
}

func (c *call) write(w http.ResponseWriter, status int) {
	header := w.Header()
	header["Content-Type"] = c.contentType[c.plane]
	header["Content-Length"] = []string{strconv.Itoa(len(c.out))}
	header["X-Amzn-Requestid"] = []string{c.id}
	w.WriteHeader(status)
	// A client that is gone is not told.
	_, _ = w.Write(c.out)
}

// report tells the daemon's log why a request could not be served.
func (c *call) report(f *fault) {
	name := ""
	if c.op != nil {
		name = c.op.name
	}
	if errors.Is(f.cause, context.Canceled) && c.ctx.Err() != nil {
		c.log.Info("client gone before its answer", "request", c.id, "operation", name, "client", c.caller.Name)
		return
	}
	c.log.Error("request not served", "request", c.id, "operation", name, "client", c.caller.Name, "answer", string(f.name), "error", f.cause)
}

// broken answers for a defect. Its report has the places in the code and the
// type of what was thrown, never a value: those could be anything.
func (c *call) broken(w http.ResponseWriter, thrown any) {
	if err, ok := thrown.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(thrown)
	}
	var places [32]uintptr
	frames := runtime.CallersFrames(places[:runtime.Callers(3, places[:])])
	var at []string
	for {
		frame, more := frames.Next()
		at = append(at, frame.Function+":"+strconv.Itoa(frame.Line))
		if !more {
			break
		}
	}
	c.log.Error("request broken", "request", c.id, "thrown", fmt.Sprintf("%T", thrown), "at", at)
	c.custodyIs = 0
	c.fail(w, refusal(internalServer, "internal error"))
}

// isJSON reports whether the request names one of the content types of the API.
func isJSON(values []string) bool {
	if len(values) != 1 {
		return false
	}
	kind, _, _ := strings.Cut(values[0], ";")
	switch strings.ToLower(strings.TrimSpace(kind)) {
	case "application/json", "application/x-amz-json-1.0", "application/x-amz-json-1.1":
		return true
	}
	return false
}

// invocation reads the id that an SDK gives all tries of one call.
func invocation(values []string) (string, error) {
	if len(values) == 0 || values[0] == "" {
		return "", nil
	}
	id := values[0]
	ok := len(values) == 1 && len(id) <= mostInvocation
	for i := range len(id) {
		ok = ok && id[i] > ' ' && id[i] < 0x7F
	}
	if !ok {
		return "", refusal(validation, "amz-sdk-invocation-id must be one value of at most 128 visible characters")
	}
	return id, nil
}
