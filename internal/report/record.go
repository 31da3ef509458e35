package report

import (
	"encoding/json"
	"fmt"
	"strings"

	"keyd.dev/keyd/audit"
)

// record is what reports need of a stored record.
type record struct {
	Log   string `json:"log"`
	Seq   uint64 `json:"seq"`
	ID    string `json:"id"`
	Time  string `json:"ts"`
	Boot  string `json:"boot"`
	Clock struct {
		Sync   bool   `json:"sync"`
		Error  int64  `json:"err_us"`
		Source string `json:"src"`
	} `json:"tsq"`
	Node    string `json:"node"`
	Build   string `json:"build"`
	Class   string `json:"class"`
	Action  string `json:"action"`
	Phase   string `json:"phase"`
	Ref     string `json:"ref"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
	Corr    string `json:"corr"`
	Actor   struct {
		ID    string `json:"id"`
		Kind  string `json:"kind"`
		Authn string `json:"authn"`
		Cert  string `json:"cert"`
	} `json:"actor"`
	Src struct {
		Addr string `json:"addr"`
	} `json:"src"`
	Keys []key `json:"keys"`
	ISO  struct {
		MTI   string `json:"mti"`
		Term  string `json:"term"`
		Merch string `json:"merch"`
		Alert string `json:"alert"`
	} `json:"iso"`
	Cer       *ceremonyStep `json:"cer"`
	Change    *change       `json:"change"`
	Approvals []approval    `json:"approvals"`
	Query     *struct {
		Cmd    string `json:"cmd"`
		Filter string `json:"filter"`
		Log    string `json:"log"`
		Rows   int64  `json:"rows"`
	} `json:"query"`
	Trees []struct {
		Log  string `json:"log"`
		Size uint64 `json:"size"`
		Root string `json:"root"`
	} `json:"trees"`
	WAL *struct {
		Dropped int64 `json:"dropped"`
	} `json:"wal"`
	Sink *struct {
		Name string `json:"name"`
	} `json:"sink"`
	Count *struct {
		N    int64  `json:"n"`
		Peer string `json:"peer"`
		From string `json:"from"`
		To   string `json:"to"`
		By   []struct {
			Reason string `json:"reason"`
			N      int64  `json:"n"`
		} `json:"by"`
	} `json:"count"`
	Alarm struct {
		Code  string `json:"code"`
		Level string `json:"level"`
	} `json:"alarm"`
	Step *struct {
		Wall int64 `json:"wall_us"`
	} `json:"step"`
	Scrub []struct {
		Field string `json:"field"`
		Why   string `json:"why"`
	} `json:"scrub"`

	raw []byte
}

type key struct {
	Role    string `json:"role"`
	ID      string `json:"id"`
	Version int    `json:"ver"`
	KCV     string `json:"kcv"`
	Usage   string `json:"usage"`
	Algo    string `json:"algo"`
}

type change struct {
	Kind   string `json:"kind"`
	Object string `json:"object"`
	After  string `json:"after"`
}

type approval struct {
	ID  string `json:"id"`
	Ref string `json:"ref"`
}

type ceremonyStep struct {
	ID         string `json:"id"`
	Step       string `json:"step"`
	No         int    `json:"step_no"`
	M          int    `json:"m"`
	N          int    `json:"n"`
	Purpose    string `json:"purpose"`
	Custodian  string `json:"custodian"`
	Witness    string `json:"witness"`
	Component  int    `json:"component"`
	KCV        string `json:"component_kcv"`
	Device     string `json:"device"`
	BagOut     string `json:"bag_out"`
	BagIn      string `json:"bag_in"`
	Sig        []byte `json:"sig"`
	WitnessSig []byte `json:"witness_sig"`
}

func parse(e audit.Entry) (*record, error) {
	r := new(record)
	if err := json.Unmarshal(e.Raw, r); err != nil {
		return nil, fmt.Errorf("record %s:%d: %w", e.Log, e.Seq, err)
	}
	// The place is where the record stands, whatever it says of itself.
	r.Log, r.Seq, r.raw = e.Log, e.Seq, e.Raw
	return r, nil
}

func (r *record) intent() bool { return r.Phase == "intent" }

func (r *record) is(a audit.Action) bool { return r.Action == a.String() }

// result is the outcome and its reason.
func (r *record) result() string {
	if r.intent() {
		return "begun"
	}
	return strings.TrimSpace(r.Outcome + " " + r.Reason)
}

func (r *record) object() string {
	if r.Change == nil {
		return ""
	}
	return r.Change.Object
}

func (r *record) approvers() string {
	names := make([]string, 0, len(r.Approvals))
	for _, a := range r.Approvals {
		names = append(names, a.ID)
	}
	return strings.Join(names, ", ")
}

// keyWords are the keys of a record: what an auditor compares.
func (r *record) keyWords() string {
	words := make([]string, 0, len(r.Keys))
	for _, k := range r.Keys {
		text := k.Role + " " + k.ID + fmt.Sprintf(" v%d", k.Version)
		for _, more := range []string{k.Usage, k.Algo} {
			if more != "" {
				text += " " + more
			}
		}
		if k.KCV != "" {
			text += " kcv " + k.KCV
		}
		words = append(words, text)
	}
	return strings.Join(words, "; ")
}

// refusal reports whether something was refused, by itself.
func (r *record) refusal() bool {
	return r.Outcome == audit.OutcomeRefused.String() && r.Count == nil
}
