package main

import (
	"time"

	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sandbox"
)

// config is the one configuration file of a daemon, TOML, read strictly. It
// holds no secret, only where to find one. A relative path is relative to the
// folder of the file. A zero value stands for the default that the comment
// names.
type config struct {
	Token    tokenConfig      `toml:"token" comment:"The PKCS#11 token that holds the master keys."`
	Store    storeConfig      `toml:"store" comment:"The database: key blocks, terminals, the journal of transactions."`
	Audit    auditConfig      `toml:"audit" comment:"The audit log. keyd does not run without it."`
	Vault    vaultConfig      `toml:"vault,omitempty" comment:"Where HashiCorp Vault is, and how to log in; without an address keyd runs without it."`
	Backup   backupConfig     `toml:"backup,omitempty" comment:"Where the daemon writes backups when it is told to; default nowhere."`
	API      apiConfig        `toml:"api" comment:"The API listener, mutual TLS."`
	Switch   switchConfig     `toml:"switch" comment:"The ISO 8583 listener for terminals and gateways. An empty listen turns the switch off."`
	Process  processConfig    `toml:"process,omitempty" comment:"What the daemon takes from itself once it has what it needs."`
	Ops      opsConfig        `toml:"ops" comment:"Health and metrics, plain HTTP on loopback."`
	Log      logConfig        `toml:"log" comment:"The operator's log on standard error. It is not the audit log."`
	Upstream []upstreamConfig `toml:"upstream,omitempty" comment:"The acquirer hosts or issuers that the switch forwards to."`
	Route    []routeConfig    `toml:"switch_route,omitempty" comment:"Which sales go to which upstream. A route of the merchant comes before one of all merchants, the longest beginning of the card number before a shorter one, and that before a route of all cards. One upstream needs no routes."`
	Hook     hookConfig       `toml:"hook,omitempty" comment:"Who is told what becomes of reversals, by HTTPS; without a url nobody is."`
	Issued   []issuedConfig   `toml:"vault_certificate,omitempty" comment:"Certificates that Vault's PKI engine signs, for api, switch, upstream and vault itself."`
	Profile  []profileConfig  `toml:"terminal_profile,omitempty" comment:"Kinds of terminals with master keys, beside unionpay, tdes and aes, or in their place."`
	Listener []listenerConfig `toml:"switch_listener,omitempty" comment:"Further listeners for terminals, with profiles of their own; certificates, rules and limits are those of [switch]."`
	Rule     []ruleConfig     `toml:"switch_rule,omitempty" comment:"Rules at the door for some terminals or merchants, beside those of [switch]; all that fit hold."`
	Sink     []sinkConfig     `toml:"audit_sink,omitempty" comment:"Who gets a copy of the audit log: a SIEM by syslog over TLS, or a file; default nobody."`
	Anchor   []anchorConfig   `toml:"audit_anchor,omitempty" comment:"Where the newest checkpoints of the audit log are kept as well, so that an older copy of it that is put back is found; default nowhere."`
	Client   []clientConfig   `toml:"client,omitempty" comment:"Who may connect, by the identity in the client certificate; a valid chain alone gives nothing."`
}

