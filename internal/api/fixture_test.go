package api_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/api"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/store"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/softhsm-test"
)

// exampleKey is a key of section 16 of the API: published values.
type exampleKey struct {
	alias string
	id    string // in the examples
	usage keys.Usage
	kind  keys.Algorithm
	mode  keys.Mode
	value string
	tags  map[string]string // of its policy
}

func exampleKeys() []exampleKey {
	return []exampleKey{
		{"alias/bdk-tdes", "wa9r9g0f6lj0q6vjqibx0xuyd58j6lth", keys.UsageBDK, keys.TDES2, keys.ModeDerive, "0123456789ABCDEFFEDCBA9876543210", nil},
		{"alias/bdk-aes", "w6csvgl6fcmxuk1o0uxln1pr0c3476sd", keys.UsageBDK, keys.AES128, keys.ModeDerive, "FEDCBA9876543210F1F1F1F1F1F1F1F1", nil},
		{"alias/zpk-a", "6g1dpp3ele1d02exhhsxvp74f7g7onlp", keys.UsagePIN, keys.TDES2, keys.ModeBoth, "49049D94F1F1929B1A83192CF71038CB", nil},
		{"alias/zpk-b", "a4kuyjsoqegukwptcqemhtjvd01b20v7", keys.UsagePIN, keys.TDES3, keys.ModeBoth, "7C89D6CB3D45E549C16D76585416A18A7AB9649DE91F1C9E", nil},
		{"alias/zpk-aes", "ebwrczw2isr58cpj7h256ztrullqyd3d", keys.UsagePIN, keys.AES256, keys.ModeBoth, "8FFD058A06164289C2046604ABD7E908088BB47987B40D21D3D6AAFE62F5375D", nil},
		{"alias/tpk-17", "tpk17000000000000000000000000000", keys.UsagePIN, keys.TDES2, keys.ModeBoth, "FE68DA4A37EAE5F70831E307D3FBDADA", nil},
		{"alias/tak-42", "75nzoeshnymaek7ojpur4238tp0qzkj8", keys.UsageMACAlg3, keys.TDES2, keys.ModeMAC, "C73E94DAD9CDB9194AAEF8262A83DC16", nil},
		{"alias/tak-alg1", "zmae63vkd9chxxvzyytqximieqpu2chz", keys.UsageMACAlg1, keys.TDES2, keys.ModeMAC, "AE015761A22523D06D8F25B908CD86FE", nil},
		{"alias/tak-cmac", "dmqcj7yj7ngs5zu1le0p0zvwxddxsuhl", keys.UsageCMAC, keys.AES128, keys.ModeMAC, "66F69CA1D7F33E1B10B8798DDA30361F", nil},
		{"alias/tak-hmac", "yzlcrhf0q2xq9e4mrcuago5spmxkk2t4", keys.UsageHMAC, keys.HMACSHA256, keys.ModeMAC, "00D432DB1409FBAC6D776941E4647163DF3369AE8BFCB556518B9B3C4EB11BB4", nil},
		{"alias/mak-up", "2ia5nze8cy0lsfnbskxyd623jwra2yqp", keys.UsageMACAlg1, keys.TDES2, keys.ModeMAC, "AB73C9416D41E936E82AAC11053BCEDD",
			map[string]string{"keyd:mac-algorithm": "KEYD_UNIONPAY_ECB"}},
		{"alias/zmk-aes", "n2gp7cdpt24ggr5nm0xcsvdikv77peyj", keys.UsageKBPK, keys.AES256, keys.ModeBoth, "0FA631684D70DF34BFB34A63293AB7BC04A23935B38B553B041EBF28E0D93085", nil},
		{"alias/zmk-tdes", "zqpnb7gqqxlq4td4xk8idgwl0qt1gheg", keys.UsageKEK, keys.TDES2, keys.ModeBoth, "A4795D7338988CC757946BFEBC8F1089", nil},
	}
}

// lines is a daemon's log that can be read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// bench is keyd's API as it stands in production: a token, a store, a log, and
// a listener with mutual TLS.
type bench struct {
	custody *custody.Custody
	handler *api.Handler
	url     string
	ids     map[string]string // from an alias to the key's id
	logDir  string
	errors  *lines // of the daemon's log

	roots  *x509.CertPool
	ca     *x509.Certificate
	caKey  *ecdsa.PrivateKey
	serial int64
}

