package api

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"
)

const (
	defaultPageLife = time.Hour
	defaultPage     = 50
	mostPage        = 100
	mostToken       = 8192 // characters of a NextToken
)

// pager makes and reads the tokens with which a listing goes on. A token is the
// place to go on from and its expiry, under an HMAC whose key lives as long as
// the process; the principal and the query are under the HMAC and not in the
// token, so that it serves nobody and nothing else (section 11).
type pager struct {
	key   [32]byte
	life  time.Duration
	clock func() time.Time
}

func newPager(life time.Duration, clock func() time.Time) pager {
	if life == 0 {
		life = defaultPageLife
	}
	p := pager{life: life, clock: clock}
	_, _ = rand.Read(p.key[:]) // never fails; it ends the process instead
	return p
}

// token returns the token that goes on after the given place.
func (p *pager) token(principal, query, after string) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(p.clock().Add(p.life).UnixMilli()))
	b = append(b, after...)
	return base64.RawURLEncoding.EncodeToString(append(b, p.sum(principal, query, b)...))
}

// after returns the place of a token of this principal and query.
func (p *pager) after(principal, query string, token []byte) (after string, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(string(token))
	if err != nil || len(b) < 8+sha256.Size {
		return "", false
	}
	payload, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if !hmac.Equal(sum, p.sum(principal, query, payload)) {
		return "", false
	}
	if p.clock().UnixMilli() > int64(binary.BigEndian.Uint64(payload)) {
		return "", false
	}
	return string(payload[8:]), true
}

func (p *pager) sum(principal, query string, payload []byte) []byte {
	m := hmac.New(sha256.New, p.key[:])
	for _, part := range []string{principal, query, string(payload)} {
		m.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		m.Write([]byte(part))
	}
	return m.Sum(nil)
}
