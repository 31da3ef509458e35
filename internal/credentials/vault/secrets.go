package vault

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"keyd.dev/keyd/internal/credentials"
)

var _ credentials.Vault = (*Client)(nil)

// WrappedPIN says what a wrapped PIN must be, so that a token which somebody
// else wrapped is not taken for it.
type WrappedPIN struct {
	From  string // path of the request that wrapped it, "secret/data/keyd/pin" say
	Field string // of the secret
}

// Secret implements [credentials.Vault]: one field of a secret of the KV engine,
// version 2. Vault's answer arrives as a Go string and cannot be wiped.
func (c *Client) Secret(ctx context.Context, mount, path, field string) (string, error) {
	at := mount + "/data/" + path
	answer, err := c.authorised(ctx, request{operation: "kv", what: "reading the secret " + at, path: at})
	if err != nil {
		return "", err
	}
	data, ok := answer.Data["data"].(map[string]any)
	if !ok {
		return "", c.counted("kv", fmt.Errorf("reading the secret %s: %w: it is deleted, or the engine is not KV version 2", at, ErrNotFound))
	}
	value, err := fieldOf(data, field, at)
	return value, c.counted("kv", err)
}

// Unwrapped implements [credentials.Vault].
func (c *Client) Unwrapped(ctx context.Context, wrapping string) (string, error) {
	w := c.cfg.WrappedPIN
	if w.From == "" || w.Field == "" {
		return "", fmt.Errorf("%w: vault.wrapped_pin_from must say which request wraps the PIN, secret/data/keyd/pin say", ErrConfig)
	}
	data, err := c.unwrap(ctx, "the wrapped PIN", wrapping, w.From)
	if err != nil {
		return "", err
	}
	// A wrapped KV read has the secret one level below.
	if inner, ok := data["data"].(map[string]any); ok {
		data = inner
	}
	value, err := fieldOf(data, w.Field, w.From)
	return value, c.counted("unwrap", err)
}

// counted counts an answer that came and is of no use.
func (c *Client) counted(operation string, err error) error {
	if err != nil {
		c.observe(operation, err)
	}
	return err
}

func fieldOf(data map[string]any, field, at string) (string, error) {
	value, ok := data[field].(string)
	if !ok {
		return "", fmt.Errorf("%s: %w: no text in the field %q", at, ErrNotFound, field)
	}
	return value, nil
}

// unwrap spends a wrapping token. Where it was made is looked at first: a token
// that somebody made for the purpose of being unwrapped here is refused unread.
// A token that is no longer good is an alarm: it has run out, or somebody else
// has unwrapped it. C-01.
func (c *Client) unwrap(ctx context.Context, what, token, from string) (map[string]any, error) {
	if c.fateOf(token) == fateUsed {
		return nil, fmt.Errorf("%s: %w; put a new one there", what, ErrSpent)
	}
	answer, err := c.ask(ctx, request{
		operation: "unwrap", what: "looking up " + what, path: "sys/wrapping/lookup", body: map[string]any{"token": token}, token: token,
	})
	if err != nil {
		return nil, c.gone(what, token, err)
	}
	made, _ := answer.Data["creation_path"].(string)
	if strings.Trim(made, "/") != strings.Trim(from, "/") {
		return nil, fmt.Errorf("%s: %w: made by %q, not by %q; it was not unwrapped; find out who put it there", what, ErrOrigin, made, from)
	}
	// The library must not repeat this: the second time would look like theft.
	answer, err = c.ask(ctx, request{
		operation: "unwrap", what: "unwrapping " + what, path: "sys/wrapping/unwrap", body: map[string]any{}, token: token, once: true,
	})
	if errors.Is(err, ErrUnreachable) || errors.Is(err, ErrFault) {
		c.remember(token, fateLost)
	}
	if err != nil {
		return nil, c.gone(what, token, err)
	}
	c.remember(token, fateUsed)
	if answer == nil {
		return nil, fmt.Errorf("unwrapping %s: %w: nothing in it", what, ErrAnswer)
	}
	return answer.Data, nil
}

// fate is what this process knows of a wrapping token that it has used.
type fate int

const (
	fateNone fate = iota
	fateUsed      // unwrapped here
	fateLost      // sent, and the answer did not come
)

func (c *Client) fateOf(token string) fate {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spent[sha256.Sum256([]byte(token))]
}

func (c *Client) remember(token string, f fate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spent[sha256.Sum256([]byte(token))] = f
}

// gone tells a token that is gone from a Vault that is away.
func (c *Client) gone(what, token string, err error) error {
	if !errors.Is(err, ErrRejected) && !errors.Is(err, ErrDenied) && !errors.Is(err, ErrNotFound) {
		return err
	}
	if c.fateOf(token) == fateLost {
		return fmt.Errorf("%s: %w: keyd's own request took it, most likely, whose answer was lost; put a new one there (%w)", what, ErrUnwrapped, err)
	}
	return fmt.Errorf("%s: %w: it ran out, or somebody else has unwrapped it; unless you know that it ran out, treat what was in it as stolen, and put a new one there (%w)", what, ErrUnwrapped, err)
}

// Encrypt wraps bytes under a key of the transit engine. It returns Vault's form
// of the ciphertext, "vault:v1:…". C-11.
func (c *Client) Encrypt(ctx context.Context, mount, key string, plain []byte) (string, error) {
	return c.transit(ctx, mount, "encrypt", key, "plaintext", base64.StdEncoding.EncodeToString(plain), "ciphertext")
}

// Decrypt is the inverse of Encrypt.
func (c *Client) Decrypt(ctx context.Context, mount, key, ciphertext string) ([]byte, error) {
	text, err := c.transit(ctx, mount, "decrypt", key, "ciphertext", ciphertext, "plaintext")
	if err != nil {
		return nil, err
	}
	plain, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("unwrapping with %s/%s: %w", mount, key, ErrAnswer)
	}
	return plain, nil
}

func (c *Client) transit(ctx context.Context, mount, verb, key, in, value, out string) (string, error) {
	path := mount + "/" + verb + "/" + key
	answer, err := c.authorised(ctx, request{operation: "transit", what: "asking " + path, path: path, body: map[string]any{in: value}})
	if err != nil {
		return "", err
	}
	if answer == nil {
		return "", fmt.Errorf("asking %s: %w", path, ErrAnswer)
	}
	text, ok := answer.Data[out].(string)
	if !ok {
		return "", fmt.Errorf("asking %s: %w: no %s in it", path, ErrAnswer, out)
	}
	return text, nil
}
