package ceremony

import (
	"context"
	"fmt"
	"regexp"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/secret"
)

// bagNumber is the number of a tamper-evident bag, short enough that it cannot be
// taken for a card number.
var bagNumber = regexp.MustCompile(`^[A-Za-z0-9-]{1,12}$`)

// materialOut records that a custodian has taken its component out of safekeeping
// and brought it: who, when, what for, and from which bag the script says.
func (s *session) materialOut(ctx context.Context, t *seat) error {
	cer := audit.Cer{Step: audit.StepMaterialOut, Custodian: t.part.Name, Component: t.number, BagOut: t.part.BagOut}
	if t.part.BagOut != "" {
		s.event("material_out", t.part.Name, "", fmt.Sprintf("component %d out of bag %s", t.number, t.part.BagOut))
	}
	return s.note(ctx, t.caller, audit.Record{Action: audit.CeremonyMaterialOut, Outcome: audit.OutcomeOK}, cer)
}

// materialIn records that a custodian holds its component and takes it into
// safekeeping.
func (s *session) materialIn(ctx context.Context, t *seat) error {
	cer := audit.Cer{Step: audit.StepMaterialIn, Custodian: t.part.Name, Component: t.number, ComponentKCV: t.check, BagIn: t.part.BagIn}
	if t.part.BagIn != "" {
		s.event("material_in", t.part.Name, t.check, fmt.Sprintf("component %d into bag %s", t.number, t.part.BagIn))
	}
	return s.note(ctx, t.caller, audit.Record{Action: audit.CeremonyMaterialIn, Outcome: audit.OutcomeOK}, cer)
}

// materialBack records of components that were brought that they go back, where
// the script says into which bag. What was carried out stays so, recorded or not.
func (s *session) materialBack(ctx context.Context) {
	if !s.script.brings() {
		return
	}
	for _, t := range s.seats {
		if t.part.BagIn == "" {
			continue
		}
		if err := s.materialIn(ctx, t); err != nil {
			s.e.log.Error("the way back of a component not recorded", "ceremony", s.id, "custodian", t.part.Name, "error", err)
		}
	}
}

// load puts a local master key into the token, between its intent and its outcome.
func (s *session) load(ctx context.Context, by Quorum, value secret.Bytes) error {
	return s.step(ctx, by.Opener, audit.CeremonyLoad, audit.Cer{Step: audit.StepLoad}, func(r *audit.Record) (err error) {
		if s.made, err = s.house.SetLMK(ctx, by, value); err != nil {
			return err
		}
		r.Keys = s.entry()
		return nil
	})
}
