package main

import (
	"context"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
)

// sweepEvery is how often keys are looked at whose time has come. A use looks at
// the clock itself, so that nothing depends on it but when things are done.
const sweepEvery = 5 * time.Second

// sweep does what the clock asks for in the life of keys, until ctx ends.
func (n *node) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		err := n.custody.Sweep(ctx)
		n.metrics.sweeps.swept(err)
		if err != nil && ctx.Err() == nil {
			n.log.Error("keys: what their time asks for was not done, and is tried again", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// keyAlarm tells the operator of an alarm about a key; it is in the log sec too.
func (n *node) keyAlarm(alarm audit.Alarm, key keys.ID, why error) {
	n.metrics.alarm(alarm)
	if alarm.Level == audit.LevelCritical {
		n.log.Error("key alarm", "code", alarm.Code, "key", string(key), "err", why)
		return
	}
	n.log.Warn("key alarm", "code", alarm.Code, "key", string(key))
}
