package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/api"
	"keyd.dev/keyd/internal/custody"
)

// The log of a daemon at another machine: the daemon records what will be read,
// then what is new of its log is copied into a folder here, and every command
// works on that copy. So nothing that is shown rests on the daemon's word
// (decision 0050).

// auditDoor says which daemon at another machine, and as whom. The key's flag
// has a longer name than elsewhere: --key is the key that is looked for.
type auditDoor struct {
	URL     string `placeholder:"URL" xor:"source" aliases:"node" help:"The API of a daemon at another machine, https://host:port, for a client of the role auditor: it records the reading, then what is new of its log is copied to here. Also KEYD_URL."`
	CA      string `name:"ca" placeholder:"FILE" env:"KEYD_CA" help:"With --url: CA of the daemon's certificate, PEM."`
	Cert    string `placeholder:"FILE" env:"KEYD_CERT" help:"With --url: your client certificate, PEM."`
	CertKey string `placeholder:"FILE" env:"KEYD_KEY" help:"With --url: its key, PEM."`
	Dev     string `placeholder:"DIR" xor:"source" help:"In place of these four: the folder of a development daemon."`
	As      string `placeholder:"NAME" default:"auditor" help:"With --dev: the client to be. Default ${default}."`
	Mirror  string `placeholder:"DIR" help:"With --url or --dev: where the copy is kept; default a folder for each daemon below the user's cache."`

	remote *remoteLog `kong:"-"` // once it is open
	stderr io.Writer  `kong:"-"`
}

// named reports whether a daemon at another machine is named.
func (f *auditDoor) named() bool { return f.URL != "" || f.Dev != "" }

func (f *auditDoor) flags() *doorFlags {
	return &doorFlags{URL: f.URL, CA: f.CA, Cert: f.Cert, Key: f.CertKey, Dev: f.Dev, As: f.As}
}

// door opens the connection. What is missing is told by its flag here.
func (f *auditDoor) door() (*door, error) {
	if f.Dev == "" && f.CertKey == "" {
		return nil, usageError("--cert-key is missing: name the daemon by --url, --ca, --cert and --cert-key, or a development daemon by --dev and --as")
	}
	return f.flags().open()
}

// open has the reading recorded and brings the copy up to date. It returns the
// copy's folder, which is recent enough to hold the record of this very reading.
func (f *auditDoor) open(p *program, q auditRead) (dir string, err error) {
	d, err := f.door()
	if err != nil {
		return "", err
	}
	r := &remoteLog{door: d, query: q}
	if r.dir, err = f.mirror(d); err != nil {
		return "", err
	}
	if err := r.begin(p.ctx); err != nil {
		return "", err
	}
	f.remote, f.stderr = r, p.stderr
	return r.dir, r.follow(p.ctx, p.stderr)
}

// refresh brings the copy of a daemon at another machine up to date again, for a
// command that goes on. It does nothing for other logs, or once ctx ends.
func (f *auditDoor) refresh(ctx context.Context) error {
	if f.remote == nil {
		return nil
	}
	if _, err := f.remote.update(ctx, f.stderr); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// mirror is the folder of the copy.
func (f *auditDoor) mirror(d *door) (string, error) {
	if f.Mirror != "" {
		return f.Mirror, nil
	}
	at, err := url.Parse(d.url)
	if err != nil {
		return "", usageError("--url=%s: %w", d.url, err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", usageError("--mirror is missing, and there is no folder for caches: %w", err)
	}
	return filepath.Join(cache, programName, "audit", folderName(at.Host)), nil
}

// folderName makes one folder's name of a host and port.
func folderName(host string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '-':
			return r
		}
		return '_'
	}, "at-"+host)
}

// remoteLog is a daemon's log under a reading. It implements [audit.Publisher].
type remoteLog struct {
	door  *door
	query auditRead
	dir   string // of the copy

	reading string
	seq     uint64 // of the reading's own record
}

