package main

import (
	"encoding/json"

	"keyd.dev/keyd/audit"
)

// counted is how many refused reversals the daemon's log has, alone and together
// (L-14).
func (f *forgeryBench) counted() (n int64, err error) {
	reader, err := audit.OpenReader(f.dev.AuditDir)
	if err != nil {
		return 0, err
	}
	logs, err := reader.Logs()
	if err != nil {
		return 0, err
	}
	for _, log := range logs {
		for entry, err := range reader.Records(log, 0) {
			if err != nil {
				return 0, err
			}
			var r struct {
				Action string `json:"action"`
				Count  struct {
					N int64 `json:"n"`
				} `json:"count"`
			}
			if err := json.Unmarshal(entry.Raw, &r); err != nil {
				return 0, err
			}
			switch r.Action {
			case "reversal.refuse":
				n++
			case "refuse.aggregate":
				n += r.Count.N
			}
		}
	}
	return n, nil
}
