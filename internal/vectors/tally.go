package vectors

import (
	"slices"
	"testing"

	"keyd.dev/keyd/keys"
)

// Tally counts the cases of one vector file.
type Tally struct {
	Cases   int
	Keyed   int // those for which the factory made a key
	Refused int // those that must fail, and did
	Passed  int
}

// File is a vector file and its runner.
type File struct {
	Name string
	Run  func(*testing.T, Factory) Tally
}

// Files returns the vector files of this package.
func Files() []File {
	return []File{
		{"dukpt_tdes", TDESDUKPT}, {"dukpt_aes", AESDUKPT}, {"pin_blocks", PINBlocks},
		{"mac", MAC}, {"iso8583_mac", ISO8583MAC}, {"kcv", KCV}, {"tr31", TR31},
	}
}

// vector is a case of any file.
type vector interface {
	id() string
	mustFail() bool
}

// each runs every case of a file as a test of its own, and counts.
func each[C any, P interface {
	*C
	vector
}](t *testing.T, file string, f Factory, run func(*testing.T, Factory, P)) Tally {
	t.Helper()
	var n Tally
	for _, c := range load[C](t, file) {
		p, made := P(&c), 0
		counted := func(a keys.Algorithm, value []byte) (*keys.Loaded, error) {
			made++
			return f(a, value)
		}
		passed := t.Run(p.id(), func(t *testing.T) { run(t, counted, p) })
		n.Cases++
		if made > 0 {
			n.Keyed++
		}
		if passed {
			n.Passed++
		}
		if passed && p.mustFail() {
			n.Refused++
		}
	}
	return n
}

func (c *tdesCase) id() string { return c.ID }
func (c *aesCase) id() string  { return c.ID }
func (c *pinCase) id() string  { return c.ID }
func (c *macCase) id() string  { return c.ID }
func (c *kcvCase) id() string  { return c.ID }
func (c *tr31Case) id() string { return c.ID }

func (c *tdesCase) mustFail() bool { return c.refuses(c.Kind) }
func (c *aesCase) mustFail() bool {
	return c.refuses(c.Kind) || c.Kind == "strength" && c.Expected.Error != ""
}

func (c *counterCase) refuses(kind string) bool {
	return kind == "malformed" || kind == "ksn_next" && c.Expected.Exhausted || kind == "ksn_validity" && !c.Expected.Valid
}

func (c *pinCase) mustFail() bool {
	return c.Kind == "malformed" || c.Kind == "malformed_encode" || slices.Contains(notServed, c.Format)
}

func (c *macCase) mustFail() bool  { return c.Kind == "verify" && !c.Expected.Valid }
func (c *kcvCase) mustFail() bool  { return c.Kind == "malformed" }
func (c *tr31Case) mustFail() bool { return c.Kind == "unwrap_error" }
