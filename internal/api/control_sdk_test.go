package api_test

import (
	"crypto/tls"
	"errors"
	"net/http"
	"net/url"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	control "github.com/aws/aws-sdk-go-v2/service/paymentcryptography"
	"github.com/aws/aws-sdk-go-v2/service/paymentcryptography/types"
)

// controlClient is the official SDK for the control plane.
func controlClient(tb testing.TB, b *bench, name string, options ...func(*control.Options)) *control.Client {
	tb.Helper()
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.TLSClientConfig.RootCAs = b.roots
		t.TLSClientConfig.Certificates = []tls.Certificate{b.named(tb, "spiffe://keyd.test/"+name)}
	})
	return control.New(control.Options{
		BaseEndpoint: &b.url, Region: "xx-keyd-1", Credentials: aws.AnonymousCredentials{}, HTTPClient: client, RetryMaxAttempts: 1,
	}, options...)
}

func bdkInput() *control.CreateKeyInput {
	return &control.CreateKeyInput{
		Exportable: aws.Bool(true),
		KeyAttributes: &types.KeyAttributes{
			KeyUsage: types.KeyUsageTr31B0BaseDerivationKey, KeyClass: types.KeyClassSymmetricKey,
			KeyAlgorithm: types.KeyAlgorithmTdes2key, KeyModesOfUse: &types.KeyModesOfUse{DeriveKey: true},
		},
		Tags: []types.Tag{{Key: aws.String("estate"), Value: aws.String("north")}, {Key: aws.String("keyd:mac-padding"), Value: aws.String("1")}},
	}
}

