package custody

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
)

const (
	importPrefix = "import-token-"
	exportPrefix = "export-token-"
	tokenLife    = 30 * 24 * time.Hour
	tokenReuse   = 7 * 24 * time.Hour // left, for a token to be given out again
	clockSlack   = 5 * time.Minute    // by which a certificate begins earlier
)

// ImportToken is a stored import token. All that counts stands in the
// certificate, which keyd's issuing key has signed: who changes the row changes
// nothing but that it is refused.
type ImportToken struct {
	Token       string
	Algorithm   string // "RSA_2048"
	Certificate []byte // DER
	Made        time.Time
	Expires     time.Time
	Principal   string // who asked for it
}

// ExchangeStore keeps what the exchange of keys needs to remember. What it has
// accepted is durable when it returns.
type ExchangeStore interface {
	// AddImportToken stores a token and, in the same commit, the answer of once;
	// ErrRepeated as AddKey of [Store].
	AddImportToken(ctx context.Context, t ImportToken, once *Once) error
	// ImportTokens returns the tokens whose pair is not destroyed, newest first.
	ImportTokens(ctx context.Context) ([]ImportToken, error)
	// EndImportToken notes that a token's pair is destroyed.
	EndImportToken(ctx context.Context, token string, at time.Time) error
	// IssuerChain returns the certificates of an issuing key, by the SHA-256 of
	// its public key, DER one behind the other, its own first; none is no error.
	IssuerChain(ctx context.Context, key [32]byte) ([]byte, error)
	SetIssuerChain(ctx context.Context, key [32]byte, chain []byte) error
	// AddPublicKey stores a certificate from outside; ErrRepeated as AddKey.
	AddPublicKey(ctx context.Context, k PublicKey, once *Once) error
	// PublicKey returns one, or ErrNoKey.
	PublicKey(ctx context.Context, id keys.ID) (PublicKey, error)
}

// ImportParams asks for a wrapping key whose private half stays in the token.
type ImportParams struct {
	Algorithm  string // "RSA_2048", "RSA_3072" or "RSA_4096"
	Export     bool   // a key that signs what goes out, in place of one that takes in
	Reuse      bool   // give the newest token out again where it lives long enough
	Invocation string // "" for a request that is not repeated
	Body       [32]byte
	Render     func(ImportParameters) ([]byte, error)
}

// ImportParameters are a wrapping key's certificate, its chain from keyd's
// issuer up, DER, and the token that stands for it.
type ImportParameters struct {
	Certificate []byte
	Chain       []*x509.Certificate
	Algorithm   string
	Token       string
	Until       time.Time
}

func (q ImportParams) operation() Operation {
	if q.Export {
		return OpExportKey // whose signatures it is for
	}
	return OpImportParams
}

// prefix begins the token.
func (q ImportParams) prefix() string {
	if q.Export {
		return exportPrefix
	}
	return importPrefix
}

// rsaBits are the sizes of wrapping keys.
func rsaBits(algorithm string) int {
	return map[string]int{"RSA_2048": 2048, "RSA_3072": 3072, "RSA_4096": 4096}[algorithm]
}

// ImportParams makes a wrapping key pair in the token and a certificate for it.
// Pairs whose time is over are destroyed. It returns [ErrDenied], [ErrRequest],
// [ErrRepeated] or [ErrUnavailable]. Section 11.2 of the API.
func (c *Custody) ImportParams(ctx context.Context, caller Caller, corr string, q ImportParams) (ImportParameters, error) {
	if err := c.exchanging(); err != nil {
		return ImportParameters{}, err
	}
	if !caller.may(q.operation()) {
		return ImportParameters{}, c.refuse(ctx, caller, corr, q.operation(), fmt.Errorf("%w: no role of the caller has %s", ErrDenied, q.operation()))
	}
	if rsaBits(q.Algorithm) == 0 {
		return ImportParameters{}, fmt.Errorf("%w: a wrapping key is RSA_2048, RSA_3072 or RSA_4096", ErrRequest)
	}
	issuer, err := c.issuer(ctx, caller, corr)
	if err != nil {
		return ImportParameters{}, err
	}
	if err := c.endTokens(ctx, caller, corr); err != nil {
		return ImportParameters{}, err
	}
	if q.Reuse {
		known, found, err := c.reusable(ctx, issuer, q)
		if err != nil || found {
			return known, err
		}
	}
	return c.newToken(ctx, caller, corr, issuer, q)
}