// begin has the reading recorded; nothing comes before that.
func (r *remoteLog) begin(ctx context.Context) error {
	body := map[string]string{"Command": r.query.Command.String()}
	if r.query.Filter != "" {
		body["Filter"] = cutFilter(r.query.Filter)
	}
	if log := r.query.Log; log == audit.Sec.String() || strings.HasPrefix(log, "ops-") {
		body["Log"] = log
	}
	var answer struct {
		Reading string
		Seq     uint64
	}
	if err := r.door.own(ctx, string(custody.OpGetAuditLog), body, &answer); err != nil {
		return notShown(err)
	}
	r.reading, r.seq = answer.Reading, answer.Seq
	return nil
}

// cutFilter shortens what is told of a filter to what the log takes.
func cutFilter(filter string) string {
	const most = 1000
	if len(filter) <= most {
		return filter
	}
	return strings.ToValidUTF8(filter[:most], "")
}

// notShown tells a daemon that refuses who asks from one that cannot record, or
// is not there.
func notShown(err error) error {
	var refused *refusedError
	if errors.As(err, &refused) && refused.Type == "AccessDeniedException" {
		return fmt.Errorf("nothing is shown: %w: %w", errAccess, err)
	}
	if errors.As(err, &refused) && refused.Type == "ValidationException" {
		return usageError("nothing is shown: %w", err)
	}
	return fmt.Errorf("nothing is shown: %w: %w", errUnrecorded, err)
}

// The patience with a copy: until the daemon has signed the record of this
// reading, and until another command is done with the same copy.
const (
	remotePause = 250 * time.Millisecond
	remoteTries = 40
	remoteLocks = 240
)

// follow brings the copy up to date, as far as the record of this reading.
func (r *remoteLog) follow(ctx context.Context, stderr io.Writer) error {
	for try := 1; ; try++ {
		had, err := r.update(ctx, stderr)
		if err != nil {
			return err
		}
		if had > r.seq {
			return nil
		}
		if try == remoteTries {
			_, err := fmt.Fprintf(stderr, "%s: the daemon has signed no checkpoint since this command began: the copy ends at sec:%d\n", programName, int64(had)-1)
			return err
		}
		if err := pause(ctx, remotePause); err != nil {
			return err
		}
	}
}

// update brings the copy up to date and returns how many records of sec it has.
func (r *remoteLog) update(ctx context.Context, stderr io.Writer) (sec uint64, err error) {
	var all []audit.Mirrored
	for try := 1; ; try++ {
		all, err = audit.Mirror(ctx, r.dir, r)
		if !errors.Is(err, audit.ErrLocked) || try == remoteLocks {
			break
		}
		if err := pause(ctx, remotePause); err != nil {
			return 0, err
		}
	}
	switch {
	case errors.Is(err, audit.ErrRollback):
		return 0, advise(fmt.Errorf("%w: copying the audit log: %w", errCheckFailed, err),
			"what %s had stays, and a checkpoint that was refused is kept there below refused; show both to who answers for the node. "+
				"Of a log that was begun anew (log.fork) another copy begins, in a folder that you name by --mirror, under the key that its custodians hand over", r.dir)
	case errors.Is(err, audit.ErrPruned):
		return 0, advise(fmt.Errorf("copying the audit log: %w", err),
			"keep %s, have the archive of that month handed over, and check by keyd audit verify --archive and --since-checkpoint, with the month's checkpoint of that folder, that it goes on from there; then begin another copy, in a folder that you name by --mirror", r.dir)
	case errors.Is(err, audit.ErrNotFound):
		return 0, advise(fmt.Errorf("%w: copying the audit log: %w", errUndecided, err),
			"a month may have been pruned meanwhile: give the command again; where the file stays away, the node has lost it or withholds it")
	case errors.Is(err, audit.ErrLocked):
		return 0, advise(fmt.Errorf("copying the audit log: %w", err), "another command uses this copy: wait for it, or name another folder by --mirror")
	case err != nil:
		return 0, fmt.Errorf("copying the audit log: %w", err)
	}
	for _, one := range all {
		if one.KeyChanged {
			fmt.Fprintf(stderr, "%s: the key that the daemon shows beside %s is another one than before; compare it with what its custodians say\n", programName, one.Log)
		}
		if one.Log == audit.Sec.String() {
			sec = one.Size
		}
	}
	return sec, nil
}

