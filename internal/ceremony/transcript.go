package ceremony

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

// TranscriptDomain begins what the token signs of a transcript, so that the
// signature can never pass for one of a checkpoint, whose first line names a log.
const TranscriptDomain = "keyd ceremony transcript v1"

// Transcript is the minutes of a ceremony: who did what, when, and what became
// of it. It holds nothing secret.
type Transcript struct {
	Format     string      `json:"format"`
	Ceremony   string      `json:"ceremony"`
	Title      string      `json:"title"`
	Purpose    string      `json:"purpose"`
	Kind       Kind        `json:"kind"`
	Script     string      `json:"script_sha256"`
	Object     string      `json:"object"`
	Outcome    Stage       `json:"outcome"`
	Why        string      `json:"why,omitempty"`
	Carried    bool        `json:"carried_out"` // the work was done, whatever came after it
	Opened     time.Time   `json:"opened"`
	Ended      time.Time   `json:"ended"`
	Opener     Identity    `json:"opener"`
	Custodians []Attendant `json:"custodians"`
	Check      string      `json:"check_value,omitempty"`
	Made       Made        `json:"made"`
	Events     []Event     `json:"events"`
	Node       string      `json:"node"`
	Token      string      `json:"token_serial"`
	Version    string      `json:"version"`
	Config     string      `json:"config_sha256"`
}

// Identity is who somebody was, by its certificate.
type Identity struct {
	Name    string `json:"name"`
	URI     string `json:"uri"`
	Subject string `json:"subject"`
	Cert    string `json:"certificate_sha256"`
}

// Attendant is a custodian and what it had to do with.
type Attendant struct {
	Identity
	Component int    `json:"component"`
	Check     string `json:"check_value,omitempty"`
	Joined    bool   `json:"joined"`
}

// Event is one line of the minutes.
type Event struct {
	At    time.Time `json:"at"`
	Step  string    `json:"step"`
	Who   string    `json:"who"`
	Check string    `json:"check_value,omitempty"`
	Note  string    `json:"note,omitempty"`
}

// Signed is the file: the transcript, and the token's signature over the
// compact form of exactly these bytes.
type Signed struct {
	Transcript json.RawMessage `json:"transcript"`
	Vkey       string          `json:"vkey"` // of the log "sec": who verifies has it from elsewhere
	Signature  []byte          `json:"signature"`
}

func personOf(c custody.Caller) Identity {
	return Identity{Name: c.Name, URI: c.URI, Subject: c.Subject, Cert: c.Cert}
}

// transcript writes the minutes of a ceremony that has ended.
func (s *session) transcript() Transcript {
	about := s.house.About()
	t := Transcript{
		Format: TranscriptDomain, Ceremony: s.id, Title: s.script.Title, Purpose: s.script.Purpose, Kind: s.script.Kind,
		Script: s.script.Hash(), Object: s.script.Object(), Outcome: s.stage, Why: s.why, Carried: s.done, Opened: s.opened, Ended: s.ended,
		Opener: personOf(s.opener), Check: s.check, Made: s.made, Events: s.events,
		Node: about.Node, Token: about.Token, Version: about.Version, Config: about.Config,
	}
	for _, seat := range s.seats {
		p := Attendant{Identity: personOf(seat.caller), Component: seat.number, Check: seat.check, Joined: seat.joined}
		p.Name = seat.part.Name
		t.Custodians = append(t.Custodians, p)
	}
	return t
}