type tokenConfig struct {
	Module              string            `toml:"module" comment:"Path of the PKCS#11 module."`
	Label               string            `toml:"label" comment:"Label of the token; default \"keyd\"."`
	PINSource           string            `toml:"pin_source" comment:"The one place the PIN comes from: file:/path, systemd:NAME, tty, command:[\"argv0\",…], env:NAME, vault:MOUNT/PATH#FIELD, vault-wrapped:/path."`
	PINRetain           *bool             `toml:"pin_retain,omitempty" comment:"Keep the PIN in memory, so that a lost session can log in again; default true."`
	InsecureAllowEnvPIN bool              `toml:"insecure_allow_env_pin,omitempty" comment:"Permit env: as source of the PIN; default false."`
	NoPIN               bool              `toml:"no_pin,omitempty" comment:"The token has no PIN and nobody logs in; then pin_source is left out; default false."`
	AllowFinalTry       bool              `toml:"allow_final_try,omitempty" comment:"Log in although one more wrong PIN locks the token; default false."`
	Environment         map[string]string `toml:"environment,omitempty,inline" comment:"Environment variables that the module reads when it is loaded."`
	Reserved            string            `toml:"reserved,omitempty" comment:"Parameters for C_Initialize, which NSS wants; default none."`
	Sessions            int               `toml:"sessions,omitempty" comment:"Working sessions, 1 to 1024; default 2; network HSMs want more."`
	CacheKeys           int               `toml:"cache_keys,omitempty" comment:"Keys to keep loaded, 16 to 1000000; default 10000."`
	CacheObjects        int               `toml:"cache_objects,omitempty" comment:"Of these, objects to keep in the token, 16 to 1000000; the others are unwrapped at use; default 10000. SoftHSM takes 8 KB for each."`
	Standing            *int              `toml:"standing,omitempty" comment:"Sessions that keep an operation open, each for one of the keys used most, 0 to 64; default 8. A network HSM that counts sessions may want 0."`
	Deadline            duration          `toml:"deadline,omitempty" comment:"Bound of one use of a key, the wait for a session included; default 2s."`
}

type storeConfig struct {
	Path string `toml:"path" comment:"Path of the SQLite database."`
}

type backupConfig struct {
	Transit    string   `toml:"transit,omitempty" comment:"MOUNT/KEY of Vault's transit engine under which backups are wrapped once more; restoring then needs Vault, or a custodian; default none."`
	Custodians []string `toml:"custodians,omitempty" comment:"Public keys (age1…) of custodians who can open that second wrap without Vault; default none."`

	Dir string `toml:"dir,omitempty" comment:"Folder of the backups, which only the daemon's user may write; default none."`
}

type auditConfig struct {
	Dir                string   `toml:"dir" comment:"Folder of the log."`
	Site               string   `toml:"site" comment:"Site in the log's origin, [a-z0-9.-]; fixed when the log is made."`
	Node               string   `toml:"node" comment:"Node in the log's origin, [a-z0-9.-]; fixed when the log is made."`
	SegmentMB          int      `toml:"segment_mb,omitempty" comment:"Size of a segment, 8 to 256 MiB; at least four exist; fixed when the log is made; default 64."`
	CheckpointInterval duration `toml:"checkpoint_interval,omitempty" comment:"Time between signed checkpoints, at least 100ms; default 1s."`
	UnsignedLimit      duration `toml:"unsigned_limit,omitempty" comment:"Age of the unsigned tail above which service is refused, at most 1h; default 5m."`
	TimeSource         string   `toml:"time_source,omitempty" comment:"Name of the time source in records: ntp:NAME, ptp, none; default none."`
	KeyOverlap         duration `toml:"key_overlap,omitempty" comment:"How long checkpoints carry the lines of the old key and of the new one after keyd audit rotate-key, at least 24h; default 24h."`
	KeepMonths         int      `toml:"keep_months,omitempty" comment:"Months of operations that stay here after they ended, 3 or more; older ones that an archive holds may be pruned, by two persons (keyd audit prune), and nothing is pruned without it; default none."`
	DiskWarnPct        int      `toml:"disk_warn_pct,omitempty" comment:"Free space in percent below which an alarm is raised; default 20."`
	DiskCriticalPct    int      `toml:"disk_critical_pct,omitempty" comment:"Free space in percent below which operations are refused; default 10."`
}

// tlsConfig is one end of TLS; api, switch and upstream carry its keys.
type tlsConfig struct {
	Cert      string
	Key       string
	CA        string
	CRL       string
	CRLStrict bool
	MinTLS    string
}

