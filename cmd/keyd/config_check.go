package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyd.dev/keyd/internal/credentials"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/profile"
	"keyd.dev/keyd/internal/tomlfile"
)

var (
	nodeName    = regexp.MustCompile(`^[a-z0-9.-]{1,63}$`)
	regionName  = regexp.MustCompile(`^[a-z]{2}-[a-z]{1,16}-[0-9]+$`)
	accountName = regexp.MustCompile(`^[0-9]{12}$`)
	envName     = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)
	clientName  = regexp.MustCompile(`^[A-Za-z0-9._:/@+-]{1,64}$`)
	aliasName   = regexp.MustCompile(`^alias/[a-zA-Z0-9/_-]{1,250}$`)
	currency    = regexp.MustCompile(`^[0-9]{3}$`)
	acquirerID  = regexp.MustCompile(`^[0-9]{0,11}$`)
)

// configCheck collects what is wrong with a configuration.
type configCheck struct {
	file  string
	at    tomlfile.Lines
	found []string
}

func (k *configCheck) want(ok bool, key, format string, args ...any) {
	if !ok {
		k.found = append(k.found, fmt.Sprintf("%s:%d: %s: %s", k.file, k.at.Of(key), key, fmt.Sprintf(format, args...)))
	}
}

// check finds every problem that the file alone shows.
func (f *configFile) check(name string) error {
	k := &configCheck{file: name, at: f.at}
	k.token(&f.Token)
	k.want(f.Store.Path != "", "store.path", "needs the path of the database")
	k.audit(&f.Audit)
	k.api(&f.API)
	k.switchLink(&f.Switch, f.Audit.DiskCriticalPct)
	k.listeners(&f.config)
	k.door(&f.config)
	for i := range f.Upstream {
		k.upstream(fmt.Sprintf("upstream[%d]", i), &f.Upstream[i])
	}
	k.links(f.Upstream)
	k.routes(&f.config)
	k.hook(&f.config)
	k.sinks(f.Sink)
	k.anchors(f.Anchor, f.Audit.Dir)
	k.clients(f.Client)
	k.profiles(f.Profile)
	k.vault(&f.config)
	k.backupWrap(&f.Backup)
	k.secondPerson(&f.API, f.Client)
	if f.Ops.Listen != "" {
		k.ops(&f.Ops)
	}
	k.process(&f.Process)
	var level slog.Level
	k.want(level.UnmarshalText([]byte(f.Log.Level)) == nil, "log.level", "must be debug, info, warn or error")
	if len(k.found) > 0 {
		return problems(k.found)
	}
	return nil
}

func (k *configCheck) token(t *tokenConfig) {
	k.want(t.Module != "", "token.module", "needs the path of the PKCS#11 module, /usr/lib/softhsm/libsofthsm2.so for SoftHSM")
	k.want(len(t.Label) <= 32, "token.label", "has more than 32 bytes")
	if t.NoPIN {
		k.want(t.PINSource == "", "token.pin_source", "stands beside no_pin = true; leave one of them out")
	} else if t.PINSource == "" {
		k.want(false, "token.pin_source", "needs the one place the PIN comes from, file:/path or systemd:NAME say")
	} else if _, err := credentials.ParsePINSource(t.PINSource, t.InsecureAllowEnvPIN); err != nil {
		k.want(false, "token.pin_source", "%v", err)
	}
	for name := range t.Environment {
		k.want(envName.MatchString(name), "token.environment", "%q is not the name of a variable", name)
	}
	k.between("token.sessions", t.Sessions, 1, 1024)
	k.between("token.cache_keys", t.CacheKeys, 16, 1_000_000)
	k.between("token.cache_objects", t.CacheObjects, 16, 1_000_000)
	k.between("token.standing", *t.Standing, 0, 64)
	k.span("token.deadline", t.Deadline, 10*time.Millisecond, time.Minute)
}

