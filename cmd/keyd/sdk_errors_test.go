//lint:file-ignore SA1019 there is no other official Go client of the data plane on the module proxy

package main

import (
	"database/sql"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	awsv2 "github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	control "github.com/aws/aws-sdk-go-v2/service/paymentcryptography"
	"github.com/aws/aws-sdk-go-v2/service/paymentcryptography/types"
	"github.com/aws/aws-sdk-go/aws"
	"github.com/aws/aws-sdk-go/aws/awserr"
	data "github.com/aws/aws-sdk-go/service/paymentcryptographydata"
	"github.com/aws/smithy-go"
)

// faulty is a daemon in which things go wrong, seen by the official clients.
type faulty struct {
	k     *killable
	r     *running // the daemon's addresses and certificates
	data  *data.PaymentCryptographyData
	admin *control.Client
}

// newFaulty starts a daemon with narrow limits.
func newFaulty(t *testing.T) *faulty {
	t.Helper()
	k := newKillable(t)
	k.start()
	k.stop()
	k.edit("refused_pins_per_minute", "3")
	k.edit("checkpoint_interval", `"100ms"`)
	k.edit("unsigned_limit", `"5s"`) // which a busy machine keeps
	k.configure("[api]", "most_keys = 7\nmost_aliases = 6")
	k.configure("name = 'operator'", "requests_per_second = 1\nburst = 1")
	k.start()
	r := &running{t: t, dev: *k.dev.Load()}
	return &faulty{k: k, r: r, data: r.dataSDK(r.wire("switch"), 0), admin: r.controlSDK(r.wire("admin"), 1)}
}

// configure puts lines behind a line of the configuration.
func (k *killable) configure(behind, lines string) {
	k.t.Helper()
	path := filepath.Join(k.dir, "keyd.toml")
	text, err := os.ReadFile(path)
	if err != nil {
		k.t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"+behind+"\n"); n != 1 {
		k.t.Fatalf("%d lines %q in %s, want one", n, behind, path)
	}
	changed := strings.Replace(string(text), "\n"+behind+"\n", "\n"+behind+"\n"+lines+"\n", 1)
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		k.t.Fatal(err)
	}
}

// macUnder asks for a MAC that needs no key of a test's own.
func (f *faulty) macUnder(key string) error {
	_, err := f.data.GenerateMac(&data.GenerateMacInput{
		KeyIdentifier: &key, MessageData: aws.String("00112233445566778899AABBCCDDEEFF"),
		GenerationAttributes: &data.MacAttributes{Algorithm: aws.String("ISO9797_ALGORITHM3")},
	})
	return err
}

func (f *faulty) pin(block string) error {
	_, err := f.data.TranslatePinData(&data.TranslatePinDataInput{
		IncomingKeyIdentifier: aws.String("alias/dev/zpk"), IncomingTranslationAttributes: format(0, "4111111111111111"), EncryptedPinBlock: &block,
		OutgoingKeyIdentifier: aws.String("alias/dev/zpk"), OutgoingTranslationAttributes: format(0, "4111111111111111"),
	})
	return err
}

func (f *faulty) create() error {
	_, err := f.admin.CreateKey(f.r.t.Context(), &control.CreateKeyInput{
		Exportable: awsv2.Bool(false), KeyAttributes: attributes(types.KeyUsageTr31M6Iso97975CmacKey, types.KeyAlgorithmAes128, macMode()),
	})
	return err
}

func (f *faulty) alias(name string) error {
	_, err := f.admin.GetAlias(f.r.t.Context(), &control.GetAliasInput{AliasName: &name})
	return err
}