type apiConfig struct {
	Listen           string   `toml:"listen" comment:"Address and port."`
	Cert             string   `toml:"cert" comment:"Server certificate chain, PEM, re-read when it changes; or vault:NAME of a [[vault_certificate]], then without key."`
	Key              string   `toml:"key" comment:"Its key, PEM."`
	ClientCA         string   `toml:"client_ca" comment:"The CAs of client certificates, PEM."`
	CRL              string   `toml:"crl,omitempty" comment:"Revocation list of the client CA; default none."`
	CRLStrict        bool     `toml:"crl_strict,omitempty" comment:"Refuse everyone when the list is past its next update; default false."`
	MinTLS           string   `toml:"min_tls,omitempty" comment:"\"1.3\" (default) or \"1.2\"."`
	Region           string   `toml:"region,omitempty" comment:"Region in ARNs; default xx-keyd-1."`
	Account          string   `toml:"account,omitempty" comment:"Account in ARNs, 12 digits; default 000000000000."`
	LegacyPINFormats []string `toml:"legacy_pin_formats,omitempty" comment:"PIN block formats of before ISO 9564 for which keys may be made (tag keyd:pin-format): eci2, eci3, visa2, visa3; incoming only; default none." reload:"yes"`
	LegacyKeyBlocks  []string `toml:"legacy_key_blocks,omitempty" comment:"Aliases of key-encryption keys under which TR-31 key blocks of the old versions A and C come in; * and ? are wild cards; default none." reload:"yes"`
	CryptogramImport []string `toml:"cryptogram_import,omitempty" comment:"Aliases of zone master keys under which keys come in as bare cryptograms (key schemes U, T, X, Y of old hosts); default none." reload:"yes"`
	CryptogramExport []string `toml:"cryptogram_export,omitempty" comment:"Aliases of zone master keys under which keys go out so, bound to nothing; default none." reload:"yes"`
	RefusedPerMinute int      `toml:"refused_pins_per_minute,omitempty" comment:"PIN blocks refused to one client under one key in a minute, after which it must wait; default 50." reload:"yes"`
	RefusedPerHour   int      `toml:"refused_pins_per_hour,omitempty" comment:"The same in an hour, after which that client's PIN use of the key stops until keyd is started again; default 500." reload:"yes"`
	DualControl      *bool    `toml:"dual_control,omitempty" comment:"Whether changes of keys that carry or derive others, and of roles, need a second administrator (keyd approve); default true."`
	ApprovalValidity duration `toml:"approval_validity,omitempty" comment:"How long an approval can be used, once; default 15m." reload:"yes"`
	ApprovalWait     duration `toml:"approval_wait,omitempty" comment:"How long a request waits for somebody to decide; default 24h." reload:"yes"`

	RequestsPerSecond  int      `toml:"requests_per_second,omitempty" comment:"Requests of one client in a second; beyond, it gets ThrottlingException; default no limit." reload:"yes"`
	Burst              int      `toml:"burst,omitempty" comment:"Requests of one client at once after a silence; default those of one second." reload:"yes"`
	ConcurrentRequests int      `toml:"concurrent_requests,omitempty" comment:"Requests of one client without an answer; default 512." reload:"yes"`
	RequestsInWork     int      `toml:"requests_in_work,omitempty" comment:"Requests of the data plane that are at work at a time; the others wait, and the clients take turns; default 64." reload:"yes"`
	QueueWait          duration `toml:"queue_wait,omitempty" comment:"Longest wait of a request for its turn, after which it gets ThrottlingException; default 1s." reload:"yes"`
	Connections        int      `toml:"connections,omitempty" comment:"Connections of all clients at a time; default 4096." reload:"yes"`
	ClientConnections  int      `toml:"client_connections,omitempty" comment:"Connections of one client at a time; default 2048." reload:"yes"`
	Handshakes         int      `toml:"handshakes,omitempty" comment:"Handshakes under way at a time; one more ends the oldest; default 1024." reload:"yes"`
	MostKeys           int      `toml:"most_keys,omitempty" comment:"Keys that may be stored, those of terminals counted and deleted ones not; beyond, a new key gets ServiceQuotaExceededException, while terminals can still be registered; default no limit." reload:"yes"`
	MostAliases        int      `toml:"most_aliases,omitempty" comment:"Aliases that there may be; default no limit." reload:"yes"`
	DrainGrace         duration `toml:"drain_grace,omitempty" comment:"How long requests are still taken at a stop after /readyz has said that the node is not ready: a little more than the interval at which a load balancer asks; default none." reload:"yes"`
	DrainLimit         duration `toml:"drain_limit,omitempty" comment:"How long requests in work may take at a stop; default 10s." reload:"yes"`
}

