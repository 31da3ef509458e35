package main

import (
	"context"
	"log/slog"
	"time"

	"keyd.dev/keyd/internal/credentials"
)

// lifeEvery is the time between looks at the lives of certificates.
const lifeEvery = time.Minute

// lifeAlarm is a share of a certificate's life that is left, below which the
// operator is told (C-08).
type lifeAlarm struct {
	name  string
	share float64
	level slog.Level
}

// lifeAlarms go from the last to the first. Half is told only while Vault, who
// renews the certificate, is away: renewal comes at two thirds, and half would
// sound for every healthy one.
func lifeAlarms(renewable bool) []lifeAlarm {
	all := []lifeAlarm{{"expired", 0, slog.LevelError}, {"1/10", 0.1, slog.LevelError}, {"1/4", 0.25, slog.LevelError}}
	if !renewable {
		all = append(all, lifeAlarm{"1/2", 0.5, slog.LevelWarn})
	}
	return all
}

// lifeOf returns the gravest alarm that a life deserves now; none has no name.
func lifeOf(l credentials.Life, now time.Time, renewable bool) lifeAlarm {
	if l.Ends.IsZero() {
		return lifeAlarm{}
	}
	left := l.Ends.Sub(now).Seconds() / l.Ends.Sub(l.Begins).Seconds()
	for _, a := range lifeAlarms(renewable) {
		if left <= a.share {
			return a
		}
	}
	return lifeAlarm{}
}

// watchLives tells the operator's log when a certificate's life runs out, once
// for each share. The same is in the metrics, for who has them.
func (d *daemon) watchLives(ctx context.Context) {
	tick := time.NewTicker(lifeEvery)
	defer tick.Stop()
	told := make(map[*credentials.TLS]string)
	for {
		for _, c := range d.tls {
			l := c.Life()
			// A file that somebody else renews is not known to be in danger at half.
			renewable := d.vault == nil || d.vault.client.Status().Up
			a := lifeOf(l, time.Now(), renewable)
			if a.name != "" && a.name != told[c] {
				d.log.Log(ctx, a.level, "certificate life", "left", a.name, "ends", l.Ends.UTC(), "serial", c.Leaf().SerialNumber.String())
			}
			told[c] = a.name
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
