package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"keyd.dev/keyd/internal/custody"
)

// keyAnswer is a key as the API tells it.
type keyAnswer struct {
	KeyArn        string
	KeyAttributes struct {
		KeyUsage      string
		KeyAlgorithm  string
		KeyModesOfUse map[string]bool
	}
	KeyCheckValue          string
	KeyCheckValueAlgorithm string
	Enabled                bool
	Exportable             bool
	KeyState               string
	KeyOrigin              string
	CreateTimestamp        apiTime
	UsageStartTimestamp    apiTime
	UsageStopTimestamp     apiTime
	DeletePendingTimestamp apiTime
	DeleteTimestamp        apiTime
}

// apiTime is a time of the API: seconds since 1970 with decimals. Absent it is 0.
type apiTime float64

func (t apiTime) time() time.Time { return time.UnixMilli(int64(float64(t)*1000 + 0.5)).UTC() }

func (t apiTime) String() string {
	if t == 0 {
		return "-"
	}
	return t.time().Format(time.RFC3339)
}

// state says in words what may be done with the key.
func (k keyAnswer) state() string {
	switch custody.KeyState(k.KeyState) {
	case custody.DeletePending:
		return "stopped, to be destroyed " + k.DeletePendingTimestamp.String()
	case custody.DeleteComplete:
		return "destroyed " + k.DeleteTimestamp.String()
	case custody.CreateComplete:
		if k.Enabled {
			return "in use"
		}
		return "stopped"
	}
	return k.KeyState
}

type keyNamed struct {
	Named string `arg:"" name:"key" help:"An alias (alias/NAME) or the ARN of the key."`
}

// step calls an operation that takes a key and answers with it, and prints what
// became of it.
func (k keyNamed) step(p *program, f *doorFlags, operation string, more map[string]any) error {
	d, err := f.open()
	if err != nil {
		return err
	}
	body := map[string]any{"KeyIdentifier": k.Named}
	for name, value := range more {
		body[name] = value
	}
	var out struct{ Key keyAnswer }
	if err := d.aws(p.ctx, operation, body, &out); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%s: %s\n", out.Key.KeyArn, out.Key.state())
	return err
}

type keyStartCmd struct {
	doorFlags
	keyNamed
}

// Run lets a key be used again.
func (c *keyStartCmd) Run(p *program) error { return c.step(p, &c.doorFlags, "StartKeyUsage", nil) }

type keyStopCmd struct {
	doorFlags
	keyNamed
}

// Run ends the use of a key at once.
func (c *keyStopCmd) Run(p *program) error { return c.step(p, &c.doorFlags, "StopKeyUsage", nil) }

type keyDeleteCmd struct {
	doorFlags
	keyNamed
	Days int `default:"7" help:"Days until the key is destroyed, 3 to 180."`
}

// Run stops a key and has it destroyed later.
func (c *keyDeleteCmd) Run(p *program) error {
	if c.Days < custody.LeastDeleteDays || c.Days > custody.MostDeleteDays {
		return usageError("--days=%d: a key waits %d to %d days for its destruction", c.Days, custody.LeastDeleteDays, custody.MostDeleteDays)
	}
	return c.step(p, &c.doorFlags, "DeleteKey", map[string]any{"DeleteKeyInDays": c.Days})
}

type keyRestoreCmd struct {
	doorFlags
	keyNamed
}

// Run takes a deletion back.
func (c *keyRestoreCmd) Run(p *program) error { return c.step(p, &c.doorFlags, "RestoreKey", nil) }

type keyRotateCmd struct {
	doorFlags
	keyNamed
	Overlap   span   `default:"7d" help:"How long the old version goes on verifying and deciphering: 7d, 12h, 0."`
	Successor string `placeholder:"KEY" help:"A key that came from elsewhere and takes the place; without it a new value is made."`
}

// Run puts a new version in the place of a key.
func (c *keyRotateCmd) Run(p *program) error {
	if time.Duration(c.Overlap) > custody.MostOverlap {
		return usageError("--overlap=%s: at most %d days", c.Overlap, custody.MostOverlap/day)
	}
	d, err := c.open()
	if err != nil {
		return err
	}
	body := map[string]any{"KeyIdentifier": c.Named, "OverlapSeconds": int64(time.Duration(c.Overlap) / time.Second)}
	if c.Successor != "" {
		body["SuccessorKeyIdentifier"] = c.Successor
	}
	var out struct {
		Key            keyAnswer
		KeyVersion     int
		PreviousKeyArn string
	}
	if err := d.own(p.ctx, "RotateKey", body, &out); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%s: version %d, check value %s\n%s: verifies and deciphers for %s, then stopped\n",
		out.Key.KeyArn, out.KeyVersion, out.Key.KeyCheckValue, out.PreviousKeyArn, c.Overlap)
	return err
}

const day = 24 * time.Hour

// span is a duration that may be in days: "7d", "12h", "0".
type span time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *span) UnmarshalText(text []byte) error {
	if days, ok := strings.CutSuffix(string(text), "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return fmt.Errorf("%q is no number of days", text)
		}
		*s = span(time.Duration(n) * day)
		return nil
	}
	d, err := time.ParseDuration(string(text))
	if err != nil || d < 0 || d%time.Second != 0 {
		return fmt.Errorf("%q: want whole seconds at least, like 7d, 12h or 0", text)
	}
	*s = span(d)
	return nil
}

func (s span) String() string {
	if d := time.Duration(s); d == 0 || d%day != 0 {
		return d.String()
	}
	return strconv.FormatInt(int64(time.Duration(s)/day), 10) + "d"
}