type switchConfig struct {
	Listen         string   `toml:"listen" comment:"Address and port; empty turns the switch off."`
	Cert           string   `toml:"cert" comment:"Server certificate chain, PEM, re-read when it changes; or vault:NAME of a [[vault_certificate]], then without key."`
	Key            string   `toml:"key" comment:"Its key, PEM."`
	ClientCA       string   `toml:"client_ca" comment:"The CAs of terminal and gateway certificates, PEM."`
	CRL            string   `toml:"crl,omitempty" comment:"Revocation list of the client CA; default none."`
	CRLStrict      bool     `toml:"crl_strict,omitempty" comment:"Refuse everyone when the list is past its next update; default false."`
	MinTLS         string   `toml:"min_tls,omitempty" comment:"\"1.3\" (default) or \"1.2\" for old gateways."`
	Profile        string   `toml:"profile,omitempty" comment:"What terminals speak and are answered: a profile that keyd brings, or the path of a file with one (docs/SWITCH.md, section 10); default ascii87."`
	MaxAmount      int64    `toml:"max_amount,omitempty" comment:"Most that one sale may be, minor units; default 5000000." reload:"yes"`
	Currencies     []string `toml:"currencies,omitempty" comment:"ISO 4217 numbers that sales may have; default 978 and 156." reload:"yes"`
	PartialTypes   []string `toml:"partial_types,omitempty" comment:"Processing codes (first two digits of DE 3) that may be reversed in part; default none." reload:"yes"`
	TUpstream      duration `toml:"t_upstream,omitempty" comment:"Time for an answer from upstream; below t_switch; default 25s." reload:"yes"`
	TSwitch        duration `toml:"t_switch,omitempty" comment:"Latest moment for the answer to a terminal; below t_terminal; default 30s." reload:"yes"`
	TTerminal      duration `toml:"t_terminal,omitempty" comment:"When a terminal gives up and reverses; default 1m." reload:"yes"`
	ClockSkew      duration `toml:"clock_skew,omitempty" comment:"How far a terminal's clock may be ahead; default 10m." reload:"yes"`
	THold          duration `toml:"t_hold,omitempty" comment:"How long a reversal waits for its original in flight; default 20s." reload:"yes"`
	TStray         duration `toml:"t_stray,omitempty" comment:"How long a late answer to a sale is still recognised, and a 25 to its reversal is not the last word; default 2m." reload:"yes"`
	LookBack       duration `toml:"look_back,omitempty" comment:"How old an original may be to be found; default 168h."`
	MaxAge         duration `toml:"max_age,omitempty" comment:"How old an original may be to be reversed; default 24h." reload:"yes"`
	SAFFirstDelay  duration `toml:"saf_first_delay,omitempty" comment:"Wait before a reversal is sent again; default 5s." reload:"yes"`
	SAFCeiling     duration `toml:"saf_ceiling,omitempty" comment:"Longest wait between tries; default 5m." reload:"yes"`
	SAFTries       int      `toml:"saf_tries,omitempty" comment:"Tries before a reversal becomes a work item; default 6." reload:"yes"`
	SAFTTL         duration `toml:"saf_ttl,omitempty" comment:"Life of a reversal in the queue; default 24h." reload:"yes"`
	SAFBreaker     int      `toml:"saf_breaker,omitempty" comment:"Different reversals in a row without an answer after which the queue rests, and one goes out now and then as a probe; -1 is never; default 10." reload:"yes"`
	SAFShare       int      `toml:"saf_share,omitempty" comment:"Reversals of one terminal that are sent at a time, of 64; default 16." reload:"yes"`
	SaleDiskPct    int      `toml:"sale_disk_pct,omitempty" comment:"Free space in percent, of the disk of the audit log and that of the database, below which new sales get 96 while reversals are still taken and sent; above audit.disk_critical_pct; default 12."`
	KSNStep        int      `toml:"ksn_step,omitempty" comment:"Greatest step forward of a KSN counter; default 10000." reload:"yes"`
	ReversalRate   int      `toml:"reversals_per_hour,omitempty" comment:"Reversals of one terminal in an hour above which an alarm is raised; default no limit." reload:"yes"`
	MerchantRate   int      `toml:"merchant_reversals_per_hour,omitempty" comment:"The same for one merchant, all its terminals together; default no limit." reload:"yes"`
	CardRate       int      `toml:"card_reversals_per_hour,omitempty" comment:"The same for one card; default no limit." reload:"yes"`
	CashRate       int      `toml:"cash_reversals_per_hour,omitempty" comment:"The same with one of the reasons of cash_reasons, for one terminal and for one card; default no limit." reload:"yes"`
	CashReasons    []string `toml:"cash_reasons,omitempty" comment:"Reasons of a reversal (DE 39) by which a machine says that no cash came out; default none." reload:"yes"`
	RateAction     string   `toml:"reversal_rate_action,omitempty" comment:"What happens to a reversal above one of these rates: observe, an alert; refuse, 58; hold, 00 and nothing is sent until two persons have released it; default observe." reload:"yes"`
	Unchecked      string   `toml:"linear_unchecked,omitempty" comment:"What becomes of a reversal under cup_ecb with fields that are compared with nothing, DE 55 above all: hold, 00 and nothing is sent until two persons have released it; refuse, 58; default hold." reload:"yes"`
	SuspectAfter   int      `toml:"suspect_reversals,omitempty" comment:"Reversals of one terminal in an hour that make it suspect until the hour is over; default no limit." reload:"yes"`
	SuspectAction  string   `toml:"suspect_action,omitempty" comment:"What becomes of a suspect terminal's sales: alert, they go on; sign_in, refused as after a wrong MAC until it signs in, or on, anew; block, 58. Its reversals and voids go on; default alert." reload:"yes"`
	Completion     int      `toml:"completion_percent,omitempty" comment:"Most that a completion may be of its pre-authorisation, percent, 1 to 200; default 100." reload:"yes"`
	TimeZone       string   `toml:"time_zone,omitempty" comment:"Time zone of hours and cutover, Europe/Berlin say; default UTC." reload:"yes"`
	Hours          []string `toml:"hours,omitempty" comment:"Times of the day at which sales are taken, 08:00-22:00 say; default no limit." reload:"yes"`
	Cutover        []string `toml:"cutover,omitempty" comment:"Times of the day change, at which new requests get 90 and reversals go on, 23:55-00:05 say; default none." reload:"yes"`
	Types          []string `toml:"processing_codes,omitempty" comment:"First two digits of DE 3 that are taken; others get 40; default all of them." reload:"yes"`
	EntryModes     []string `toml:"entry_modes,omitempty" comment:"DE 22 that are taken, ? for any digit; others get 30; default 00? and 01? and 02? and 03? and 04? and 05? and 07? and 10? and 79? and 80? and 81? and 82? and 90? and 91? and 95?." reload:"yes"`
	RefuseSkew     bool     `toml:"refuse_clock_skew,omitempty" comment:"Refuse (30) a sale whose times differ from those of keyd by more than clock_skew; they are told all the same; default false." reload:"yes"`
	CheckDigit     bool     `toml:"check_digit,omitempty" comment:"Refuse (14) a sale whose card number has a wrong check digit; default false." reload:"yes"`
	SignIn         duration `toml:"sign_in_interval,omitempty" comment:"Least time between two sign-ins of a terminal with a master key, at most 10m; an earlier one gets 58, but for one while nobody has used the keys of the last; default none." reload:"yes"`
	SignInRate     int      `toml:"sign_ins_per_minute,omitempty" comment:"Sign-ins in a minute by one client certificate, for all its terminals together; those beyond get 58; default 1200." reload:"yes"`
	Connections    int      `toml:"connections,omitempty" comment:"Connections of terminals at a time; default 1024."`
	AcquirerID     string   `toml:"acquirer_id,omitempty" comment:"Acquirer id where a message has no DE 32; default none."`
	LockoutFailure int      `toml:"lockout_failures,omitempty" comment:"Absent and wrong MACs that lock a terminal on a connection; default 5." reload:"yes"`
	RefusedRecords int      `toml:"refusals_per_second,omitempty" comment:"Refused messages of one client in a second that have a record each, ten times as many after a silence; beyond, those of a tenth of a second share one, with exact numbers; default 50." reload:"yes"`
	LockoutWindow  duration `toml:"lockout_window,omitempty" comment:"Time in which they are counted; default 10m." reload:"yes"`
}