func (k *configCheck) audit(a *auditConfig) {
	k.want(a.Dir != "", "audit.dir", "needs the folder of the log")
	k.want(nodeName.MatchString(a.Site), "audit.site", "%q must match [a-z0-9.-]{1,63}", a.Site)
	k.want(nodeName.MatchString(a.Node), "audit.node", "%q must match [a-z0-9.-]{1,63}", a.Node)
	k.between("audit.segment_mb", a.SegmentMB, 8, 256)
	k.span("audit.checkpoint_interval", a.CheckpointInterval, 100*time.Millisecond, time.Minute)
	k.span("audit.unsigned_limit", a.UnsignedLimit, time.Second, time.Hour)
	k.span("audit.key_overlap", a.KeyOverlap, 24*time.Hour, 366*24*time.Hour)
	k.want(a.KeepMonths == 0 || a.KeepMonths >= 3 && a.KeepMonths <= 1200, "audit.keep_months", "%d is not 0 or 3 to 1200: the last three months stay readable at once", a.KeepMonths)
	k.between("audit.disk_critical_pct", a.DiskCriticalPct, 1, 90)
	k.between("audit.disk_warn_pct", a.DiskWarnPct, a.DiskCriticalPct, 95)
}

func (k *configCheck) api(a *apiConfig) {
	k.address("api.listen", a.Listen)
	k.serverTLS("api", a.tls())
	k.want(regionName.MatchString(a.Region), "api.region", "%q must match [a-z]{2}-[a-z]{1,16}-[0-9]+", a.Region)
	k.want(accountName.MatchString(a.Account), "api.account", "%q must be 12 digits", a.Account)
	for _, name := range a.LegacyPINFormats {
		k.want(slices.Contains([]string{"eci2", "eci3", "visa2", "visa3"}, name), "api.legacy_pin_formats", "%q is not eci2, eci3, visa2 or visa3", name)
	}
	for name, list := range map[string][]string{
		"api.legacy_key_blocks": a.LegacyKeyBlocks, "api.cryptogram_import": a.CryptogramImport, "api.cryptogram_export": a.CryptogramExport,
	} {
		for _, alias := range list {
			k.want(strings.HasPrefix(alias, "alias/"), name, "%q is no alias; name each key-encryption key, alias/…", alias)
		}
	}
	k.between("api.refused_pins_per_minute", a.RefusedPerMinute, 1, 1_000_000)
	k.between("api.refused_pins_per_hour", a.RefusedPerHour, a.RefusedPerMinute, 10_000_000)
	k.span("api.approval_validity", a.ApprovalValidity, time.Second, 24*time.Hour)
	k.span("api.approval_wait", a.ApprovalWait, time.Second, 30*24*time.Hour)
	k.limits(a)
}

func (k *configCheck) switchLink(s *switchConfig, critical int) {
	if s.Listen == "" {
		return
	}
	k.address("switch.listen", s.Listen)
	k.serverTLS("switch", s.tls())
	speaks, err := profile.Find(s.Profile)
	if err == nil {
		err = isoswitch.Serves(speaks)
	}
	k.want(err == nil, "switch.profile", "%v", err)
	k.want(s.MaxAmount > 0 && s.MaxAmount <= 999_999_999_999, "switch.max_amount", "%d is not 1 to 999999999999 minor units", s.MaxAmount)
	for _, c := range s.Currencies {
		k.want(currency.MatchString(c), "switch.currencies", "%q is not an ISO 4217 number", c)
	}
	k.want(len(s.Currencies) > 0, "switch.currencies", "names no currency, so no sale could be made")
	for _, c := range s.PartialTypes {
		k.want(c == "00" || c == "20", "switch.partial_types", "%q is neither \"00\", sales, nor \"20\", refunds", c)
	}
	k.span("switch.t_upstream", s.TUpstream, 100*time.Millisecond, 10*time.Minute)
	k.span("switch.t_hold", s.THold, 100*time.Millisecond, 10*time.Minute)
	k.want(s.TUpstream < s.TSwitch, "switch.t_upstream", "%v must be below t_switch, %v", s.TUpstream.std(), s.TSwitch.std())
	k.want(s.TSwitch < s.TTerminal, "switch.t_switch", "%v must be below t_terminal, %v", s.TSwitch.std(), s.TTerminal.std())
	k.want(s.THold < s.TTerminal, "switch.t_hold", "%v must be below t_terminal, %v", s.THold.std(), s.TTerminal.std())
	k.span("switch.clock_skew", s.ClockSkew, time.Second, 24*time.Hour)
	k.between("switch.ksn_step", s.KSNStep, 1, 1<<20)
	k.between("switch.reversals_per_hour", s.ReversalRate, 0, 1_000_000)
	k.between("switch.merchant_reversals_per_hour", s.MerchantRate, 0, 1_000_000)
	k.between("switch.card_reversals_per_hour", s.CardRate, 0, 1_000_000)
	k.between("switch.cash_reversals_per_hour", s.CashRate, 0, 1_000_000)
	k.between("switch.connections", s.Connections, 1, 100_000)
	k.span("switch.sign_in_interval", s.SignIn, 0, 10*time.Minute)
	k.between("switch.sign_ins_per_minute", s.SignInRate, 1, 1_000_000)
	k.want(acquirerID.MatchString(s.AcquirerID), "switch.acquirer_id", "%q is not at most 11 digits", s.AcquirerID)
	k.span("switch.t_stray", s.TStray, s.TUpstream.std(), 24*time.Hour)
	k.span("switch.look_back", s.LookBack, time.Hour, 90*24*time.Hour)
	k.span("switch.max_age", s.MaxAge, time.Minute, s.LookBack.std())
	k.span("switch.saf_first_delay", s.SAFFirstDelay, 10*time.Millisecond, time.Hour)
	k.span("switch.saf_ceiling", s.SAFCeiling, s.SAFFirstDelay.std(), 24*time.Hour)
	k.span("switch.saf_ttl", s.SAFTTL, time.Minute, 30*24*time.Hour)
	k.between("switch.saf_tries", s.SAFTries, 1, 1000)
	k.between("switch.saf_breaker", s.SAFBreaker, -1, 1000)
	k.between("switch.saf_share", s.SAFShare, 1, 64)
	k.between("switch.sale_disk_pct", s.SaleDiskPct, 1, 97)
	k.want(s.SaleDiskPct > critical, "switch.sale_disk_pct", "%d must be above audit.disk_critical_pct, %d: reversals need what is left", s.SaleDiskPct, critical)
	k.between("switch.lockout_failures", s.LockoutFailure, 1, 1000)
	k.between("switch.refusals_per_second", s.RefusedRecords, 1, 1_000_000)
	k.span("switch.lockout_window", s.LockoutWindow, time.Second, 24*time.Hour)
}

