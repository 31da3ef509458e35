// Package vault speaks to HashiCorp Vault for keyd: it logs in, keeps its token
// alive, reads the token PIN, has certificates signed and backups wrapped.
// Vault is asked at the start and at renewals, never on the path of a
// transaction (C-08). Nothing that Vault answers is put into an error but what
// it says of names in a certificate request.
package vault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/hashicorp/vault/api"
)

// The errors of this package. Each is wrapped with what was asked of Vault, and
// with what to do about it. [Cause] sorts them for metrics.
var (
	// ErrConfig: the configuration cannot work, whatever Vault answers.
	ErrConfig = errors.New("vault: configuration not usable")
	// ErrEnvironment: a variable is set that would change what keyd does.
	ErrEnvironment = errors.New("vault: environment not clean")
	// ErrUnreachable: no answer came: no route, no TLS, or none in time.
	ErrUnreachable = errors.New("vault: not reachable")
	// ErrSealed: Vault answers 503; it is sealed, or not initialised.
	ErrSealed = errors.New("vault: sealed")
	// ErrFault: Vault failed (another 5xx), or asks for patience (429).
	ErrFault = errors.New("vault: it failed")
	// ErrDenied: 403; the token, or what it may do, is not right.
	ErrDenied = errors.New("vault: permission denied")
	// ErrNotFound: 404; there is no such secret, role, key or engine.
	ErrNotFound = errors.New("vault: not found")
	// ErrRejected: another 4xx; the role does not allow what was asked.
	ErrRejected = errors.New("vault: request rejected")
	// ErrUnwrapped: a wrapped token cannot be unwrapped; it ran out, or somebody
	// else was there first.
	ErrUnwrapped = errors.New("vault: the wrapped token is no longer good")
	// ErrOrigin: a wrapped token was made by another request than it should be.
	ErrOrigin = errors.New("vault: the wrapped token comes from elsewhere")
	// ErrSpent: keyd itself has unwrapped this token before; it waits for a new
	// one.
	ErrSpent = errors.New("vault: the wrapped token has been used")
	// ErrAnswer: Vault's answer lacks what was asked for, or does not fit.
	ErrAnswer = errors.New("vault: answer not usable")
)

// The causes that a failed request has in metrics. Sealed, unreachable and
// fault pass by themselves; configuration and stolen wait for an operator.
const (
	CauseNone          = "ok"
	CauseSealed        = "sealed"
	CauseUnreachable   = "unreachable"
	CauseFault         = "fault"
	CauseConfiguration = "configuration"
	CauseStolen        = "stolen"
)

// Causes lists all of them.
func Causes() []string {
	return []string{CauseNone, CauseSealed, CauseUnreachable, CauseFault, CauseConfiguration, CauseStolen}
}

// Cause sorts an error of this package; "" is not one of them. C-10.
func Cause(err error) string {
	switch {
	case err == nil:
		return CauseNone
	case errors.Is(err, ErrUnwrapped), errors.Is(err, ErrOrigin):
		return CauseStolen
	case errors.Is(err, ErrSealed):
		return CauseSealed
	case errors.Is(err, ErrUnreachable):
		return CauseUnreachable
	case errors.Is(err, ErrFault):
		return CauseFault
	case errors.Is(err, ErrDenied), errors.Is(err, ErrNotFound), errors.Is(err, ErrRejected), errors.Is(err, ErrSpent), errors.Is(err, ErrAnswer):
		return CauseConfiguration
	}
	return ""
}

// Passes says whether what went wrong may mend itself: Vault is down, sealed or
// failing. All else is for an operator, and trying again soon is of no use.
func Passes(err error) bool {
	switch Cause(err) {
	case CauseSealed, CauseUnreachable, CauseFault:
		return true
	}
	return false
}

// variables are those that the API library reads; a test holds the list against
// its source.
func variables() []string {
	return []string{
		"VAULT_ADDR", "VAULT_AGENT_ADDR", "VAULT_ALLOW_PENDING_REMOVAL_DUPLICATE_HCL_ATTRIBUTES",
		"VAULT_CACERT", "VAULT_CACERT_BYTES", "VAULT_CAPATH", "VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY",
		"VAULT_CLIENT_TIMEOUT", "VAULT_DISABLE_REDIRECTS", "VAULT_HEADERS", "VAULT_HTTP_PROXY", "VAULT_MAX_RETRIES",
		"VAULT_MFA", "VAULT_NAMESPACE", "VAULT_PLUGIN_AUTOMTLS_ENABLED", "VAULT_PLUGIN_METADATA_MODE", "VAULT_PROXY_ADDR",
		"VAULT_RATE_LIMIT", "VAULT_SKIP_VERIFY", "VAULT_SRV_LOOKUP", "VAULT_TLS_SERVER_NAME", "VAULT_TOKEN",
		"VAULT_UNWRAP_TOKEN", "VAULT_WRAP_TTL",
	}
}

// CheckEnvironment returns [ErrEnvironment] when a variable is set, even to
// nothing, that the API library reads: keyd's own file alone says where Vault is
// and what is trusted.
func CheckEnvironment() error {
	var set []string
	for _, name := range variables() {
		if _, ok := os.LookupEnv(name); ok {
			set = append(set, name)
		}
	}
	if len(set) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s set; unset them, keyd takes all of it from [vault] of its configuration", ErrEnvironment, strings.Join(set, ", "))
}

// judge gives an error of the API library its sentinel. tell allows what Vault
// itself says into the error; it is for requests that carry no secret.
func judge(what string, err error, tell bool) error {
	if err == nil {
		return nil
	}
	var answer *api.ResponseError
	if !errors.As(err, &answer) {
		return fmt.Errorf("%s: %w: %w", what, ErrUnreachable, bare(err))
	}
	is := ErrRejected
	switch code := answer.StatusCode; {
	case code == http.StatusServiceUnavailable:
		is = ErrSealed
	case code == http.StatusForbidden:
		is = ErrDenied
	case code == http.StatusNotFound:
		is = ErrNotFound
	case code >= 500, code == http.StatusTooManyRequests, code == http.StatusPreconditionFailed:
		is = ErrFault
	}
	said := ""
	if tell && len(answer.Errors) > 0 {
		said = ": " + strings.Join(strings.Fields(strings.Join(answer.Errors, "; ")), " ")
		said = said[:min(len(said), 400)]
	}
	return fmt.Errorf("%s: %w (status %d)%s", what, is, answer.StatusCode, said)
}

// bare strips an error of the transport of the URL; what it was about is said
// by the caller.
func bare(err error) error {
	var at *url.Error
	if errors.As(err, &at) {
		err = at.Err
	}
	var op *net.OpError
	switch {
	case errors.As(err, &op):
		return op
	case errors.Is(err, context.DeadlineExceeded):
		return context.DeadlineExceeded
	}
	return err
}