type upstreamConfig struct {
	Name        string   `toml:"name" comment:"Name in records and metrics."`
	Addr        string   `toml:"addr,omitempty" comment:"Address and port of its one link; with [[upstream.link]] it is left out; no default."`
	ServerName  string   `toml:"server_name,omitempty" comment:"Name in its certificate; default the host of addr."`
	CA          string   `toml:"ca,omitempty" comment:"Who may sign its certificate, PEM; no default, each link needs one here or there."`
	Cert        string   `toml:"cert,omitempty" comment:"Our client certificate, PEM, or vault:NAME of a [[vault_certificate]]; default none."`
	Key         string   `toml:"key,omitempty" comment:"Its key, PEM."`
	MinTLS      string   `toml:"min_tls,omitempty" comment:"\"1.3\" (default) or \"1.2\"."`
	Profile     string   `toml:"profile,omitempty" comment:"What it speaks: the file of a profile that names originals by DE 90; without one it is ascii87; default none."`
	Head        string   `toml:"head,omitempty" comment:"What stands before the MTI of what is sent to it, TPDU and header say, hexadecimal; without it zeros, as many as the profile has; default none."`
	ZPK         string   `toml:"zpk" comment:"Alias of the zone PIN key."`
	ZAK         string   `toml:"zak" comment:"Alias of the zone MAC key."`
	KeyAge      duration `toml:"key_change_after,omitempty" comment:"Age of a zone key at which the host is asked for a new one (0800 with DE 70 162); needs key_exchange_key; default none."`
	ExchangeKey string   `toml:"key_exchange_key,omitempty" comment:"Alias of the key-encryption key, agreed with the host, under which it sends new values of zpk and zak (0800 with DE 70 161); without one it may not; default none."`
	DialTimeout duration `toml:"dial_timeout,omitempty" comment:"Time to connect; default 5s."`
	Echo        duration `toml:"echo,omitempty" comment:"Time of silence after which an 0800 echo is sent; default 1m."`
	TID         string   `toml:"tid,omitempty" comment:"DE 41 of keyd's own messages, 8 characters; default KEYD0001."`
	MID         string   `toml:"mid,omitempty" comment:"DE 42 of keyd's own messages, 15 characters; default KEYD00000000001."`
	AcquirerID  string   `toml:"acquirer_id,omitempty" comment:"DE 32 of what is sent to it, at most 11 digits; default that of the terminal's message."`
	FailBack    duration `toml:"fail_back,omitempty" comment:"How long a link that failed must be signed on again before messages go back to it from another; default 1m."`
	Silence     int      `toml:"silence,omitempty" comment:"Messages in a row that a link leaves unanswered, after which another takes over; -1 is never; default 5."`

	Link []linkConfig `toml:"link,omitempty" comment:"The links to it, those preferred first, in place of addr and server_name of [[upstream]]."`
}

