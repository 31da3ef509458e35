package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// liveTimeout is how long the daemon may take to say how it is.
const liveTimeout = 3 * time.Second

// answers asks the daemon of this configuration how it is, /healthz or /readyz of
// ops.listen: for containers, which have nothing else to ask with.
func (c *doctorCmd) answers(p *program) error {
	if c.Live && c.Ready || c.Token || c.Config == "" {
		return usageError("--live and --ready go with --config FILE, one at a time")
	}
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	if cfg.Ops.Listen == "" {
		return advise(errors.New("the daemon answers nobody"), "set ops.listen in %s", cfg.path)
	}
	path := "/healthz"
	if c.Ready {
		path = "/readyz"
	}
	ctx, cancel := context.WithTimeout(p.ctx, liveTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+cfg.Ops.Listen+path, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return fmt.Errorf("asking the daemon at ops.listen: %w", err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(p.stdout, io.LimitReader(resp.Body, 64<<10)); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return &exitError{code: exitFailed, err: fmt.Errorf("the daemon answers %s with %s", path, resp.Status)}
	}
	return nil
}
