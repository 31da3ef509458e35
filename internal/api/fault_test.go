package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

// TestErrorBodies makes each error that keyd answers so far in the way it comes
// about, and compares it with the body of section 6.2. Those of operations to
// come are made from their parts.
func TestErrorBodies(t *testing.T) {
	noKey := fmt.Errorf("finding the key: %w", custody.ErrNoKey)
	exists := fmt.Errorf("storing the alias: %w", custody.ErrAliasExists)
	away := fmt.Errorf("%w: loading the key: no session", custody.ErrUnavailable)
	full := errors.Join(errUnrecorded, fmt.Errorf("%w: no room in the audit log: %w", custody.ErrUnavailable, audit.ErrDiskCritical))
	denied := fmt.Errorf("%w: not with this key", custody.ErrDenied)
	made := map[string]func(c *call) *fault{
		"err-validation-data": func(c *call) *fault {
			if err := c.form.read([]byte(`{"EncryptedPinBlock":"00"}`)); err != nil {
				t.Fatal(err)
			}
			c.pinBlock(0)
			return c.form.fault(c.plane)
		},
		"err-validation-pin": func(c *call) *fault { return c.faultOf(custody.ErrPINBlock) },
		"err-validation-key": func(c *call) *fault {
			c.keyMember = "KeyIdentifier"
			return c.faultOf(fmt.Errorf("%w: mode of use", custody.ErrKeyUse))
		},
		"err-verification-invalid-mac": func(c *call) *fault {
			return c.faultOf(fmt.Errorf("%w under the named key", custody.ErrMAC))
		},
		"err-verification-invalid-pin": func(*call) *fault {
			return &fault{name: verification, reason: "INVALID_PIN", message: "the PIN does not match"}
		},
		"err-verification-invalid-validation-data": func(*call) *fault {
			return &fault{name: verification, reason: "INVALID_VALIDATION_DATA", message: "the card validation data does not match"}
		},
		"err-verification-invalid-auth-request-cryptogram": func(*call) *fault {
			return &fault{name: verification, reason: "INVALID_AUTH_REQUEST_CRYPTOGRAM", message: "the cryptogram does not match"}
		},
		"err-notfound-data": func(c *call) *fault {
			c.asked = "alias/zpk-unknown"
			return c.faultOf(noKey)
		},
		"err-denied-data":     func(c *call) *fault { return c.faultOf(denied) },
		"err-throttling-data": func(c *call) *fault { return c.faultOf(fmt.Errorf("%w: wait a minute", custody.ErrTooMany)) },
		"err-internal-data":   func(c *call) *fault { return c.faultOf(full) },
		"err-unavailable-data": func(c *call) *fault {
			return c.faultOf(away)
		},
		"err-unknownop-data": func(*call) *fault { return refusal(unknownOp, unknownText) },

		"err-validation-keyblock": func(*call) *fault { return refusal(validation, "the key block was not accepted") },
		"err-validation-control": func(c *call) *fault {
			body := `{"Exportable":true,"KeyAttributes":{"KeyUsage":"TR31_B0_BASE_DERIVATION_KEY","KeyClass":"SYMMETRIC_KEY","KeyAlgorithm":"AES_128","KeyModesOfUse":{"Generate":true}}}`
			if err := c.form.read([]byte(body)); err != nil {
				t.Fatal(err)
			}
			return c.faultOf(c.createKey())
		},
		"err-notfound-control": func(c *call) *fault {
			c.asked = "alias/zpk-unknown"
			return c.faultOf(fmt.Errorf("finding the alias: %w", custody.ErrNoAlias))
		},
		"err-denied-control": func(c *call) *fault {
			c.op = c.control["CreateKey"]
			return c.faultOf(denied)
		},
		"err-denied-approval": func(*call) *fault { return refusal(accessDenied, "approval required: 7c1d9e20") },
		"err-conflict": func(c *call) *fault {
			c.taken = "alias/zpk-a"
			return c.faultOf(exists)
		},
		"err-quota": func(*call) *fault {
			return refusal("ServiceQuotaExceededException", "the configured number of keys is in use")
		},
		"err-throttling-control":  func(c *call) *fault { return c.faultOf(custody.ErrTooMany) },
		"err-internal-control":    func(c *call) *fault { return c.faultOf(errors.New("something else")) },
		"err-unavailable-control": func(c *call) *fault { return c.faultOf(away) },
		"err-unknownop-control": func(c *call) *fault {
			_, f := c.target([]string{targetPrefix + "PutResourcePolicy"})
			return f
		},
	}
	for _, e := range loadExamples(t).Errors {
		t.Run(e.ID, func(t *testing.T) {
			c := &call{Handler: &Handler{control: controlOperations()}}
			if e.Plane == "control" {
				c.plane = controlPlane
			}
			f := made[e.ID](c)
			if string(f.name) != e.Name || f.name.status(c.plane) != e.Status {
				t.Errorf("got %s %d, want %s %d", f.name, f.name.status(c.plane), e.Name, e.Status)
			}
			want, got := decode(t, e.Body), decode(t, appendFault(nil, f, c.plane))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
			if has := strings.Contains(strings.ToLower(string(appendFault(nil, f, c.plane))), `"code"`); has {
				t.Error("the body has a member called code, which one family of SDKs takes for the error's name")
			}
		})
	}
}