// sign has the token sign the minutes and puts their hash into the audit log. A
// transcript without its record is not given out.
func (s *session) sign(ctx context.Context) {
	text, err := json.Marshal(s.transcript())
	if err != nil {
		s.e.log.Error("transcript not written", "ceremony", s.id, "error", err)
		return
	}
	sig, vkey, err := s.house.Attest(TranscriptDomain, text)
	if err != nil {
		s.e.log.Error("transcript not signed", "ceremony", s.id, "error", err)
		return
	}
	if err := s.note(ctx, s.opener, audit.Record{Action: audit.CeremonySign, Outcome: audit.OutcomeOK}, audit.Cer{Step: audit.StepSign}); err != nil {
		s.e.log.Error("signing of the transcript not recorded", "ceremony", s.id, "error", err)
		return
	}
	r := audit.Record{
		Action: audit.AdminExecute, Outcome: audit.OutcomeOK,
		Change: &audit.Change{Kind: audit.ChangeKey, Object: hashObject(s.id), After: sha256.Sum256(text)},
	}
	if s.script.Kind == RoleChange {
		r.Change.Kind = audit.ChangeRole
	}
	for _, t := range s.seats {
		if t.approval.ID != "" {
			r.Approvals = append(r.Approvals, t.approval)
		}
	}
	if err := s.house.Note(ctx, s.opener, s.id, r); err != nil {
		s.e.log.Error("hash of the transcript not recorded", "ceremony", s.id, "error", err)
		return
	}
	signed, err := json.MarshalIndent(Signed{Transcript: text, Vkey: vkey, Signature: sig}, "", "  ")
	if err != nil {
		s.e.log.Error("transcript not written", "ceremony", s.id, "error", err)
		return
	}
	s.signed = append(signed, '\n')
}

// hashObject is the name under which the log has the hash of a transcript.
func hashObject(id string) string { return "ceremony/" + id }

// ReadTranscript takes a transcript's file apart and checks the signature: by
// vkey, or by the key that the file itself names where vkey is empty, which
// proves only that the file was not changed since. It also checks that the
// minutes do not contradict themselves. The error is [ErrTranscript].
func ReadTranscript(file []byte, vkey string) (*Transcript, [32]byte, error) {
	none := [32]byte{}
	var signed Signed
	dec := json.NewDecoder(bytes.NewReader(file))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&signed); err != nil {
		return nil, none, fmt.Errorf("%w: it cannot be read: %w", ErrTranscript, err)
	}
	var text bytes.Buffer
	if err := json.Compact(&text, signed.Transcript); err != nil {
		return nil, none, fmt.Errorf("%w: it cannot be read: %w", ErrTranscript, err)
	}
	if vkey == "" {
		vkey = signed.Vkey
	}
	if err := audit.VerifyAttestation(vkey, TranscriptDomain, text.Bytes(), signed.Signature); err != nil {
		return nil, none, fmt.Errorf("%w: %w", ErrTranscript, err)
	}
	t := new(Transcript)
	dec = json.NewDecoder(&text)
	dec.DisallowUnknownFields()
	hash := sha256.Sum256(text.Bytes())
	if err := dec.Decode(t); err != nil {
		return nil, none, fmt.Errorf("%w: it cannot be read: %w", ErrTranscript, err)
	}
	if err := t.consistent(); err != nil {
		return nil, none, err
	}
	return t, hash, nil
}

// consistent looks for contradictions within the minutes.
func (t *Transcript) consistent() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrTranscript, fmt.Sprintf(format, args...))
	}
	if t.Format != TranscriptDomain {
		return bad("format %q, want %q", t.Format, TranscriptDomain)
	}
	if !t.Outcome.Ended() || t.Outcome == Done && !t.Carried {
		return bad("outcome %q", t.Outcome)
	}
	last := t.Opened
	done := make(map[string]map[string]bool)
	for _, e := range t.Events {
		if e.At.Before(last) || e.At.After(t.Ended.Add(time.Second)) {
			return bad("the times of its events are not in order")
		}
		last = e.At
		if done[e.Step] == nil {
			done[e.Step] = make(map[string]bool)
		}
		done[e.Step][e.Who] = true
	}
	people := map[string]bool{t.Opener.Subject: true}
	for _, c := range t.Custodians {
		if !c.Joined {
			continue
		}
		if people[c.Subject] || c.Subject == "" {
			return bad("%s stands in it twice", c.Subject)
		}
		people[c.Subject] = true
		if !done["join"][c.Name] {
			return bad("%s has joined without an event", c.Name)
		}
	}
	if !t.Carried {
		return nil
	}
	for _, c := range t.Custodians {
		if !c.Joined || !done["confirm"][c.Name] {
			return bad("carried out without the word of %s", c.Name)
		}
	}
	return nil
}

