package api

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"strconv"
	"sync"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/credentials"
	"keyd.dev/keyd/internal/custody"
)

// connection is what the requests of one connection have in common.
type connection struct {
	id string // in records

	mu          sync.Mutex
	cert        *x509.Certificate // the one of fingerprint
	fingerprint string            // SHA-256 of the certificate, lower-case hex
	subject     string            // of the certificate
	refused     bool              // the log knows that its certificate was not accepted
	seen        credentials.Seen  // what its certificate was last checked against
}

type connectionKey struct{}

// ConnContext is for [http.Server.ConnContext]: it gives each connection the
// name that records have for it.
func (h *Handler) ConnContext(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, &connection{id: "api-" + strconv.FormatUint(h.connections.Add(1), 10)})
}

// identify gives the principal of a request: the client that the certificate of
// the connection names (C-06). The certificate must have been verified, must
// not have expired since, and must be in the table of clients now.
func (c *call) identify(r *http.Request) (custody.Caller, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.PeerCertificates) == 0 {
		return custody.Caller{}, &fault{name: accessDenied, message: noCertificate, hangUp: true}
	}
	cert := r.TLS.PeerCertificates[0]
	conn, ok := r.Context().Value(connectionKey{}).(*connection)
	if !ok {
		conn = &connection{id: "api"}
	}
	caller := custody.Caller{Addr: r.RemoteAddr, Conn: conn.id}
	caller.Cert, caller.Subject = conn.names(cert)
	client, err := c.custody.Identify(cert)
	if err != nil {
		caller.Name, caller.Kind = "unknown", audit.ActorSystem
		c.turnAway(r.Context(), conn, caller, audit.ReasonCertUnknown)
		return caller, c.denied()
	}
	caller.Client, caller.Kind = client, kindOf(client)
	if c.clock().After(cert.NotAfter) {
		c.turnAway(r.Context(), conn, caller, audit.ReasonCertExpired)
		return caller, &fault{name: accessDenied, message: "the client certificate has expired", hangUp: true}
	}
	if err := c.recheck(r, conn); err != nil {
		why := audit.ReasonCertUnknown
		if errors.Is(err, credentials.ErrRevoked) {
			why = audit.ReasonCertRevoked
		}
		c.turnAway(r.Context(), conn, caller, why)
		return caller, &fault{name: accessDenied, message: "the client certificate is no longer accepted", hangUp: true, cause: err}
	}
	return caller, nil
}

// Peers tells whether the certificate of an open connection still holds;
// *credentials.TLS does. It is asked at every request and is to be quick while
// nothing has changed since seen, which is what it last returned.
type Peers interface {
	Recheck(cs *tls.ConnectionState, seen credentials.Seen) (credentials.Seen, error)
}

// recheck sees to it that a certificate that was revoked, or whose CA is no
// longer trusted, does not live on in an open connection (C-06).
func (c *call) recheck(r *http.Request, conn *connection) error {
	if c.peers == nil {
		return nil
	}
	conn.mu.Lock()
	defer conn.mu.Unlock()
	seen, err := c.peers.Recheck(r.TLS, conn.seen)
	conn.seen = seen
	return err
}

const noCertificate = "a verified client certificate is required"

// names are the fingerprint and the subject of the connection's certificate,
// which are made once.
func (n *connection) names(cert *x509.Certificate) (fingerprint, subject string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cert != cert {
		sum := sha256.Sum256(cert.Raw)
		n.cert, n.fingerprint, n.subject = cert, hex.EncodeToString(sum[:]), cert.Subject.String()
	}
	return n.fingerprint, n.subject
}

// turnAway records that a certificate was not accepted, once a connection: who
// goes on asking must not fill the log.
func (c *call) turnAway(ctx context.Context, conn *connection, caller custody.Caller, why audit.Reason) {
	conn.mu.Lock()
	known := conn.refused
	conn.refused = true
	conn.mu.Unlock()
	if known {
		return
	}
	err := c.custody.Record(ctx, caller, c.id, audit.Record{
		Action:  audit.AuthRefuse,
		Outcome: audit.OutcomeRefused,
		Reason:  why,
	})
	if err != nil {
		c.log.Error("refusal not recorded", "request", c.id, "error", err)
	}
}

// kindOf is the log's word for a client.
func kindOf(client custody.Client) audit.ActorKind {
	switch {
	case client.Has(custody.RoleApplication), client.Has(custody.RoleTerminal):
		return audit.ActorSwitch
	case client.Has(custody.RoleCustodian):
		return audit.ActorCustodian
	case client.Has(custody.RoleAuditor):
		return audit.ActorAuditor
	}
	return audit.ActorOperator
}
