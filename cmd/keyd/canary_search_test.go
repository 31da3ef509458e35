package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
)

// hidden is something that must be found nowhere: what it is, and its bytes. Text
// stands for itself, digits as they are sent.
type hidden struct {
	what  string
	value []byte
	text  bool
}

func hiddenText(what, text string) hidden { return hidden{what, []byte(text), true} }

// hiddenHex is a key, a component or a block, given in hexadecimal.
func hiddenHex(t testing.TB, what, digits string) hidden {
	t.Helper()
	value, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return hidden{what, value, false}
}

// shortest is the length of what is searched for: less is found by chance.
const shortest = 8

// forms are all in which a value could have been left (L-94): as it is, upper and
// lower hexadecimal, these in groups, base64 at three alignments, UTF-16 of both
// orders, of digits also packed BCD, left and right justified.
func (h hidden) forms() []needle {
	var all []needle
	add := func(form string, text []byte) {
		if len(text) >= shortest && !slices.ContainsFunc(all, func(n needle) bool { return bytes.Equal(n.text, text) }) {
			all = append(all, needle{h.what + ", " + form, text})
		}
	}
	binaries := map[string][]byte{"": h.value}
	texts := map[string]string{}
	if h.text {
		texts["as text"] = string(h.value)
		for name, digits := range packed(string(h.value)) {
			if b, err := hex.DecodeString(digits); err == nil {
				binaries[name] = b
			}
		}
	}
	for name, b := range binaries {
		lower := hex.EncodeToString(b)
		add("binary"+name, b)
		texts["lower hex"+name], texts["upper hex"+name] = lower, strings.ToUpper(lower)
		texts["upper hex in groups"+name] = grouped(strings.ToUpper(lower))
		for offset := range 3 {
			text := base64.StdEncoding.EncodeToString(append(make([]byte, offset), b...))
			// The first and the last characters depend on what stands beside it.
			from, until := (offset*8+5)/6, (offset+len(b))*8/6
			add(fmt.Sprintf("base64%s at offset %d", name, offset), []byte(text[from:until]))
			add(fmt.Sprintf("base64url%s at offset %d", name, offset), []byte(strings.NewReplacer("+", "-", "/", "_").Replace(text[from:until])))
		}
	}
	for name, text := range texts {
		add(name, []byte(text))
		little, big := wide(text)
		add("UTF-16LE of it "+name, little)
		add("UTF-16BE of it "+name, big)
	}
	return all
}

// packed are the forms of digits in packed BCD, as hexadecimal; of a track the
// separator is D.
func packed(text string) map[string]string {
	digits := strings.ReplaceAll(text, "=", "D")
	if strings.Trim(digits, "0123456789D") != "" || digits == "" {
		return nil
	}
	if len(digits)%2 == 0 {
		return map[string]string{", packed BCD": digits}
	}
	return map[string]string{", packed BCD to the left": digits + "F", ", packed BCD to the right": "0" + digits}
}

func wide(text string) (little, big []byte) {
	for _, unit := range utf16.Encode([]rune(text)) {
		little, big = binary.LittleEndian.AppendUint16(little, unit), binary.BigEndian.AppendUint16(big, unit)
	}
	return little, big
}

// search finds any of many needles in one pass.
type search struct {
	filter  [1 << 16]bool
	needles map[[shortest]byte][]needle
}

func newSearch(secrets []hidden) *search {
	s := &search{needles: make(map[[shortest]byte][]needle)}
	for _, secret := range secrets {
		for _, n := range secret.forms() {
			head := [shortest]byte(n.text[:shortest])
			s.needles[head] = append(s.needles[head], n)
			s.filter[mixed(binary.LittleEndian.Uint64(n.text))] = true
		}
	}
	return s
}

func mixed(head uint64) uint64 { return head * 0x9E3779B97F4A7C15 >> 48 }

// in returns the forms that stand in text, each once.
func (s *search) in(text []byte) (found []string) {
	for at := 0; at+shortest <= len(text); at++ {
		head := binary.LittleEndian.Uint64(text[at:])
		if head == 0 || !s.filter[mixed(head)] {
			continue
		}
		for _, n := range s.needles[[shortest]byte(text[at:])] {
			if bytes.HasPrefix(text[at:], n.text) && !slices.Contains(found, n.form) {
				found = append(found, n.form)
			}
		}
	}
	return found
}

