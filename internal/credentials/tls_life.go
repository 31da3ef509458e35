package credentials

import (
	"crypto/x509"
	"encoding/pem"
	"time"
)

// Life says until when the files in use are good. A moment is zero where there
// is no such file, or where it says nothing.
type Life struct {
	Begins, Ends time.Time // of our own certificate
	CA           time.Time // when the first of the CAs that peers are checked against ends
	NextUpdate   time.Time // of the revocation lists, the first of them
}

// Life returns the life of the files in use.
func (t *TLS) Life() Life {
	m := t.now.Load()
	var l Life
	if m.leaf != nil {
		l.Begins, l.Ends = m.leaf.NotBefore, m.leaf.NotAfter
	}
	l.NextUpdate = m.nextUpdate
	for rest := m.raw.ca; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return l
		}
		ca, err := x509.ParseCertificate(block.Bytes)
		if err == nil && (l.CA.IsZero() || ca.NotAfter.Before(l.CA)) {
			l.CA = ca.NotAfter
		}
	}
}
