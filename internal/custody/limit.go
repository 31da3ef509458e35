package custody

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"keyd.dev/keyd/keys"
)

// The policy tags of a key's cryptoperiod and of its limits. They are part of
// its block, under its MAC, so that nobody who can write to the database can
// make a key live longer.
const (
	TagNotBefore   = "keyd:not-before"   // RFC 3339, UTC
	TagNotAfter    = "keyd:not-after"    // the same; not used from this moment on
	TagMaxUses     = "keyd:max-uses"     // operations
	TagWarnPercent = "keyd:warn-percent" // of the period or of the uses, ascending, with commas
)

const (
	defaultWarnPercent = "80,90"
	mostWarnings       = 4
	mostUses           = 1e15
	noFence            = ^uint64(0)
)

// direction is what a use does with a key: make something new, or take what was
// made earlier, by verifying or deciphering it. A key that was replaced goes on
// taking for a while, and makes nothing.
type direction uint8

const (
	making direction = iota + 1
	taking
)

// limits are what a key's policy says of its time and its uses. Times are
// nanoseconds since 1970, 0 for none.
type limits struct {
	mac       [16]byte // of the block that says so
	life      Life
	notBefore int64
	notAfter  int64
	aged      int64    // when a terminal's key is too old
	from      uint64   // uses of the id before this value
	most      uint64   // counted from the first use of the id; 0: no limit
	warnUses  []uint64 // ascending
	warnTimes []int64
}

// timed reports whether the clock has a say.
func (l *limits) timed() bool { return l.notBefore|l.notAfter|l.aged != 0 || l.life.Successor != "" }

// limitsOf reads the policy of a block. It returns [ErrKeyUse] for one that
// cannot be read: such a key is not used.
func limitsOf(k KeyRecord) (*limits, error) {
	b := k.Block
	l := &limits{mac: b.MAC, life: k.Life}
	for tag, into := range map[string]*int64{TagNotBefore: &l.notBefore, TagNotAfter: &l.notAfter} {
		text, ok := b.Policy[tag]
		if !ok {
			continue
		}
		at, err := parseInstant(text)
		if err != nil {
			return nil, fmt.Errorf("%w: its policy has an unreadable time", ErrKeyUse)
		}
		*into = at.UnixNano()
	}
	if text, ok := b.Policy[TagMaxUses]; ok {
		n, err := parseUses(text)
		if err != nil {
			return nil, fmt.Errorf("%w: its policy has an unreadable limit", ErrKeyUse)
		}
		l.most = n
	}
	if err := l.ofTerminal(b); err != nil {
		return nil, err
	}
	text := b.Policy[TagWarnPercent]
	if text == "" {
		text = defaultWarnPercent
	}
	percents, err := parsePercents(text)
	if err != nil {
		return nil, fmt.Errorf("%w: its policy has unreadable thresholds", ErrKeyUse)
	}
	l.thresholds(percents, b.CreatedMs*int64(time.Millisecond))
	return l, nil
}

// ofTerminal reads what the blocks of terminals' working keys say beside. The
// end of such a key by its age is an everyday thing, which nobody is told of: the
// terminal signs in anew. Its end by the number of messages is not (decision 0040).
func (l *limits) ofTerminal(b *keys.Block) error {
	if text, ok := b.Policy[keptAge]; ok {
		n, err := parseUses(text)
		if err != nil || n > mostAge {
			return fmt.Errorf("%w: its policy has an unreadable age", ErrKeyUse)
		}
		l.aged = b.CreatedMs*int64(time.Millisecond) + int64(n)*int64(time.Second)
	}
	if text, ok := b.Policy[keptFrom]; ok {
		n, err := parseUses(text)
		if err != nil {
			return fmt.Errorf("%w: its policy has an unreadable count", ErrKeyUse)
		}
		l.from = n
		if l.most > 0 {
			l.most += n
		}
	}
	return nil
}

// mostAge bounds the age of a terminal's key: ten years, in seconds.
const mostAge = 10 * 365 * 24 * 60 * 60

// thresholds turns percentages into counts and moments. The period begins with
// not-before, else with the making of the key.
func (l *limits) thresholds(percents []int, created int64) {
	begin := l.notBefore
	if begin == 0 {
		begin = created
	}
	for _, p := range percents {
		if l.most > 0 {
			l.warnUses = append(l.warnUses, l.from+max(1, ((l.most-l.from)*uint64(p)+99)/100))
		}
		if l.notAfter > begin {
			l.warnTimes = append(l.warnTimes, begin+(l.notAfter-begin)/100*int64(p))
		}
	}
}

// at refuses what the clock refuses.
func (l *limits) at(now time.Time, way direction) error {
	if l.life.Successor != "" {
		if !now.Before(l.life.Retires) {
			return errRetired
		}
		if way != taking {
			return errReplaced
		}
	}
	if l.notBefore != 0 && now.UnixNano() < l.notBefore {
		return errEarly
	}
	if l.notAfter != 0 && now.UnixNano() >= l.notAfter {
		return errExpired
	}
	if l.aged != 0 && now.UnixNano() >= l.aged {
		return errAged
	}
	return nil
}

// The refusals of a key by its time or its uses. Each is an [ErrKeyState].
var (
	errEarly     = fmt.Errorf("%w: its cryptoperiod has not begun", ErrKeyState)
	errExpired   = fmt.Errorf("%w: its cryptoperiod is over", ErrKeyState)
	errAged      = fmt.Errorf("%w: it is older than its terminal's profile permits", ErrKeyState)
	errExhausted = fmt.Errorf("%w: its number of uses is used up", ErrKeyState)
	errReplaced  = fmt.Errorf("%w: it was replaced, and only verifies and deciphers", ErrKeyState)
	errRetired   = fmt.Errorf("%w: it was replaced by another version", ErrKeyState)
)

func parseInstant(text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, err
	}
	if !strings.HasSuffix(text, "Z") || at.Year() < 1971 || at.Year() > 2200 {
		return at, fmt.Errorf("%w: a time is UTC, of 1971 to 2200", ErrRequest)
	}
	return at, nil
}

func parseUses(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n < 1 || n > mostUses || strconv.FormatUint(n, 10) != text {
		return 0, fmt.Errorf("%w: a number of uses is 1 to %d", ErrRequest, uint64(mostUses))
	}
	return n, nil
}

// parsePercents reads "80,90".
func parsePercents(text string) ([]int, error) {
	var all []int
	for word := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 || n > 99 || strconv.Itoa(n) != word || len(all) > 0 && n <= all[len(all)-1] || len(all) == mostWarnings {
			return nil, fmt.Errorf("%w: thresholds are at most %d ascending percentages of 1 to 99", ErrRequest, mostWarnings)
		}
		all = append(all, n)
	}
	return all, nil
}

// policyForms are the policy tags whose values are not a few words.
var policyForms = map[string]func(string) bool{
	TagNotBefore:   func(text string) bool { _, err := parseInstant(text); return err == nil },
	TagNotAfter:    func(text string) bool { _, err := parseInstant(text); return err == nil },
	TagMaxUses:     func(text string) bool { _, err := parseUses(text); return err == nil },
	TagWarnPercent: func(text string) bool { _, err := parsePercents(text); return err == nil },
}

// checkPeriod refuses a cryptoperiod that ends before it begins.
func checkPeriod(policy map[string]string) error {
	before, err1 := parseInstant(policy[TagNotBefore])
	after, err2 := parseInstant(policy[TagNotAfter])
	if err1 == nil && err2 == nil && !before.Before(after) {
		return fmt.Errorf("%w: the cryptoperiod ends before it begins", ErrRequest)
	}
	return nil
}