type clientConfig struct {
	Name  string   `toml:"name" comment:"Name in records and answers." reload:"yes"`
	URI   string   `toml:"uri" comment:"First URI SAN of its certificate, else its first DNS SAN. With {tid} in it, for a client whose one role is terminal, that of many certificates, each of which names its one terminal there." reload:"yes"`
	Roles []string `toml:"roles" comment:"application, admin, operator, custodian, auditor, terminal; none: every operation is refused." reload:"yes"`
	Keys  []string `toml:"keys,omitempty" comment:"Aliases that it may use; * and ? are wild cards; \"*\" is every key." reload:"yes"`
	// Operations narrows the roles.
	Operations []string `toml:"operations,omitempty" comment:"The only operations of its roles that it may do, [\"VerifyMac\"] say; default all of them." reload:"yes"`

	Terminals []string `toml:"terminals,omitempty" comment:"Of a client whose one role is terminal: the terminals that may come by its links, TIDs, FIRST-LAST for a range of them, * and ? as wild cards; default no limit." reload:"yes"`
	Merchants []string `toml:"merchants,omitempty" comment:"The same by the merchants of terminals, MIDs; a terminal must be in both lists; default no limit." reload:"yes"`

	RequestsPerSecond  int `toml:"requests_per_second,omitempty" comment:"Requests in a second, in place of those of [api]; default none." reload:"yes"`
	Burst              int `toml:"burst,omitempty" comment:"Requests at once after a silence, in place of those of [api]; default none." reload:"yes"`
	ConcurrentRequests int `toml:"concurrent_requests,omitempty" comment:"Requests without an answer, in place of those of [api]; default none." reload:"yes"`
	Connections        int `toml:"connections,omitempty" comment:"Connections at a time, in place of client_connections of [api]; default none." reload:"yes"`
}

