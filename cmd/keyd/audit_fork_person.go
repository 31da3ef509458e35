package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/credentials"
	"keyd.dev/keyd/internal/custody"
)

// forkPerson is an administrator of the configuration who proved that he has
// the key of his certificate.
type forkPerson struct {
	custody.Client
	cert    audit.Hash
	subject string
}

// errTwoPersons: the persons are not two.
var errTwoPersons = errors.New("this needs two administrators, of different names, identities and certificate subjects")

// twoAdministrators identifies two persons as the listener of the API would,
// with its CAs and revocation lists, by a handshake inside this process: the
// node's daemon cannot be asked, because it does not run without its log.
func twoAdministrators(cfg *configFile, files []string) ([]forkPerson, error) {
	if len(files) != 2 {
		return nil, fmt.Errorf("%w: %d were named", errTwoPersons, len(files))
	}
	door, err := credentials.NewTLS(credentials.TLSFiles{
		Cert: cfg.API.Cert, Key: cfg.API.Key, CA: cfg.API.ClientCA, CRL: cfg.API.CRL, CRLStrict: cfg.API.CRLStrict,
	})
	if err != nil {
		return nil, fmt.Errorf("reading the certificates of [api]: %w", err)
	}
	var persons []forkPerson
	for _, pair := range files {
		who, err := identified(cfg, door, pair)
		if err != nil {
			return nil, err
		}
		persons = append(persons, who)
	}
	a, b := persons[0], persons[1]
	if a.Name == b.Name || a.URI == b.URI || a.subject == b.subject {
		return nil, errTwoPersons
	}
	return persons, nil
}

// identified is one of them.
func identified(cfg *configFile, door *credentials.TLS, pair string) (forkPerson, error) {
	certFile, keyFile, ok := strings.Cut(pair, ",")
	if !ok {
		return forkPerson{}, usageError("--person=%s: want CERT,KEY", pair)
	}
	own, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return forkPerson{}, fmt.Errorf("reading the certificate of a person: %w", err)
	}
	cert, err := shownTo(door, own)
	if err != nil {
		return forkPerson{}, fmt.Errorf("the certificate %s: %w", certFile, err)
	}
	for _, client := range cfg.clients() {
		named := slices.ContainsFunc(cert.URIs, func(u *url.URL) bool { return u.String() == client.URI })
		if named && slices.Contains(client.Roles, custody.RoleAdmin) {
			return forkPerson{client, sha256.Sum256(cert.Raw), cert.Subject.String()}, nil
		}
	}
	return forkPerson{}, fmt.Errorf("%w: the certificate %s is of no administrator of the configuration", errTwoPersons, certFile)
}

// recordConsent records who ordered a change of the log and who consented to it,
// where no daemon can be asked. reason, if there is one, says why.
func recordConsent(ctx context.Context, log *audit.Log, persons []forkPerson, reason audit.Reason, change *audit.Change) error {
	record := func(action audit.Action, who forkPerson) audit.Record {
		return audit.Record{
			Action: action, Outcome: audit.OutcomeOK, Reason: reason, Src: audit.Source{Addr: "unix:" + strconv.Itoa(os.Getuid())},
			Actor:  audit.Actor{ID: who.Name, Kind: audit.ActorOperator, Authn: audit.AuthnMTLS, Cert: who.cert, Roles: []string{string(custody.RoleAdmin)}},
			Change: change,
		}
	}
	ticket, err := log.Reserve(ctx, audit.Sec, 3)
	if err != nil {
		return fmt.Errorf("recording %s: %w", change.Object, err)
	}
	defer ticket.Release()
	at, err := ticket.Append(record(audit.AdminRequest, persons[0]), record(audit.AdminApprove, persons[1]))
	if err != nil {
		return fmt.Errorf("recording %s: %w", change.Object, err)
	}
	done := record(audit.AdminExecute, persons[0])
	done.Approvals = []audit.Approval{{ID: persons[1].Name, At: time.Now().UTC(), Ref: at[1].ID}}
	if _, err := ticket.Append(done); err != nil {
		return fmt.Errorf("recording %s: %w", change.Object, err)
	}
	return nil
}

// shownTo presents a certificate to the door and returns it as the door saw it.
func shownTo(door *credentials.TLS, own tls.Certificate) (*x509.Certificate, error) {
	trusted := x509.NewCertPool()
	trusted.AddCert(door.Leaf())
	inner, outer := net.Pipe()
	client := tls.Client(outer, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: trusted, ServerName: serverName(door.Leaf()), Certificates: []tls.Certificate{own}})
	server := tls.Server(inner, door.Server())
	told := make(chan error, 1)
	go func() {
		told <- client.Handshake()
		_, _ = client.Read(make([]byte, 1)) // what the server says of the certificate, and its tickets
	}()
	err := server.Handshake()
	state := server.ConnectionState()
	_ = errors.Join(inner.Close(), outer.Close()) // ends the reading
	if first := <-told; err == nil {
		err = first
	}
	if err != nil {
		return nil, err
	}
	if len(state.PeerCertificates) == 0 {
		return nil, errors.New("no certificate was shown")
	}
	return state.PeerCertificates[0], nil
}
