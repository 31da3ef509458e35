package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

// probe is a request whose form is right, for an operation of the matrix: of
// whoever may do it, it asks for something that is not there.
type probe struct {
	op     custody.Operation
	path   string // "/" for operations that target names
	target string
	body   string
}

const (
	awsTarget  = "PaymentCryptographyControlPlane."
	ownTarget  = "KeydControlPlane."
	nowhereARN = "arn:aws:payment-cryptography:xx-keyd-1:000000000000:key/00000000000000000000000000000000"
	aKeyType   = `"KeyAttributes":{"KeyAlgorithm":"AES_128","KeyClass":"SYMMETRIC_KEY","KeyModesOfUse":{"Generate":true,"Verify":true},"KeyUsage":"TR31_M6_ISO_9797_5_CMAC_KEY"}`
)

// probes are all doors to the operations of the matrix. An operation has one at
// least.
func probes() []probe {
	aws := func(op custody.Operation, body string) probe { return probe{op, "/", awsTarget + string(op), body} }
	own := func(op custody.Operation, body string) probe { return probe{op, "/", ownTarget + string(op), body} }
	also := func(op custody.Operation, name, body string) probe { return probe{op, "/", ownTarget + name, body} }
	door := func(op custody.Operation, name, body string) probe {
		return probe{op, "/ceremony/v1/" + name, "", body}
	}
	key := `{"KeyIdentifier":"alias/dev/none"}`
	mac := `{"KeyIdentifier":"alias/dev/zak","MessageData":"00","GenerationAttributes":{"Algorithm":"ISO9797_ALGORITHM3"}}`
	verify := `{"KeyIdentifier":"alias/dev/zak","MessageData":"00","Mac":"0011223344556677","VerificationAttributes":{"Algorithm":"ISO9797_ALGORITHM3"}}`
	pin := `{"EncryptedPinBlock":"0011223344556677","IncomingKeyIdentifier":"alias/dev/zpk","OutgoingKeyIdentifier":"alias/dev/zpk",` +
		`"IncomingTranslationAttributes":{"IsoFormat1":{}},"OutgoingTranslationAttributes":{"IsoFormat1":{}}}`
	data := func(more string) string {
		return `{"KeyIdentifier":"alias/dev/zpk","` + more + `Attributes":{"Symmetric":{"Mode":"ECB"}},"PlainText":"00","CipherText":"00"}`
	}
	reencrypt := `{"OutgoingKeyIdentifier":"alias/dev/zpk","IncomingEncryptionAttributes":{"Symmetric":{"Mode":"ECB"}},` +
		`"OutgoingEncryptionAttributes":{"Symmetric":{"Mode":"ECB"}},"CipherText":"00"}`
	block := "D0112D0TB00E0000" + strings.Repeat("0", 96)
	return []probe{
		{custody.OpTranslatePIN, "/pindata/translate", "", pin},
		{custody.OpGenerateMAC, "/mac/generate", "", mac},
		{custody.OpVerifyMAC, "/mac/verify", "", verify},
		{custody.OpEncryptData, "/keys/alias%2Fdev%2Fzpk/encrypt", "", data("Encryption")},
		{custody.OpDecryptData, "/keys/alias%2Fdev%2Fzpk/decrypt", "", data("Decryption")},
		{custody.OpReEncryptData, "/keys/alias%2Fdev%2Fzpk/reencrypt", "", reencrypt},
		aws(custody.OpCreateKey, `{"Exportable":false,`+aKeyType+`}`),
		aws(custody.OpImportKey, `{"KeyMaterial":{"Tr31KeyBlock":{"WrappedKeyBlock":"`+block+`","WrappingKeyIdentifier":"alias/dev/none"}}}`),
		aws(custody.OpExportKey, `{"ExportKeyIdentifier":"alias/dev/none","KeyMaterial":{"Tr31KeyBlock":{"WrappingKeyIdentifier":"alias/dev/none"}}}`),
		aws(custody.OpImportParams, `{"KeyMaterialType":"KEY_CRYPTOGRAM","WrappingKeyAlgorithm":"RSA_2048"}`),
		aws(custody.OpStartKeyUsage, key), aws(custody.OpStopKeyUsage, key), aws(custody.OpDeleteKey, key), aws(custody.OpRestoreKey, key),
		aws(custody.OpTagResource, `{"ResourceArn":"`+nowhereARN+`","Tags":[{"Key":"a","Value":"b"}]}`),
		aws(custody.OpUntagResource, `{"ResourceArn":"`+nowhereARN+`","TagKeys":["a"]}`),
		aws(custody.OpListTags, `{"ResourceArn":"`+nowhereARN+`"}`),
		aws(custody.OpGetKey, key), aws(custody.OpListKeys, `{}`),
		aws(custody.OpCreateAlias, `{"AliasName":"alias/dev/probe"}`),
		aws(custody.OpUpdateAlias, `{"AliasName":"alias/dev/none"}`),
		aws(custody.OpDeleteAlias, `{"AliasName":"alias/dev/none"}`),
		aws(custody.OpGetAlias, `{"AliasName":"alias/dev/zpk"}`), aws(custody.OpListAliases, `{}`),
		aws(custody.OpGetCertificate, key),

		own(custody.OpGetKey, key), own(custody.OpRotateKey, key),
		also(custody.OpImportKey, "ImportCryptogram", `{`+strings.Replace(aKeyType, "AES_128", "TDES_2KEY", 1)+
			`,"Exportable":true,"KeyScheme":"U","Cryptogram":"`+strings.Repeat("0", 32)+`","KeyCheckValue":"000000","WrappingKeyIdentifier":"alias/dev/none"}`),
		also(custody.OpExportKey, "ExportCryptogram", `{"ExportKeyIdentifier":"alias/dev/none","WrappingKeyIdentifier":"alias/dev/none","KeyScheme":"U"}`),
		also(custody.OpGetCertificate, "GetWrappingCertificate", `{}`),
		also(custody.OpGetCSR, "GetIssuingCertificateSigningRequest", `{"CertificateSubject":{"CommonName":"keyd"}}`),
		own(custody.OpListApprovals, `{}`), own(custody.OpApprove, `{"Reference":"0000000000"}`), own(custody.OpReject, `{"Reference":"0000000000"}`),
		own(custody.OpGetClients, `{}`), own(custody.OpSetRoles, `{"Client":"emperor","Roles":[]}`),
		own(custody.OpAddTerminals, `{"Terminals":[]}`), own(custody.OpChangeTerminal, `{"Tid":"T9999999","Status":"SUSPENDED"}`),
		own(custody.OpGetTerminal, `{"Tid":"T9999999"}`), own(custody.OpListTerminals, `{}`),
		own(custody.OpDistributeKeys, `{"Tid":"T9999999","Form":"TR31"}`),
		own(custody.OpGetLMK, `{}`), own(custody.OpRewrapKeys, `{}`), own(custody.OpRetireLMK, `{"Generation":7}`),
		own(custody.OpBackup, `{}`), own(custody.OpPruneLog, `{"Log":"ops-2020-01","All":true}`),
		own(custody.OpGetAuditLog, `{"Command":"ls"}`), {custody.OpGetAuditLog, "/audit/v1/files", "", `{"Reading":"none","Log":"sec","Files":["checkpoint"]}`},
		own(custody.OpGetCardToken, `{"Pan":"0000000000000000"}`),
		own(custody.OpListReversals, `{}`), own(custody.OpGetReversal, noReversal),
		own(custody.OpRetryReversal, noReversal), own(custody.OpParkReversal, noReversal),
		own(custody.OpResolveReversal, `{"Reversal":"kkkkkkkkkkkkkkkkkkkkkkkk","Case":"C-1"}`),
		own(custody.OpReleaseReversal, noReversal), own(custody.OpRejectReversal, noReversal),
		own(custody.OpCloseBatch, `{"Tid":"T9999999"}`),

		door(custody.OpOpenCeremony, "open", `{"script":"none"}`),
		door(custody.OpJoinCeremony, "join", `{"id":"none"}`), door(custody.OpJoinCeremony, "give", `{"id":"none"}`),
		door(custody.OpListCeremonies, "list", `{}`), door(custody.OpListCeremonies, "status", `{"id":"none"}`),
	}
}