func (k *configCheck) upstream(at string, u *upstreamConfig) {
	k.want(clientName.MatchString(u.Name), at+".name", "needs a name of letters, digits and ._:/@+-")
	k.minTLS(at, u.MinTLS)
	k.want(aliasName.MatchString(u.ZPK), at+".zpk", "%q is not an alias, alias/zpk/host say", u.ZPK)
	k.want(aliasName.MatchString(u.ZAK), at+".zak", "%q is not an alias, alias/zak/host say", u.ZAK)
	k.want(u.ExchangeKey == "" || aliasName.MatchString(u.ExchangeKey), at+".key_exchange_key", "%q is not an alias, alias/kek/host say", u.ExchangeKey)
	k.hostSpeech(at, u)
	if u.KeyAge != 0 {
		k.want(u.ExchangeKey != "", at+".key_change_after", "needs key_exchange_key, under which the host sends the new key")
		k.span(at+".key_change_after", u.KeyAge, time.Second, 366*24*time.Hour)
	}
	k.want(acquirerID.MatchString(u.AcquirerID), at+".acquirer_id", "%q is not at most 11 digits", u.AcquirerID)
	k.span(at+".fail_back", u.FailBack, time.Millisecond, 24*time.Hour)
	k.between(at+".silence", u.Silence, -1, 1000)
	k.want(len(u.TID) == 8, at+".tid", "%q has not 8 characters", u.TID)
	k.want(len(u.MID) == 15, at+".mid", "%q has not 15 characters", u.MID)
	k.span(at+".echo", u.Echo, time.Second, time.Hour)
}

// ops keeps what has neither TLS nor a login on this machine.
func (k *configCheck) ops(o *opsConfig) {
	k.address("ops.listen", o.Listen)
	host, _, _ := net.SplitHostPort(o.Listen)
	ip := net.ParseIP(host)
	loopback := host == "localhost" || ip != nil && ip.IsLoopback()
	k.want(loopback || o.InsecureAllowRemote, "ops.listen", "must be a loopback address, 127.0.0.1:9100 say; it has no TLS. Where others must reach it all the same, say insecure_allow_remote = true")
	k.want(loopback || !o.Pprof, "ops.pprof", "is offered on a loopback address only")
}

