package ceremony

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Client is one person's way to an engine: a base URL, and an HTTP client with
// that person's certificate.
type Client struct {
	URL  string
	HTTP *http.Client
}

// mostAnswer bounds an answer: the blocks of an injection.
const mostAnswer = 16 << 20

// call posts a request and decodes the answer. An error of the engine comes back
// as the same sentinel.
func (c *Client) call(ctx context.Context, path string, q request, out any) error {
	body, err := json.Marshal(q)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL+Prefix+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return fmt.Errorf("calling the daemon: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer))
	if err != nil {
		return fmt.Errorf("calling the daemon: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return refused(resp.Status, answer)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("the daemon's answer is not what was expected; are command and daemon of one version? %w", err)
	}
	return nil
}

// ask is call with the answer as its result.
func ask[T any](ctx context.Context, c *Client, path string, q request) (T, error) {
	var out T
	err := c.call(ctx, path, q, &out)
	return out, err
}

// remoteError is what the daemon said, with the sentinel that it meant.
type remoteError struct {
	message string
	is      error
}

func (e *remoteError) Error() string { return e.message }
func (e *remoteError) Unwrap() error { return e.is }

func refused(status string, answer []byte) error {
	var r refusal
	if json.Unmarshal(answer, &r) != nil || r.Code == "" {
		return errors.New("the daemon answered " + status)
	}
	for _, c := range codes {
		if c.code == r.Code {
			return &remoteError{message: r.Message, is: c.err}
		}
	}
	return errors.New("the daemon refused: " + r.Message)
}

// Open opens a ceremony. list is the text of an injection list, or empty.
func (c *Client) Open(ctx context.Context, script, list []byte) (Status, error) {
	return ask[Status](ctx, c, "open", request{Script: string(script), List: string(list)})
}

// List returns the ceremonies of the daemon.
func (c *Client) List(ctx context.Context) ([]Status, error) {
	return ask[[]Status](ctx, c, "list", request{})
}

// Status returns a ceremony, once its revision is another than seen or after a
// few seconds; -1 at once.
func (c *Client) Status(ctx context.Context, id string, seen int) (Status, error) {
	return ask[Status](ctx, c, "status", request{ID: id, Revision: seen})
}

// Result returns what is left of a ceremony that has ended.
func (c *Client) Result(ctx context.Context, id string) (Result, error) {
	return ask[Result](ctx, c, "result", request{ID: id})
}

// Abort ends a ceremony.
func (c *Client) Abort(ctx context.Context, id, why string) error {
	return c.call(ctx, "abort", request{ID: id, Why: why}, nil)
}

func (c *Client) join(ctx context.Context, id string, public []byte) (Place, error) {
	return ask[Place](ctx, c, "join", request{ID: id, Public: public})
}

func (c *Client) give(ctx context.Context, id string, sealed []byte, check string) error {
	return c.call(ctx, "give", request{ID: id, Sealed: sealed, Check: check}, nil)
}

func (c *Client) take(ctx context.Context, id string) (Parcel, error) {
	return ask[Parcel](ctx, c, "take", request{ID: id})
}

func (c *Client) took(ctx context.Context, id, check string) error {
	return c.call(ctx, "took", request{ID: id, Check: check}, nil)
}

func (c *Client) confirm(ctx context.Context, id, object, check string) error {
	return c.call(ctx, "confirm", request{ID: id, Object: object, Check: check}, nil)
}
