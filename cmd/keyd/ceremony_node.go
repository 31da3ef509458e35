package main

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/api"
	"keyd.dev/keyd/internal/ceremony"
	"keyd.dev/keyd/internal/hsm"
)

// about is what a transcript says of a node.
func about(cfg *configFile, token *hsm.Token) ceremony.About {
	return ceremony.About{
		Version: thisBuild().name(),
		Node:    cfg.Audit.Site + "/" + cfg.Audit.Node,
		Config:  hex.EncodeToString(cfg.hash[:]),
		Token:   token.Info().Serial,
	}
}

// house is what ceremonies need of this node.
func (n *node) house() (*ceremony.InDaemon, error) {
	signer, err := n.token.Signer()
	if err != nil {
		return nil, fmt.Errorf("finding the key of the audit log: %w", err)
	}
	return &ceremony.InDaemon{
		Custody: n.custody, Signer: signer,
		Vkey: func() (string, error) { return n.audit.Vkey(audit.Sec.String()) },
		Is:   about(n.cfg, n.token),
	}, nil
}

// newCeremonies makes the engine of a daemon.
func (n *node) newCeremonies() (*ceremony.Engine, error) {
	house, err := n.house()
	if err != nil {
		return nil, err
	}
	return ceremony.New(ceremony.Config{House: house, Log: n.log.With("part", "ceremony")})
}

// besideAPI sends what is under the ceremonies' prefix to them, what auditors copy
// the log by to its door, all else to the API.
func besideAPI(door, ceremonies, log http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, ceremony.Prefix):
			ceremonies.ServeHTTP(w, r)
		case r.URL.Path == api.AuditPath:
			log.ServeHTTP(w, r)
		default:
			door.ServeHTTP(w, r)
		}
	})
}