// TestSDKErrors: every error of section 6 comes from its real cause in a real
// daemon, and each SDK has it in the type of its model.
func TestSDKErrors(t *testing.T) {
	f := newFaulty(t)
	for _, part := range []struct {
		name string
		do   func(*faulty, *testing.T)
	}{
		{"data plane, by request", (*faulty).dataByRequest}, {"control plane, by request", (*faulty).controlByRequest},
		{"429 too many refused PIN blocks", (*faulty).tooManyPINs}, {"throttled client", (*faulty).throttled}, {"quotas", (*faulty).quotas},
		{"500 the audit log cannot be signed", (*faulty).logAway}, {"500 a row was changed", (*faulty).rowChanged},
		{"503 the token is away", (*faulty).tokenAway},
	} {
		t.Run(part.name, func(t *testing.T) { part.do(f, t) })
	}
}

// failure holds an error of the first SDK against what the wire must have said.
func failure(t *testing.T, err error, name string, status int) {
	t.Helper()
	var got awserr.RequestFailure
	if !errors.As(err, &got) || got.Code() != name || got.StatusCode() != status || got.RequestID() == "" || got.Message() == "" {
		t.Errorf("got %v, want %s with status %d, a message and a request id", err, name, status)
	}
}

// failureV2 does the same for the second SDK.
func failureV2(t *testing.T, err error, name string, status int) {
	t.Helper()
	var got smithy.APIError
	var response *awshttp.ResponseError
	said := false
	if errors.As(err, &got) {
		said = got.ErrorMessage() != "" || name == "ResourceNotFoundException" // whose model has no text
	}
	if !said || got.ErrorCode() != name {
		t.Errorf("got %v, want %s and a message", err, name)
	}
	if !errors.As(err, &response) || response.HTTPStatusCode() != status || response.ServiceRequestID() == "" {
		t.Errorf("got %v, want status %d and a request id", err, status)
	}
}

// typed is an error as this type, or the zero value and a complaint.
func typed[E error](t *testing.T, err error) (e E) {
	t.Helper()
	if !errors.As(err, &e) {
		t.Errorf("%v is no %T", err, e)
	}
	return e
}

func (f *faulty) dataByRequest(t *testing.T) {
	err := f.macUnder("alias/dev/zpk")
	failure(t, err, "ValidationException", http.StatusBadRequest)
	if e := typed[*data.ValidationException](t, err); e != nil && (len(e.FieldList) != 1 || *e.FieldList[0].Path != "KeyIdentifier" || *e.FieldList[0].Message == "") {
		t.Errorf("field list %v", e.FieldList)
	}
	_, err = f.data.VerifyMac(verifying("alias/dev/zak", "0011223344556677"))
	failure(t, err, "VerificationFailedException", http.StatusBadRequest)
	if e := typed[*data.VerificationFailedException](t, err); e != nil && aws.StringValue(e.Reason) != data.VerificationFailedReasonInvalidMac {
		t.Errorf("reason %v", e.Reason)
	}
	err = f.macUnder("alias/dev/none")
	failure(t, err, "ResourceNotFoundException", http.StatusNotFound)
	if e := typed[*data.ResourceNotFoundException](t, err); e != nil && aws.StringValue(e.ResourceId) != "alias/dev/none" {
		t.Errorf("resource %v", e.ResourceId)
	}
	for _, client := range []string{"nobody", "admin", "auditor", "terminal"} {
		_, err = f.r.dataSDK(f.r.wire(client), 0).VerifyMac(verifying("alias/dev/zak", "0011223344556677"))
		failure(t, err, "AccessDeniedException", http.StatusForbidden)
		typed[*data.AccessDeniedException](t, err)
	}
	_, err = f.data.GenerateCardValidationData(&data.GenerateCardValidationDataInput{
		KeyIdentifier: aws.String("alias/dev/zak"), PrimaryAccountNumber: aws.String("4111111111111111"),
		GenerationAttributes: &data.CardGenerationAttributes{CardVerificationValue2: &data.CardVerificationValue2{CardExpiryDate: aws.String("1230")}},
	})
	failure(t, err, "UnknownOperationException", http.StatusNotFound) // which no model has
}

