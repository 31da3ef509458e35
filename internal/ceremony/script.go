package ceremony

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"keyd.dev/keyd/keys"
)

// Kind is what a ceremony does.
type Kind string

// The kinds.
const (
	Import     Kind = "import"      // a key from components that custodians bring
	Generate   Kind = "generate"    // a new key, of which custodians take components away
	Export     Kind = "export"      // an exportable key as components
	Injection  Kind = "injection"   // initial keys of terminals, under a key-encryption key
	LMK        Kind = "lmk"         // the local master key of a new node
	LMKChange  Kind = "lmk-change"  // a new local master key beside the old one
	Destroy    Kind = "destroy"     // a key's end
	RoleChange Kind = "role-change" // the roles of a client
)

// Script describes one ceremony. It is read from a TOML file that people review
// before anything happens.
type Script struct {
	ID          string          `toml:"id"`
	Title       string          `toml:"title"`
	Purpose     string          `toml:"purpose"`
	Kind        Kind            `toml:"kind"`
	StepTimeout Duration        `toml:"step_timeout"`
	Timeout     Duration        `toml:"timeout"`
	Key         *KeyPart        `toml:"key"`
	LMK         *LMKPart        `toml:"lmk"`
	Injection   *InjectionPart  `toml:"injection"`
	Role        *RolePart       `toml:"role"`
	Custodians  []CustodianPart `toml:"custodian"`
	Output      OutputPart      `toml:"output"`

	hash   [32]byte
	device []Device // of an injection, from its list
}

// KeyPart says which key. Import and generate need all; export and destroy name
// the key that there is by its alias.
type KeyPart struct {
	Alias         string            `toml:"alias"`
	Usage         string            `toml:"usage"`
	Algorithm     string            `toml:"algorithm"`
	Mode          string            `toml:"mode"`
	Exportability string            `toml:"exportability"`
	CheckMethod   string            `toml:"check_method"`
	CheckValue    string            `toml:"check_value"` // of the whole key
	Policy        map[string]string `toml:"policy"`
}

// LMKPart says how the local master key comes about.
type LMKPart struct {
	Source     string `toml:"source"`    // "components" or "shares"
	Threshold  int    `toml:"threshold"` // of shares: how many make the key
	Create     bool   `toml:"create"`    // make a new key and give the parts out, in place of taking them
	CheckValue string `toml:"check_value"`
	Generation uint32 `toml:"generation"` // of a new token, where it is not the first
}

// First is the generation with which a new token begins.
func (p *LMKPart) First() uint32 { return max(p.Generation, 1) }

// InjectionPart says whose initial keys go to a key injection facility.
type InjectionPart struct {
	BDK    string `toml:"bdk"`
	KEK    string `toml:"kek"`
	List   string `toml:"list"`   // CSV with columns TID,KSN
	Output string `toml:"output"` // CSV with columns TID,KSN,KCV,TR31
}

// RolePart says what a client shall be.
type RolePart struct {
	Client string   `toml:"client"`
	Roles  []string `toml:"roles"`
}

// CustodianPart is one person. Its number in the script is its component's.
type CustodianPart struct {
	Name       string `toml:"name"`        // of the client in the configuration
	Recipient  string `toml:"recipient"`   // age recipient for a component in a file
	CheckValue string `toml:"check_value"` // of the component that it brings
	Share      int    `toml:"share"`       // index of the share that it brings
	File       string `toml:"file"`        // age file in which the component goes or comes, beside the person
	BagOut     string `toml:"bag_out"`     // number of the tamper-evident bag that its component is taken out of
	BagIn      string `toml:"bag_in"`      // number of the bag that its component goes into
}

// OutputPart says where the transcript goes: NAME.json and NAME.txt.
type OutputPart struct {
	Transcript string `toml:"transcript"`
}

