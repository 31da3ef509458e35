package ceremony

// Stage is what everybody in a ceremony does at a time. One stage begins when
// all custodians have done the one before it.
type Stage string

// The stages, and the ends.
const (
	Joining    Stage = "join"    // show who is there
	Giving     Stage = "give"    // bring a component or share
	Taking     Stage = "take"    // take a component or share away
	Confirming Stage = "confirm" // type the object; the last one makes it happen

	Done    Stage = "done"
	Aborted Stage = "aborted" // somebody gave up
	Expired Stage = "expired" // somebody took too long
	Failed  Stage = "failed"  // something was refused or broke
)

// Ended reports whether nothing more happens.
func (s Stage) Ended() bool {
	return s == Done || s == Aborted || s == Expired || s == Failed
}

// brings reports whether custodians come with components.
func (s *Script) brings() bool {
	return s.Kind == Import || (s.Kind == LMK || s.Kind == LMKChange) && s.LMK != nil && !s.LMK.Create
}

// takesAway reports whether custodians leave with components.
func (s *Script) takesAway() bool {
	return s.Kind == Generate || s.Kind == Export || (s.Kind == LMK || s.Kind == LMKChange) && s.LMK != nil && s.LMK.Create
}

// stages lists what the ceremony goes through. What leaves is confirmed before
// it leaves; what is made is confirmed once every custodian has proved that it
// holds its part.
func (s *Script) stages() []Stage {
	switch {
	case s.brings():
		return []Stage{Joining, Giving, Confirming}
	case s.Kind == Export:
		return []Stage{Joining, Confirming, Taking}
	case s.takesAway():
		return []Stage{Joining, Taking, Confirming}
	}
	return []Stage{Joining, Confirming}
}