// noReversal names one that is not there.
const noReversal = `{"Reversal":"kkkkkkkkkkkkkkkkkkkkkkkk"}`

// roleClients has a client of the development daemon for each role, and for none.
func roleClients() map[string]custody.Role {
	return map[string]custody.Role{
		"switch": custody.RoleApplication, "admin": custody.RoleAdmin, "operator": custody.RoleOperator,
		"custodian-1": custody.RoleCustodian, "auditor": custody.RoleAuditor, "terminal": custody.RoleTerminal, "nobody": "",
	}
}

// refusal is what the log must say of one: who, by which certificate, what, and
// from where.
type refusal struct{ client, cert, op, addr string }

// TestR56RolesAtTheDoor tries every operation of the matrix as every role at a
// daemon's own door, and finds each refusal in the audit log.
func TestR56RolesAtTheDoor(t *testing.T) {
	dir := t.TempDir()
	r := startDev(t, dir, "--no-sim")
	matrix := custody.Permissions()
	unprobed := maps.Clone(matrix)
	maps.DeleteFunc(unprobed, func(_ custody.Operation, roles []custody.Role) bool { // nobody asks for these at the door
		return slices.Equal(roles, []custody.Role{custody.RoleSwitch})
	})
	refused := make(map[refusal]int)
	for client, role := range roleClients() {
		config := r.tls(client)
		as := &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}, Timeout: 30 * time.Second}
		cert := sha256.Sum256(config.Certificates[0].Certificate[0])
		for _, p := range probes() {
			delete(unprobed, p.op)
			t.Run(fmt.Sprintf("%s%s as %s", p.target, strings.TrimPrefix(p.path, "/"), client), func(t *testing.T) {
				denied, addr, answer := p.try(t, as, r.dev.APIURL)
				if want := !slices.Contains(matrix[p.op], role); denied != want {
					t.Errorf("denied = %v, want %v: %s", denied, want, answer)
				}
				if denied {
					refused[refusal{client, hex.EncodeToString(cert[:]), string(p.op), addr}]++
				}
			})
		}
		as.CloseIdleConnections()
	}
	if len(unprobed) > 0 {
		t.Errorf("operations of the matrix that this test does not try: %v", slices.Sorted(maps.Keys(unprobed)))
	}
	r.stop()
	wantRefusals(t, filepath.Join(dir, "audit"), refused)
}

