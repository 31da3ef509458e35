package sim

import (
	"fmt"
	"io"
	"strings"
)

// Print writes the script as it was understood, a line for each step.
func (s *Script) Print(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "seed %d\n", s.Seed); err != nil {
		return err
	}
	for i, step := range s.Steps {
		if _, err := fmt.Fprintf(w, "%d %s: %s: %s\n", i+1, step.Name, step.when(), step.Do.Words()); err != nil {
			return err
		}
	}
	for _, change := range s.Changes {
		if _, err := fmt.Fprintf(w, "key change at %v: zone %s key: %s\n", change.At, strings.ToUpper(change.Key), change.Do); err != nil {
			return err
		}
	}
	rest := "as keyd dev answers: nothing to amounts that end in 99, a wrong MAC to 97, 3 s late to 95, 51 to odd ones, 00 to even ones"
	if s.Plain {
		rest = "approve"
	}
	_, err := fmt.Fprintf(w, "otherwise: %s\n", rest)
	return err
}

// when says which messages a step fits.
func (s *Step) when() string {
	what := "any message"
	if len(s.MTI) > 0 {
		what = strings.Join(s.MTI, " or ")
	}
	for _, part := range []struct{ text, say string }{
		{s.Amount, "amount ending in %s"}, {s.STAN, "STAN ending in %s"}, {s.BIN, "card beginning with %s"}, {s.TID, "terminal %s"},
		{s.Reason, "reason %s"}, {s.Network, "DE 70 %s"},
	} {
		if part.text != "" {
			what += ", " + fmt.Sprintf(part.say, part.text)
		}
	}
	return what + s.count() + s.window()
}

func (s *Step) count() string {
	var say string
	switch {
	case s.Times > 0 && s.Skip > 0:
		say = fmt.Sprintf(", %d times after the first %d", s.Times, s.Skip)
	case s.Times > 0:
		say = fmt.Sprintf(", %d times", s.Times)
	case s.Skip > 0:
		say = fmt.Sprintf(", after the first %d", s.Skip)
	}
	if s.Each {
		say += ", counted for each message and its repeats"
	}
	if s.Chance < certainty {
		say += fmt.Sprintf(", by chance in %g %%", float64(s.Chance)/100)
	}
	return say
}

func (s *Step) window() string {
	switch {
	case s.Until > 0:
		return fmt.Sprintf(", from %v to %v after the start", s.From, s.Until)
	case s.From > 0:
		return fmt.Sprintf(", from %v after the start", s.From)
	}
	return ""
}