// Duration is a time.Duration written as "10m".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// The time-outs of a script that names none, and the longest that it may name.
const (
	defaultStep  = 10 * time.Minute
	defaultWhole = time.Hour
	longest      = 24 * time.Hour
)

// mostScript bounds a script, which people are to read.
const mostScript = 64 << 10

// Parse reads and checks a script. The error is [ErrScript] and lists every
// problem, a line each; unknown keys with their line.
func Parse(text []byte) (*Script, error) {
	if len(text) > mostScript {
		return nil, fmt.Errorf("%w: %d bytes; at most %d", ErrScript, len(text), mostScript)
	}
	s := &Script{StepTimeout: Duration(defaultStep), Timeout: Duration(defaultWhole), hash: sha256.Sum256(text)}
	dec := toml.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(s); err != nil {
		return nil, scriptProblem(err)
	}
	if wrong := s.check(); len(wrong) > 0 {
		return nil, fmt.Errorf("%w:\n  %s", ErrScript, strings.Join(wrong, "\n  "))
	}
	return s, nil
}

func scriptProblem(err error) error {
	var missing *toml.StrictMissingError
	if errors.As(err, &missing) {
		var lines []string
		for _, e := range missing.Errors {
			row, _ := e.Position()
			lines = append(lines, fmt.Sprintf("line %d: unknown key %q", row, strings.Join(e.Key(), ".")))
		}
		return fmt.Errorf("%w: %s", ErrScript, strings.Join(lines, "; "))
	}
	var wrong *toml.DecodeError
	if errors.As(err, &wrong) {
		row, column := wrong.Position()
		return fmt.Errorf("%w: line %d, column %d: %s", ErrScript, row, column, strings.TrimPrefix(wrong.Error(), "toml: "))
	}
	return fmt.Errorf("%w: %w", ErrScript, err)
}

// Hash is the SHA-256 of the script's text, lower-case hex: every custodian sees
// it and can compare it with the reviewed paper.
func (s *Script) Hash() string { return hex.EncodeToString(s.hash[:]) }

// Object is what has to be typed before anything irreversible: the key's alias,
// the client's name, or "lmk".
func (s *Script) Object() string {
	switch s.Kind {
	case LMK, LMKChange:
		return "lmk"
	case RoleChange:
		return s.Role.Client
	case Injection:
		return s.Injection.BDK
	}
	return s.Key.Alias
}

// algorithm of the components.
func (s *Script) algorithm() keys.Algorithm {
	if s.Kind == LMK || s.Kind == LMKChange {
		return keys.AES256
	}
	if s.Key == nil {
		return 0
	}
	a, _ := keys.ParseAlgorithm(s.Key.Algorithm) // checked by Parse
	return a
}

// checkMethod of the components and the key.
func (s *Script) checkMethod() keys.CheckMethod {
	if s.Key != nil && s.Key.CheckMethod != "" {
		m, _ := keys.ParseCheckMethod(s.Key.CheckMethod) // checked by Parse
		return m
	}
	return s.algorithm().CheckMethod()
}

// attributes of a key to be made.
func (s *Script) attributes() keys.Attributes {
	usage, _ := keys.ParseUsage(s.Key.Usage) // checked by Parse
	return keys.Attributes{
		Usage: usage, Algorithm: s.algorithm(),
		Mode: keys.Mode(s.Key.Mode[0]), Exportability: keys.Exportability(s.Key.Exportability[0]),
	}
}

// shares reports whether the parts are shares of which some suffice.
func (s *Script) shares() bool { return s.LMK != nil && s.LMK.Source == "shares" }

// expected is the check value that the whole must have, or "".
func (s *Script) expected() string {
	switch {
	case s.LMK != nil:
		return strings.ToUpper(s.LMK.CheckValue)
	case s.Key != nil:
		return strings.ToUpper(s.Key.CheckValue)
	}
	return ""
}

// Digest is the SHA-256 of the script's text.
func (s *Script) Digest() [32]byte { return s.hash }
