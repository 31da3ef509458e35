package hook

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// ErrConfig is wrapped by the errors of [New] and [Hook.Check].
var ErrConfig = errors.New("hook: the configuration is refused")

// Config is what a Hook is made of. Zero times stand for the defaults beside them.
type Config struct {
	Custody *custody.Custody
	Outbox  Outbox
	URL     string      // https://
	TLS     *tls.Config // TLS 1.2 or later, with the authorities of the receiver
	Key     custody.Ref // HMAC key (usage M7) of SHA-256
	Log     *slog.Logger
	Clock   func() time.Time
	Observe func(Result) // told of each delivery; must not block; may be nil

	First   time.Duration // back-off after the first failure, doubled up to Ceiling; 1 s
	Ceiling time.Duration // 5 min
	Timeout time.Duration // of one delivery; 10 s
	Poll    time.Duration // how often the outbox is looked at; 500 ms
}

// Result is what became of one delivery.
type Result string

// The results.
const (
	Acknowledged Result = "acknowledged" // 2xx
	Refused      Result = "refused"      // another status
	Unreachable  Result = "unreachable"  // no answer
	Unsigned     Result = "unsigned"     // the token or the log could not be used, nothing was sent
)

// Results are all of them.
func Results() []Result { return []Result{Acknowledged, Refused, Unreachable, Unsigned} }

// atOnce is how many deliveries are under way at a time.
const atOnce = 8

// Hook delivers events. It is safe for concurrent use.
type Hook struct {
	cfg    Config
	client *http.Client
}

