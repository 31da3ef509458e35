package ceremony

import (
	"errors"
	"net/http"
	"time"
)

// Status is a ceremony as everybody in it sees it. It holds nothing secret.
type Status struct {
	ID         string       `json:"id"`
	Title      string       `json:"title"`
	Kind       Kind         `json:"kind"`
	Script     string       `json:"script_sha256"`
	Stage      Stage        `json:"stage"`
	Why        string       `json:"why,omitempty"`
	Object     string       `json:"object"`
	Check      string       `json:"check_value,omitempty"` // of the whole key
	KeyID      string       `json:"key_id,omitempty"`
	Opener     string       `json:"opener"`
	Opened     time.Time    `json:"opened"`
	Deadline   time.Time    `json:"step_deadline"`
	Revision   int          `json:"revision"`
	Custodians []SeatStatus `json:"custodians"`
}

// SeatStatus is one custodian in a [Status].
type SeatStatus struct {
	Name      string `json:"name"`
	Component int    `json:"component"`
	Joined    bool   `json:"joined"`
	Ready     bool   `json:"ready"` // has done the present stage
	Check     string `json:"check_value,omitempty"`
}

func (s *session) status() Status {
	out := Status{
		ID: s.id, Title: s.script.Title, Kind: s.script.Kind, Script: s.script.Hash(), Stage: s.stage, Why: s.why,
		Object: s.script.Object(), Check: s.check, KeyID: string(s.made.KeyID), Opener: s.opener.Name,
		Opened: s.opened, Deadline: s.deadline.UTC(), Revision: s.revision,
	}
	for _, t := range s.seats {
		out.Custodians = append(out.Custodians, SeatStatus{Name: t.part.Name, Component: t.number, Joined: t.joined, Ready: t.fresh, Check: t.check})
	}
	return out
}

// Place is what a custodian learns when it joins.
type Place struct {
	Ceremony    string `json:"ceremony"`
	Custodian   string `json:"custodian"`
	Component   int    `json:"component"`
	Public      []byte `json:"public"`        // components are sealed to this
	Script      []byte `json:"script_sha256"` // of the reviewed text
	Explanation string `json:"explanation"`
	Algorithm   string `json:"algorithm,omitempty"` // of components to be brought
	Method      string `json:"check_method,omitempty"`
	Expected    string `json:"expected,omitempty"` // check value of the component to be brought
	File        string `json:"file,omitempty"`     // where the component comes from or goes to
	Status      Status `json:"status"`
}

// Parcel is a component on its way out, sealed to who is to have it.
type Parcel struct {
	Sealed    []byte `json:"sealed"`
	Check     string `json:"check_value"`
	Component int    `json:"component"`
	Recipient string `json:"recipient,omitempty"`
	Algorithm string `json:"algorithm"`
	Method    string `json:"check_method"`
}

// Result is what is left of a ceremony that has ended.
type Result struct {
	Transcript []byte     `json:"transcript"`
	Injected   []Injected `json:"injected,omitempty"`
}

// Injected is one line for a key injection facility.
type Injected struct {
	TID   string `json:"tid"`
	KSN   string `json:"ksn"`
	Check string `json:"check_value"`
	Block string `json:"key_block"`
}

// request is every body that the door takes; each path uses some members.
type request struct {
	ID       string `json:"id,omitempty"`
	Script   string `json:"script,omitempty"`
	List     string `json:"list,omitempty"`
	Public   []byte `json:"public,omitempty"`
	Sealed   []byte `json:"sealed,omitempty"`
	Check    string `json:"check_value,omitempty"`
	Object   string `json:"object,omitempty"`
	Why      string `json:"why,omitempty"`
	Revision int    `json:"revision,omitempty"`
}

// refusal is the body of an answer that refuses.
type refusal struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// codes are the errors as they stand on the wire, so that both sides match on
// values and never on text. The first that fits is taken.
var codes = []struct {
	code   string
	err    error
	status int
}{
	{"script", ErrScript, http.StatusBadRequest},
	{"request", ErrRequest, http.StatusBadRequest},
	{"unknown", ErrUnknown, http.StatusNotFound},
	{"same_person", ErrSamePerson, http.StatusForbidden},
	{"denied", ErrDenied, http.StatusForbidden},
	{"ended", ErrEnded, http.StatusGone},
	{"stage", ErrStage, http.StatusConflict},
	{"check_value", ErrCheck, http.StatusConflict},
	{"component", ErrComponent, http.StatusConflict},
	{"confirm", ErrConfirm, http.StatusConflict},
	{"seal", ErrSeal, http.StatusConflict},
	{"busy", ErrBusy, http.StatusTooManyRequests},
	{"work", ErrWork, http.StatusInternalServerError},
}

// codeOf is the code of an error, or "" for one that has none.
func codeOf(err error) string {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	return ""
}
