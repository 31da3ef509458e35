//go:build vault

package vault_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"keyd.dev/keyd/internal/credentials/vault"
	"keyd.dev/keyd/internal/credentials/vaulttest"
)

// podToken is a service account's token as Kubernetes signs them.
func podToken(t *testing.T, key *rsa.PrivateKey, account string) string {
	t.Helper()
	part := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	signed := part(map[string]any{"alg": "RS256", "typ": "JWT"}) + "." + part(map[string]any{
		"iss": "https://kubernetes.default.svc", "sub": "system:serviceaccount:prod:" + account,
		"exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(), "nbf": time.Now().Unix(),
		"kubernetes.io": map[string]any{"namespace": "prod", "serviceaccount": map[string]any{"name": account, "uid": "4711"}},
	})
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// TestKubernetes is C-09 against Vault's own Kubernetes login; of Kubernetes only
// the review of tokens stands here, which Vault asks for.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := podToken(t, key, "keyd")
	reviewer := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct{ Spec struct{ Token string } }
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
			"status": map[string]any{"authenticated": review.Spec.Token == good, "user": map[string]any{"username": "system:serviceaccount:prod:keyd", "uid": "4711"}},
		})
	}))
	defer reviewer.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: reviewer.Certificate().Raw})

	s := vaulttest.Start(t)
	s.Policy("keyd", policyPIN)
	s.Write("secret/data/keyd/token", map[string]any{"data": map[string]any{"pin": canary}})
	s.Write("auth/kubernetes/config", map[string]any{
		"kubernetes_host": reviewer.URL, "kubernetes_ca_cert": string(ca), "token_reviewer_jwt": podToken(t, key, "vault"), "disable_local_ca_jwt": true,
	})
	s.Write("auth/kubernetes/role/keyd", map[string]any{
		"bound_service_account_names": "keyd", "bound_service_account_namespaces": "prod", "token_policies": "keyd", "token_ttl": "1h",
	})
	path := write(t, "pod-token", podToken(t, key, "other"))
	c, _ := client(t, s, func(cfg *vault.Config) {
		cfg.Login = vault.Login{Method: vault.MethodKubernetes, Role: "keyd", TokenOfPod: path}
	})
	if _, err := readPIN(t, "vault:secret/keyd/token#pin", c); vault.Cause(err) != vault.CauseConfiguration {
		t.Errorf("C-09 another account: %v, want a configuration error", err)
	}
	// Kubernetes renews the file; it is read again at each login.
	if err := os.WriteFile(path, []byte(good+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readPIN(t, "vault:secret/keyd/token#pin", c); err != nil {
		t.Errorf("C-09 the account of the role: %v", err)
	}
	c.Close(context.Background())
}