// reusable returns the newest token of the algorithm that has a week left and is
// genuine.
func (c *Custody) reusable(ctx context.Context, issuer *issuer, q ImportParams) (ImportParameters, bool, error) {
	all, err := c.exchange.Store.ImportTokens(ctx)
	if err != nil {
		return ImportParameters{}, false, storeError("finding import tokens", err)
	}
	for _, t := range all {
		if !strings.HasPrefix(t.Token, q.prefix()) {
			continue
		}
		p, err := c.genuine(ctx, issuer, t)
		if err == nil && p.params.Algorithm == q.Algorithm && p.params.Until.Sub(c.clock()) >= tokenReuse && issuer.named(p.cert) {
			return p.params, true, nil
		}
		if unavailable(err) {
			return ImportParameters{}, false, err
		}
	}
	return ImportParameters{}, false, nil
}

func (c *Custody) newToken(ctx context.Context, caller Caller, corr string, issuer *issuer, q ImportParams) (ImportParameters, error) {
	name, err := newID()
	if err != nil {
		return ImportParameters{}, err
	}
	token := q.prefix() + string(name)
	r := c.pairRecord(caller, corr, audit.KeyCreate, token, q.Algorithm)
	var p ImportParameters
	err = c.intended(ctx, r, func(r *audit.Record) error {
		create, usage := c.exchange.Token.MakeWrappingPair, x509.KeyUsageKeyEncipherment
		if q.Export {
			create, usage = c.exchange.Token.MakeSigningPair, x509.KeyUsageDigitalSignature
		}
		public, err := create(ctx, token, rsaBits(q.Algorithm))
		if err != nil {
			return tokenError("making a wrapping key", err)
		}
		r.Custody = audit.CustodyToken
		now := c.clock().UTC()
		der, err := issuer.sign(&x509.Certificate{
			Subject:   pkix.Name{CommonName: "keyd " + token},
			NotBefore: now.Add(-clockSlack), NotAfter: now.Add(tokenLife),
			KeyUsage: usage, BasicConstraintsValid: true,
		}, public)
		if err != nil {
			return errors.Join(err, c.exchange.Token.DestroyWrappingPair(ctx, token))
		}
		p = ImportParameters{
			Certificate: der, Chain: issuer.chain, Algorithm: q.Algorithm, Token: token,
			Until: now.Add(tokenLife).Truncate(time.Second),
		}
		once, err := q.answer(c, caller, p)
		if err != nil {
			return err
		}
		t := ImportToken{Token: token, Algorithm: q.Algorithm, Certificate: der, Made: now, Expires: p.Until, Principal: caller.Name}
		if err := c.exchange.Store.AddImportToken(ctx, t, once); err != nil {
			return errors.Join(storeError("storing an import token", err), c.exchange.Token.DestroyWrappingPair(ctx, token))
		}
		return nil
	})
	if err != nil {
		return ImportParameters{}, err
	}
	return p, nil
}

// answer is the stored answer of a request that can be repeated.
func (q ImportParams) answer(c *Custody, caller Caller, p ImportParameters) (*Once, error) {
	if q.Invocation == "" {
		return nil, nil
	}
	text, err := q.Render(p)
	if err != nil {
		return nil, fmt.Errorf("custody: rendering the answer: %w", err)
	}
	return &Once{
		Principal: caller.Name, Invocation: q.Invocation, Operation: q.operation(), Body: q.Body,
		Answer: json.RawMessage(text), At: c.clock(),
	}, nil
}

func (c *Custody) pairRecord(caller Caller, corr string, action audit.Action, token, algorithm string) audit.Record {
	r := c.changeRecord(caller, corr, action, audit.ChangeKey, token)
	r.Keys = []audit.Key{{Role: audit.KeyRoleTarget, ID: token, Version: 1, Algo: map[string]audit.Algo{
		"RSA_2048": audit.AlgoRSA2048, "RSA_3072": audit.AlgoRSA3072, "RSA_4096": audit.AlgoRSA4096,
	}[algorithm]}}
	return r
}