func decode(t *testing.T, raw []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	return v
}

// TestFaultOf: every reason of custody has its answer, and what is not known is
// an internal error that tells nothing.
func TestFaultOf(t *testing.T) {
	low := errors.New("lower layer: 4111111111111111")
	for _, c := range []struct {
		name   string
		err    error
		want   errorName
		data   int
		status int // control plane
	}{
		{"denied", custody.ErrDenied, accessDenied, 403, 400},
		{"no key", custody.ErrNoKey, notFound, 404, 400},
		{"no alias", custody.ErrNoAlias, notFound, 404, 400},
		{"alias exists", custody.ErrAliasExists, conflict, 400, 400},
		{"key state", custody.ErrKeyState, validation, 400, 400},
		{"key use", custody.ErrKeyUse, validation, 400, 400},
		{"request", custody.ErrRequest, validation, 400, 400},
		{"PIN block", custody.ErrPINBlock, validation, 400, 400},
		{"MAC", custody.ErrMAC, verification, 400, 400},
		{"custody", custody.ErrCustody, validation, 400, 400},
		{"too many", custody.ErrTooMany, throttling, 429, 400},
		{"unavailable", custody.ErrUnavailable, unavailable, 503, 503},
		{"tampered", custody.ErrTampered, internalServer, 500, 500},
		{"repeated without an answer", custody.ErrRepeated, internalServer, 500, 500},
		{"not recorded", errUnrecorded, internalServer, 500, 500},
		{"log away", fmt.Errorf("%w: %w", custody.ErrUnavailable, audit.ErrUnavailable), internalServer, 500, 500},
		{"log closed", fmt.Errorf("%w: %w", custody.ErrUnavailable, audit.ErrClosed), internalServer, 500, 500},
		{"log full", errors.Join(errUnrecorded, fmt.Errorf("%w: %w", custody.ErrUnavailable, audit.ErrQueueFull)), unavailable, 503, 503},
		{"another", low, internalServer, 500, 500},
		{"parser", notJSON, validation, 400, 400},
	} {
		for _, p := range []plane{dataPlane, controlPlane} {
			t.Run(fmt.Sprintf("%s on plane %d", c.name, p), func(t *testing.T) {
				f := (&call{plane: p}).faultOf(fmt.Errorf("doing it: %w: %w", c.err, low))
				want := c.data
				if p == controlPlane {
					want = c.status
				}
				if f.name != c.want || f.name.status(p) != want {
					t.Errorf("got %s %d, want %s %d", f.name, f.name.status(p), c.want, want)
				}
				if strings.Contains(string(appendFault(nil, f, p)), "4111") {
					t.Error("the words of a lower layer are in the answer")
				}
			})
		}
	}
}