func testClients() []custody.Client {
	return []custody.Client{
		{Name: "switch-a", URI: "spiffe://keyd.test/switch-a", Roles: []custody.Role{custody.RoleApplication}, Keys: []string{"*"}},
		{Name: "switch-b", URI: "spiffe://keyd.test/switch-b", Roles: []custody.Role{custody.RoleApplication}, Keys: []string{"alias/zpk-*"}},
		{Name: "admin", URI: "spiffe://keyd.test/admin", Roles: []custody.Role{custody.RoleAdmin}, Keys: []string{"*"}},
		{Name: "admin-b", URI: "spiffe://keyd.test/admin-b", Roles: []custody.Role{custody.RoleAdmin}, Keys: []string{"*"}},
		{Name: "operator", URI: "spiffe://keyd.test/operator", Roles: []custody.Role{custody.RoleOperator}, Keys: []string{"*"}},
		{Name: "custodian", URI: "spiffe://keyd.test/custodian", Roles: []custody.Role{custody.RoleCustodian}, Keys: []string{"*"}},
		{Name: "auditor", URI: "spiffe://keyd.test/auditor", Roles: []custody.Role{custody.RoleAuditor}, Keys: []string{"*"}},
		{Name: "terminal", URI: "spiffe://keyd.test/terminal", Roles: []custody.Role{custody.RoleTerminal}, Keys: []string{"*"}},
		{Name: "nobody", URI: "spiffe://keyd.test/nobody"},
		{Name: "by-dns", URI: "switch-dns.keyd.test", Roles: []custody.Role{custody.RoleApplication}, Keys: []string{"*"}},
	}
}

// newBench builds all of it, with the keys of the examples.
func newBench(tb testing.TB, changes ...func(*custody.Config)) *bench {
	tb.Helper()
	dir := tb.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		tb.Fatal(err)
	}
	token := softhsmtest.Token(tb)
	anchor := softhsmtest.Anchor(tb, token)
	if err := store.Found(tb.Context(), anchor); err != nil {
		tb.Fatal(err)
	}
	db, err := store.Open(tb.Context(), store.Config{Path: filepath.Join(dir, "keyd.db"), Purpose: store.Serve, Anchor: anchor,
		Sealer: func(id [16]byte) (store.Sealer, error) { return custody.NewRowSealer(token, id) }})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	b := &bench{ids: make(map[string]string), logDir: filepath.Join(dir, "audit"), errors: new(lines)}
	log := openLog(tb, token, b.logDir)
	config := custody.Config{
		Token: token, Maker: hsm.NewManager(token), Keeper: hsm.NewManager(token), Store: db, Log: log,
		Clients: testClients(), Clock: time.Now, Serial: "0000000000000001",
		Malformed: custody.Malformed{PerMinute: 1 << 20, PerHour: 1 << 20},
	}
	config.Exchange = custody.Exchange{Token: hsm.NewManager(token), Store: db}
	for _, change := range changes {
		change(&config)
	}
	if b.custody, err = custody.New(config); err != nil {
		tb.Fatal(err)
	}
	b.importKeys(tb)
	b.handler, err = api.New(api.Config{Custody: b.custody, Log: slog.New(slog.NewTextHandler(b.errors, nil))})
	if err != nil {
		tb.Fatal(err)
	}
	b.makeCA(tb)
	b.serve(tb)
	return b
}

func openLog(tb testing.TB, token *hsm.Token, dir string) *audit.Log {
	tb.Helper()
	signer, err := token.Signer()
	if err != nil {
		tb.Fatal(err)
	}
	tokener, err := custody.NewTokener(token)
	if err != nil {
		tb.Fatal(err)
	}
	log, err := audit.Open(dir, signer, audit.Options{
		Site: "test", Node: "n1", SegmentSize: 8 << 20, Tokener: tokener,
		Disk: audit.DiskLimits{WarnPercent: 2, CriticalPercent: 1, ClearPercent: 1},
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := log.Close(context.Background()); err != nil {
			tb.Errorf("closing the log: %v", err)
		}
	})
	return log
}

func (b *bench) importKeys(tb testing.TB) {
	tb.Helper()
	for _, k := range exampleKeys() {
		b.importKey(tb, k)
	}
}

// importKey brings in one more key.
func (b *bench) importKey(tb testing.TB, k exampleKey) {
	tb.Helper()
	value, err := hex.DecodeString(k.value)
	if err != nil {
		tb.Fatal(err)
	}
	exportability := keys.Exportable
	if k.usage == keys.UsageKEK || k.usage == keys.UsageKBPK {
		exportability = keys.NonExportable
	}
	made, err := b.custody.ImportClear(tb.Context(), custody.SystemCaller("custodian", custody.RoleCustodian), "test", custody.ImportClear{
		Attributes: keys.Attributes{Usage: k.usage, Algorithm: k.kind, Mode: k.mode, Exportability: exportability},
		Value:      secret.From(value), Alias: k.alias, Policy: k.tags,
	})
	if err != nil {
		tb.Fatalf("%s: %v", k.alias, err)
	}
	b.ids[k.alias] = string(made.Block.ID)
}

