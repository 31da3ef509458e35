package isoswitch

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"time"
)

// digest hashes parts, each with its length, so that no two lists of parts
// hash alike.
func digest(label string, parts ...string) [32]byte {
	h := sha256.New()
	writePart(h, label)
	for _, p := range parts {
		writePart(h, p)
	}
	var sum [32]byte
	h.Sum(sum[:0])
	return sum
}

func writePart(h hash.Hash, p string) {
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(len(p)))
	h.Write(n[:])
	h.Write([]byte(p))
}

// lookupKey is the key of an original with this DE 7 or batch, STAN and MTI class. The
// acquirer is the profile's: DE 32 and DE 90 part 4, which a terminal may leave
// out, are compared afterwards.
func (s *Switch) lookupKey(mid, tid, sent, stan string, class byte) LookupKey {
	if len(sent) != batchDigits {
		sent = sent[:min(4, len(sent))] // MMDD
	}
	return digest("keyd-lookup-1", s.dialect.Name(), s.cfg.Acquirer, mid, tid, sent, stan, string(class))
}

// newOID names an original received at the given time.
func newOID(key LookupKey, at time.Time) OID {
	return digest("keyd-oid-1", string(key[:]), at.UTC().Format(time.DateOnly))
}

// fullRID names the one full reversal of an original.
func fullRID(oid OID) RID { return digest("keyd-rid-1", string(oid[:]), "R") }

// partialRID names the partial reversal of an original with this rest and STAN.
func partialRID(oid OID, rest int64, stan string) RID {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(rest))
	return digest("keyd-rid-1", string(oid[:]), string(n[:]), stan)
}

// layoutDE7 is MMDDhhmmss; it has no year.
const layoutDE7 = "0102150405"

// timeOf reads DE 7 as the time nearest to now, since it has no year. It
// reports false when the digits are no date and time.
func timeOf(de7 string, now time.Time) (time.Time, bool) {
	now = now.UTC()
	var best time.Time
	for _, year := range []int{now.Year() - 1, now.Year(), now.Year() + 1} {
		t, err := time.Parse("2006"+layoutDE7, yearText(year)+de7)
		if err != nil {
			continue
		}
		if best.IsZero() || t.Sub(now).Abs() < best.Sub(now).Abs() {
			best = t
		}
	}
	return best, !best.IsZero()
}

func yearText(year int) string { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC).Format("2006") }