func pause(ctx context.Context, length time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(length):
		return nil
	}
}

// mostAuditFile bounds a file, mostAuditAnswer all of an answer: no node of
// any settings needs more, and one that lies must not fill the memory.
const (
	mostAuditFile   = 17 << 20
	mostAuditAnswer = 256 << 20
)

// Published implements [audit.Publisher]. A reading that ended, because it took
// long or the daemon was started again, is begun and recorded anew.
func (r *remoteLog) Published(ctx context.Context, log string, paths []string) ([][]byte, error) {
	for try := 1; ; try++ {
		files, err := r.fetch(ctx, log, paths)
		switch {
		case errors.Is(err, errReadingOver) && try == 1:
			if err := r.begin(ctx); err != nil {
				return nil, err
			}
		case errors.Is(err, errTooFast) && try < remoteTries:
			if err := pause(ctx, remotePause); err != nil {
				return nil, err
			}
		default:
			return files, err
		}
	}
}

var (
	// errReadingOver: the daemon does not know the reading, or no longer.
	errReadingOver = errors.New("the reading has ended")
	// errTooFast: the daemon has a limit for this client.
	errTooFast = errors.New("the daemon refuses more requests for now")
)

func (r *remoteLog) fetch(ctx context.Context, log string, paths []string) ([][]byte, error) {
	text, err := json.Marshal(struct {
		Reading string
		Log     string
		Files   []string
	}{r.reading, log, paths})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.door.url+api.AuditPath, strings.NewReader(string(text)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := r.door.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: calling the daemon: %w", audit.ErrUnavailable, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, refusedFiles(resp)
	}
	files, err := readFiles(resp.Body, len(paths))
	if err != nil && !errors.Is(err, audit.ErrFormat) {
		return nil, fmt.Errorf("%w: %w", audit.ErrUnavailable, err)
	}
	return files, err
}

// refusedFiles is the daemon's refusal to give files.
func refusedFiles(resp *http.Response) error {
	var refused struct{ Code, Message string }
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil || json.Unmarshal(text, &refused) != nil {
		return fmt.Errorf("%w: the daemon answered %s", audit.ErrUnavailable, harmless(resp.Status))
	}
	switch refused.Code {
	case "reading":
		return errReadingOver
	case "throttled":
		return fmt.Errorf("%w: %w", audit.ErrUnavailable, errTooFast)
	case "denied":
		return fmt.Errorf("%w: %s", errAccess, harmless(refused.Message))
	}
	return fmt.Errorf("%w: the daemon answered %s: %s", audit.ErrUnavailable, harmless(resp.Status), harmless(refused.Message))
}

// readFiles takes an answer of [api.AuditPath] apart; nil is a file that is not
// there. The error is [audit.ErrFormat], or that of in.
func readFiles(in io.Reader, n int) ([][]byte, error) {
	files, total := make([][]byte, n), 0
	for i := range files {
		var head [5]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return nil, fmt.Errorf("reading the daemon's answer: %w", err)
		}
		size := int(binary.BigEndian.Uint32(head[1:]))
		total += size
		if head[0] > 1 || head[0] == 0 && size != 0 || size > mostAuditFile || total > mostAuditAnswer {
			return nil, fmt.Errorf("%w: a file of %d bytes in the daemon's answer", audit.ErrFormat, size)
		}
		if head[0] == 0 {
			continue
		}
		files[i] = make([]byte, size)
		if _, err := io.ReadFull(in, files[i]); err != nil {
			return nil, fmt.Errorf("reading the daemon's answer: %w", err)
		}
	}
	if n, err := in.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: bytes behind the last file", audit.ErrFormat)
	}
	return files, nil
}
