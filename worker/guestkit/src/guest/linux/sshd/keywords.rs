//! What each keyword of sshd_config takes, and what holds where it is not written. Source: sshd_config(5) of OpenSSH 9.2; what `sshd -T`
//! of Debian 12 printed or refused.

/// How the arguments of a keyword are read and printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `yes` or `no`.
    Flag,
    /// One of a fixed set in any case; the printed form follows the accepted one.
    Choice(&'static [(&'static str, &'static str)]),
    /// One of a fixed set as it is written here.
    ExactChoice(&'static [(&'static str, &'static str)]),
    /// A number from 0 to 2^31 - 1.
    Number,
    /// Permissions in octal.
    Octal,
    /// Seconds, in the units of sshd_config(5), "TIME FORMATS".
    Time,
    /// The same, or `none`, which is no time.
    TimeOrNone,
    /// The first argument as it stands.
    Word,
    /// The first argument; `none` in any case is none.
    Path,
    /// All arguments as they stand.
    Words,
    /// The rest of the line as it stands, or `none`.
    Rest,
    /// The same, of which the first is an absolute path.
    Command,
    /// A comma-separated list that `+`, `-` and `^` derive from the default.
    Algorithms(List),
    /// Names of GSSAPI key exchanges, without operators.
    GssExchanges,
    /// Names of environment variables; lines add up.
    Names,
    /// Environment variables with their values.
    Variables,
    /// Patterns of users and groups; lines add up.
    Accounts,
    /// Lists of methods that all must succeed.
    Methods,
    /// Addresses and ports of forwardings.
    Forwards,
    /// The same, where a port alone is one on every address.
    Listens,
    /// Types of channels and the times after which they end.
    Channels,
    KeyOptions,
    /// Lines add up; each is one path.
    Paths,
    Port,
    ListenAddress,
    Subsystem,
    MaxStartups,
    SourceStartups,
    SourceNetwork,
    RekeyLimit,
    IpQos,
    /// Systems without routing domains refuse it; Linux has none.
    RoutingDomain,
    /// Accepted and ignored.
    Ignored,
}

/// Which names a list of algorithms holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Ciphers,
    Macs,
    KeyExchanges,
    /// Public keys, whose names may be patterns.
    Keys,
    /// The same without certificates.
    Signatures,
}

/// `yes` and `no`.
pub(super) const YES_NO: &[(&str, &str)] = &[("yes", "yes"), ("no", "no")];
const ROOT_LOGIN: &[(&str, &str)] = &[
    ("without-password", "without-password"),
    ("prohibit-password", "without-password"),
    ("forced-commands-only", "forced-commands-only"),
    ("yes", "yes"),
    ("no", "no"),
];
const FORWARDING: &[(&str, &str)] =
    &[("yes", "yes"), ("all", "yes"), ("no", "no"), ("remote", "remote"), ("local", "local")];
const COMPRESSION: &[(&str, &str)] = &[("yes", "yes"), ("delayed", "yes"), ("no", "no")];
const GATEWAY: &[(&str, &str)] = &[("clientspecified", "clientspecified"), ("yes", "yes"), ("no", "no")];
const RHOSTS: &[(&str, &str)] = &[("yes", "yes"), ("no", "no"), ("shosts-only", "shosts-only")];
const TUNNEL: &[(&str, &str)] =
    &[("point-to-point", "point-to-point"), ("ethernet", "ethernet"), ("yes", "yes"), ("no", "no")];
const FAMILY: &[(&str, &str)] = &[("inet", "inet"), ("inet6", "inet6"), ("any", "any")];