func verifying(key, mac string) *data.VerifyMacInput {
	return &data.VerifyMacInput{
		KeyIdentifier: &key, MessageData: aws.String("00112233445566778899AABBCCDDEEFF"), Mac: &mac,
		VerificationAttributes: &data.MacAttributes{Algorithm: aws.String("ISO9797_ALGORITHM3")},
	}
}

func (f *faulty) controlByRequest(t *testing.T) {
	ctx := t.Context()
	_, err := f.admin.CreateKey(ctx, &control.CreateKeyInput{
		Exportable: awsv2.Bool(false), KeyAttributes: attributes(types.KeyUsageTr31B0BaseDerivationKey, types.KeyAlgorithmTdes2key, macMode()),
	})
	failureV2(t, err, "ValidationException", http.StatusBadRequest)
	typed[*types.ValidationException](t, err)
	err = f.alias("alias/dev/none")
	failureV2(t, err, "ResourceNotFoundException", http.StatusBadRequest)
	if e := typed[*types.ResourceNotFoundException](t, err); e != nil && awsv2.ToString(e.ResourceId) != "alias/dev/none" {
		t.Errorf("resource %v", e.ResourceId)
	}
	_, err = f.r.controlSDK(f.r.wire("switch"), 1).StopKeyUsage(ctx, &control.StopKeyUsageInput{KeyIdentifier: awsv2.String("alias/dev/zpk")})
	failureV2(t, err, "AccessDeniedException", http.StatusBadRequest)
	typed[*types.AccessDeniedException](t, err)
	key, err := f.admin.GetKey(ctx, &control.GetKeyInput{KeyIdentifier: awsv2.String("alias/dev/zak")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.admin.CreateAlias(ctx, &control.CreateAliasInput{AliasName: awsv2.String("alias/dev/zpk"), KeyArn: key.Key.KeyArn})
	failureV2(t, err, "ConflictException", http.StatusBadRequest)
	typed[*types.ConflictException](t, err)
	_, err = f.admin.PutResourcePolicy(ctx, &control.PutResourcePolicyInput{ResourceArn: key.Key.KeyArn, Policy: awsv2.String("{}")})
	failureV2(t, err, "UnknownOperationException", http.StatusBadRequest)
}

func (f *faulty) tooManyPINs(t *testing.T) {
	for range 3 {
		failure(t, f.pin("0011223344556677"), "ValidationException", http.StatusBadRequest)
	}
	err := f.pin("0011223344556677")
	failure(t, err, "ThrottlingException", http.StatusTooManyRequests)
	typed[*data.ThrottlingException](t, err)
}

func (f *faulty) throttled(t *testing.T) {
	slow := f.r.controlSDK(f.r.wire("operator"), 1)
	var err error
	for end := time.Now().Add(20 * time.Second); err == nil && time.Now().Before(end); {
		_, err = slow.ListAliases(t.Context(), &control.ListAliasesInput{})
	}
	failureV2(t, err, "ThrottlingException", http.StatusBadRequest)
	typed[*types.ThrottlingException](t, err)
	// An SDK that is let to tries again by itself, and gets its answer.
	wire := f.r.wire("operator")
	if _, err := f.r.controlSDK(wire, 10).ListAliases(t.Context(), &control.ListAliasesInput{}); err != nil {
		t.Errorf("with retries: %v", err)
	}
}

func (f *faulty) quotas(t *testing.T) {
	var err error
	for n := 0; err == nil && n < 10; n++ {
		err = f.create()
	}
	failureV2(t, err, "ServiceQuotaExceededException", http.StatusBadRequest)
	typed[*types.ServiceQuotaExceededException](t, err)
	err = nil
	for n := 'a'; err == nil && n < 'j'; n++ {
		_, err = f.admin.CreateAlias(t.Context(), &control.CreateAliasInput{AliasName: awsv2.String("alias/quota/" + string(n))})
	}
	failureV2(t, err, "ServiceQuotaExceededException", http.StatusBadRequest)
}

// until asks again until the error has this code.
func (f *faulty) until(t *testing.T, code string, ask func() error) error {
	t.Helper()
	var err error
	f.k.await("the answer is "+code, 60*time.Second, func() bool {
		err = ask()
		var v1 awserr.Error
		var v2 smithy.APIError
		return code == "" && err == nil || errors.As(err, &v1) && v1.Code() == code || errors.As(err, &v2) && v2.ErrorCode() == code
	})
	return err
}

// logAway takes the folder of the audit log away: no checkpoint can be written,
// and when the unsigned tail is too old nothing is answered (section 5, step 9).
func (f *faulty) logAway(t *testing.T) {
	back := away(t, filepath.Join(f.k.dir, "audit"))
	mac := func() error { return f.macUnder("alias/dev/zak") }
	err := f.until(t, "InternalServerException", mac)
	failure(t, err, "InternalServerException", http.StatusInternalServerError)
	typed[*data.InternalServerException](t, err)
	wire := f.r.wire("switch")
	_, err = f.r.dataSDK(wire, 2).VerifyMac(verifying("alias/dev/zak", "0011223344556677"))
	failure(t, err, "InternalServerException", http.StatusInternalServerError)
	if len(wire.ids) != 3 {
		t.Errorf("an SDK with two retries sent %d requests", len(wire.ids))
	}
	back()
	f.until(t, "", mac)
}

// rowChanged changes a row of the database behind keyd's back.
func (f *faulty) rowChanged(t *testing.T) {
	db, err := sql.Open("sqlite3", filepath.Join(f.k.dir, "keyd.db")+"?_busy_timeout=20000")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var was string
	if err := db.QueryRowContext(t.Context(), "SELECT key FROM alias WHERE name = 'alias/dev/zpk'").Scan(&was); err != nil {
		t.Fatal(err)
	}
	const swap = "UPDATE alias SET key = (SELECT key FROM alias WHERE name = 'alias/dev/kek') WHERE name = 'alias/dev/zpk'"
	if _, err := db.ExecContext(t.Context(), swap); err != nil {
		t.Fatal(err)
	}
	err = f.alias("alias/dev/zpk")
	failureV2(t, err, "InternalServerException", http.StatusInternalServerError)
	typed[*types.InternalServerException](t, err)
	if _, err := db.ExecContext(t.Context(), "UPDATE alias SET key = ? WHERE name = 'alias/dev/zpk'", was); err != nil {
		t.Fatal(err)
	}
	f.until(t, "", func() error { return f.alias("alias/dev/zpk") })
}

// tokenAway takes the token away. It is the last: SoftHSM does not find it again
// before the process ends.
func (f *faulty) tokenAway(t *testing.T) {
	_ = away(t, filepath.Join(f.k.dir, devTokens))
	err := f.until(t, "ServiceUnavailableException", func() error {
		_, err := f.data.GenerateMac(&data.GenerateMacInput{
			KeyIdentifier: aws.String("alias/dev/bdk-aes"), MessageData: aws.String("00"),
			GenerationAttributes: &data.MacAttributes{DukptCmac: &data.MacAlgorithmDukpt{
				KeySerialNumber: aws.String("123456789012345600000001"), DukptKeyVariant: aws.String("REQUEST"),
			}},
		})
		return err
	})
	failure(t, err, "ServiceUnavailableException", http.StatusServiceUnavailable) // which its model lacks
	_, err = f.admin.StopKeyUsage(t.Context(), &control.StopKeyUsageInput{KeyIdentifier: awsv2.String("alias/dev/bdk-aes")})
	failureV2(t, err, "ServiceUnavailableException", http.StatusServiceUnavailable)
	typed[*types.ServiceUnavailableException](t, err)
}

// away renames a folder of the daemon and returns how to put it back.
func away(t *testing.T, dir string) (back func()) {
	t.Helper()
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Fatal(err)
		}
	}
}