// below looks into the name and the contents of every file below root, but for
// those that spared says, and returns what it found where.
func (s *search) below(root string, spared func(path string) bool) (found []string, files int, err error) {
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil // went away meanwhile
		}
		if err != nil {
			return err
		}
		for _, form := range s.in([]byte(filepath.Base(path))) {
			found = append(found, fmt.Sprintf("%s: the name has %s", path, form))
		}
		if !entry.Type().IsRegular() || spared(path) {
			return nil
		}
		text, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		files++
		for _, form := range s.in(text) {
			found = append(found, fmt.Sprintf("%s: %s", path, form))
		}
		return nil
	})
	return found, files, err
}

// clearPIN are the clear PIN field and the clear PIN blocks of formats 0 and 3 that
// are the same for each use of a PIN with a card: a PIN of four digits alone stands
// in any file by chance, and what formats 1, 3 and 4 fill with random digits cannot
// be foreseen.
func clearPIN(t testing.TB, pin, pan string) []hidden {
	t.Helper()
	field := fmt.Sprintf("0%d%s", len(pin), pin)
	field += strings.Repeat("F", 16-len(field))
	block, account := hiddenHex(t, "clear PIN field", field), hiddenHex(t, "", "0000"+pan[len(pan)-13:len(pan)-1])
	block.what = "clear PIN block of format 0"
	for i := range block.value {
		block.value[i] ^= account.value[i]
	}
	return []hidden{hiddenHex(t, "clear PIN field", field), block}
}

// TestCanaryForms is L-94 of the search itself: each form of each kind of secret is
// found when it is planted in a file, in its name, at any alignment, in any kind of
// place; and a file without one is not.
func TestCanaryForms(t *testing.T) {
	const pan = "4012345678909"
	secrets := append([]hidden{
		hiddenText("PAN", pan), hiddenText("long PAN", "6250947000000014"), hiddenText("track 2", "4012888888881881=30122010000012300"),
		hiddenText("password", "correct horse battery"), hiddenHex(t, "key", testBDKTDES), hiddenHex(t, "AES key", testKEK),
	}, clearPIN(t, testPIN, pan)...)
	s := newSearch(secrets)
	places := []string{
		"audit/wal/wal-0000000000000001", "audit/sec/tile/entries/000.p/7", "audit/ops/2026-11/tile/entries/000", "audit/index/ops.idx",
		"export/records.jsonl", "archive/ops-2026-11-000.zip", "report/daily.html", "report/refusals.csv", "syslog.txt", "keyd.db", "keyd.db-wal", "keyd.said", "core", "metrics.txt",
	}
	root := t.TempDir()
	clean := bytes.Repeat([]byte("nothing stands here 4012 3456 0123 "), 300)
	for _, place := range places {
		path := filepath.Join(root, filepath.FromSlash(place))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, clean, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	none := func(string) bool { return false }
	if found, files, err := s.below(root, none); err != nil || found != nil || files != len(places) {
		t.Fatalf("L-94 clean files: %q in %d files, %v", found, files, err)
	}
	turn := 0
	for _, secret := range secrets {
		for _, n := range secret.forms() {
			path := filepath.Join(root, filepath.FromSlash(places[turn%len(places)]))
			turn++
			planted := slices.Insert(slices.Clone(clean), 1000+turn%64, n.text...)
			if err := os.WriteFile(path, planted, 0o600); err != nil {
				t.Fatal(err)
			}
			if found, _, err := s.below(root, none); err != nil || len(found) == 0 || !strings.HasPrefix(found[0], path+": "+secret.what) {
				t.Errorf("L-94 not found in %s: %s; %q, %v", path, n.form, found, err)
			}
			if err := os.WriteFile(path, clean, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if turn < 100 {
		t.Errorf("only %d forms were planted", turn)
	}
	t.Run("L-94 in base64 of more around it", func(t *testing.T) {
		for before := range 6 {
			text := base64.StdEncoding.EncodeToString(slices.Concat(bytes.Repeat([]byte{'x'}, before), []byte(pan), []byte("yz")))
			if s.in([]byte(text)) == nil {
				t.Errorf("not found in %q", text)
			}
		}
	})
	t.Run("L-94 in a name", func(t *testing.T) {
		path := filepath.Join(root, "of-"+pan)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if found, _, err := s.below(root, none); err != nil || len(found) != 1 {
			t.Errorf("%q, %v", found, err)
		}
	})
}