/// Of two names of one level the first in its own table is printed.
const LEVELS: &[(&str, &str)] = &[
    ("QUIET", "SILENT"),
    ("SILENT", "SILENT"),
    ("FATAL", "FATAL"),
    ("ERROR", "ERROR"),
    ("INFO", "INFO"),
    ("VERBOSE", "VERBOSE"),
    ("DEBUG", "DEBUG"),
    ("DEBUG1", "DEBUG"),
    ("DEBUG2", "DEBUG2"),
    ("DEBUG3", "DEBUG3"),
];
const FACILITIES: &[(&str, &str)] = &[
    ("DAEMON", "DAEMON"),
    ("USER", "USER"),
    ("AUTH", "AUTH"),
    ("AUTHPRIV", "AUTHPRIV"),
    ("LOCAL0", "LOCAL0"),
    ("LOCAL1", "LOCAL1"),
    ("LOCAL2", "LOCAL2"),
    ("LOCAL3", "LOCAL3"),
    ("LOCAL4", "LOCAL4"),
    ("LOCAL5", "LOCAL5"),
    ("LOCAL6", "LOCAL6"),
    ("LOCAL7", "LOCAL7"),
];
const DIGESTS: &[(&str, &str)] =
    &[("MD5", "MD5"), ("SHA1", "SHA1"), ("SHA256", "SHA256"), ("SHA384", "SHA384"), ("SHA512", "SHA512")];

/// The keywords: name, kind, and the default that `sshd -T` prints where it is the same in all builds since 8.7.
const KEYWORDS: [(&str, Kind, Option<&str>); 93] = [
    ("acceptenv", Kind::Names, None),
    ("addressfamily", Kind::Choice(FAMILY), Some("any")),
    ("allowagentforwarding", Kind::Flag, Some("yes")),
    ("allowgroups", Kind::Accounts, None),
    ("allowstreamlocalforwarding", Kind::Choice(FORWARDING), Some("yes")),
    ("allowtcpforwarding", Kind::Choice(FORWARDING), Some("yes")),
    ("allowusers", Kind::Accounts, None),
    ("authenticationmethods", Kind::Methods, Some("any")),
    ("authorizedkeyscommand", Kind::Command, Some("none")),
    ("authorizedkeyscommanduser", Kind::Word, Some("none")),
    ("authorizedkeysfile", Kind::Words, Some(".ssh/authorized_keys .ssh/authorized_keys2")),
    ("authorizedprincipalscommand", Kind::Command, Some("none")),
    ("authorizedprincipalscommanduser", Kind::Word, Some("none")),
    ("authorizedprincipalsfile", Kind::Path, Some("none")),
    ("banner", Kind::Path, Some("none")),
    ("casignaturealgorithms", Kind::Algorithms(List::Signatures), None),
    ("channeltimeout", Kind::Channels, None),
    ("checkmail", Kind::Ignored, None),
    ("chrootdirectory", Kind::Path, Some("none")),
    ("ciphers", Kind::Algorithms(List::Ciphers), None),
    ("clientalivecountmax", Kind::Number, Some("3")),
    ("clientaliveinterval", Kind::Time, Some("0")),
    ("compression", Kind::Choice(COMPRESSION), Some("yes")),
    ("denygroups", Kind::Accounts, None),
    ("denyusers", Kind::Accounts, None),
    ("disableforwarding", Kind::Flag, Some("no")),
    ("exposeauthinfo", Kind::Flag, Some("no")),
    ("fingerprinthash", Kind::Choice(DIGESTS), Some("SHA256")),
    ("forcecommand", Kind::Rest, Some("none")),
    ("gatewayports", Kind::Choice(GATEWAY), Some("no")),
    ("gssapiauthentication", Kind::Flag, Some("no")),
    ("gssapicleanupcredentials", Kind::Flag, None),
    ("gssapienablek5users", Kind::Flag, None),
    ("gssapikexalgorithms", Kind::GssExchanges, None),
    ("gssapikeyexchange", Kind::Flag, None),
    ("gssapistorecredentialsonrekey", Kind::Flag, None),
    ("gssapistrictacceptorcheck", Kind::Flag, None),
    ("hostbasedacceptedalgorithms", Kind::Algorithms(List::Keys), None),
    ("hostbasedauthentication", Kind::Flag, Some("no")),
    ("hostbasedusesnamefrompacketonly", Kind::Flag, Some("no")),
    ("hostcertificate", Kind::Paths, None),
    ("hostkey", Kind::Paths, None),
    ("hostkeyagent", Kind::Path, Some("none")),
    ("hostkeyalgorithms", Kind::Algorithms(List::Keys), None),
    ("ignorerhosts", Kind::Choice(RHOSTS), Some("yes")),
    ("ignoreuserknownhosts", Kind::Flag, Some("no")),
    ("ipqos", Kind::IpQos, None),
    ("kbdinteractiveauthentication", Kind::Flag, Some("yes")),
    ("kerberosauthentication", Kind::Flag, Some("no")),
    ("kerberosgetafstoken", Kind::Ignored, None),
    ("kerberosorlocalpasswd", Kind::Flag, Some("yes")),
    ("kerberosticketcleanup", Kind::Flag, Some("yes")),
    ("kerberosusekuserok", Kind::Flag, None),
    ("kexalgorithms", Kind::Algorithms(List::KeyExchanges), None),
    ("keyregenerationinterval", Kind::Ignored, None),
    ("listenaddress", Kind::ListenAddress, None),
    ("logingracetime", Kind::Time, Some("120")),
    ("loglevel", Kind::Choice(LEVELS), Some("INFO")),
    ("logverbose", Kind::Words, None),
    ("macs", Kind::Algorithms(List::Macs), None),
    ("maxauthtries", Kind::Number, Some("6")),
    ("maxsessions", Kind::Number, Some("10")),
    ("maxstartups", Kind::MaxStartups, Some("10:30:100")),
    ("modulifile", Kind::Path, None),
    ("passwordauthentication", Kind::Flag, Some("yes")),
    ("permitemptypasswords", Kind::Flag, Some("no")),
    ("permitlisten", Kind::Listens, Some("any")),
    ("permitopen", Kind::Forwards, Some("any")),
    ("permitrootlogin", Kind::Choice(ROOT_LOGIN), Some("without-password")),
    ("permittty", Kind::Flag, Some("yes")),
    ("permittunnel", Kind::ExactChoice(TUNNEL), Some("no")),
    ("permituserenvironment", Kind::Word, Some("no")),
    ("permituserrc", Kind::Flag, Some("yes")),
    ("persourcemaxstartups", Kind::SourceStartups, None),
    ("persourcenetblocksize", Kind::SourceNetwork, None),
    ("persourcepenalties", Kind::Words, None),
    ("pidfile", Kind::Path, None),
    ("port", Kind::Port, None),
    ("printlastlog", Kind::Flag, Some("yes")),
    ("printmotd", Kind::Flag, Some("yes")),
    ("protocol", Kind::Ignored, None),
    ("pubkeyacceptedalgorithms", Kind::Algorithms(List::Keys), None),
    ("pubkeyauthentication", Kind::Flag, Some("yes")),
    ("pubkeyauthoptions", Kind::KeyOptions, Some("none")),
    ("rdomain", Kind::RoutingDomain, None),
    ("rekeylimit", Kind::RekeyLimit, Some("0 0")),
    ("requiredrsasize", Kind::Number, None),
    ("revokedkeys", Kind::Path, Some("none")),
    ("securitykeyprovider", Kind::Path, None),
    ("serverkeybits", Kind::Ignored, None),
    ("setenv", Kind::Variables, None),
    ("streamlocalbindmask", Kind::Octal, Some("0177")),
    ("streamlocalbindunlink", Kind::Flag, Some("no")),
];

