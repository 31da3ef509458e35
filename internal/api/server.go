package api

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"
)

// Limits of a connection. A request is small and answered in milliseconds;
// whoever is slower than this holds a place that others need.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	writeTimeout  = 15 * time.Second
	idleTimeout   = 2 * time.Minute
	mostHeader    = 16 << 10
	mostStreams   = 256
	pingAfter     = 30 * time.Second // of silence on an HTTP/2 connection
	pingTimeout   = 15 * time.Second
)

// Server returns a server of h on TLS with verified client certificates, to be
// started with Serve(h.Listen(listener, server.TLSConfig)), or with
// ServeTLS(listener, "", ""), which records no failed handshake. The TLS config is copied; it must
// have a certificate (or a source of one) and the CAs of the clients. TLS 1.3 is
// the least version unless the config names 1.2, which then has forward-secret
// suites only. Session tickets are off, so that every connection shows its
// certificate (C-07).
func Server(h *Handler, config *tls.Config) (*http.Server, error) {
	hard, err := harden(config)
	if err != nil {
		return nil, err
	}
	hard.NextProtos = []string{"h2", "http/1.1"}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &http.Server{
		Handler:           h,
		TLSConfig:         hard,
		Protocols:         protocols,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: mostStreams, WriteByteTimeout: writeTimeout, SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    mostHeader,
		ConnContext:       h.ConnContext,
		ConnState:         h.connState,
		ErrorLog:          slog.NewLogLogger(h.log.Handler(), slog.LevelWarn),
	}, nil
}

// harden copies a TLS config and makes it demand what the API demands.
func harden(config *tls.Config) (*tls.Config, error) {
	if config == nil {
		return nil, errors.New("api: a TLS config is needed; there is no plain listener")
	}
	hard := config.Clone()
	switch {
	case len(hard.Certificates) == 0 && hard.GetCertificate == nil && hard.GetConfigForClient == nil:
		return nil, errors.New("api: the TLS config has no server certificate")
	case hard.ClientCAs == nil && hard.GetConfigForClient == nil:
		return nil, errors.New("api: the TLS config has no CAs of clients")
	case hard.InsecureSkipVerify:
		return nil, errors.New("api: the TLS config skips verification")
	case hard.MinVersion == 0:
		hard.MinVersion = tls.VersionTLS13
	case hard.MinVersion < tls.VersionTLS12:
		return nil, fmt.Errorf("api: least version %s: TLS 1.2 is the oldest that can be allowed", tls.VersionName(hard.MinVersion))
	}
	if hard.MaxVersion != 0 && hard.MaxVersion < hard.MinVersion {
		return nil, fmt.Errorf("api: greatest version %s is below the least, %s", tls.VersionName(hard.MaxVersion), tls.VersionName(hard.MinVersion))
	}
	hard.ClientAuth = tls.RequireAndVerifyClientCert
	hard.SessionTicketsDisabled = true
	hard.Renegotiation = tls.RenegotiateNever
	hard.CipherSuites = forwardSecret()
	if choose := hard.GetConfigForClient; choose != nil {
		hard.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			chosen, err := choose(hello)
			if chosen == nil || err != nil {
				return nil, err
			}
			return harden(chosen)
		}
	}
	return hard, nil
}

// forwardSecret lists the suites of TLS 1.2 that keyd allows; those of 1.3 are
// not configurable and all forward secret.
func forwardSecret() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
}