// try sends the probe and says whether the answer is that the caller's roles
// have not got the operation, and from which address it was sent. A complaint of
// the form is the test's own mistake.
func (p probe) try(t *testing.T, as *http.Client, url string) (denied bool, addr, answer string) {
	t.Helper()
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		GotConn: func(got httptrace.GotConnInfo) { addr = got.Conn.LocalAddr().String() },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+p.path, strings.NewReader(p.body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if p.target != "" {
		req.Header.Set("X-Amz-Target", p.target)
	}
	resp, err := as.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	answer = string(text)
	if strings.Contains(answer, "UnknownOperation") || resp.StatusCode == http.StatusNotFound && len(text) > 0 && text[0] != '{' {
		t.Fatalf("there is no such door: %s", answer)
	}
	return strings.Contains(answer, `"Message":"caller may not`) || strings.Contains(answer, `"code":"denied"`), addr, answer
}

// wantRefusals finds each refusal in the log sec, and no others.
func wantRefusals(t *testing.T, dir string, want map[refusal]int) {
	t.Helper()
	reader, err := audit.OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	for entry, err := range reader.Records("sec", 0) {
		if err != nil {
			t.Fatal(err)
		}
		var record struct {
			Action string
			Reason string
			Actor  struct{ ID, Cert string }
			Src    struct{ Addr, Conn string }
			Change struct{ Object string }
		}
		if err := json.Unmarshal(entry.Raw, &record); err != nil {
			t.Fatal(err)
		}
		if record.Action != "auth.deny" {
			continue
		}
		if record.Reason != "role_denied" || record.Src.Conn == "" {
			t.Errorf("a refusal without reason or connection: %s", entry.Raw)
		}
		want[refusal{record.Actor.ID, record.Actor.Cert, record.Change.Object, record.Src.Addr}]--
	}
	for who, n := range want {
		if n != 0 {
			t.Errorf("%s at %s was refused %s, and the log has %d records too few", who.client, who.addr, who.op, n)
		}
	}
}
