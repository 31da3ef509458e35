package audit

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"
)

// testSigner is the key of section 19: the seed is the bytes 00 to 1f.
func testSigner() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(countingBytes(32)) }

func countingBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// testTokener has the key of section 19.
func testTokener() Tokener {
	return HMACTokener{Version: 1, HMAC: func(msg []byte) ([]byte, error) {
		h := hmac.New(sha256.New, countingBytes(32))
		h.Write(msg)
		return h.Sum(nil), nil
	}}
}

// prng is a repeatable source of test choices (xorshift64*).
type prng uint64

func (r *prng) below(n uint64) uint64 {
	x := uint64(*r)
	x ^= x >> 12
	x ^= x << 25
	x ^= x >> 27
	*r = prng(x)
	return (x * 0x2545F4914F6CDD1D >> 11) % n
}

// treeRecord is record i of the tree vectors.
func treeRecord(i uint64) []byte { return fmt.Appendf(nil, `{"seq":%d,"v":1}`, i) }

var treeRoots = map[uint64]string{
	0: "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", 256: "Mofr0ynqBKciPLN7hceBLJtovgf78eZCLFHo7N7st98=",
	1: "VWWF3WmPF0qa0bhoIRDVSCumDAk44I+Yzdl4UpQF9mE=", 257: "8fD2eGZW28uFz8B6RzngFR97K5EGRvg8Jq+j7MpnxDA=",
	2: "SzCGZ+GXlzPUjUSS1A22oysb8H0qAAgcrrohxB9hs+E=", 65535: "kBD9qPt2s/dgHt1gFsa2grHeOApIsmM6AgsISsIA5m4=",
	3: "DjC/DnbNh0JKVtLl6cdrQKKPb9scQA8VKFKawT0kkH8=", 65536: "nzQAgRUiMSmlyBnpgFjUIsr/7AwaB8R0eWqDc+sv6sw=",
	255: "iGxjtjFmfyOxH7xUxLZcG8p4uLnFoEfSZc1UYiLzXng=", 65537: "KcPVxzN1Fh2pnYAiv9TTUyVu+irdEOAWmSwgCdTUCC8=",
}

// TestTree is L-192: this package's tree, its tiles, and the reference of
// x/mod agree, and so do the proofs.
func TestTree(t *testing.T) {
	const most = 65537
	fsys := osFS(t.TempDir())
	tr := newTree(fsys, 0, "audit.example/n1/sec")
	var stored []tlog.Hash
	reference := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = stored[x]
		}
		return out, nil
	})
	r := prng(1)
	random := map[uint64]bool{}
	for range 20 {
		random[r.below(most)] = true
	}
	for size := uint64(0); ; size++ {
		want, vector := treeRoots[size]
		if vector || random[size] {
			t.Run(fmt.Sprintf("L-192 size %d", size), func(t *testing.T) {
				root := tr.root()
				if vector && base64.StdEncoding.EncodeToString(root[:]) != want {
					t.Errorf("root = %x, want the vector's", root)
				}
				checkTreeAt(t, tr, reference, size, &r)
			})
		}
		if size == most {
			return
		}
		record := treeRecord(size)
		more, err := tlog.StoredHashes(int64(size), record, reference)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, more...)
		tr.add(record)
	}
}

func checkTreeAt(t *testing.T, tr *tree, reference tlog.HashReader, size uint64, r *prng) {
	t.Helper()
	tr.partials()
	if err := tr.flush(); err != nil {
		t.Fatal(err)
	}
	root := tr.root()
	src := &tiles{tr.fsys, tr.dir, size}
	if got, err := src.root(); err != nil || got != root {
		t.Errorf("root by tiles = %x, %v; want %x", got, err, root)
	}
	if size == 0 {
		return
	}
	ref, err := tlog.TreeHash(int64(size), reference)
	if err != nil || Hash(ref) != root {
		t.Errorf("tlog.TreeHash = %v, %v; want %x", ref, err, root)
	}
	again, err := loadTree(tr.fsys, 0, tr.origin, size)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tr.stack, again.stack); diff != "" || again.root() != root || !slices.Equal(again.bundle, tr.bundle) {
		t.Errorf("tree continued from its tiles differs: %s", diff)
	}
	for range 4 {
		n := int64(r.below(size))
		p, err := tlog.ProveRecord(int64(size), n, src)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckRecord(p, int64(size), tlog.Hash(root), n, tlog.RecordHash(treeRecord(uint64(n)))); err != nil {
			t.Errorf("inclusion of %d: %v", n, err)
		}
		q, err := tlog.ProveTree(int64(size), n+1, src)
		if err != nil {
			t.Fatal(err)
		}
		old, err := tlog.TreeHash(n+1, reference)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckTree(q, int64(size), tlog.Hash(root), n+1, old); err != nil {
			t.Errorf("consistency with size %d: %v", n+1, err)
		}
	}
}

const (
	vectorVkey       = "audit.example/n1/sec+c8618e22+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
	vectorCheckpoint = `audit.example/n1/sec
3
DjC/DnbNh0JKVtLl6cdrQKKPb9scQA8VKFKawT0kkH8=

— audit.example/n1/sec yGGOIgSsdIjHNfFj0iEN2v9njzHuNkkHhiA0dTt3WbMXJegQi2VuWpu/vmxrzQFfRqw3clBpWODHh8NYv3q05rCcDwI=
`
	vectorProof = `c2sp.org/tlog-proof@v1
extra eyJzZXEiOjEsInYiOjF9
index 1
VWWF3WmPF0qa0bhoIRDVSCumDAk44I+Yzdl4UpQF9mE=
ylR4fIJ/n4jcBemvu7RB7n367ELWN5wLriEOIy9NXk0=

` + vectorCheckpoint
)

