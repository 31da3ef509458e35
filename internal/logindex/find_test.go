package logindex

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/audit"
)

const vectorVkey = "audit.example/n1/sec+c8618e22+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"

// signer is the key of the spec's vectors, bytes 00 to 1f.
func signer() ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = byte(i)
	}
	return ed25519.NewKeyFromSeed(seed)
}

type tokener struct{}

func (tokener) Token(label string, data []byte) (string, error) {
	h := sha256.Sum256(append([]byte(label), data...))
	return fmt.Sprintf("k1:%022x", h[:11]), nil
}

// openLog opens a log for writing.
func openLog(t testing.TB, dir string) *audit.Log {
	t.Helper()
	l, err := audit.Open(dir, signer(), audit.Options{Site: "example", Node: "n1", Build: "1.0.0+g1", SegmentSize: 8 << 20, Tokener: tokener{}})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// sale is record i of ops: terminal, key and outcome follow from i.
func sale(i int) audit.Record {
	r := audit.Record{
		Action: audit.SaleAccept, Outcome: audit.OutcomeOK, Corr: fmt.Sprintf("8583.c-1.%d", i),
		Actor: audit.Actor{ID: "switch-a", Kind: audit.ActorSwitch},
		Keys:  []audit.Key{{Role: audit.KeyRoleMAC, ID: fmt.Sprintf("tak/%03d", i%700), Version: 1}},
		KSN:   fmt.Sprintf("FFFF98765432%08X", i),
		ISO:   audit.ISO{MTI: "0200", STAN: fmt.Sprintf("%06d", i%1000000), Terminal: audit.Registered(fmt.Sprintf("T%07d", i%300)), RRN: fmt.Sprintf("%012d", i)},
	}
	if i%50 == 49 {
		r.Action, r.Outcome, r.Reason = audit.ReversalRefuse, audit.OutcomeRefused, audit.ReasonMACInvalid
		r.ISO.MTI, r.ISO.Orig = "0400", audit.Orig{MTI: "0200", STAN: fmt.Sprintf("%06d", i-1)}
	}
	return r
}

// fill appends records from..to to ops, by several at a time.
func fill(t testing.TB, l *audit.Log, from, to int) {
	t.Helper()
	const batch, writers = 64, 32
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := from + w*batch; i < to; i += writers * batch {
				if err := appendSales(l, i, min(i+batch, to)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

func appendSales(l *audit.Log, from, to int) error {
	ticket, err := l.Reserve(context.Background(), audit.Ops, to-from)
	if err != nil {
		return err
	}
	defer ticket.Release()
	var records []audit.Record
	for i := from; i < to; i++ {
		records = append(records, sale(i))
	}
	_, err = ticket.Append(records...)
	return err
}

// filled makes a log with that many sales, and returns the name of its month.
func filled(t testing.TB, n int) (dir, month string) {
	t.Helper()
	dir = t.TempDir()
	l := openLog(t, dir)
	fill(t, l, 0, n)
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	names, err := openReader(t, dir).Logs()
	if err != nil {
		t.Fatal(err)
	}
	return dir, names[len(names)-1]
}

func openReader(t testing.TB, dir string) *audit.Reader {
	t.Helper()
	r, err := audit.OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// view opens a log and its index.
func view(t testing.TB, dir, log string) (*Index, *audit.Snapshot) {
	t.Helper()
	r := openReader(t, dir)
	x, err := Open(Config{Dir: filepath.Join(dir, "index"), Reader: r})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	snap, err := r.Snapshot(log)
	if err != nil {
		t.Fatal(err)
	}
	if err := snap.Signed([]string{vectorVkey}); err != nil {
		t.Fatal(err)
	}
	return x, snap
}

func update(t testing.TB, x *Index, snap *audit.Snapshot, u Update) Built {
	t.Helper()
	built, err := x.Update(context.Background(), snap, u)
	if err != nil {
		t.Fatal(err)
	}
	return built
}

// seqs is what a query finds, newest first.
func seqs(t testing.TB, x *Index, snap *audit.Snapshot, q Query) []uint64 {
	t.Helper()
	var all []uint64
	for h, err := range x.Find(context.Background(), snap, q) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, h.Seq)
	}
	return all
}

// slow is the same, from a reading of everything.
func slow(t testing.TB, x *Index, snap *audit.Snapshot, q Query) []uint64 {
	t.Helper()
	f, err := newFinder(context.Background(), x, snap, q)
	if err != nil {
		t.Fatal(err)
	}
	var all []uint64
	for e, err := range x.reader.Records(snap.Log(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		_, ok, err := f.fits(e.Raw, func() audit.Hash { return audit.LeafHash(e.Raw) })
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			all = append(all, e.Seq)
		}
	}
	slices.Reverse(all)
	return all
}

func one(k Kind, v string) []Term { return []Term{{k, v}} }

// queries are of every kind and size.
func queries(t testing.TB, x *Index, snap *audit.Snapshot) map[string]Query {
	t.Helper()
	var middle audit.Entry
	for e, err := range x.reader.Records(snap.Log(), snap.Size()/2) {
		if err != nil {
			t.Fatal(err)
		}
		middle = e
		break
	}
	leaf := audit.LeafHash(middle.Raw)
	var id string
	at, err := read(middle.Raw, func(k Kind, v []byte) {
		if k == ID {
			id = string(v)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]Query{
		"one STAN":          {All: [][]Term{one(STAN, "000777")}},
		"one KSN":           {All: [][]Term{one(KSN, "FFFF9876543200000309")}},
		"one request":       {All: [][]Term{one(Corr, "8583.c-1.65536")}},
		"one RRN":           {All: [][]Term{one(RRN, "000000065999")}},
		"one id":            {All: [][]Term{one(ID, id)}},
		"one leaf":          {All: [][]Term{one(Leaf, string(leaf[:]))}},
		"an original":       {All: [][]Term{one(Original, "000048"), one(Terminal, "T0000049")}},
		"a terminal":        {All: [][]Term{one(Terminal, "T0000123")}},
		"a key":             {All: [][]Term{one(Key, "tak/699")}},
		"dense and sparse":  {All: [][]Term{one(Actor, "switch-a"), one(Terminal, "T0000049"), one(Outcome, "refused")}},
		"either":            {All: [][]Term{{{STAN, "000048"}, {Original, "000048"}}}},
		"refused":           {All: [][]Term{one(Action, "reversal.refuse"), one(Reason, "mac_invalid")}},
		"nothing":           {All: [][]Term{one(Terminal, "T9999999")}},
		"other kind":        {All: [][]Term{one(Merchant, "T0000123")}},
		"a time":            {From: at - 1000, To: at + 1000},
		"since, a terminal": {All: [][]Term{one(Terminal, "T0000123")}, From: at},
		"one of two pairs":  {Either: [][][]Term{pair("000048", "T0000049"), pair("000777", "T0000177")}},
		"with one of two":   {All: [][]Term{one(Reason, "mac_invalid")}, Either: [][][]Term{{one(Terminal, "T0000049")}, {one(Terminal, "T0000099")}, {one(Terminal, "T9999999")}}},
		"until, a terminal": {All: [][]Term{one(Terminal, "T0000123")}, To: at},
	}
}

// pair is a terminal and a STAN, a record's own or that of its original.
func pair(stan, terminal string) [][]Term {
	return [][]Term{one(Terminal, terminal), {{STAN, stan}, {Original, stan}}}
}

// TestEither: what has all of one alternative is found, and nothing that has a part
// of one and a part of another.
func TestEither(t *testing.T) {
	dir, month := filled(t, 3*bundleSize)
	x, snap := view(t, dir, month)
	update(t, x, snap, Update{Slack: 1, Workers: 1})
	a, b := pair("000048", "T0000049"), pair("000177", "T0000177")
	find := func(q Query) []uint64 { return seqs(t, x, snap, q) }
	refused := find(Query{All: a})
	want := append(find(Query{All: b}), refused...)
	if len(want) != 2 || len(refused) != 1 {
		t.Fatalf("the log has %d records of the two pairs", len(want))
	}
	slices.Sort(want)
	slices.Reverse(want) // several writers have filled the log, in any order
	if diff := cmp.Diff(want, find(Query{Either: [][][]Term{a, b, pair("000048", "T0000177")}})); diff != "" {
		t.Errorf("one of three pairs, of which two exist (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(refused, find(Query{All: [][]Term{one(Outcome, "refused")}, Either: [][][]Term{a, b}})); diff != "" {
		t.Errorf("refused, of one of two pairs (-want +got):\n%s", diff)
	}
	for name, q := range map[string]Query{
		"too many alternatives": {Either: make([][][]Term, mostEither+1)},
		"an empty part":         {Either: [][][]Term{{nil}}},
	} {
		for _, err := range x.Find(t.Context(), snap, q) {
			if !errors.Is(err, ErrConfig) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// logSize is more than one block, a part of one, and a part of a bundle.
const logSize = blockSize + 5*bundleSize + 77

func TestFind(t *testing.T) {
	dir, month := filled(t, logSize)
	x, snap := view(t, dir, month)
	want := make(map[string][]uint64)
	for name, q := range queries(t, x, snap) {
		want[name] = slow(t, x, snap, q)
		if len(want[name]) == 0 != (name == "nothing" || name == "other kind") {
			t.Errorf("%s: the log gives %d records", name, len(want[name]))
		}
	}
	check := func(t *testing.T) {
		x, snap := view(t, dir, month)
		for name, q := range queries(t, x, snap) {
			if diff := cmp.Diff(want[name], seqs(t, x, snap, q)); diff != "" {
				t.Errorf("%s (-log +found):\n%s", name, diff)
			}
		}
	}
	t.Run("without files", check)
	if built := update(t, x, snap, Update{Slack: 16, Workers: 2}); built.Files != 1 {
		t.Errorf("built %+v, want one file of the full block", built)
	}
	t.Run("one block has a file", check)
	built := update(t, x, snap, Update{})
	if built.Files != 1 || built.Records != 5*bundleSize {
		t.Errorf("built %+v, want the rest", built)
	}
	t.Run("whole bundles have files", check)
	if built := update(t, x, snap, Update{}); built.Files != 0 {
		t.Errorf("built %+v, want nothing", built)
	}
	states, err := x.Check(context.Background(), snap)
	if err != nil || len(states) != 2 || states[0].Err != nil || states[1].Err != nil {
		t.Errorf("Check: %+v, %v", states, err)
	}
	first := readFile(t, x.path(month, 0))
	t.Logf("%.1f bytes a record", float64(len(first))/blockSize)
	update(t, x, snap, Update{Again: true})
	if !slices.Equal(first, readFile(t, x.path(month, 0))) {
		t.Error("the same records give two files")
	}
	t.Run("a log that grew", func(t *testing.T) {
		l := openLog(t, dir)
		fill(t, l, logSize, logSize+3*bundleSize)
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		x, snap := view(t, dir, month)
		q := Query{All: [][]Term{one(Terminal, "T0000123")}}
		if diff := cmp.Diff(slow(t, x, snap, q), seqs(t, x, snap, q)); diff != "" {
			t.Error(diff)
		}
		if built := update(t, x, snap, Update{Slack: 1}); built.Files != 1 || built.Records != 8*bundleSize {
			t.Errorf("built %+v", built)
		}
	})
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o640); err != nil {
		t.Fatal(err)
	}
}

// TestTurnedByte turns bytes of a file (L-42): each is found, by the search,
// which then reads the log, or it is in bytes that no search reads; by the check
// always; and an update makes the file again.
func TestTurnedByte(t *testing.T) {
	dir, month := filled(t, 3*bundleSize)
	x, snap := view(t, dir, month)
	update(t, x, snap, Update{})
	whole := readFile(t, x.path(month, 0))
	q := queries(t, x, snap)
	want := make(map[string][]uint64)
	for name := range q {
		want[name] = slow(t, x, snap, q[name])
	}
	for at := 0; at < len(whole); at += 1 + len(whole)/60 {
		spoiled := slices.Clone(whole)
		spoiled[at] ^= 1
		writeFile(t, x.path(month, 0), spoiled)
		x, snap := view(t, dir, month)
		for name := range q {
			if diff := cmp.Diff(want[name], seqs(t, x, snap, q[name])); diff != "" {
				t.Errorf("byte %d, %s (-log +found):\n%s", at, name, diff)
			}
		}
		states, err := x.Check(context.Background(), snap)
		if err != nil || len(states) != 1 || states[0].Err == nil {
			t.Errorf("byte %d: Check says %+v, %v", at, states, err)
		}
		update(t, x, snap, Update{Again: true})
		if !slices.Equal(whole, readFile(t, x.path(month, 0))) {
			t.Fatalf("byte %d: not made again", at)
		}
	}
}

// TestFalseFile: a file that somebody made up, check sums and all, invents no
// record and alters none; that it hides one is what Check finds.
func TestFalseFile(t *testing.T) {
	dir, month := filled(t, 2*bundleSize)
	x, snap := view(t, dir, month)
	above, err := snap.Hashes(1, 0)
	if err != nil {
		t.Fatal(err)
	}
	var w builder
	for i := range 2 * bundleSize {
		raw, err := x.reader.Get(month, uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.add(i, audit.LeafHash(raw), raw); err != nil {
			t.Fatal(err)
		}
		// Every record is said to be of one terminal, and none of another.
		w.pairs = slices.DeleteFunc(w.pairs, func(p uint64) bool { return uint32(p>>16) == fingerprint(Terminal, []byte("T0000005")) })
		w.pairs = append(w.pairs, uint64(fingerprint(Terminal, []byte("T0000123")))<<16|uint64(i))
	}
	if err := x.write(month, 0, w.encode(month, 0, 0, 2, above[:2])); err != nil {
		t.Fatal(err)
	}
	q := Query{All: [][]Term{one(Terminal, "T0000123")}}
	if diff := cmp.Diff(slow(t, x, snap, q), seqs(t, x, snap, q)); diff != "" {
		t.Errorf("(-log +found):\n%s", diff)
	}
	if hidden := seqs(t, x, snap, Query{All: [][]Term{one(Terminal, "T0000005")}}); len(hidden) != 0 {
		t.Errorf("the made up file was not used: %v", hidden)
	}
	states, err := x.Check(context.Background(), snap)
	if err != nil || len(states) != 1 || !errors.Is(states[0].Err, ErrFormat) {
		t.Errorf("Check says %+v, %v", states, err)
	}
}

// TestOtherLog: the file of another log, or of an older state that was restored,
// is not used.
func TestOtherLog(t *testing.T) {
	dir, month := filled(t, 2*bundleSize)
	x, snap := view(t, dir, month)
	update(t, x, snap, Update{})
	other, _ := filled(t, 2*bundleSize)
	writeFile(t, filepath.Join(other, "index", month, "000000"), readFile(t, x.path(month, 0)))
	y, view := view(t, other, month)
	if _, err := y.take(view, part{end: 2}); !errors.Is(err, ErrStale) {
		t.Errorf("the file of another log: %v", err)
	}
	q := Query{All: [][]Term{one(Terminal, "T0000123")}}
	if diff := cmp.Diff(slow(t, y, view, q), seqs(t, y, view, q)); diff != "" {
		t.Error(diff)
	}
	if built := update(t, y, view, Update{Slack: 100}); built.Files != 1 {
		t.Errorf("built %+v, want the file again", built)
	}
}

// TestTampered (L-181): a record that is not what was logged ends the search,
// whether a file leads to it or a reading of everything.
func TestTampered(t *testing.T) {
	for _, indexed := range []bool{false, true} {
		t.Run(fmt.Sprintf("indexed=%v", indexed), func(t *testing.T) {
			dir, month := filled(t, 2*bundleSize)
			x, snap := view(t, dir, month)
			if indexed {
				update(t, x, snap, Update{})
			}
			bundle := filepath.Join(dir, "ops", month[len("ops-"):], "tile", "entries", "001")
			data := readFile(t, bundle)
			at := slices.Index(data, 'T') // of a terminal or a time of the first record
			data[at]++
			writeFile(t, bundle, data)
			x, snap = view(t, dir, month)
			var got error
			for _, err := range x.Find(context.Background(), snap, Query{All: [][]Term{one(Actor, "switch-a")}}) {
				got = errors.Join(got, err)
			}
			if !errors.Is(got, audit.ErrCorrupt) {
				t.Errorf("the search ended with %v", got)
			}
			if _, err := x.Update(context.Background(), snap, Update{Again: true}); !errors.Is(err, audit.ErrCorrupt) {
				t.Errorf("the update ended with %v", err)
			}
		})
	}
}

// TestPruned (L-174): what is below min_index is not looked for, and what is
// above is found, also when the file was made before.
func TestPruned(t *testing.T) {
	const kept = bundleSize + 100
	dir, month := filled(t, 4*bundleSize)
	x, snap := view(t, dir, month)
	update(t, x, snap, Update{})
	manifest := readFile(t, filepath.Join(dir, "manifest.json"))
	before := fmt.Sprintf(`"log":"%s","min_index":0`, month)
	after := fmt.Sprintf(`"log":"%s","min_index":%d`, month, kept)
	if !strings.Contains(string(manifest), before) {
		t.Fatalf("manifest %s", manifest)
	}
	writeFile(t, filepath.Join(dir, "manifest.json"), []byte(strings.Replace(string(manifest), before, after, 1)))
	if err := os.Remove(filepath.Join(dir, "ops", month[len("ops-"):], "tile", "entries", "000")); err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{"file of before", "file made again"} {
		t.Run(step, func(t *testing.T) {
			x, snap := view(t, dir, month)
			got := seqs(t, x, snap, Query{All: [][]Term{one(Actor, "switch-a")}})
			if len(got) != int(snap.Size())-kept-1 || got[len(got)-1] < kept {
				t.Errorf("found %d records, the oldest %d", len(got), got[len(got)-1])
			}
			update(t, x, snap, Update{})
			states, err := x.Check(context.Background(), snap)
			if err != nil || len(states) != 1 || states[0].Err != nil || states[0].Records != 3*bundleSize {
				t.Errorf("Check says %+v, %v", states, err)
			}
		})
	}
}
