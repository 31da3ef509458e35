package sim

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/iso8583"
)

// TestScriptDocumented: the example of docs/ISSUER.md is a script, and its
// tables have every key and every word.
func TestScriptDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/ISSUER.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "```toml\n")
	example, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatal("docs/ISSUER.md has no example")
	}
	s, err := ParseScript("issuer.toml", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := s.Print(&out); err != nil {
		t.Fatal(err)
	}
	want := `seed 7
1 no-sign-on: 0800, DE 70 001, 2 times: decline:91
2 deaf: 0200, amount ending in 13: approve lost
3 stubborn: 042x, 2 times, counted for each message and its repeats: decline:96
4 tired: 0200, by chance in 5 %, from 10m0s to 12m0s after the start: decline:51 delay:40s
otherwise: approve
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, w := range KeyChangeWords() {
		if !strings.Contains(string(text), "| `"+w[0]+"` |") {
			t.Errorf("docs/ISSUER.md does not say what %s is", w[0])
		}
	}
	for _, a := range Actions() {
		if !strings.Contains(string(text), "| `"+a.Word+"` |") {
			t.Errorf("docs/ISSUER.md does not say what %s is", a.Word)
		}
	}
}

// TestScriptRefused: what is wrong is said with file, line and key, all at once.
func TestScriptRefused(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"an unknown key", "[[step]]\namonut = \"1\"\ndo = \"silent\"\n", []string{`f.toml:2: unknown key "step.amonut"; did you mean "amount"?`}},
		{"no step", "seed = 1\n", []string{"f.toml:1: step: there is none"}},
		{"nothing to do", "[[step]]\nmti = [\"0200\"]\n", []string{`f.toml:1: step[0].do: is missing: what the issuer does, "silent" for example`}},
		{"an unknown word", "[[step]]\ndo = \"explode\"\n", []string{`f.toml:2: step[0].do: unknown action "explode"; there are approve, decline:CODE`}},
		{"two words of a kind", "[[step]]\ndo = \"silent twice\"\n", []string{`"silent" and "twice" do not go together`}},
		{"a type that is none", "[[step]]\nmti = [\"0900\"]\ndo = \"silent\"\n", []string{`f.toml:2: step[0].mti: "0900" is no type`}},
		{"two faults", "[[step]]\namount = \"x\"\nchance = 2.0\ndo = \"silent\"\n", []string{"f.toml:2: step[0].amount:", "f.toml:3: step[0].chance: 2 is not above 0 and at most 1"}},
		{"a window that ends before it begins", "[[step]]\nfrom = \"5s\"\nuntil = \"1s\"\ndo = \"silent\"\n", []string{"f.toml:3: step[0].until: 1s is not after 5s"}},
		{"each of what", "[[step]]\neach = true\ndo = \"silent\"\n", []string{"step[0].each: counts nothing without skip or times"}},
		{"an amount of an 0800", "[[step]]\nmti = [\"0800\"]\namount = \"1\"\ndo = \"silent\"\n", []string{"step[0]: an 0800 has no amount"}},
		{"other-amount of an 0800", "[[step]]\nnetwork = \"301\"\ndo = \"other-amount\"\n", []string{"step[0].do: other-amount: an 0800 has no amount"}},
		{"a name twice", "[[step]]\nname = \"a\"\ndo = \"silent\"\n[[step]]\nname = \"a\"\ndo = \"silent\"\n", []string{`f.toml:5: step[1].name: "a" stands twice`}},
		{"otherwise what", "otherwise = \"maybe\"\n[[step]]\ndo = \"silent\"\n", []string{`f.toml:1: otherwise: "maybe" is neither`}},
		{"no time", "[[step]]\nfrom = \"soon\"\ndo = \"silent\"\n", []string{`step[0].from: "soon" is no time since the start`}},
		{"counts below nought", "[[step]]\nskip = -1\ntimes = -1\ndo = \"silent\"\n", []string{"step[0].skip: is negative", "step[0].times: is negative"}},
		{"a key change of what", "[[key_change]]\ndo = \"steal\"\n", []string{"f.toml:2: key_change[0].do: unknown action \"steal\"", "f.toml:1: key_change[0].key: \"\" is neither"}},
		{"key changes out of order", "[[key_change]]\nkey = \"mac\"\nat = \"2s\"\n[[key_change]]\nkey = \"mac\"\n", []string{"key_change: they are not in the order of their times"}},
		{"no TOML", "[[step", []string{"f.toml:1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseScript("f.toml", []byte(tt.text))
			var refused *RefusedScript
			if !errors.As(err, &refused) {
				t.Fatalf("%v", err)
			}
			for _, want := range tt.want {
				if !slices.ContainsFunc(refused.Lines, func(line string) bool { return strings.Contains(line, want) }) {
					t.Errorf("no line has %q:\n%s", want, err)
				}
			}
		})
	}
}

// cue is a message to a player.
func cue(t *testing.T, mti iso8583.MTI, stan, amount string) *iso8583.Message {
	t.Helper()
	b := iso8583.ASCII87().Build(mti, iso8583.SideUpstream).Set(7, "1122093000").Set(11, stan).Set(41, "T0000001").Set(42, "M00000000000001")
	switch mti.Class() {
	case '8':
		b.Set(70, amount)
	case '4':
		original, err := iso8583.OriginalData{MTI: "0200", STAN: "000001", DateTime: "1122092900"}.Text()
		if err != nil {
			t.Fatal(err)
		}
		b.Set(39, "06").Set(90, original)
		fallthrough
	default:
		b.Set(2, "4012345678909").Set(3, "000000").Set(4, amount).Set(12, "093000").Set(13, "1122").Set(22, "051").Set(25, "00").Set(49, "978")
	}
	open, err := b.Pack()
	if err != nil {
		t.Fatal(err)
	}
	m, err := iso8583.ASCII87().Parse(open.Seal([8]byte{}), iso8583.SideUpstream)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestPlay: which messages a step meets.
func TestPlay(t *testing.T) {
	const hit, miss = "x", "-"
	tests := []struct {
		name, step string
		messages   []*iso8583.Message
		after      time.Duration // from message to message
		want       string
	}{
		{"by type", `mti = ["042x"]`, []*iso8583.Message{cue(t, "0420", "000001", "000000001000"), cue(t, "0421", "000001", "000000001000"), cue(t, "0200", "000001", "000000001000")}, 0, "xx-"},
		{"by amount, STAN, BIN, terminal", "amount = \"10\"\nstan = \"2\"\nbin = \"4012\"\ntid = \"T0000001\"", []*iso8583.Message{
			cue(t, "0200", "000002", "000000001010"), cue(t, "0200", "000002", "000000001011"), cue(t, "0200", "000003", "000000001010"),
		}, 0, "x--"},
		{"by another BIN", `bin = "5"`, []*iso8583.Message{cue(t, "0200", "000002", "000000001010")}, 0, miss},
		{"by reason", `reason = "06"`, []*iso8583.Message{cue(t, "0420", "000002", "000000001010"), cue(t, "0200", "000002", "000000001010")}, 0, "x-"},
		{"by network code", `network = "301"`, []*iso8583.Message{cue(t, "0800", "000002", "301"), cue(t, "0800", "000002", "001"), cue(t, "0200", "000002", "000000001010")}, 0, "x--"},
		{"skip and times", "skip = 1\ntimes = 2", []*iso8583.Message{
			cue(t, "0200", "000001", "000000001000"), cue(t, "0200", "000002", "000000001000"), cue(t, "0200", "000003", "000000001000"), cue(t, "0200", "000004", "000000001000"),
		}, 0, "-xx-"},
		{"each and its repeats", "each = true\ntimes = 1", []*iso8583.Message{
			cue(t, "0420", "000001", "000000001000"), cue(t, "0420", "000002", "000000001000"), cue(t, "0421", "000001", "000000001000"), cue(t, "0421", "000002", "000000001000"),
		}, 0, "xx--"},
		{"within a window", "from = \"2s\"\nuntil = \"4s\"", []*iso8583.Message{
			cue(t, "0200", "000001", "000000001000"), cue(t, "0200", "000002", "000000001000"), cue(t, "0200", "000003", "000000001000"), cue(t, "0200", "000004", "000000001000"),
		}, 1500 * time.Millisecond, "--x-"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := ParseScript("f.toml", []byte("[[step]]\n"+tt.step+"\ndo = \"silent\"\n"))
			if err != nil {
				t.Fatal(err)
			}
			now := time.Date(2026, 11, 22, 9, 30, 0, 0, time.UTC)
			p := newPlayer(s, func() time.Time { return now })
			got := ""
			for _, m := range tt.messages {
				if p.meet(m) != nil {
					got += hit
				} else {
					got += miss
				}
				now = now.Add(tt.after)
			}
			if got != tt.want {
				t.Errorf("met %s, want %s", got, tt.want)
			}
		})
	}
}

// TestChance: the same seed draws the same, another one something else, and as
// often as was said.
func TestChance(t *testing.T) {
	m := cue(t, "0200", "000001", "000000001000")
	draw := func(seed string) string {
		s, err := ParseScript("f.toml", []byte("seed = "+seed+"\n[[step]]\nchance = 0.25\ndo = \"silent\"\n"))
		if err != nil {
			t.Fatal(err)
		}
		p, got := newPlayer(s, time.Now), ""
		for range 2000 {
			got += map[bool]string{true: "x", false: "-"}[p.meet(m) != nil]
		}
		return got
	}
	first := draw("1")
	if again := draw("1"); again != first {
		t.Error("one seed drew two things")
	}
	if draw("2") == first {
		t.Error("two seeds drew the same")
	}
	if n := strings.Count(first, "x"); n < 420 || n > 580 {
		t.Errorf("%d of 2000 at a chance of 0.25", n)
	}
}

func FuzzParseScript(f *testing.F) {
	f.Add([]byte("seed = 7\notherwise = \"approve\"\n[[step]]\nmti = [\"042x\"]\neach = true\ntimes = 2\nchance = 0.5\nfrom = \"1s\"\nuntil = \"2s\"\ndo = \"decline:96 delay:1s twice\"\n"))
	f.Add([]byte("[[step]]\ndo = \"\"\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseScript("f.toml", text)
		if err != nil {
			return
		}
		for _, step := range s.Steps {
			again, err := parseDo(step.Do.Words())
			if err != nil || again != step.Do {
				t.Errorf("%q is read as %+v, %v", step.Do.Words(), again, err)
			}
		}
	})
}