func TestVectors(t *testing.T) {
	t.Run("L-52 vkey", func(t *testing.T) {
		got, err := Vkey("audit.example/n1/sec", testSigner().Public())
		if err != nil || got != vectorVkey {
			t.Errorf("Vkey = %q, %v", got, err)
		}
	})
	t.Run("L-50 checkpoint", func(t *testing.T) {
		tr := newTree(osFS(t.TempDir()), 0, "audit.example/n1/sec")
		for i := range uint64(3) {
			tr.add(treeRecord(i))
		}
		msg, err := signCheckpoint(tr.checkpoint(), testSigner())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(vectorCheckpoint, string(msg)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("L-140 proof", func(t *testing.T) {
		fsys := osFS(t.TempDir())
		tr := newTree(fsys, 0, "audit.example/n1/sec")
		for i := range uint64(3) {
			tr.add(treeRecord(i))
		}
		tr.partials()
		if err := tr.flush(); err != nil {
			t.Fatal(err)
		}
		if err := writeFile(fsys, "sec/checkpoint", []byte(vectorCheckpoint)); err != nil {
			t.Fatal(err)
		}
		got, err := (&Reader{fsys}).Prove("sec", 1, 3)
		if diff := cmp.Diff(vectorProof, string(got)); err != nil || diff != "" {
			t.Error(err, diff)
		}
		p, err := CheckProof([]byte(vectorProof), []string{vectorVkey})
		if err != nil || string(p.Raw) != `{"seq":1,"v":1}` || p.Seq != 1 || p.Size != 3 {
			t.Errorf("CheckProof = %+v, %v", p, err)
		}
	})
	t.Run("L-24 segment header", func(t *testing.T) {
		h := segmentHeader{number: 1, firstBatch: 1, walID: [16]byte(countingBytes(16))}
		b := make([]byte, headerSize)
		h.put(b)
		want := "4b45594457414c31400000000000000001000000000000000100000000000000000102030405060708090a0b0c0d0e0f00000000000000000000000043f3cde6"
		if got := hex.EncodeToString(b); got != want {
			t.Errorf("header = %s", got)
		}
		if back, ok := parseSegmentHeader(b); !ok || back != h {
			t.Errorf("parsed %+v, %v", back, ok)
		}
	})
	frames := []struct {
		name, payload, want string
		shard               Shard
		seq, batch          uint64
	}{
		{"L-26 frame of sec", `{"seq":0,"v":1}`, "0f000000a52b913e0101010000000000000000000000000001000000000000007b22736571223a302c2276223a317d00", 0, 0, 1},
		{"L-26 frame of ops", `{"v":1}`, "07000000274d61a00201010073170300290000000000000007000000000000007b2276223a317d00", 202611, 41, 7},
	}
	for _, f := range frames {
		t.Run(f.name, func(t *testing.T) {
			b := appendFrame(nil, f.shard, f.seq, []byte(f.payload), nil, nil)
			seal(b, f.batch, true)
			if got := hex.EncodeToString(b); got != f.want {
				t.Errorf("frame = %s", got)
			}
			back, size, ok, err := parseFrame(b)
			if err != nil || !ok || size != len(b) || back.shard != f.shard || back.seq != f.seq || back.batch != f.batch || !back.last || string(back.payload) != f.payload {
				t.Errorf("parsed %+v, %d, %v, %v", back, size, ok, err)
			}
		})
	}
	t.Run("L-102 tokens", func(t *testing.T) {
		l := &Log{o: Options{Tokener: testTokener()}}
		p, err := l.PAN([]byte("4111111111111111"))
		if err != nil || p.tok != "k1:gv0DR9eyf1tnkhAjMPpPKQ" || p.truncated != "411111******1111" {
			t.Errorf("PAN = %+v, %v", p, err)
		}
		m, err := l.MsgTok([]byte{4, 0})
		if err != nil || m.tok != "k1:6Yt79myurR7yqXARkhwuJA" {
			t.Errorf("MsgTok = %+v, %v", m, err)
		}
	})
	t.Run("L-26 CRC-32C", func(t *testing.T) {
		if got := crc32.Checksum([]byte("123456789"), castagnoli); got != 0xe3069283 {
			t.Errorf("CRC = %08x", got)
		}
	})
}

func TestTilePath(t *testing.T) {
	numbers := map[uint64]string{0: "000", 999: "999", 1000: "x001/000", 1234067: "x001/x234/067"}
	for n, want := range numbers {
		t.Run("L-43 "+strconv.FormatUint(n, 10), func(t *testing.T) {
			if got := tileNumber(n); got != want {
				t.Errorf("tileNumber = %s, want %s", got, want)
			}
			for _, width := range []int{0, 1, 255} {
				for _, level := range []int{bundleLevel, 0, 1, 7} {
					path := tilePath(level, n, width)
					l, m, w, err := parseTilePath(path)
					if err != nil || l != level || m != n || w%tileWidth != width {
						t.Errorf("parseTilePath(%q) = %d, %d, %d, %v", path, l, m, w, err)
					}
				}
			}
		})
	}
	for _, bad := range []string{"", "tile/", "tile/0", "tile/0/", "tile/00/000", "tile/0/1", "tile/0/000.p/256", "tile/0/000.p/0", "tile/0/000.p/01",
		"tile/0/x000/001", "tile/64/000", "tile/-1/000", "tile/0/x001", "tile/0/x001/x234", "tile/0/000/001", "tile/data/000", "tile/0/000.p/1/2"} {
		t.Run("L-43 refused "+bad, func(t *testing.T) {
			if level, n, w, err := parseTilePath(bad); err == nil {
				t.Errorf("parsed as %d, %d, %d", level, n, w)
			}
		})
	}
}