// processConfig is explained in sandbox.go.
type processConfig struct {
	Sandbox string   `toml:"sandbox,omitempty" comment:"Whether other files and ports are out of reach (Landlock): off, best_effort, which takes what the kernel has, or strict, which refuses to start without; default best_effort."`
	Read    []string `toml:"sandbox_read,omitempty" comment:"Files and folders that may be read besides, for a module that needs more; default none."`
	Write   []string `toml:"sandbox_write,omitempty" comment:"Folders and device files that may be read and written besides; default none."`
	Connect []int    `toml:"sandbox_connect,omitempty" comment:"TCP ports that may be connected to besides, of a network HSM say; default none."`
}

type opsConfig struct {
	Listen              string `toml:"listen" comment:"Loopback address and port; empty turns it off."`
	InsecureAllowRemote bool   `toml:"insecure_allow_remote,omitempty" comment:"Permit another address than loopback for health and metrics, which have neither TLS nor a login; default false."`
	ReadyNeedsUpstream  bool   `toml:"ready_needs_upstream,omitempty" comment:"The node is not ready while the upstream link is down, although reversals are taken then; default false."`
	Pprof               bool   `toml:"pprof,omitempty" comment:"Offer profiles of processor and memory under /debug/pprof/, on loopback only; default false."`
	Socket              string `toml:"socket,omitempty" comment:"Unix socket by which commands of this machine reach the daemon; default keyd.sock beside the database."`
}

type logConfig struct {
	Level string `toml:"level,omitempty" comment:"debug, info, warn or error; default info." reload:"yes"`
}

// duration is a time.Duration that is written as a string, "30s".
type duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = duration(v)
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// std is the standard library's form.
func (d duration) std() time.Duration { return time.Duration(d) }

func (c *apiConfig) tls() tlsConfig {
	return tlsConfig{c.Cert, c.Key, c.ClientCA, c.CRL, c.CRLStrict, c.MinTLS}
}

func (c *switchConfig) tls() tlsConfig {
	return tlsConfig{c.Cert, c.Key, c.ClientCA, c.CRL, c.CRLStrict, c.MinTLS}
}

