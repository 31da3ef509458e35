package custody

import (
	"fmt"
	"slices"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
)

// DualControl says whether changes need a second person, section 5.1 of the API.
type DualControl struct {
	On       bool
	Validity time.Duration // of an approval; 0 is 15 minutes
	Wait     time.Duration // how long a request waits for somebody to decide; 0 is 24 hours
}

// Bounds of the two times, and their defaults.
const (
	defaultValidity = 15 * time.Minute
	defaultWait     = 24 * time.Hour
	mostValidity    = 24 * time.Hour
	mostWait        = 30 * 24 * time.Hour
)

func (d *DualControl) complete() error {
	if d.Validity == 0 {
		d.Validity = defaultValidity
	}
	if d.Wait == 0 {
		d.Wait = defaultWait
	}
	if d.Validity < time.Second || d.Validity > mostValidity {
		return fmt.Errorf("custody: an approval of %v, want %v to %v", d.Validity, time.Second, mostValidity)
	}
	if d.Wait < time.Second || d.Wait > mostWait {
		return fmt.Errorf("custody: requests that wait %v, want %v to %v", d.Wait, time.Second, mostWait)
	}
	return nil
}

// changeKinds is what the log calls the kind of object that an operation under
// dual control changes; those that are not here change keys.
var changeKinds = map[Operation]audit.ChangeKind{
	OpChangeTerminal: audit.ChangeTerminal, OpDistributeKeys: audit.ChangeTerminal, OpAddTerminals: audit.ChangeTerminal,
	OpSetRoles: audit.ChangeRole, OpResolveReversal: audit.ChangeTerminal,
	OpGetCardToken: audit.ChangeLog, OpReleaseReversal: audit.ChangeTerminal, OpRejectReversal: audit.ChangeTerminal,
	OpPruneLog: audit.ChangeLog,
}

func changeKind(op Operation) audit.ChangeKind {
	if kind, ok := changeKinds[op]; ok {
		return kind
	}
	return audit.ChangeKey
}

// twoPersons says whether an operation on keys of these usages needs a second
// person: where one of them carries or derives other keys, and where nothing is
// said of usages.
func twoPersons(usages []keys.Usage) bool {
	carries := func(u keys.Usage) bool {
		return u == keys.UsageKEK || u == keys.UsageKBPK || u == keys.UsageBDK
	}
	return len(usages) == 0 || slices.ContainsFunc(usages, carries)
}

// described is a key that does not exist yet, in the words of whoever approves
// that it be made: usage, algorithm, mode and exportability.
func described(a keys.Attributes) string {
	return fmt.Sprintf("a new key %s %s, mode %c, exportability %c", a.Usage, a.Algorithm, a.Mode, a.Exportability)
}