// TestControlSDK: aws-sdk-go-v2 drives the control plane over mutual TLS.
func TestControlSDK(t *testing.T) {
	b := newBench(t)
	c := controlClient(t, b, "admin")
	var arn string
	t.Run("CreateKey", func(t *testing.T) {
		out, err := c.CreateKey(t.Context(), bdkInput())
		if err != nil {
			t.Fatal(err)
		}
		k := out.Key
		arn = aws.ToString(k.KeyArn)
		switch {
		case !*k.Enabled || !*k.Exportable, k.KeyState != types.KeyStateCreateComplete, k.KeyOrigin != types.KeyOriginAwsPaymentCryptography,
			k.KeyCheckValueAlgorithm != types.KeyCheckValueAlgorithmAnsiX924, len(*k.KeyCheckValue) != 6:
			t.Errorf("key %+v", k)
		case !k.KeyAttributes.KeyModesOfUse.DeriveKey || k.KeyAttributes.KeyModesOfUse.Encrypt:
			t.Errorf("modes %+v", k.KeyAttributes.KeyModesOfUse)
		case k.CreateTimestamp == nil || k.CreateTimestamp.IsZero() || !k.CreateTimestamp.Equal(*k.UsageStartTimestamp):
			t.Errorf("made %v, in use since %v", k.CreateTimestamp, k.UsageStartTimestamp)
		}
	})
	t.Run("GetKey", func(t *testing.T) {
		out, err := c.GetKey(t.Context(), &control.GetKeyInput{KeyIdentifier: &arn})
		if err != nil || aws.ToString(out.Key.KeyArn) != arn {
			t.Errorf("got %+v, %v", out, err)
		}
	})
	t.Run("CreateAlias and GetAlias", func(t *testing.T) {
		made, err := c.CreateAlias(t.Context(), &control.CreateAliasInput{AliasName: aws.String("alias/sdk"), KeyArn: &arn})
		if err != nil || aws.ToString(made.Alias.KeyArn) != arn || aws.ToString(made.Alias.AliasName) != "alias/sdk" {
			t.Fatalf("got %+v, %v", made, err)
		}
		got, err := c.GetAlias(t.Context(), &control.GetAliasInput{AliasName: aws.String("alias/sdk")})
		if err != nil || aws.ToString(got.Alias.KeyArn) != arn {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	t.Run("ListKeys, page by page", func(t *testing.T) {
		pages := control.NewListKeysPaginator(c, &control.ListKeysInput{MaxResults: aws.Int32(3)})
		seen := make(map[string]bool)
		for pages.HasMorePages() {
			page, err := pages.NextPage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range page.Keys {
				seen[*k.KeyArn] = true
			}
		}
		if len(seen) != len(exampleKeys())+1 || !seen[arn] {
			t.Errorf("%d keys, want %d", len(seen), len(exampleKeys())+1)
		}
	})
	t.Run("ValidationException", func(t *testing.T) {
		in := bdkInput()
		in.KeyAttributes.KeyModesOfUse = &types.KeyModesOfUse{Generate: true}
		_, err := c.CreateKey(t.Context(), in)
		var invalid *types.ValidationException
		if !errors.As(err, &invalid) || invalid.ErrorMessage() != "KeyAttributes.KeyModesOfUse is not a permitted combination for TR31_B0_BASE_DERIVATION_KEY" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("ResourceNotFoundException", func(t *testing.T) {
		_, err := c.GetKey(t.Context(), &control.GetKeyInput{KeyIdentifier: aws.String("alias/zpk-unknown")})
		var missing *types.ResourceNotFoundException
		if !errors.As(err, &missing) || aws.ToString(missing.ResourceId) != "alias/zpk-unknown" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("ConflictException", func(t *testing.T) {
		_, err := c.CreateAlias(t.Context(), &control.CreateAliasInput{AliasName: aws.String("alias/zpk-a"), KeyArn: &arn})
		var conflict *types.ConflictException
		if !errors.As(err, &conflict) || conflict.ErrorMessage() != "alias/zpk-a already exists" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("AccessDeniedException", func(t *testing.T) {
		_, err := controlClient(t, b, "switch-a").CreateKey(t.Context(), bdkInput())
		var denied *types.AccessDeniedException
		if !errors.As(err, &denied) || denied.ErrorMessage() != "caller may not perform CreateKey" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("UnknownOperationException", func(t *testing.T) {
		_, err := c.GetResourcePolicy(t.Context(), &control.GetResourcePolicyInput{ResourceArn: &arn})
		var failure interface{ ErrorCode() string }
		var response *awshttp.ResponseError
		if !errors.As(err, &failure) || failure.ErrorCode() != "UnknownOperationException" {
			t.Errorf("got %v", err)
		}
		if !errors.As(err, &response) || response.HTTPStatusCode() != 400 || response.ServiceRequestID() == "" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no certificate", func(t *testing.T) {
		bare := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.TLSClientConfig.RootCAs = b.roots })
		_, err := controlClient(t, b, "admin", func(o *control.Options) { o.HTTPClient = bare }).GetKey(t.Context(), &control.GetKeyInput{KeyIdentifier: &arn})
		var answered *awshttp.ResponseError
		if err == nil || errors.As(err, &answered) && answered.HTTPStatusCode() != 0 {
			t.Errorf("got %v", err)
		}
		var broken *url.Error
		if !errors.As(err, &broken) {
			t.Errorf("not a failed connection: %v", err)
		}
	})
}

// lossy hands on requests and loses the first answer, as a broken connection does.
type lossy struct {
	http.RoundTripper
	lost int
	ids  []string
}

func (l *lossy) Do(r *http.Request) (*http.Response, error) {
	l.ids = append(l.ids, r.Header.Get("amz-sdk-invocation-id"))
	response, err := l.RoundTrip(r)
	if err == nil && l.lost == 0 {
		l.lost++
		_ = response.Body.Close()
		return nil, &url.Error{Op: r.Method, URL: r.URL.Path, Err: errConnectionLost{}}
	}
	return response, err
}

type errConnectionLost struct{}

func (errConnectionLost) Error() string   { return "connection reset" }
func (errConnectionLost) Timeout() bool   { return true }
func (errConnectionLost) Temporary() bool { return true }

// TestControlSDKRetry: an SDK that lost the answer to CreateKey tries again by
// itself, and gets the key that it has made (section 7).
func TestControlSDKRetry(t *testing.T) {
	b := newBench(t)
	before := b.keyCount(t)
	transport := &lossy{RoundTripper: b.client(t, "admin").Transport}
	c := controlClient(t, b, "admin", func(o *control.Options) {
		o.HTTPClient = transport
		o.RetryMaxAttempts = 3
	})
	out, err := c.CreateKey(t.Context(), bdkInput())
	if err != nil {
		t.Fatal(err)
	}
	if len(transport.ids) != 2 || transport.ids[0] == "" || transport.ids[0] != transport.ids[1] {
		t.Fatalf("tries with the ids %q", transport.ids)
	}
	if after := b.keyCount(t); after != before+1 {
		t.Errorf("%d keys were made, want 1", after-before)
	}
	if _, err := c.GetKey(t.Context(), &control.GetKeyInput{KeyIdentifier: out.Key.KeyArn}); err != nil {
		t.Errorf("the key of the answer: %v", err)
	}
}
