package logindex

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"keyd.dev/keyd/audit"
)

// made is a file of two bundles of made-up records.
func made(t testing.TB) []byte {
	t.Helper()
	var w builder
	for i := range 2 * bundleSize {
		record := fmt.Appendf(nil, `{"action":"sale.accept","actor":{"id":"a"},"iso":{"stan":"%06d","term":"T%d"},"ts":"2026-11-21T22:34:05.%06dZ"}`, i, i%7, i)
		if err := w.add(i, audit.LeafHash(record), record); err != nil {
			t.Fatal(err)
		}
	}
	return w.encode("ops-2026-11", 3, 0, 2, make([]audit.Hash, 2))
}

// FuzzBlock: a file that may be anything ends in an error or in places that are
// in order and within the file's range.
func FuzzBlock(f *testing.F) {
	whole := made(f)
	f.Add(whole, uint32(1))
	f.Add(whole[:fixedHead], fingerprint(Action, []byte("sale.accept")))
	f.Add([]byte(blockMagic), uint32(0))
	f.Fuzz(func(t *testing.T, data []byte, fp uint32) {
		h, err := parseHead(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		b := &block{head: *h, file: bytes.NewReader(data)}
		if !bytes.Equal(h.encode(), data[:h.pagesBehind]) && data[17]|data[18]|data[19]|data[20]|data[21]|data[22]|data[23] == 0 {
			t.Error("the head reads in two ways")
		}
		places, err := b.postings(fp)
		if err != nil {
			return
		}
		checkPlaces(t, places, b.records())
	})
}

// FuzzPage is the same behind the check sums, which a fuzzer does not pass.
func FuzzPage(f *testing.F) {
	f.Add([]byte{2, 1, 0}, uint16(2))
	f.Add([]byte{3, 2, 2, 1, 1, 4, 0, 0}, uint16(1))
	f.Add(append([]byte{1, 16, 64}, bytes.Repeat([]byte{1}, 64)...), uint16(2))
	f.Fuzz(func(t *testing.T, page []byte, bundles uint16) {
		records := (int(bundles)%blockBundles + 1) * bundleSize
		for len(page) > 0 {
			e, rest, err := nextEntry(page)
			if err != nil {
				return
			}
			if places, err := e.places(records); err == nil {
				checkPlaces(t, places, records)
			}
			page = rest
		}
	})
}

func checkPlaces(t *testing.T, places []uint16, records int) {
	t.Helper()
	if !slices.IsSorted(places) || len(slices.Compact(slices.Clone(places))) != len(places) {
		t.Errorf("places out of order: %v", places)
	}
	if n := len(places); n > 0 && int(places[n-1]) >= records {
		t.Errorf("place %d of %d records", places[n-1], records)
	}
}

// FuzzRead: any bytes are read or refused, and what is shown is in them. What
// encoding/json refuses may be read, since the search decides nothing by form.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"action":"key.create","actor":{"id":"a","roles":[]},"approvals":[{"id":"b"}],"change":{"object":"x/y"},"keys":[{"id":"k"}],"seq":1,"ts":"2026-11-21T22:34:05.123456Z"}`))
	f.Add([]byte(`{"iso":{"merch":"a\"b","orig":{"stan":"000001"},"term":"T"},"ts":"2026-11-21T22:34:05.123456Z","tsq":{"sync":true},"v":1}`))
	f.Add([]byte(`{"a":[[[[[[[[[[`))
	f.Fuzz(func(t *testing.T, record []byte) {
		var all [][]byte
		at, err := read(record, func(k Kind, v []byte) { all = append(all, v) })
		for _, v := range all {
			if !bytes.Contains(record, v) {
				t.Errorf("%q is not in the record", v)
			}
		}
		var r struct {
			TS string `json:"ts"`
		}
		if err == nil && json.Unmarshal(record, &r) == nil && r.TS != "" {
			if again, ok := micros([]byte(r.TS)); ok && again != at && bytes.Count(record, []byte(`"ts"`)) == 1 {
				t.Errorf("time %d, not %d", at, again)
			}
		}
	})
}

func TestRead(t *testing.T) {
	record := `{"action":"ceremony.enter","actor":{"id":"custodian-b","roles":["x"]},"approvals":[{"id":"raj","ref":"r"}],"cer":{"custodian":"custodian-b","id":"cer-1","m":2,"witness":"officer-1"},` +
		`"change":{"object":"CreateKey/4FGD/a-new-key"},"corr":"c","id":"i","iso":{"merch":"M","orig":{"stan":"000302"},"rrn":"R","stan":"000303","term":"T\"1"},"keys":[{"id":"k1","kcv":"AA"},{"id":"k2"}],` +
		`"ksn":"FF","outcome":"ok","pan_tok":"k1:a","pan_tok_prev":"k0:b","reason":"crash","ref":"f","seq":7,"ts":"2026-11-21T22:34:05.123456Z","tsq":{"src":"ntp","sync":true}}`
	want := []Term{
		{Action, "ceremony.enter"}, {Actor, "custodian-b"}, {Approver, "raj"}, {Custodian, "custodian-b"}, {Ceremony, "cer-1"}, {Custodian, "officer-1"},
		{Object, "CreateKey"}, {Object, "4FGD"}, {Object, "a-new-key"}, {Corr, "c"}, {ID, "i"}, {Merchant, "M"}, {Original, "000302"}, {RRN, "R"}, {STAN, "000303"},
		{Terminal, `T\"1`}, {Key, "k1"}, {Key, "k2"}, {KSN, "FF"}, {Outcome, "ok"}, {Card, "k1:a"}, {Card, "k0:b"}, {Reason, "crash"}, {Ref, "f"},
	}
	var got []Term
	at, err := read([]byte(record), func(k Kind, v []byte) { got = append(got, Term{k, string(v)}) })
	if err != nil || at != 1795300445123456 {
		t.Errorf("time %d, %v", at, err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	for _, bad := range []string{"", "{", "[]", "{}", record + " ", record[1:], `{"ts":"2026-11-21 22:34:05.123456Z"}`, `{"ts":"2026-11-21T22:34:05.123456Z",}`, `{"a":}`, `{"a"}`} {
		if _, err := read([]byte(bad), func(Kind, []byte) {}); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