// InLog looks for the transcript's hash in the records of the audit log. The
// error is [ErrTranscript].
func (t *Transcript) InLog(records func(yield func(audit.Entry, error) bool), hash [32]byte) error {
	want := hex.EncodeToString(hash[:])
	steps := make(map[string]int)
	found := false
	for entry, err := range records {
		if err != nil {
			return fmt.Errorf("%w: reading the audit log: %w", ErrTranscript, err)
		}
		var r struct {
			Action string `json:"action"`
			Phase  string `json:"phase"`
			Corr   string `json:"corr"`
			Change struct {
				Object string `json:"object"`
				After  string `json:"after"`
			} `json:"change"`
		}
		if err := json.Unmarshal(entry.Raw, &r); err != nil || r.Corr != t.Ceremony {
			continue
		}
		if r.Phase == "outcome" {
			steps[r.Action]++
		}
		if r.Action == "admin.execute" && r.Change.Object == hashObject(t.Ceremony) {
			if r.Change.After != want {
				return fmt.Errorf("%w: the audit log has another hash for %s", ErrTranscript, t.Ceremony)
			}
			found = true
		}
	}
	if !found {
		return fmt.Errorf("%w: the audit log has no hash for %s", ErrTranscript, t.Ceremony)
	}
	if steps["ceremony.open"] != 1 || t.Carried && steps["ceremony.commit"] != 1 {
		return fmt.Errorf("%w: the audit log lacks steps of %s", ErrTranscript, t.Ceremony)
	}
	return nil
}

// Text is the transcript for people, with room for signatures on paper.
func (t *Transcript) Text(hash [32]byte) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("KEY CEREMONY %s", t.Ceremony)
	line("%s", strings.Repeat("=", len("KEY CEREMONY ")+len(t.Ceremony)))
	line("title        %s", t.Title)
	line("purpose      %s", t.Purpose)
	line("kind         %s of %s", t.Kind, t.Object)
	line("outcome      %s", t.outcome())
	line("opened       %s by %s (%s)", t.Opened.Format(time.RFC3339), t.Opener.Name, t.Opener.Subject)
	line("ended        %s", t.Ended.Format(time.RFC3339))
	if t.Check != "" {
		line("check value  %s", t.Check)
	}
	if t.Made.KeyID != "" {
		line("key id       %s", t.Made.KeyID)
	}
	if t.Made.LMK != 0 {
		line("generation   %d of the local master key", t.Made.LMK)
	}
	if t.Made.Note != "" {
		line("result       %s", t.Made.Note)
	}
	line("script       SHA-256 %s", t.Script)
	line("node         %s, token %s, keyd %s, configuration %s", t.Node, t.Token, t.Version, t.Config)
	line("transcript   SHA-256 %x", hash)
	line("\nCUSTODIANS")
	for _, c := range t.Custodians {
		line("%2d  %-20s %-8s %s", c.Component, c.Name, c.Check, c.Subject)
	}
	line("\nEVENTS")
	for _, e := range t.Events {
		line("%s", strings.TrimRight(fmt.Sprintf("%s  %-8s %-20s %-7s %s", e.At.Format("2006-01-02T15:04:05.000Z"), e.Step, e.Who, e.Check, e.Note), " "))
	}
	line("\nSIGNATURES\n")
	for _, who := range append([]string{t.Opener.Name}, t.names()...) {
		line("%-20s ______________________________  date __________\n", who)
	}
	return b.String()
}

func (t *Transcript) outcome() string {
	text := string(t.Outcome)
	if t.Why != "" {
		text += ": " + t.Why
	}
	if t.Carried && t.Outcome != Done {
		text += " (after the work was done)"
	}
	return text
}

func (t *Transcript) names() []string {
	names := make([]string, 0, len(t.Custodians))
	for _, c := range t.Custodians {
		names = append(names, c.Name)
	}
	return names
}