func (k *configCheck) clients(clients []clientConfig) {
	names, uris := make(map[string]bool), make(map[string]bool)
	for i, c := range clients {
		at := fmt.Sprintf("client[%d]", i)
		k.want(clientName.MatchString(c.Name), at+".name", "needs a name of letters, digits and ._:/@+-")
		k.want(!names[c.Name], at+".name", "%q stands twice", c.Name)
		k.want(c.URI != "", at+".uri", "needs the URI or DNS SAN of the client's certificate")
		k.want(!uris[c.URI], at+".uri", "%q stands twice", c.URI)
		names[c.Name], uris[c.URI] = true, true
		for _, role := range c.Roles {
			k.want(slices.Contains(custody.Roles(), custody.Role(role)), at+".roles", "%q is not a role; there are %s", role, quoted(custody.Roles()))
		}
		k.operations(at, c)
		k.clientScope(at, c)
		k.clientLimits(at, c)
		for _, pattern := range c.Keys {
			_, err := path.Match(pattern, "alias/x")
			k.want(err == nil && (pattern == "*" || strings.HasPrefix(pattern, "alias/")), at+".keys", "%q is neither \"*\" nor a pattern that begins with alias/", pattern)
		}
	}
}

// secondPerson refuses dual control that nobody could exercise.
func (k *configCheck) secondPerson(a *apiConfig, clients []clientConfig) {
	admins := 0
	for _, c := range clients {
		if slices.Contains(c.Roles, string(custody.RoleAdmin)) {
			admins++
		}
	}
	k.want(!*a.DualControl || admins != 1, "api.dual_control", "needs two clients of the role admin, who approve for each other, and there is one; name another, or say false")
}

// clientScope checks which terminals may come by the links of a client.
func (k *configCheck) clientScope(at string, c clientConfig) {
	terminal := len(c.Roles) == 1 && c.Roles[0] == string(custody.RoleTerminal)
	err := custody.CheckScope(c.Terminals, nil)
	k.want(err == nil && (terminal || c.Terminals == nil), at+".terminals", "is for a client whose one role is terminal: TIDs of 8 characters, ranges FIRST-LAST of them, patterns with * or ?")
	err = custody.CheckScope(nil, c.Merchants)
	k.want(err == nil && (terminal || c.Merchants == nil), at+".merchants", "is for a client whose one role is terminal: MIDs of 15 characters, ranges FIRST-LAST of them, patterns with * or ?")
	n := strings.Count(c.URI, "{tid}")
	k.want(n == 0 || n == 1 && terminal, at+".uri", "{tid} may stand once, for a client whose one role is terminal")
}

// operations checks what narrows the roles of a client.
func (k *configCheck) operations(at string, c clientConfig) {
	matrix := custody.Permissions()
	for _, op := range c.Operations {
		roles, known := matrix[custody.Operation(op)]
		k.want(known, at+".operations", "%q is no operation; docs/ROLES.md lists them", op)
		held := func(r custody.Role) bool { return slices.Contains(c.Roles, string(r)) }
		k.want(!known || slices.ContainsFunc(roles, held), at+".operations", "%q is in none of the client's roles", op)
	}
}

func (k *configCheck) serverTLS(at string, t tlsConfig) {
	k.want(t.Cert != "", at+".cert", "needs the server's certificate, PEM")
	k.want(t.Key != "" || isIssued(t.Cert), at+".key", "needs the server's key, PEM")
	k.want(t.CA != "", at+".client_ca", "needs the CA file that clients are checked against")
	k.want(!t.CRLStrict || t.CRL != "", at+".crl_strict", "without crl, everyone would be refused")
	k.minTLS(at, t.MinTLS)
}

func (k *configCheck) minTLS(at, v string) {
	_, ok := tlsVersion(v)
	k.want(ok, at+".min_tls", `%q must be "1.3" or "1.2"`, v)
}

func tlsVersion(v string) (uint16, bool) {
	switch v {
	case "1.3":
		return tls.VersionTLS13, true
	case "1.2":
		return tls.VersionTLS12, true
	}
	return 0, false
}

func (k *configCheck) address(key, addr string) {
	_, port, err := net.SplitHostPort(addr)
	n, perr := strconv.ParseUint(port, 10, 16)
	k.want(err == nil && perr == nil && (n > 0 || port == "0"), key, "%q is not an address and port, 127.0.0.1:8443 say", addr)
}

func (k *configCheck) between(key string, v, low, high int) {
	k.want(low <= v && v <= high, key, "%d is not %d to %d", v, low, high)
}

func (k *configCheck) span(key string, v duration, low, high time.Duration) {
	k.want(low <= v.std() && v.std() <= high, key, "%v is not %v to %v", v.std(), low, high)
}
