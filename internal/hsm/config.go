package hsm

import (
	"fmt"
	"path/filepath"
	"regexp"
	"time"

	"keyd.dev/keyd/internal/secret"
)

// Config says which token to open and how to treat it.
type Config struct {
	// Module is the absolute path of the PKCS#11 library.
	Module string
	// Reserved is handed to C_Initialize as pReserved: NSS wants its
	// parameters there. Empty for every other module.
	Reserved string
	// TokenLabel is the label of the token. Exactly one token must have it.
	TokenLabel string
	// PIN yields the user PIN. It is called once by Open, and once more for
	// each new login after a loss when RetainPIN is false and it is not nil.
	// What it returns is cleared after use.
	PIN func() (secret.Bytes, error)
	// NoPIN states that the token has no PIN: nobody logs in.
	NoPIN bool
	// RetainPIN keeps the PIN for the life of the Token, so that a lost login
	// can be made again. Without it a lost login ends service until Open.
	RetainPIN bool
	// FinalTry permits the login although one more wrong PIN locks the token.
	FinalTry bool
	// Prefix begins the labels of keyd's own keys. Default "keyd".
	Prefix string
	// Sessions is the number of working sessions. Default 2, which is all that
	// a module with a global lock can use; network HSMs want many more.
	Sessions int
	// CacheKeys bounds the keys that are kept loaded. Default 10,000.
	CacheKeys int
	// Objects bounds the key objects of these that stand in the token at once;
	// the others were verified, and are unwrapped when they are used. Default
	// 10,000: SoftHSM takes about 8 KB of memory for each.
	Objects int
	// Standing is how many operations stay open, each in a session of its own,
	// for the keys that are used most. 0: none.
	Standing int
	// Deadline bounds each use of a key, the wait for a session included.
	// Default 2 s.
	Deadline time.Duration
	// KeepAlive is the interval of a harmless call that keeps the sessions
	// from being dropped as idle. Default 10 s.
	KeepAlive time.Duration
	// RequireEnforcement refuses a module that does not enforce the attributes
	// of its objects; without it, [Info] tells what was found.
	RequireEnforcement bool
	// OnState, when set, is told that the token went down (why) and that it is
	// back (nil), once for each outage, from one goroutine.
	OnState func(why error)
	// Observe, when set, is told what each call into the module took. It is on
	// the path of every use of a key: it must not block, and is safe for
	// concurrent use.
	Observe func(Timing)
}

const (
	defaultSessions  = 2
	defaultCacheKeys = 10_000
	defaultObjects   = 10_000
	defaultDeadline  = 2 * time.Second
	defaultKeepAlive = 10 * time.Second
	mostSessions     = 1024
	mostStanding     = 64
)

// prefixForm keeps labels printable and short enough for every module.
var prefixForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,20}$`)

// withDefaults returns c with its defaults set, or [ErrConfig].
func (c Config) withDefaults() (Config, error) {
	if c.Prefix == "" {
		c.Prefix = "keyd"
	}
	if c.Sessions == 0 {
		c.Sessions = defaultSessions
	}
	if c.CacheKeys == 0 {
		c.CacheKeys = defaultCacheKeys
	}
	if c.Objects == 0 {
		c.Objects = defaultObjects
	}
	if c.Deadline == 0 {
		c.Deadline = defaultDeadline
	}
	if c.KeepAlive == 0 {
		c.KeepAlive = defaultKeepAlive
	}
	switch {
	case c.Module == "":
		return c, fmt.Errorf("%w: no module; give the path of the PKCS#11 library", ErrConfig)
	case !filepath.IsAbs(c.Module):
		return c, fmt.Errorf("%w: module %q is not an absolute path; a relative one is searched for in places that others may write to", ErrConfig, c.Module)
	case c.TokenLabel == "" || len(c.TokenLabel) > 32:
		return c, fmt.Errorf("%w: token label of %d bytes, want 1 to 32", ErrConfig, len(c.TokenLabel))
	case c.NoPIN == (c.PIN != nil): // so that no token is left open by an oversight
		return c, fmt.Errorf("%w: want either a PIN or the statement that the token has none", ErrConfig)
	case !prefixForm.MatchString(c.Prefix):
		return c, fmt.Errorf("%w: prefix %q, want 1 to 20 letters, digits and . _ -", ErrConfig, c.Prefix)
	case c.Sessions < 1 || c.Sessions > mostSessions:
		return c, fmt.Errorf("%w: %d sessions, want 1 to %d", ErrConfig, c.Sessions, mostSessions)
	case c.Standing < 0 || c.Standing > mostStanding:
		return c, fmt.Errorf("%w: %d standing operations, want 0 to %d", ErrConfig, c.Standing, mostStanding)
	case c.CacheKeys < 1:
		return c, fmt.Errorf("%w: room for %d keys, want 1 or more", ErrConfig, c.CacheKeys)
	case c.Objects < 1:
		return c, fmt.Errorf("%w: room for %d objects, want 1 or more", ErrConfig, c.Objects)
	case c.Deadline < 0 || c.KeepAlive < 0:
		return c, fmt.Errorf("%w: a negative duration", ErrConfig)
	}
	return c, nil
}
