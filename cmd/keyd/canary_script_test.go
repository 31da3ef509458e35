package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// saidEnv names the folder in which each process of a script keeps a copy of what
// it prints.
const saidEnv = "KEYD_TEST_SAID"

// saying is main for scripts: what it prints is kept for the search of canaries.
func saying() {
	dir := os.Getenv(saidEnv)
	if dir == "" {
		main()
		return
	}
	name := "keyd"
	for _, arg := range os.Args[1:min(len(os.Args), 4)] {
		if strings.HasPrefix(arg, "-") {
			break
		}
		name += "-" + strings.Trim(arg, "./")
	}
	said, err := os.CreateTemp(dir, strings.ReplaceAll(name, "/", "_")+"-*.said")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitFailed)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, io.MultiWriter(os.Stdout, said), io.MultiWriter(os.Stderr, said)))
}

// The canaries of a script: the published test keys, the cards that it names or
// that the simulator sells with by itself, their clear PIN blocks, the components
// of its ceremonies, and what it writes as data in clear.
type scriptCanaries struct {
	t       testing.TB
	name    string // of the script
	said    string
	inputs  map[string][sha256.Size]byte // what the test itself wrote
	secrets []hidden
}

// simCards are the cards of the simulator.
var simCards = []string{"4012345678909", "6224242900000113", killPAN, "4111111111111111"}

// clearData are plaintexts of scripts that encrypt.
var clearData = []string{"6BC1BEE22E409F96E93D7E117393172A"}

var cardRE = regexp.MustCompile(`\b[0-9]{13,19}\b`)

// canariesOf are the canaries of the script whose folder this is.
func canariesOf(t testing.TB, work string) (*scriptCanaries, error) {
	c := &scriptCanaries{t: t, name: strings.TrimPrefix(filepath.Base(work), "script-"), inputs: make(map[string][sha256.Size]byte)}
	script, err := os.ReadFile(filepath.Join("testdata", "script", c.name+".txtar"))
	if err != nil {
		return nil, err
	}
	for _, key := range testKeys() {
		c.secrets = append(c.secrets, hiddenHex(t, "key "+key.alias, key.value))
	}
	cards := append(cardRE.FindAllString(string(script), -1), simCards...)
	for _, pan := range cards {
		if !luhn(pan) || strings.Trim(pan, "0") == "" {
			continue
		}
		c.secrets = append(c.secrets, hiddenText("PAN", pan))
		c.secrets = append(c.secrets, clearPIN(t, testPIN, pan)...)
	}
	for _, data := range clearData {
		c.secrets = append(c.secrets, hiddenHex(t, "clear data", data))
	}
	return c, filepath.WalkDir(work, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		c.inputs[path] = sha256.Sum256(text)
		return err
	})
}

func luhn(digits string) bool {
	sum := 0
	for i := range digits {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}

type canariesKey struct{}

// sings lets a script be searched for its canaries when it has ended, in its folder
// and in all that its processes printed.
func sings(env *testscript.Env) error {
	t, ok := env.T().(testing.TB)
	if !ok {
		return errors.New("the scripts do not run under a test")
	}
	c, err := canariesOf(t, env.WorkDir)
	if err != nil {
		return err
	}
	if c.said, err = os.MkdirTemp("", "keyd-said-"); err != nil {
		return err
	}
	env.Setenv(saidEnv, c.said)
	env.Values[canariesKey{}] = c
	env.Defer(func() {
		defer os.RemoveAll(c.said)
		found, err := c.left(env.WorkDir)
		if err != nil {
			t.Errorf("looking for canaries: %v", err)
		}
		for _, where := range found {
			t.Errorf("L-94 %s", where)
		}
	})
	return nil
}

// left returns where canaries stand below a folder, and in what was printed.
func (c *scriptCanaries) left(work string) ([]string, error) {
	s := newSearch(c.secrets)
	inFiles, _, err := s.below(work, c.spared)
	inSaid, _, failed := s.below(c.said, sparedSaid)
	return append(inFiles, inSaid...), errors.Join(err, failed)
}

// mayHold are the files of scripts that may hold canaries, by name, or by script
// and name, besides what a script brought and nobody changed. No others may.
var mayHold = map[string]string{
	"dev.json":               "`keyd dev` tells its simulators the published test keys",
	"dev/first.json":         "a copy of dev.json that the script makes",
	"dev/second.json":        "another",
	"exchange/saved.json":    "another",
	"terminal.json":          "the memory of a simulated terminal, which has the card",
	"sim_pos/own.toml":       "a simulated terminal, which the script writes",
	"sim_pos/rolled.toml":    "another",
	"issuer-book.jsonl.keys": "the memory of a simulated issuer, which has the zone key",
	"data/mac.json":          "a request that the script brings and edits",
}

// spared reports whether a file may hold canaries.
func (c *scriptCanaries) spared(path string) bool {
	name := filepath.Base(path)
	if mayHold[name] != "" || mayHold[c.name+"/"+name] != "" {
		return true
	}
	sum, ok := c.inputs[path]
	if !ok {
		return false
	}
	text, err := os.ReadFile(path)
	return err == nil && sha256.Sum256(text) == sum
}

// sparedSaid reports whether what a process printed may hold canaries: a simulated
// terminal shows the card that it was given, and DecryptData answers with what was
// enciphered.
func sparedSaid(path string) bool {
	name := filepath.Base(path)
	return strings.HasPrefix(name, "keyd-sim-pos") || strings.HasPrefix(name, "keyd-call-DecryptData")
}

// TestCanariesOfScripts is L-94 of the search behind every script: what a process
// leaves in a file, in the database or on standard error is found, what the script
// brought is not, until somebody adds to it.
func TestCanariesOfScripts(t *testing.T) {
	work := filepath.Join(t.TempDir(), "script-journal")
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(work, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pan := simCards[0]
	write("sale.json", `{"pan":"`+pan+`"}`)
	c, err := canariesOf(t, work)
	if err != nil {
		t.Fatal(err)
	}
	c.said = t.TempDir()
	write("d/dev.json", testKEK)
	write("d/audit/wal/wal-0000000000000001", "411111******1111")
	if found, err := c.left(work); err != nil || found != nil {
		t.Fatalf("nothing was planted: %q, %v", found, err)
	}
	for _, place := range []string{
		"d/keyd.db", "d/keyd.db-wal", "d/audit/sec/tile/entries/000.p/9", "d/audit/wal/wal-0000000000000001", "d/audit/index/sec.idx", "d.log", "out/records.jsonl", "out/report.html",
		"out/report.csv", "syslog.txt", "core", "sale.json",
	} {
		t.Run("L-94 "+place, func(t *testing.T) {
			before, err := os.ReadFile(filepath.Join(work, filepath.FromSlash(place)))
			write(place, string(before)+" and "+pan)
			found, failed := c.left(work)
			if failed != nil || len(found) == 0 {
				t.Errorf("a card that stands in %s was not found: %v", place, failed)
			}
			if err != nil {
				err = os.Remove(filepath.Join(work, filepath.FromSlash(place)))
			} else {
				write(place, string(before))
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("L-94 standard error", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(c.said, "keyd-serve-1.said"), []byte("key "+strings.ToLower(testZPK)), 0o600); err != nil {
			t.Fatal(err)
		}
		if found, err := c.left(work); err != nil || len(found) != 1 {
			t.Errorf("%q, %v", found, err)
		}
	})
}