// wrappingPair is a pair in the token that a certificate of keyd's names.
type wrappingPair struct {
	name   string // in the token
	bits   int
	cert   *x509.Certificate
	params ImportParameters
}

// genuine checks a stored token against the token's own keys: the issuer has
// signed the certificate, it is of this import token, and of the pair that is in
// the token. It returns [ErrTampered] or [ErrUnavailable].
func (c *Custody) genuine(ctx context.Context, issuer *issuer, t ImportToken) (wrappingPair, error) {
	forged := fmt.Errorf("%w: %s is not as keyd issued it", ErrTampered, t.Token)
	cert, err := x509.ParseCertificate(t.Certificate)
	if err != nil || cert.Subject.CommonName != "keyd "+t.Token || !issuer.signed(cert) {
		return wrappingPair{}, forged
	}
	inToken, err := c.exchange.Token.WrappingPair(ctx, t.Token)
	if err != nil {
		return wrappingPair{}, tokenError("finding a wrapping key", err)
	}
	public, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok || !public.Equal(inToken) {
		return wrappingPair{}, forged
	}
	bits := public.N.BitLen()
	return wrappingPair{name: t.Token, bits: bits, cert: cert, params: ImportParameters{
		Certificate: t.Certificate, Chain: issuer.chain, Algorithm: fmt.Sprintf("RSA_%d", bits), Token: t.Token, Until: cert.NotAfter,
	}}, nil
}

// usableToken finds the pair of an import token that is good now. One whose time
// is over is destroyed. All refusals are alike.
func (c *Custody) usableToken(ctx context.Context, caller Caller, corr, token string) (wrappingPair, error) {
	refused := fmt.Errorf("%w: the import token is unknown or has expired", ErrRequest)
	issuer, err := c.issuer(ctx, caller, corr)
	if err != nil {
		return wrappingPair{}, err
	}
	if err := c.endTokens(ctx, caller, corr); err != nil {
		return wrappingPair{}, err
	}
	all, err := c.exchange.Store.ImportTokens(ctx)
	if err != nil {
		return wrappingPair{}, storeError("finding import tokens", err)
	}
	for _, t := range all {
		if t.Token != token || !strings.HasPrefix(token, importPrefix) {
			continue
		}
		pair, err := c.genuine(ctx, issuer, t)
		switch {
		case errors.Is(err, keys.ErrNoKey):
			return wrappingPair{}, refused // of another token's keyd
		case err != nil:
			return wrappingPair{}, err
		case !c.clock().Before(pair.params.Until):
			return wrappingPair{}, refused // the row says otherwise
		}
		return pair, nil
	}
	return wrappingPair{}, refused
}

// endTokens destroys the pairs whose time is over. Of each the record tells.
func (c *Custody) endTokens(ctx context.Context, caller Caller, corr string) error {
	all, err := c.exchange.Store.ImportTokens(ctx)
	if err != nil {
		return storeError("finding import tokens", err)
	}
	for _, t := range all {
		if c.clock().Before(t.Expires) {
			continue
		}
		err := c.intended(ctx, c.pairRecord(caller, corr, audit.KeyDestroy, t.Token, t.Algorithm), func(r *audit.Record) error {
			r.Custody = audit.CustodyToken
			if err := c.exchange.Token.DestroyWrappingPair(ctx, t.Token); err != nil {
				return tokenError("destroying a wrapping key", err)
			}
			if err := c.exchange.Store.EndImportToken(ctx, t.Token, c.clock()); err != nil {
				return storeError("ending an import token", err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sweepTokens does so for nobody in particular.
func (c *Custody) sweepTokens(ctx context.Context) error {
	if c.exchange.Token == nil {
		return nil
	}
	return c.endTokens(ctx, SystemCaller("keyd"), "sweep")
}

// newSerial draws the serial number of a certificate: 127 bits, so that it is
// positive and at most 16 bytes. RFC 5280, section 4.1.2.2.
func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return serial.Add(serial, big.NewInt(1)), nil
}