// New checks the configuration. It returns [ErrConfig] for a receiver that is not
// reached by HTTPS, or whose certificate nobody checks.
func New(cfg Config) (*Hook, error) {
	if cfg.Custody == nil || cfg.Outbox == nil || cfg.Log == nil || cfg.Clock == nil || cfg.TLS == nil {
		return nil, fmt.Errorf("%w: custody, outbox, log, clock and TLS are all needed", ErrConfig)
	}
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("%w: the URL must begin with https:// and hold no password", ErrConfig)
	}
	if cfg.TLS.InsecureSkipVerify || cfg.TLS.MinVersion < tls.VersionTLS12 || cfg.TLS.RootCAs == nil {
		return nil, fmt.Errorf("%w: TLS 1.2 or later and a verified server are needed", ErrConfig)
	}
	if cfg.Observe == nil {
		cfg.Observe = func(Result) {}
	}
	for value, usual := range map[*time.Duration]time.Duration{
		&cfg.First: time.Second, &cfg.Ceiling: 5 * time.Minute, &cfg.Timeout: 10 * time.Second, &cfg.Poll: 500 * time.Millisecond,
	} {
		if *value == 0 {
			*value = usual
		}
	}
	return &Hook{cfg: cfg, client: &http.Client{
		Transport: &http.Transport{TLSClientConfig: cfg.TLS, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: atOnce, IdleConnTimeout: time.Minute},
		Timeout:   cfg.Timeout,
		// A signature is for the one receiver.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Check refuses a key that is not there, not in use, or for something else.
func (h *Hook) Check(ctx context.Context) error {
	k, err := h.cfg.Custody.Key(ctx, custody.SystemCaller("keyd", custody.RoleOperator), "start", h.cfg.Key)
	if err != nil {
		return fmt.Errorf("%w: finding the key %s of the hook: %w", ErrConfig, h.cfg.Key, err)
	}
	as := k.Block.Attributes
	if k.State != custody.CreateComplete || !k.Enabled || as.Usage != keys.UsageHMAC || as.Algorithm != keys.HMACSHA256 {
		return fmt.Errorf("%w: the key %s of the hook must be in use and be an HMAC_SHA256 key of usage %s; it is %s %s, enabled %v",
			ErrConfig, h.cfg.Key, keys.UsageHMAC, as.Algorithm, as.Usage, k.Enabled)
	}
	return nil
}

// Run delivers until ctx ends.
func (h *Hook) Run(ctx context.Context) {
	defer h.client.CloseIdleConnections()
	fruitless := 0 // rounds in which nothing was acknowledged
	for ctx.Err() == nil {
		due, acknowledged, err := h.round(ctx)
		if err != nil && ctx.Err() == nil {
			h.cfg.Log.Warn("hook: the outbox cannot be used", "error", err)
		}
		switch {
		case acknowledged > 0:
			fruitless = 0
		case due > 0: // a receiver that is away is not asked for each event
			fruitless++
			pause(ctx, min(h.backoff(fruitless), longestRest))
		default:
			pause(ctx, h.cfg.Poll)
		}
	}
}

// longestRest is how long the outbox rests at most while a receiver is away.
const longestRest = 30 * time.Second

// round delivers what is due, a few at a time. It returns how many these were
// and how many of them were acknowledged.
func (h *Hook) round(ctx context.Context) (due, acknowledged int, err error) {
	events, err := h.cfg.Outbox.Undelivered(ctx, h.cfg.Clock(), atOnce)
	if err != nil {
		return 0, 0, err
	}
	errs, taken := make([]error, len(events)), make([]bool, len(events))
	var work sync.WaitGroup
	for i, e := range events {
		work.Go(func() { taken[i], errs[i] = h.deliver(ctx, e) })
	}
	work.Wait()
	for _, yes := range taken {
		if yes {
			acknowledged++
		}
	}
	return len(events), acknowledged, errors.Join(errs...)
}

// deliver makes one try at one event and writes down what came of it.
func (h *Hook) deliver(ctx context.Context, e Event) (acknowledged bool, err error) {
	result, err := h.send(ctx, e)
	if ctx.Err() != nil {
		return false, nil // it is delivered again after the start
	}
	h.cfg.Observe(result)
	now := h.cfg.Clock().UTC()
	if result == Acknowledged {
		err = h.cfg.Outbox.Acknowledge(ctx, e.Seq, now)
		return err == nil, err // where it is not written down, it comes again, after a rest
	}
	h.cfg.Log.Warn("hook: an event was not acknowledged", "event", e.ID(), "result", string(result), "deliveries", e.Sent+1, "error", err)
	return false, h.cfg.Outbox.Postpone(ctx, e.Seq, now.Add(h.backoff(e.Sent+1)))
}

// backoff is the wait after so many failures.
func (h *Hook) backoff(n int) time.Duration {
	wait := h.cfg.First
	for range n - 1 {
		if wait = 2 * wait; wait >= h.cfg.Ceiling {
			return h.cfg.Ceiling
		}
	}
	return wait
}

// send signs an event and posts it. Only a status of 2xx is an acknowledgement.
func (h *Hook) send(ctx context.Context, e Event) (Result, error) {
	body, err := e.Body()
	if err != nil {
		return Unsigned, err
	}
	signature, err := h.sign(ctx, e.ID(), body)
	if err != nil {
		return Unsigned, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return Unsigned, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(headerEvent, e.ID())
	req.Header.Set(headerSignature, signature)
	resp, err := h.client.Do(req)
	if err != nil {
		var u *url.Error // which repeats the address, and that may hold a secret
		if errors.As(err, &u) {
			err = u.Err
		}
		return Unreachable, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	if resp.StatusCode/100 != 2 {
		return Refused, fmt.Errorf("hook: the receiver answered %d", resp.StatusCode)
	}
	return Acknowledged, nil
}

// The headers of a delivery.
const (
	headerEvent     = "Keyd-Event"
	headerSignature = "Keyd-Signature"
)

// sign makes the header of the signature: the time in seconds of 1970, the id of
// the key, and HMAC-SHA-256 over the time, a dot, and the body. It returns only
// once the use of the key stands in the audit log.
func (h *Hook) sign(ctx context.Context, id string, body []byte) (string, error) {
	act, err := h.cfg.Custody.Begin(ctx, custody.SwitchCaller("keyd", audit.ActorSystem, "", "", ""), "hook."+id)
	if err != nil {
		return "", err
	}
	defer act.Close()
	at := strconv.FormatInt(h.cfg.Clock().Unix(), 10)
	made, err := act.GenerateMAC(ctx, custody.GenerateMAC{
		Key: h.cfg.Key, Algorithm: custody.MACHMAC, Message: append([]byte(at+"."), body...), Length: 32,
	})
	if err != nil {
		return "", err
	}
	receipt, err := act.Commit(ctx)
	if err != nil {
		return "", err
	}
	if !receipt.Valid() {
		return "", errors.New("hook: no receipt for the signature")
	}
	return strings.Join([]string{"t=" + at, "k=" + string(made.Key.ID), "v1=" + hex.EncodeToString(made.MAC)}, ","), nil
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
