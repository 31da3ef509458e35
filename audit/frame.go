package audit

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// The layout of the write-ahead log's segments and frames.
const (
	walMagic    = "KEYDWAL1"
	headerSize  = 64
	frameHeader = 32
	frameAlign  = 8
	maxPayload  = 65535
	kindRecord  = 1
	flagLast    = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// segmentHeader stands at the start of a used segment.
type segmentHeader struct {
	number     uint64
	firstBatch uint64
	walID      [16]byte
	prevLen    uint64 // valid length of the segment before, its header included
	prevCRC    uint32 // CRC of its last frame
}

// put writes the header into the first 64 bytes of b.
func (h *segmentHeader) put(b []byte) {
	b = b[:headerSize]
	clear(b)
	copy(b, walMagic)
	binary.LittleEndian.PutUint32(b[8:], headerSize)
	binary.LittleEndian.PutUint64(b[16:], h.number)
	binary.LittleEndian.PutUint64(b[24:], h.firstBatch)
	copy(b[32:48], h.walID[:])
	binary.LittleEndian.PutUint64(b[48:], h.prevLen)
	binary.LittleEndian.PutUint32(b[56:], h.prevCRC)
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
}

// parseSegmentHeader reads a header; false when it is not a valid one.
func parseSegmentHeader(b []byte) (segmentHeader, bool) {
	var h segmentHeader
	if len(b) < headerSize || string(b[:8]) != walMagic ||
		binary.LittleEndian.Uint32(b[60:]) != crc32.Checksum(b[:60], castagnoli) ||
		binary.LittleEndian.Uint32(b[8:]) != headerSize || binary.LittleEndian.Uint32(b[12:]) != 0 {
		return h, false
	}
	h.number = binary.LittleEndian.Uint64(b[16:])
	h.firstBatch = binary.LittleEndian.Uint64(b[24:])
	copy(h.walID[:], b[32:48])
	h.prevLen = binary.LittleEndian.Uint64(b[48:])
	h.prevCRC = binary.LittleEndian.Uint32(b[56:])
	return h, true
}

// frame is one record in the write-ahead log.
type frame struct {
	shard   Shard
	seq     uint64
	batch   uint64
	last    bool // of its batch
	crc     uint32
	payload []byte
}

// frameSize is the room that a payload of n bytes takes.
func frameSize(n int) int { return (frameHeader + n + frameAlign - 1) &^ (frameAlign - 1) }

// appendFrame writes a frame that seal has to finish.
func appendFrame(b []byte, shard Shard, seq uint64, pre, num, suf []byte) []byte {
	n := len(pre) + len(num) + len(suf)
	start := len(b)
	var h [frameHeader]byte
	binary.LittleEndian.PutUint32(h[0:], uint32(n))
	h[8] = byte(shard.logID())
	h[9] = kindRecord
	binary.LittleEndian.PutUint32(h[12:], uint32(shard))
	binary.LittleEndian.PutUint64(h[16:], seq)
	b = append(b, h[:]...)
	b = append(b, pre...)
	b = append(b, num...)
	b = append(b, suf...)
	for len(b) < start+frameSize(n) {
		b = append(b, 0)
	}
	return b
}

// seal gives the frame at the start of b its batch number, its flag and its
// CRC, which it returns with the frame's size.
func seal(b []byte, batch uint64, last bool) (crc uint32, size int) {
	n := int(binary.LittleEndian.Uint32(b))
	if last {
		b[10] |= flagLast
	}
	binary.LittleEndian.PutUint64(b[24:], batch)
	crc = frameCRC(b, n)
	binary.LittleEndian.PutUint32(b[4:], crc)
	return crc, frameSize(n)
}

func frameCRC(b []byte, n int) uint32 {
	crc := crc32.Update(0, castagnoli, b[:4])
	return crc32.Update(crc, castagnoli, b[8:frameHeader+n])
}

// parseFrame reads the frame at the start of b. It returns false for bytes that
// are no frame. A frame with a correct CRC that this version does not know is
// [ErrCorrupt]: it must not be skipped.
func parseFrame(b []byte) (f frame, size int, ok bool, err error) {
	if len(b) < frameHeader {
		return f, 0, false, nil
	}
	n := int64(binary.LittleEndian.Uint32(b))
	if n < 1 || n > maxPayload || int64(len(b)) < int64(frameSize(int(n))) {
		return f, 0, false, nil
	}
	crc := binary.LittleEndian.Uint32(b[4:])
	if b[8] != byte(Sec) && b[8] != byte(Ops) || crc != frameCRC(b, int(n)) {
		return f, 0, false, nil
	}
	flags := binary.LittleEndian.Uint16(b[10:])
	f = frame{
		shard: Shard(binary.LittleEndian.Uint32(b[12:])),
		seq:   binary.LittleEndian.Uint64(b[16:]),
		batch: binary.LittleEndian.Uint64(b[24:]),
		last:  flags&flagLast != 0,
		crc:   crc, payload: b[frameHeader : frameHeader+n : frameHeader+n],
	}
	size = frameSize(int(n))
	for _, pad := range b[frameHeader+n : size] {
		if pad != 0 {
			return f, 0, false, nil
		}
	}
	if b[9] != kindRecord || flags&^flagLast != 0 || (b[8] == byte(Sec)) != (f.shard == 0) || f.shard != 0 && !f.shard.valid() {
		return f, size, true, fmt.Errorf("%w: frame of kind %d, flags %#x, log %d, shard %d", ErrCorrupt, b[9], flags, b[8], f.shard)
	}
	return f, size, true, nil
}