/// More keywords; one table would only be longer.
const FURTHER_KEYWORDS: [(&str, Kind, Option<&str>); 34] = [
    ("strictmodes", Kind::Flag, Some("yes")),
    ("subsystem", Kind::Subsystem, None),
    ("syslogfacility", Kind::Choice(FACILITIES), Some("AUTH")),
    ("tcpkeepalive", Kind::Flag, Some("yes")),
    ("trustedusercakeys", Kind::Path, Some("none")),
    ("unusedconnectiontimeout", Kind::TimeOrNone, None),
    ("usedns", Kind::Flag, Some("no")),
    ("usepam", Kind::Flag, Some("no")),
    ("versionaddendum", Kind::Rest, Some("none")),
    ("x11displayoffset", Kind::Number, Some("10")),
    ("x11forwarding", Kind::Flag, Some("no")),
    ("x11uselocalhost", Kind::Flag, Some("yes")),
    ("xauthlocation", Kind::Path, None),
    ("debianbanner", Kind::Flag, None),
    ("sshdsessionpath", Kind::Word, None),
    ("sshdauthpath", Kind::Word, None),
    ("refuseconnection", Kind::Flag, None),
    ("pamservicename", Kind::Word, None),
    ("persourcepenaltyexemptlist", Kind::Word, None),
    ("uselogin", Kind::Ignored, None),
    ("useprivilegeseparation", Kind::Ignored, None),
    ("rsaauthentication", Kind::Ignored, None),
    ("rhostsrsaauthentication", Kind::Ignored, None),
    ("rhostsauthentication", Kind::Ignored, None),
    ("afstokenpassing", Kind::Ignored, None),
    ("permitblacklistedkeys", Kind::Ignored, None),
    ("kerberostgtpassing", Kind::Ignored, None),
    ("verifyreversemapping", Kind::Ignored, None),
    ("reversemappingcheck", Kind::Ignored, None),
    ("pamauthenticationviakbdint", Kind::Ignored, None),
    ("authorizedkeysfile2", Kind::Ignored, None),
    ("showpatchlevel", Kind::Ignored, None),
    ("gssusesessionccache", Kind::Ignored, None),
    ("gssapiusesessioncredcache", Kind::Ignored, None),
];

