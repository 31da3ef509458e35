package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/store"
)

// The local socket lets commands of this machine reach the running daemon, so
// that what they do stands in its audit log. Only root and the user who runs
// the daemon get in: the kernel says who is at the other end.

// errNoDaemon: nothing answers at the socket.
var errNoDaemon = errors.New("no daemon answers")

// localTimeout bounds one call over the socket.
const localTimeout = 15 * time.Second

type peerKey struct{}

// listenSocket makes the socket, in the place of one that nobody serves any more.
func listenSocket(path string) (net.Listener, error) {
	short, done, err := shortPath(path)
	if err != nil {
		return nil, fmt.Errorf("making the local socket: %w", err)
	}
	defer done()
	if conn, err := net.Dial("unix", short); err == nil {
		conn.Close()
		return nil, advise(fmt.Errorf("making the local socket %s: another process answers there", path), "stop it, or set ops.socket")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("making the local socket: %w", err)
	}
	l, err := net.Listen("unix", short)
	if err != nil {
		return nil, fmt.Errorf("making the local socket %s: %w", path, err)
	}
	// The short name is gone when this returns; the file is removed by its own.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &socketListener{Listener: l, path: path}, nil
}

// socketListener removes its file when it is closed.
type socketListener struct {
	net.Listener
	path string
}

// Close implements net.Listener.
func (l *socketListener) Close() error {
	err := l.Listener.Close()
	if rerr := os.Remove(l.path); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}

// shortPath gives a name for path that fits into a socket address, which holds
// 107 bytes, by way of an open folder where path itself is too long.
func shortPath(path string) (short string, done func(), err error) {
	if len(path) < 100 {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	short = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	return short, func() { dir.Close() }, nil
}

// localServer answers the commands of this machine.
func (d *daemon) localServer() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /reload", d.localReload)
	mux.HandleFunc("POST /terminals", d.localAddTerminal)
	mux.HandleFunc("POST /terminals/unlock", d.localUnlock)
	mux.HandleFunc("POST /audit/read", d.localAuditRead)
	mux.HandleFunc("POST /audit/sinks", d.localSinks)
	mux.HandleFunc("POST /audit/sinks/rewind", d.localSinkRewind)
	mux.HandleFunc("POST /audit/archive", d.localArchive)
	mux.HandleFunc("POST /audit/archived", d.localArchived)
	mux.HandleFunc("POST /audit/hsm", d.localHSMLog)
	mux.HandleFunc("POST /journal/export", d.localJournal)
	mux.HandleFunc("GET /process", d.localProcess)
	mux.HandleFunc("POST /upstreams", d.localUpstreams)
	return &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: opsHeaderWait,
		ErrorLog:          slog.NewLogLogger(d.log.Handler(), slog.LevelWarn),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			uid, err := peerUID(c)
			if err != nil || uid != 0 && uid != os.Geteuid() {
				return ctx
			}
			return context.WithValue(ctx, peerKey{}, uid)
		},
	}
}

// localPeer is who calls, or false for somebody who may not.
func localPeer(w http.ResponseWriter, r *http.Request) (audit.Record, bool) {
	uid, ok := r.Context().Value(peerKey{}).(int)
	if !ok {
		http.Error(w, "only root and the user who runs keyd may do this", http.StatusForbidden)
		return audit.Record{}, false
	}
	return localRecord(uid), true
}

// localRecord is a record of somebody at this machine.
func localRecord(uid int) audit.Record {
	id := "uid:" + strconv.Itoa(uid)
	return audit.Record{
		Actor: audit.Actor{ID: id, Kind: audit.ActorOperator, Authn: audit.AuthnLocal},
		Src:   audit.Source{Addr: "unix:" + strconv.Itoa(uid)},
	}
}

func (d *daemon) localAddTerminal(w http.ResponseWriter, r *http.Request) {
	record, ok := localPeer(w, r)
	if !ok {
		return
	}
	var t isoswitch.Terminal
	if !readLocal(w, r, &t) {
		return
	}
	if err := d.node.addTerminal(r.Context(), record, t); err != nil {
		status := http.StatusInternalServerError
		if errors.Is(err, store.ErrExists) {
			status = http.StatusConflict
		}
		http.Error(w, err.Error(), status)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// auditRead is what a command is about to read of the log.
type auditRead struct {
	Command audit.QueryCmd
	Filter  string
	Log     string
	Rows    int64
}

func (d *daemon) localAuditRead(w http.ResponseWriter, r *http.Request) {
	record, ok := localPeer(w, r)
	if !ok {
		return
	}
	var q auditRead
	if !readLocal(w, r, &q) {
		return
	}
	q.into(&record)
	if err := d.node.record(r.Context(), record); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func readLocal(w http.ResponseWriter, r *http.Request, into any) bool {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		http.Error(w, "the request is not what was expected; are command and daemon of one version?", http.StatusBadRequest)
		return false
	}
	return true
}

// callLocal is askLocal without an answer.
func callLocal(ctx context.Context, socket, path string, body any) error {
	return askLocal(ctx, socket, path, body, nil)
}

// mostAnswer bounds what a daemon may answer at its socket.
const mostAnswer = 1 << 20

// askLocal sends a request to the daemon of the socket, and reads the answer into
// what into points to. It returns errNoDaemon when there is none.
func askLocal(ctx context.Context, socket, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	resp, err := sendLocal(ctx, socket, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return nil
	}
	said, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusOK && into != nil {
		return json.Unmarshal(said, into)
	}
	return &localRefusal{socket: socket, status: resp.StatusCode, said: strings.TrimSpace(string(said))}
}

// localRefusal is what a daemon said instead of doing what it was asked for.
type localRefusal struct {
	socket string
	status int
	said   string
}

func (r *localRefusal) Error() string {
	return fmt.Sprintf("the daemon at %s refused: %s", r.socket, r.said)
}

// sendLocal sends a request to the daemon of the socket; the caller closes the
// body of the answer. It returns errNoDaemon when there is none.
func sendLocal(ctx context.Context, socket, path string, body any) (*http.Response, error) {
	short, done, err := shortPath(socket)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoDaemon, err)
	}
	defer done()
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, "unix", short)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
				return nil, fmt.Errorf("%w at %s", errNoDaemon, socket)
			}
			return conn, err
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://keyd"+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	return (&http.Client{Transport: transport}).Do(req)
}
