package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/isoswitch"
)

// alarmLevels are the codes of all alarms. Each has an entry in the runbook
// (docs/OPERATIONS.md), which a test compares with the source. They are counted
// from the start, at 0: of a series that begins with its first alarm, nobody
// could see that it rose.
func alarmLevels() map[string]audit.AlarmLevel {
	const warn, critical = audit.LevelWarn, audit.LevelCritical
	return map[string]audit.AlarmLevel{
		"log_unavailable": critical, "log_poisoned": critical, "wal_no_spare": critical,
		"disk_low": warn, "disk_critical": critical, "disk_recovered": warn,
		"checkpoint_failed": critical, "checkpoint_resumed": warn,
		"intent_without_outcome": critical, "scrub": warn, "anchor_unreachable": warn,
		"sink_failed": warn, "sink_lagging": critical, "sink_resumed": warn, alarmSinkSet: warn,
		"clock_step": warn, "clock_unsynchronised": warn, "clock_synchronised": warn,
		"key_uses_warning": warn, "key_uses_over": critical, "key_period_warning": warn, "key_period_over": critical,
		"key_not_destroyed": critical, "lmk_not_destroyed": critical,
		"pin_blocks_refused": critical, alarmFlood: warn, alarmBreaker: warn,
		alarmRegister: critical, alarmRow: critical, alarmAnchor: critical, alarmJournal: critical,
	}
}

// alarmFlood: many terminals were locked out behind one client certificate.
const alarmFlood = "lockout_flood"

// alarmBreaker: upstream answers no reversal, and the queue rests.
const alarmBreaker = "upstream_breaker"

func newAlarmCounter() *prometheus.CounterVec {
	alarms := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "keyd_audit_alarms_total", Help: "Alarms of the audit log and of keys.",
	}, []string{"code", "level"})
	for code, level := range alarmLevels() {
		alarms.WithLabelValues(code, level.String())
	}
	return alarms
}

func (m *metrics) alarm(a audit.Alarm) { m.alarms.WithLabelValues(a.Code, a.Level.String()).Inc() }

// event hears of the switch's decisions.
func (m *metrics) event(e isoswitch.Event) {
	if e.Name == alarmFlood {
		m.alarm(audit.Alarm{Code: alarmFlood, Level: audit.LevelWarn})
	}
	if e.Name == "breaker" && e.Code == "open" {
		m.alarm(audit.Alarm{Code: alarmBreaker, Level: audit.LevelWarn})
	}
	m.sw.event(e)
}
