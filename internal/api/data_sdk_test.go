//lint:file-ignore SA1019 there is no other official Go client of the data plane on the module proxy

package api_test

import (
	"crypto/tls"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go/aws"
	"github.com/aws/aws-sdk-go/aws/awserr"
	"github.com/aws/aws-sdk-go/aws/credentials"
	"github.com/aws/aws-sdk-go/aws/session"
	data "github.com/aws/aws-sdk-go/service/paymentcryptographydata"
)

// dataClient is the official SDK for the data plane, as an integrator sets it
// up: an endpoint override and a client certificate.
func dataClient(tb testing.TB, b *bench, name string, creds *credentials.Credentials) *data.PaymentCryptographyData {
	tb.Helper()
	tb.Setenv("AWS_CA_BUNDLE", "") // when set, the SDK puts its content in place of RootCAs
	if err := os.Unsetenv("AWS_CA_BUNDLE"); err != nil {
		tb.Fatal(err)
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{
			RootCAs: b.roots, Certificates: []tls.Certificate{b.named(tb, "spiffe://keyd.test/"+name)}, MinVersion: tls.VersionTLS12,
		},
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 64,
	}
	tb.Cleanup(transport.CloseIdleConnections)
	sess, err := session.NewSession(&aws.Config{
		Endpoint:    &b.url,
		Region:      aws.String("xx-keyd-1"),
		Credentials: creds,
		MaxRetries:  aws.Int(0),
		HTTPClient:  &http.Client{Timeout: 5 * time.Second, Transport: transport},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return data.New(sess)
}

func iso0(pan string) *data.TranslationIsoFormats {
	return &data.TranslationIsoFormats{IsoFormat0: &data.TranslationPinDataIsoFormat034{PrimaryAccountNumber: aws.String(pan)}}
}

// TestDataSDK: aws-sdk-go v1 drives the data plane over mutual TLS.
func TestDataSDK(t *testing.T) {
	b := newBench(t)
	for name, creds := range map[string]*credentials.Credentials{
		"anonymous": credentials.AnonymousCredentials,
		"dummy":     credentials.NewStaticCredentials("AKIAEXAMPLE", "dummy", "dummy-token"),
	} {
		t.Run("with credentials "+name, func(t *testing.T) {
			c := dataClient(t, b, "switch-a", creds)
			testDataSDK(t, b, c)
		})
	}
}

func testDataSDK(t *testing.T, b *bench, c *data.PaymentCryptographyData) {
	const message = "30323030333232303034383030304330303030313030303030303030303030303030313030303131323132323135303030303031323330353130305445524D303030314D45524348414E5430303030303031000000000000"
	t.Run("TranslatePinData TDES DUKPT", func(t *testing.T) {
		out, err := c.TranslatePinData(&data.TranslatePinDataInput{
			IncomingKeyIdentifier:         aws.String("alias/bdk-tdes"),
			OutgoingKeyIdentifier:         aws.String("alias/zpk-a"),
			IncomingTranslationAttributes: iso0("4012345678909"),
			OutgoingTranslationAttributes: iso0("4012345678909"),
			EncryptedPinBlock:             aws.String("1B9C1845EB993A7A"),
			IncomingDukptAttributes:       &data.DukptDerivationAttributes{KeySerialNumber: aws.String("FFFF9876543210E00001"), DukptKeyDerivationType: aws.String("TDES_2KEY")},
		})
		if err != nil {
			t.Fatal(err)
		}
		if *out.PinBlock != "DCBAC0ABA559F78B" || *out.KeyArn != b.arn("alias/zpk-a") || *out.KeyCheckValue != "F7AFA6" {
			t.Error("another answer than the example's")
		}
	})
	t.Run("TranslatePinData format 1, an empty structure", func(t *testing.T) {
		out, err := c.TranslatePinData(&data.TranslatePinDataInput{
			IncomingKeyIdentifier:         aws.String("alias/tpk-17"),
			OutgoingKeyIdentifier:         aws.String(b.arn("alias/zpk-a")),
			IncomingTranslationAttributes: &data.TranslationIsoFormats{IsoFormat1: &data.TranslationPinDataIsoFormat1{}},
			OutgoingTranslationAttributes: iso0("4111111111111111"),
			EncryptedPinBlock:             aws.String("D639ABA95CE6BD92"),
		})
		if err != nil {
			t.Fatal(err)
		}
		if *out.PinBlock != "A0BA774BB147CC0F" {
			t.Error("another PIN block")
		}
	})
	t.Run("GenerateMac", func(t *testing.T) {
		out, err := c.GenerateMac(&data.GenerateMacInput{
			KeyIdentifier: aws.String("alias/tak-42"), MessageData: aws.String(message), MacLength: aws.Int64(8),
			GenerationAttributes: &data.MacAttributes{Algorithm: aws.String("ISO9797_ALGORITHM3")},
		})
		if err != nil {
			t.Fatal(err)
		}
		if *out.Mac != "17A3F159FD8186A4" || *out.KeyArn != b.arn("alias/tak-42") || *out.KeyCheckValue != "5564A5" {
			t.Error("another answer than the example's")
		}
	})
	t.Run("GenerateMac with a value that the SDK does not know", func(t *testing.T) {
		out, err := c.GenerateMac(&data.GenerateMacInput{
			KeyIdentifier: aws.String("alias/tak-hmac"), MessageData: aws.String(message), MacLength: aws.Int64(16),
			GenerationAttributes: &data.MacAttributes{Algorithm: aws.String("HMAC")},
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(*out.Mac) != 32 {
			t.Error("another length")
		}
	})
	t.Run("VerifyMac", func(t *testing.T) {
		out, err := c.VerifyMac(&data.VerifyMacInput{
			KeyIdentifier: aws.String("alias/bdk-aes"), Mac: aws.String("A33EF51FEC39BC5475FF7A152164D27A"),
			MessageData: aws.String(strings.TrimSuffix(message, "000000000000")),
			VerificationAttributes: &data.MacAttributes{DukptCmac: &data.MacAlgorithmDukpt{
				KeySerialNumber: aws.String("123456789012345600000001"), DukptKeyVariant: aws.String("REQUEST"), DukptDerivationType: aws.String("AES_128"),
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if *out.KeyArn != b.arn("alias/bdk-aes") || *out.KeyCheckValue != "FF0BD7" {
			t.Error("another answer than the example's")
		}
	})
	t.Run("VerificationFailedException", func(t *testing.T) {
		_, err := c.VerifyMac(verifyInput("alias/tak-42", message, "17A3F159FD8186A5"))
		var failed *data.VerificationFailedException
		if !errors.As(err, &failed) || aws.StringValue(failed.Reason) != "INVALID_MAC" || failed.Message() != "the MAC does not match" || failed.StatusCode() != 400 {
			t.Errorf("got %v", err)
		}
	})
	t.Run("ValidationException", func(t *testing.T) {
		_, err := c.VerifyMac(verifyInput("alias/zpk-a", message, "17A3F159FD8186A4"))
		var invalid *data.ValidationException
		if !errors.As(err, &invalid) || invalid.Message() != "the key cannot be used for this operation" || invalid.StatusCode() != 400 {
			t.Fatalf("got %v", err)
		}
		if len(invalid.FieldList) != 1 || aws.StringValue(invalid.FieldList[0].Path) != "KeyIdentifier" {
			t.Errorf("field list %v", invalid.FieldList)
		}
	})
	t.Run("ResourceNotFoundException", func(t *testing.T) {
		_, err := c.VerifyMac(verifyInput("alias/unknown", message, "17A3F159FD8186A4"))
		var missing *data.ResourceNotFoundException
		if !errors.As(err, &missing) || aws.StringValue(missing.ResourceId) != "alias/unknown" || missing.StatusCode() != 404 {
			t.Errorf("got %v", err)
		}
	})
	t.Run("AccessDeniedException", func(t *testing.T) {
		_, err := dataClient(t, b, "nobody", credentials.AnonymousCredentials).VerifyMac(verifyInput("alias/tak-42", message, "17A3F159FD8186A4"))
		var denied *data.AccessDeniedException
		if !errors.As(err, &denied) || denied.StatusCode() != 403 {
			t.Errorf("got %v", err)
		}
	})
	t.Run("UnknownOperationException", func(t *testing.T) {
		_, err := c.GenerateCardValidationData(&data.GenerateCardValidationDataInput{
			KeyIdentifier: aws.String("alias/pay/cvk"), PrimaryAccountNumber: aws.String("4111111111111111"),
			GenerationAttributes: &data.CardGenerationAttributes{CardVerificationValue2: &data.CardVerificationValue2{CardExpiryDate: aws.String("1227")}},
		})
		var failure awserr.RequestFailure
		if !errors.As(err, &failure) || failure.Code() != "UnknownOperationException" || failure.StatusCode() != 404 || failure.RequestID() == "" {
			t.Errorf("got %v", err)
		}
	})
}

func verifyInput(key, message, mac string) *data.VerifyMacInput {
	return &data.VerifyMacInput{
		KeyIdentifier: aws.String(key), MessageData: aws.String(message), Mac: aws.String(mac),
		VerificationAttributes: &data.MacAttributes{Algorithm: aws.String("ISO9797_ALGORITHM3")},
	}
}