// fillDefaults puts the documented defaults where the file says nothing.
func (c *config) fillDefaults() {
	def(&c.Token.Label, "keyd")
	if c.Token.PINRetain == nil {
		yes := true
		c.Token.PINRetain = &yes
	}
	def(&c.Token.Sessions, 2)
	def(&c.Token.CacheKeys, 10_000)
	def(&c.Token.CacheObjects, 10_000)
	if c.Token.Standing == nil {
		eight := 8
		c.Token.Standing = &eight
	}
	def(&c.Token.Deadline, duration(2*time.Second))
	def(&c.Process.Sandbox, string(sandbox.BestEffort))
	def(&c.Audit.SegmentMB, 64)
	def(&c.Audit.CheckpointInterval, duration(time.Second))
	def(&c.Audit.UnsignedLimit, duration(5*time.Minute))
	def(&c.Audit.KeyOverlap, duration(24*time.Hour))
	def(&c.Audit.TimeSource, "none")
	def(&c.Audit.DiskWarnPct, 20)
	def(&c.Audit.DiskCriticalPct, 10)
	def(&c.API.MinTLS, "1.3")
	def(&c.API.Region, "xx-keyd-1")
	def(&c.API.Account, "000000000000")
	def(&c.API.RefusedPerMinute, 50)
	def(&c.API.RefusedPerHour, 500)
	if c.API.DualControl == nil {
		yes := true
		c.API.DualControl = &yes
	}
	def(&c.API.ApprovalValidity, duration(15*time.Minute))
	def(&c.API.ApprovalWait, duration(24*time.Hour))
	c.API.limitDefaults()
	s := &c.Switch
	def(&s.MinTLS, "1.3")
	def(&s.Profile, "ascii87")
	def(&s.MaxAmount, 5_000_000)
	if s.Currencies == nil {
		s.Currencies = []string{"978", "156"}
	}
	def(&s.TUpstream, duration(25*time.Second))
	def(&s.TSwitch, duration(30*time.Second))
	def(&s.TTerminal, duration(60*time.Second))
	def(&s.ClockSkew, duration(10*time.Minute))
	def(&s.KSNStep, 10_000)
	def(&s.RateAction, string(isoswitch.Observe))
	def(&s.Unchecked, string(isoswitch.Hold))
	def(&s.Completion, 100)
	def(&s.SuspectAction, string(isoswitch.QuarantineAlert))
	def(&s.TimeZone, "UTC")
	if s.EntryModes == nil {
		s.EntryModes = isoswitch.DefaultEntryModes()
	}
	def(&s.Connections, 1024)
	def(&s.SignInRate, 1200)
	def(&s.THold, duration(20*time.Second))
	def(&s.TStray, duration(2*time.Minute))
	def(&s.LookBack, duration(7*24*time.Hour))
	def(&s.MaxAge, duration(24*time.Hour))
	def(&s.SAFFirstDelay, duration(5*time.Second))
	def(&s.SAFCeiling, duration(5*time.Minute))
	def(&s.SAFTries, 6)
	def(&s.SAFTTL, duration(24*time.Hour))
	def(&s.SAFBreaker, 10)
	def(&s.SAFShare, 16)
	def(&s.SaleDiskPct, max(12, c.Audit.DiskCriticalPct+2))
	c.Hook.fillDefaults()
	def(&s.LockoutFailure, 5)
	def(&s.RefusedRecords, 50)
	def(&s.LockoutWindow, duration(10*time.Minute))
	for i := range c.Upstream {
		u := &c.Upstream[i]
		def(&u.MinTLS, "1.3")
		def(&u.DialTimeout, duration(5*time.Second))
		def(&u.Echo, duration(time.Minute))
		def(&u.TID, "KEYD0001")
		def(&u.MID, "KEYD00000000001")
		def(&u.FailBack, duration(time.Minute))
		def(&u.Silence, 5)
	}
	for i := range c.Sink {
		c.Sink[i].fillDefaults()
	}
	c.Vault.fillDefaults()
	def(&c.Log.Level, "info")
}

// def sets *v to d where it is zero.
func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}