func (b *bench) makeCA(tb testing.TB) {
	tb.Helper()
	var err error
	if b.caKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "keyd test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &b.caKey.PublicKey, b.caKey)
	if err != nil {
		tb.Fatal(err)
	}
	if b.ca, err = x509.ParseCertificate(raw); err != nil {
		tb.Fatal(err)
	}
	b.roots = x509.NewCertPool()
	b.roots.AddCert(b.ca)
}

// certificate issues a leaf of the test CA.
func (b *bench) certificate(tb testing.TB, change func(*x509.Certificate)) tls.Certificate {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	b.serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(b.serial + 1),
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	change(template)
	raw, err := x509.CreateCertificate(rand.Reader, template, b.ca, &key.PublicKey, b.caKey)
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

// named is the certificate of a client by its URI.
func (b *bench) named(tb testing.TB, uri string) tls.Certificate {
	tb.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		tb.Fatal(err)
	}
	return b.certificate(tb, func(c *x509.Certificate) { c.URIs = []*url.URL{u} })
}

// client is an HTTP client with the certificate of a client of the table.
func (b *bench) client(tb testing.TB, name string) *http.Client {
	tb.Helper()
	return b.clientWith(tb, b.named(tb, "spiffe://keyd.test/"+name))
}

func (b *bench) clientWith(tb testing.TB, certs ...tls.Certificate) *http.Client {
	tb.Helper()
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: b.roots, Certificates: certs},
		ForceAttemptHTTP2: true,
	}
	tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// serverCertificate issues one for 127.0.0.1.
func (b *bench) serverCertificate(tb testing.TB) tls.Certificate {
	tb.Helper()
	return b.certificate(tb, func(c *x509.Certificate) {
		c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
}

func (b *bench) serve(tb testing.TB) {
	tb.Helper()
	cert := b.serverCertificate(tb)
	server, err := api.Server(b.handler, &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: b.roots})
	if err != nil {
		tb.Fatal(err)
	}
	server.Handler = modelled(tb, server.Handler)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(listener, "", "") }()
	tb.Cleanup(func() {
		if err := server.Close(); err != nil {
			tb.Errorf("closing the server: %v", err)
		}
		<-done
	})
	b.url = "https://" + listener.Addr().String()
}

// arn is the ARN of the key of an alias.
func (b *bench) arn(alias string) string {
	return "arn:aws:payment-cryptography:xx-keyd-1:000000000000:key/" + b.ids[alias]
}

// local writes this bench's key ids in place of those of the examples.
func (b *bench) local(text string) string {
	for _, k := range exampleKeys() {
		text = strings.ReplaceAll(text, k.id, b.ids[k.alias])
	}
	return text
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
	closed bool // the connection
}

// json is the body's object.
func (a answer) json(tb testing.TB) map[string]any {
	tb.Helper()
	var v map[string]any
	if err := json.Unmarshal(a.body, &v); err != nil {
		tb.Fatalf("the answer is not a JSON object: %v", err)
	}
	return v
}

// call sends one request to an operation of either plane.
func (b *bench) call(tb testing.TB, client *http.Client, operation, body string, headers ...string) answer {
	tb.Helper()
	_, control := dataPath(operation)
	path := pathOf(operation, body)
	r, err := http.NewRequestWithContext(tb.Context(), http.MethodPost, b.url+path, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if control {
		r.Header.Set("Content-Type", "application/x-amz-json-1.0")
		r.Header.Set("X-Amz-Target", "PaymentCryptographyControlPlane."+operation)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return b.do(tb, client, r)
}

func (b *bench) do(tb testing.TB, client *http.Client, r *http.Request) answer {
	tb.Helper()
	response, err := client.Do(r)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return answer{status: response.StatusCode, header: response.Header, body: text, closed: response.Close}
}

// dataPath is the path of an operation, which is the root for those of the
// control plane.
func dataPath(operation string) (path string, control bool) {
	switch operation {
	case "TranslatePinData":
		return "/pindata/translate", false
	case "GenerateMac":
		return "/mac/generate", false
	case "VerifyMac":
		return "/mac/verify", false
	case "EncryptData":
		return "/keys/{KeyIdentifier}/encrypt", false
	case "DecryptData":
		return "/keys/{KeyIdentifier}/decrypt", false
	case "ReEncryptData":
		return "/keys/{IncomingKeyIdentifier}/reencrypt", false
	}
	return "/", true
}

// pathOf is that path with the key that the body names in it, escaped as the
// SDKs do. The body's own member is one too many, and ignored.
func pathOf(operation, body string) string {
	path, _ := dataPath(operation)
	var members map[string]any
	_ = json.Unmarshal([]byte(body), &members) // a body that is none names no key
	for _, member := range []string{"KeyIdentifier", "IncomingKeyIdentifier"} {
		name, _ := members[member].(string)
		path = strings.Replace(path, "{"+member+"}", url.PathEscape(name), 1)
	}
	return path
}
