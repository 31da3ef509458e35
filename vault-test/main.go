package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/command/server"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/vault"
)

func main() {
	dir := flag.String("dir", "", "folder of the storage and the certificate")
	listen := flag.String("listen", "127.0.0.1:0", "address and port, loopback")
	flag.Parse()
	if err := run(*dir, *listen); err != nil {
		fmt.Fprintln(os.Stderr, "vault-test:", err)
		os.Exit(1)
	}
}

// run serves until standard input ends.
func run(dir, listen string) error {
	if dir == "" {
		return fmt.Errorf("-dir is needed")
	}
	log := hclog.New(&hclog.LoggerOptions{Name: "vault", Level: hclog.Warn, Output: os.Stderr})
	core, err := newCore(filepath.Join(dir, "data"), log)
	if err != nil {
		return err
	}
	tlsConfig, ca, err := serverTLS(dir)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	if ip := listener.Addr().(*net.TCPAddr).IP; !ip.IsLoopback() {
		return fmt.Errorf("%v is not loopback: this server is for tests", ip)
	}
	handler := vaulthttp.Handler.Handler(&vault.HandlerProperties{
		Core:           core,
		ListenerConfig: &configutil.Listener{},
	})
	srv := &http.Server{Handler: handler, TLSConfig: tlsConfig, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug})}
	failed := make(chan error, 1)
	go func() { failed <- srv.ServeTLS(listener, "", "") }()
	if err := report(dir, "https://"+listener.Addr().String(), ca); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	select {
	case err := <-failed:
		return err
	case <-ended:
	}
	_ = srv.Close()
	return core.Shutdown()
}

// newCore makes the core over a folder.
func newCore(data string, log hclog.Logger) (*vault.Core, error) {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	physical, err := file.NewFileBackend(map[string]string{"path": data}, log)
	if err != nil {
		return nil, err
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:           physical,
		DisableMlock:       true,
		LogicalBackends:    logicalBackends(),
		CredentialBackends: credentialBackends(),
		AuditBackends:      auditBackends(),
		BuiltinRegistry:    registry{},
		Logger:             log,
		RawConfig:          &server.Config{SharedConfig: &configutil.SharedConfig{}},
	})
	if err != nil {
		return nil, fmt.Errorf("making the core: %w", err)
	}
	mend(core)
	return core, nil
}

// report says where the server answers; the file appears whole.
func report(dir, address, ca string) error {
	text, err := json.Marshal(map[string]string{"address": address, "ca": ca})
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "vault.json")
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