/// Old names of keywords.
pub(super) const RENAMED: [(&str, &str); 9] = [
    ("challengeresponseauthentication", "kbdinteractiveauthentication"),
    ("skeyauthentication", "kbdinteractiveauthentication"),
    ("dsaauthentication", "pubkeyauthentication"),
    ("hostdsakey", "hostkey"),
    ("keepalive", "tcpkeepalive"),
    ("pubkeyacceptedkeytypes", "pubkeyacceptedalgorithms"),
    ("hostbasedacceptedkeytypes", "hostbasedacceptedalgorithms"),
    ("hostbasedkeytypes", "hostbasedacceptedalgorithms"),
    ("gssapicleanupcreds", "gssapicleanupcredentials"),
];

/// What a Match block may not hold, as it is written: Debian 12's `sshd -T` refused each of these there. Subsystems may since 9.5.
pub(super) const GLOBAL_ONLY: [&str; 63] = [
    "addressfamily",
    "afstokenpassing",
    "checkmail",
    "ciphers",
    "compression",
    "debianbanner",
    "dsaauthentication",
    "fingerprinthash",
    "gssapicleanupcredentials",
    "gssapicleanupcreds",
    "gssapikexalgorithms",
    "gssapikeyexchange",
    "gssapistorecredentialsonrekey",
    "gssapistrictacceptorcheck",
    "gssapiusesessioncredcache",
    "gssusesessionccache",
    "hostcertificate",
    "hostdsakey",
    "hostkey",
    "hostkeyagent",
    "hostkeyalgorithms",
    "ignoreuserknownhosts",
    "keepalive",
    "kerberosgetafstoken",
    "kerberosorlocalpasswd",
    "kerberostgtpassing",
    "kerberosticketcleanup",
    "kexalgorithms",
    "keyregenerationinterval",
    "listenaddress",
    "logingracetime",
    "macs",
    "maxstartups",
    "modulifile",
    "pamauthenticationviakbdint",
    "permitblacklistedkeys",
    "permituserenvironment",
    "persourcemaxstartups",
    "persourcenetblocksize",
    "persourcepenalties",
    "persourcepenaltyexemptlist",
    "pidfile",
    "port",
    "printlastlog",
    "printmotd",
    "protocol",
    "reversemappingcheck",
    "rhostsauthentication",
    "securitykeyprovider",
    "serverkeybits",
    "sshdauthpath",
    "sshdsessionpath",
    "strictmodes",
    "subsystem",
    "syslogfacility",
    "tcpkeepalive",
    "usedns",
    "uselogin",
    "usepam",
    "useprivilegeseparation",
    "verifyreversemapping",
    "versionaddendum",
    "xauthlocation",
];

/// Every keyword.
pub(super) fn keywords() -> impl Iterator<Item = &'static (&'static str, Kind, Option<&'static str>)> {
    KEYWORDS.iter().chain(&FURTHER_KEYWORDS)
}
