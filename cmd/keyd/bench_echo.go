package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// echo measures the server that does nothing: the limit of TLS, HTTP and JSON.
func (b *bench) echo() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	server := exec.Command(self, "bench", "--echo-listen", "127.0.0.1:0", "--echo-dir", filepath.Join(b.dir, "dev"))
	out, err := server.StdoutPipe()
	if err != nil {
		return err
	}
	server.Stderr = b.p.stderr
	if err := server.Start(); err != nil {
		return err
	}
	defer func() { _ = server.Process.Signal(syscall.SIGTERM); _ = server.Wait() }()
	addr := make([]byte, 64)
	n, err := out.Read(addr)
	if err != nil {
		return fmt.Errorf("starting the echo: %w", err)
	}
	f, err := b.requests("echo: empty mTLS JSON", strings.TrimSpace(string(addr[:n])), "/", [][]byte{[]byte("{}")}, server.Process.Pid)
	if err != nil {
		return err
	}
	b.echoPS = f.PerSecond
	b.add(f)
	return nil
}

// serveEcho answers every request with an empty JSON object.
func (c *benchCmd) serveEcho(p *program) error {
	dev, err := readDev(c.EchoDir)
	if err != nil {
		return err
	}
	config, err := devTLS(dev, "switch")
	if err != nil {
		return err
	}
	server, err := tls.LoadX509KeyPair(dev.Issuer.Cert, dev.Issuer.Key)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", c.EchoListen)
	if err != nil {
		return err
	}
	fmt.Fprintln(p.stdout, listener.Addr())
	s := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{server}, ClientCAs: config.RootCAs, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var in any
			if json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&in) != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(in)
		}),
	}
	stop := context.AfterFunc(p.ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.ServeTLS(listener, "", ""); err != nil && p.ctx.Err() == nil {
		return err
	}
	return nil
}
