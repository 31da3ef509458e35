package main

import (
	"context"
	"errors"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
)

// The times of a stop that are not configured, and how often counts are recorded.
const (
	handlerWait = 5 * time.Second
	handlerPoll = 5 * time.Millisecond
	reportEvery = time.Minute
)

// drain ends the API with nothing half done: first the node says that it is not
// ready, for as long as a load balancer needs to see it, then no connection is
// taken any more, and requests in work get their answers, whose records are
// durable by then. HTTP/2 connections are told to go away, and those that are
// idle are closed. What takes longer than the limit is cut off: it has no
// answer, and a repeat with its invocation id gets one after the next start.
func (d *daemon) drain(ctx context.Context) error {
	d.draining.Store(true)
	notify(d.log, systemd.SdNotifyStopping)
	if grace := d.config().API.DrainGrace.std(); grace > 0 {
		d.log.Info("not ready; requests are still taken", "for", grace)
		select {
		case <-time.After(grace):
		case <-ctx.Done():
		}
	}
	d.ceremonies.Close()
	limited, cancel := context.WithTimeout(ctx, d.config().API.DrainLimit.std())
	defer cancel()
	err := d.api.Shutdown(limited)
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	d.log.Warn("requests in work were cut off", "requests", d.door.InWork(), "limit", d.config().API.DrainLimit.std())
	err = d.api.Close()
	d.handlersEnd(ctx)
	return err
}

// handlersEnd waits for requests whose connections are closed: what they use is
// closed after them.
func (d *daemon) handlersEnd(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, handlerWait)
	defer cancel()
	tick := time.NewTicker(handlerPoll)
	defer tick.Stop()
	for d.door.InWork() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// report records once a minute, and at the end, what was refused for its number.
func (d *daemon) report(ctx context.Context) {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true
		case <-tick.C:
		}
		if err := d.door.Report(context.WithoutCancel(ctx)); err != nil {
			d.log.Error("throttled requests not recorded", "err", err)
		}
	}
}
