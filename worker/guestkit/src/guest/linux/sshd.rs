//! The effective configuration of an OpenSSH server: what `sshd -T` would print for the files of the guest. Source:
//! sshd_config(5) of OpenSSH 9.2; the observed behaviour of its `-T`.
//!
//! The first value of a keyword wins; a `Match all` block overrides; every other `Match` block is only listed, because it
//! depends on a connection. Compiled-in algorithm lists differ between builds: they are told for the build whose lists are
//! known here, and otherwise left out.

use std::collections::BTreeMap;

use crate::guest::report::{Package, SshServer, SshSetting};

use super::files::Files;
use super::pattern;

/// Where the server starts to read.
const MAIN: &str = "/etc/ssh/sshd_config";
/// Includes inside includes that sshd follows (SERVCONF_MAX_DEPTH).
const INCLUDE_DEPTH_MAX: usize = 16;
/// Files of one configuration: drop-ins are tens.
const FILES_MAX: usize = 1_000;

/// Values of one keyword: sshd itself takes 256 ports, host keys and subsystems; lists of users are longer.
const VALUES_MAX: usize = 4_096;
/// Ports and subsystems (MAX_PORTS, MAX_SUBSYSTEMS of sshd).
const LINES_MAX: usize = 256;
/// Errors told of one configuration, and blocks listed: one error keeps the server from starting.
const TOLD_MAX: usize = 100;

/// How the arguments of a keyword are read and printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `yes` or `no`.
    Flag,
    /// One of a fixed set; the printed form follows the accepted one.
    Choice(&'static [(&'static str, &'static str)]),
    /// A number.
    Number,
    /// A number in octal.
    Octal,
    /// Seconds, in the units of sshd_config(5), "TIME FORMATS".
    Time,
    /// The first argument as it stands.
    Word,
    /// All arguments as they stand.
    Words,
    /// The rest of the line as it stands.
    Rest,
    /// An upper-case name.
    Upper,
    /// A comma-separated list that `+`, `-` and `^` derive from the default.
    Algorithms,
    /// Every argument is an entry; lines add up.
    Entries,
    /// Lines add up; each is one entry.
    Lines,
    MaxStartups,
    RekeyLimit,
    IpQos,
    /// Accepted and ignored.
    Deprecated,
}

const YES_NO: &[(&str, &str)] = &[("yes", "yes"), ("true", "yes"), ("no", "no"), ("false", "no")];
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

/// The keywords: name, kind, and the default that `sshd -T` prints where it is the same in all builds since 8.7.
const KEYWORDS: [(&str, Kind, Option<&str>); 93] = [
    ("acceptenv", Kind::Entries, None),
    ("addressfamily", Kind::Choice(FAMILY), Some("any")),
    ("allowagentforwarding", Kind::Flag, Some("yes")),
    ("allowgroups", Kind::Entries, None),
    ("allowstreamlocalforwarding", Kind::Choice(FORWARDING), Some("yes")),
    ("allowtcpforwarding", Kind::Choice(FORWARDING), Some("yes")),
    ("allowusers", Kind::Entries, None),
    ("authenticationmethods", Kind::Words, Some("any")),
    ("authorizedkeyscommand", Kind::Rest, Some("none")),
    ("authorizedkeyscommanduser", Kind::Word, Some("none")),
    ("authorizedkeysfile", Kind::Words, Some(".ssh/authorized_keys .ssh/authorized_keys2")),
    ("authorizedprincipalscommand", Kind::Rest, Some("none")),
    ("authorizedprincipalscommanduser", Kind::Word, Some("none")),
    ("authorizedprincipalsfile", Kind::Word, Some("none")),
    ("banner", Kind::Word, Some("none")),
    ("casignaturealgorithms", Kind::Algorithms, None),
    ("channeltimeout", Kind::Words, None),
    ("checkmail", Kind::Deprecated, None),
    ("chrootdirectory", Kind::Word, Some("none")),
    ("ciphers", Kind::Algorithms, None),
    ("clientalivecountmax", Kind::Number, Some("3")),
    ("clientaliveinterval", Kind::Time, Some("0")),
    ("compression", Kind::Choice(COMPRESSION), Some("yes")),
    ("denygroups", Kind::Entries, None),
    ("denyusers", Kind::Entries, None),
    ("disableforwarding", Kind::Flag, Some("no")),
    ("exposeauthinfo", Kind::Flag, Some("no")),
    ("fingerprinthash", Kind::Upper, Some("SHA256")),
    ("forcecommand", Kind::Rest, Some("none")),
    ("gatewayports", Kind::Choice(GATEWAY), Some("no")),
    ("gssapiauthentication", Kind::Flag, Some("no")),
    ("gssapicleanupcredentials", Kind::Flag, None),
    ("gssapienablek5users", Kind::Flag, None),
    ("gssapikexalgorithms", Kind::Word, None),
    ("gssapikeyexchange", Kind::Flag, None),
    ("gssapistorecredentialsonrekey", Kind::Flag, None),
    ("gssapistrictacceptorcheck", Kind::Flag, None),
    ("hostbasedacceptedalgorithms", Kind::Algorithms, None),
    ("hostbasedauthentication", Kind::Flag, Some("no")),
    ("hostbasedusesnamefrompacketonly", Kind::Flag, Some("no")),
    ("hostcertificate", Kind::Lines, None),
    ("hostkey", Kind::Lines, None),
    ("hostkeyagent", Kind::Word, Some("none")),
    ("hostkeyalgorithms", Kind::Algorithms, None),
    ("ignorerhosts", Kind::Choice(RHOSTS), Some("yes")),
    ("ignoreuserknownhosts", Kind::Flag, Some("no")),
    ("ipqos", Kind::IpQos, None),
    ("kbdinteractiveauthentication", Kind::Flag, Some("yes")),
    ("kerberosauthentication", Kind::Flag, Some("no")),
    ("kerberosgetafstoken", Kind::Flag, None),
    ("kerberosorlocalpasswd", Kind::Flag, Some("yes")),
    ("kerberosticketcleanup", Kind::Flag, Some("yes")),
    ("kerberosusekuserok", Kind::Flag, None),
    ("kexalgorithms", Kind::Algorithms, None),
    ("keyregenerationinterval", Kind::Deprecated, None),
    ("listenaddress", Kind::Lines, None),
    ("logingracetime", Kind::Time, Some("120")),
    ("loglevel", Kind::Upper, Some("INFO")),
    ("logverbose", Kind::Words, None),
    ("macs", Kind::Algorithms, None),
    ("maxauthtries", Kind::Number, Some("6")),
    ("maxsessions", Kind::Number, Some("10")),
    ("maxstartups", Kind::MaxStartups, Some("10:30:100")),
    ("modulifile", Kind::Word, None),
    ("passwordauthentication", Kind::Flag, Some("yes")),
    ("permitemptypasswords", Kind::Flag, Some("no")),
    ("permitlisten", Kind::Words, Some("any")),
    ("permitopen", Kind::Words, Some("any")),
    ("permitrootlogin", Kind::Choice(ROOT_LOGIN), Some("without-password")),
    ("permittty", Kind::Flag, Some("yes")),
    ("permittunnel", Kind::Choice(TUNNEL), Some("no")),
    ("permituserenvironment", Kind::Word, Some("no")),
    ("permituserrc", Kind::Flag, Some("yes")),
    ("persourcemaxstartups", Kind::Word, None),
    ("persourcenetblocksize", Kind::Word, None),
    ("persourcepenalties", Kind::Words, None),
    ("pidfile", Kind::Word, None),
    ("port", Kind::Lines, None),
    ("printlastlog", Kind::Flag, Some("yes")),
    ("printmotd", Kind::Flag, Some("yes")),
    ("protocol", Kind::Deprecated, None),
    ("pubkeyacceptedalgorithms", Kind::Algorithms, None),
    ("pubkeyauthentication", Kind::Flag, Some("yes")),
    ("pubkeyauthoptions", Kind::Words, Some("none")),
    ("rdomain", Kind::Word, None),
    ("rekeylimit", Kind::RekeyLimit, Some("0 0")),
    ("requiredrsasize", Kind::Number, None),
    ("revokedkeys", Kind::Word, Some("none")),
    ("securitykeyprovider", Kind::Word, None),
    ("serverkeybits", Kind::Deprecated, None),
    ("setenv", Kind::Entries, None),
    ("streamlocalbindmask", Kind::Octal, Some("0177")),
    ("streamlocalbindunlink", Kind::Flag, Some("no")),
];

/// More keywords; one table would only be longer.
const FURTHER_KEYWORDS: [(&str, Kind, Option<&str>); 33] = [
    ("strictmodes", Kind::Flag, Some("yes")),
    ("subsystem", Kind::Lines, None),
    ("syslogfacility", Kind::Upper, Some("AUTH")),
    ("tcpkeepalive", Kind::Flag, Some("yes")),
    ("trustedusercakeys", Kind::Word, Some("none")),
    ("unusedconnectiontimeout", Kind::Time, None),
    ("usedns", Kind::Flag, Some("no")),
    ("usepam", Kind::Flag, Some("no")),
    ("versionaddendum", Kind::Rest, Some("none")),
    ("x11displayoffset", Kind::Number, Some("10")),
    ("x11forwarding", Kind::Flag, Some("no")),
    ("x11uselocalhost", Kind::Flag, Some("yes")),
    ("xauthlocation", Kind::Word, None),
    ("debianbanner", Kind::Flag, None),
    ("sshdsessionpath", Kind::Word, None),
    ("sshdauthpath", Kind::Word, None),
    ("refuseconnection", Kind::Flag, None),
    ("pamservicename", Kind::Word, None),
    ("persourcepenaltyexemptlist", Kind::Word, None),
    ("uselogin", Kind::Deprecated, None),
    ("useprivilegeseparation", Kind::Deprecated, None),
    ("rsaauthentication", Kind::Deprecated, None),
    ("rhostsrsaauthentication", Kind::Deprecated, None),
    ("rhostsauthentication", Kind::Deprecated, None),
    ("afstokenpassing", Kind::Deprecated, None),
    ("kerberostgtpassing", Kind::Deprecated, None),
    ("verifyreversemapping", Kind::Deprecated, None),
    ("reversemappingcheck", Kind::Deprecated, None),
    ("pamauthenticationviakbdint", Kind::Deprecated, None),
    ("authorizedkeysfile2", Kind::Deprecated, None),
    ("showpatchlevel", Kind::Deprecated, None),
    ("gssusesessionccache", Kind::Deprecated, None),
    ("gssapiusesessioncredcache", Kind::Deprecated, None),
];

/// Old names of keywords.
const RENAMED: [(&str, &str); 9] = [
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

/// Keywords that sshd refuses inside Match blocks stop the server; UsePAM is the one that people write there.
const NEVER_IN_MATCH: [&str; 7] = ["usepam", "port", "listenaddress", "hostkey", "maxstartups", "ciphers", "macs"];

/// Public key algorithms of 9.2, with and without certificates.
const KEY_ALGORITHMS: &str = "ssh-ed25519-cert-v01@openssh.com,ecdsa-sha2-nistp256-cert-v01@openssh.com,\
ecdsa-sha2-nistp384-cert-v01@openssh.com,ecdsa-sha2-nistp521-cert-v01@openssh.com,sk-ssh-ed25519-cert-v01@openssh.com,\
sk-ecdsa-sha2-nistp256-cert-v01@openssh.com,rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256-cert-v01@openssh.com,\
ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,sk-ssh-ed25519@openssh.com,\
sk-ecdsa-sha2-nistp256@openssh.com,rsa-sha2-512,rsa-sha2-256";

/// What `sshd -T` of Debian 11, 12 and 13 prints for an empty configuration, beyond the keyword table.
const DEBIAN: [(&str, &str); 9] = [
    ("gssapicleanupcredentials", "yes"),
    (
        "gssapikexalgorithms",
        "gss-group14-sha256-,gss-group16-sha512-,gss-nistp256-sha256-,gss-curve25519-sha256-,\
gss-group14-sha1-,gss-gex-sha1-",
    ),
    ("gssapikeyexchange", "no"),
    ("gssapistorecredentialsonrekey", "no"),
    ("gssapistrictacceptorcheck", "yes"),
    (
        "macs",
        "umac-64-etm@openssh.com,umac-128-etm@openssh.com,hmac-sha2-256-etm@openssh.com,\
hmac-sha2-512-etm@openssh.com,hmac-sha1-etm@openssh.com,umac-64@openssh.com,umac-128@openssh.com,\
hmac-sha2-256,hmac-sha2-512,hmac-sha1",
    ),
    ("pidfile", "/run/sshd.pid"),
    ("securitykeyprovider", "internal"),
    ("xauthlocation", "/usr/bin/xauth"),
];
/// The same of Debian 11 and 12 alone.
const DEBIAN_BEFORE_10: [(&str, &str); 2] = [
    (
        "ciphers",
        "chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr,aes128-gcm@openssh.com,\
aes256-gcm@openssh.com",
    ),
    ("ipqos", "lowdelay throughput"),
];
/// The same of Debian 12 and 13 alone.
const DEBIAN_SINCE_9: [(&str, &str); 9] = [
    ("modulifile", "/etc/ssh/moduli"),
    ("persourcemaxstartups", "none"),
    ("persourcenetblocksize", "32:128"),
    ("requiredrsasize", "1024"),
    ("unusedconnectiontimeout", "none"),
    (
        "casignaturealgorithms",
        "ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,sk-ssh-ed25519@openssh.com,\
sk-ecdsa-sha2-nistp256@openssh.com,rsa-sha2-512,rsa-sha2-256",
    ),
    ("hostbasedacceptedalgorithms", KEY_ALGORITHMS),
    ("hostkeyalgorithms", KEY_ALGORITHMS),
    ("pubkeyacceptedalgorithms", KEY_ALGORITHMS),
];
/// The same of Debian 11 (8.4p1) alone, under the names of today.
const DEBIAN_8_4: [(&str, &str); 5] = [
    (
        "casignaturealgorithms",
        "ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,sk-ecdsa-sha2-nistp256@openssh.com,\
ssh-ed25519,sk-ssh-ed25519@openssh.com,rsa-sha2-512,rsa-sha2-256",
    ),
    (
        "kexalgorithms",
        "curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,\
ecdh-sha2-nistp521,diffie-hellman-group-exchange-sha256,diffie-hellman-group16-sha512,\
diffie-hellman-group18-sha512,diffie-hellman-group14-sha256",
    ),
    ("hostbasedacceptedalgorithms", KEY_ALGORITHMS_8_4),
    ("hostkeyalgorithms", KEY_ALGORITHMS_8_4),
    ("pubkeyacceptedalgorithms", KEY_ALGORITHMS_8_4),
];
/// The same of Debian 12 (9.2p1) alone, security updates included.
const DEBIAN_9_2: [(&str, &str); 1] = [(
    "kexalgorithms",
    "sntrup761x25519-sha512,sntrup761x25519-sha512@openssh.com,curve25519-sha256,\
curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,\
diffie-hellman-group-exchange-sha256,diffie-hellman-group16-sha512,diffie-hellman-group18-sha512,\
diffie-hellman-group14-sha256",
)];
/// The same of Debian 13 (10.0p1) alone.
const DEBIAN_10_0: [(&str, &str); 11] = [
    ("channeltimeout", "none"),
    (
        "ciphers",
        "chacha20-poly1305@openssh.com,aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes192-ctr,\
aes256-ctr",
    ),
    ("debianbanner", "yes"),
    ("ipqos", "ef cs1"),
    (
        "kexalgorithms",
        "mlkem768x25519-sha256,sntrup761x25519-sha512,sntrup761x25519-sha512@openssh.com,curve25519-sha256,\
curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521",
    ),
    ("pamservicename", "sshd"),
    (
        "persourcepenalties",
        "\
crash:90 authfail:5 noauth:1 grace-exceeded:10 refuseconnection:10 max:600 min:15 max-sources4:65536 max-sources6:65536 overflow:permissive overflow6:permissive",
    ),
    ("persourcepenaltyexemptlist", "none"),
    ("refuseconnection", "no"),
    ("sshdauthpath", "/usr/lib/openssh/sshd-auth"),
    ("sshdsessionpath", "/usr/lib/openssh/sshd-session"),
];
/// Debian 11's public key algorithms.
const KEY_ALGORITHMS_8_4: &str = "ecdsa-sha2-nistp256-cert-v01@openssh.com,ecdsa-sha2-nistp384-cert-v01@openssh.com,\
ecdsa-sha2-nistp521-cert-v01@openssh.com,sk-ecdsa-sha2-nistp256-cert-v01@openssh.com,\
ssh-ed25519-cert-v01@openssh.com,sk-ssh-ed25519-cert-v01@openssh.com,\
rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256-cert-v01@openssh.com,ssh-rsa-cert-v01@openssh.com,\
ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,sk-ecdsa-sha2-nistp256@openssh.com,\
ssh-ed25519,sk-ssh-ed25519@openssh.com,rsa-sha2-512,rsa-sha2-256,ssh-rsa";

/// The server's effective configuration; `None` where there is none.
pub(crate) fn inspect(files: &Files<'_>, packages: &[Package]) -> Option<SshServer> {
    if !files.exists(MAIN) && !files.exists("/usr/sbin/sshd") {
        return None;
    }
    let version = installed_version(packages);
    let mut parser = Parser::new(files, compiled_defaults(version.as_deref()));
    parser.include(MAIN, Block::Global, 0);
    let settings = if parser.errors.is_empty() { parser.settings() } else { Vec::new() };
    Some(SshServer {
        enabled: None,
        version,
        settings,
        match_blocks: parser.match_blocks,
        errors: parser.errors,
        sources: parser.sources,
    })
}

/// Where accounts keep their keys, as `AuthorizedKeysFile` says.
pub(crate) fn authorized_keys_files(files: &Files<'_>) -> Vec<String> {
    let mut parser = Parser::new(files, &[]);
    parser.include(MAIN, Block::Global, 0);
    let found = parser.values.get("authorizedkeysfile").and_then(|values| values.first());
    let text = found.map_or(".ssh/authorized_keys .ssh/authorized_keys2", |(value, _)| value.as_str());
    text.split_whitespace().filter(|word| *word != "none").map(str::to_owned).collect()
}

fn installed_version(packages: &[Package]) -> Option<String> {
    let names = ["openssh-server", "openssh"];
    let found = packages.iter().find(|package| names.contains(&package.name.as_str()) && package.state == "installed");
    found.map(|package| package.full_version.clone())
}

/// The defaults of one build, part by part.
type Compiled = &'static [&'static [(&'static str, &'static str)]];

fn compiled_defaults(version: Option<&str>) -> Compiled {
    match version {
        Some(version) if version.contains("8.4p1-") && version.contains("+deb11") => {
            &[&DEBIAN, &DEBIAN_BEFORE_10, &DEBIAN_8_4]
        }
        Some(version) if version.contains("9.2p1-") && version.contains("+deb12") => {
            &[&DEBIAN, &DEBIAN_BEFORE_10, &DEBIAN_SINCE_9, &DEBIAN_9_2]
        }
        Some(version) if version.contains("10.0p1-") => &[&DEBIAN, &DEBIAN_SINCE_9, &DEBIAN_10_0],
        _ => &[],
    }
}

/// Whether lines of the current block count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Global,
    /// `Match all`: overrides what is global.
    All,
    /// A block that depends on the connection.
    Conditional,
}

struct Parser<'a, 'b> {
    files: &'a Files<'b>,
    compiled: Compiled,
    values: BTreeMap<&'static str, Vec<(String, String)>>,
    overrides: BTreeMap<&'static str, Vec<(String, String)>>,
    match_blocks: Vec<String>,
    errors: Vec<String>,
    sources: Vec<String>,
    includes: usize,
}

impl<'a, 'b> Parser<'a, 'b> {
    fn new(files: &'a Files<'b>, compiled: Compiled) -> Self {
        Self {
            files,
            compiled,
            values: BTreeMap::new(),
            overrides: BTreeMap::new(),
            match_blocks: Vec::new(),
            errors: Vec::new(),
            sources: Vec::new(),
            includes: 0,
        }
    }

    /// Reads one file; a Match block that it opens ends with it.
    fn include(&mut self, path: &str, outer: Block, depth: usize) {
        if depth > INCLUDE_DEPTH_MAX || self.sources.len() >= FILES_MAX {
            self.errors.push(format!("{path}: includes go too deep"));
            return;
        }
        let Some(text) = self.files.text(path) else { return };
        self.sources.push(path.to_owned());
        let mut block = outer;
        for (index, line) in text.lines().enumerate() {
            let source = format!("{path}:{}", index + 1);
            if self.errors.len() >= TOLD_MAX {
                return;
            }
            let Some((keyword, rest)) = keyword(line) else { continue };
            match keyword.as_str() {
                "match" => block = self.open_match(rest, outer),
                "include" => {
                    for pattern in arguments(rest).into_iter().take(LINES_MAX) {
                        self.includes += 1;
                        if self.includes > FILES_MAX {
                            self.errors.push(format!("{source}: more than {FILES_MAX} includes"));
                            return;
                        }
                        let pattern = if pattern.starts_with('/') { pattern } else { format!("/etc/ssh/{pattern}") };
                        for path in self.files.glob(&pattern) {
                            self.include(&path, block, depth + 1);
                        }
                    }
                }
                _ => self.setting(&keyword, rest, block, &source),
            }
        }
    }

    fn open_match(&mut self, criteria: &str, outer: Block) -> Block {
        let words = arguments(criteria);
        if self.match_blocks.len() < VALUES_MAX {
            self.match_blocks.push(words.join(" "));
        }
        let is_all = matches!(words.as_slice(), [all] if all.eq_ignore_ascii_case("all"));
        // A block inside a file that a conditional block includes never matches by itself.
        if is_all && outer != Block::Conditional { Block::All } else { Block::Conditional }
    }

    fn setting(&mut self, keyword: &str, rest: &str, block: Block, source: &str) {
        let name = RENAMED.iter().find(|(old, _)| *old == keyword).map_or(keyword, |(_, new)| new);
        let Some((name, kind, _)) = keywords().find(|(known, ..)| *known == name) else {
            self.errors.push(format!("{source}: bad configuration option {keyword}"));
            return;
        };
        if *kind == Kind::Deprecated {
            return;
        }
        if block != Block::Global && NEVER_IN_MATCH.contains(name) {
            self.errors.push(format!("{source}: {name} is not allowed within a Match block"));
            return;
        }
        let values = match self.read(name, *kind, rest) {
            Ok(values) => values,
            Err(why) => {
                self.errors.push(format!("{source}: {name}: {why}"));
                return;
            }
        };
        let table = match block {
            Block::Global => &mut self.values,
            Block::All => &mut self.overrides,
            Block::Conditional => return,
        };
        let known = table.entry(name).or_default();
        // Of SetEnv, unlike AcceptEnv, the first line counts.
        let adds_up = matches!(kind, Kind::Entries | Kind::Lines) && *name != "setenv";
        // Of the subsystems of one name the first counts.
        let is_repeated_subsystem = *name == "subsystem"
            && values.iter().any(|value| known.iter().any(|(other, _)| first_word(other) == first_word(value)));
        let bound = if *kind == Kind::Lines { LINES_MAX } else { VALUES_MAX };
        if known.len().saturating_add(values.len()) > bound {
            self.errors.push(format!("{source}: {name}: more than {bound} values"));
            return;
        }
        if (adds_up || known.is_empty()) && !is_repeated_subsystem {
            known.extend(values.into_iter().map(|value| (value, source.to_owned())));
        }
    }

    /// The printed form of a keyword's arguments.
    fn read(&self, name: &str, kind: Kind, rest: &str) -> Result<Vec<String>, String> {
        let words = arguments(rest);
        let first = words.first().cloned().ok_or("missing argument")?;
        let bad = || format!("unsupported option \"{first}\"");
        let one = |value: String| Ok(vec![value]);
        if words.len() > 1 && takes_one(kind) {
            return Err("extra arguments at end of line".to_owned());
        }
        match kind {
            Kind::Flag => one(choose(YES_NO, &first).ok_or_else(bad)?),
            Kind::Choice(choices) => one(choose(choices, &first).ok_or_else(bad)?),
            Kind::Number => one(first.parse::<u32>().map_err(|_| bad())?.to_string()),
            Kind::Octal => one(u32::from_str_radix(&first, 8).map(|mask| format!("0{mask:o}")).map_err(|_| bad())?),
            Kind::Time if first == "none" => one(first),
            Kind::Time => one(seconds(&first).ok_or_else(bad)?.to_string()),
            Kind::Word => one(first),
            Kind::Words if name == "pubkeyauthoptions" && !words.iter().all(|word| is_key_option(word)) => Err(bad()),
            Kind::Words if name == "permitlisten" => {
                // A port alone is one on every address.
                let is_port = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
                let shown = words.iter().map(|word| if is_port(word) { format!("*:{word}") } else { word.clone() });
                one(shown.collect::<Vec<_>>().join(" "))
            }
            Kind::Words => one(words.join(" ")),
            Kind::Rest => one(rest.trim().trim_matches('"').to_owned()),
            Kind::Upper => one(match first.to_ascii_uppercase().as_str() {
                // Two names of one level; the table of levels prints the first.
                "QUIET" if name == "loglevel" => "SILENT".to_owned(),
                "DEBUG1" if name == "loglevel" => "DEBUG".to_owned(),
                upper => upper.to_owned(),
            }),
            Kind::Algorithms => one(self.algorithms(name, &first)),
            Kind::Entries => Ok(words),
            Kind::Lines if name == "port" => one(first.parse::<u16>().map_err(|_| bad())?.to_string()),
            Kind::Lines if name == "subsystem" || name == "listenaddress" => one(words.join(" ")),
            Kind::Lines => one(first),
            Kind::MaxStartups => one(max_startups(&first).ok_or_else(bad)?),
            Kind::RekeyLimit => one(rekey_limit(&words).ok_or_else(bad)?),
            Kind::IpQos => {
                let [interactive, bulk] = [&first, words.get(1).unwrap_or(&first)].map(|word| self.quality(word));
                one(format!("{interactive} {bulk}"))
            }
            Kind::Deprecated => Ok(Vec::new()),
        }
    }

    fn compiled_default(&self, name: &str) -> Option<&'static str> {
        let found = self.compiled.iter().copied().flatten().find(|(known, _)| *known == name);
        found.map(|(_, value)| *value)
    }

    /// A class of service. Builds whose default is a DSCP class take the type-of-service names of old as `none`.
    fn quality(&self, word: &str) -> String {
        let number = match word.strip_prefix("0x") {
            Some(hexadecimal) => u8::from_str_radix(hexadecimal, 16).ok(),
            None => word.parse().ok(),
        };
        let known = number.and_then(|number| QUALITIES.iter().find(|(_, value)| *value == number));
        let word = known.map_or(word, |(name, _)| *name);
        let is_old = ["lowdelay", "throughput", "reliability"].iter().any(|old| old.eq_ignore_ascii_case(word));
        let takes_old = self.compiled_default("ipqos").is_none_or(|default| default.starts_with("lowdelay"));
        if is_old && !takes_old { "none".to_owned() } else { word.to_ascii_lowercase() }
    }

    /// Derives a list from the compiled one; where that is not known, the list stands as written.
    fn algorithms(&self, name: &str, text: &str) -> String {
        let default = self.compiled_default(name);
        let Some(default) = default else { return text.to_owned() };
        let operands = |rest: &str| rest.split(',').map(str::to_owned).collect::<Vec<_>>();
        let mut list: Vec<String> = default.split(',').map(str::to_owned).collect();
        if let Some(rest) = text.strip_prefix('-') {
            let patterns = operands(rest);
            list.retain(|name| !patterns.iter().any(|pattern| pattern::matches(pattern, name)));
        } else if let Some(rest) = text.strip_prefix('+') {
            for name in operands(rest) {
                if !list.contains(&name) {
                    list.push(name);
                }
            }
        } else if let Some(rest) = text.strip_prefix('^') {
            let head = operands(rest);
            list.retain(|name| !head.contains(name));
            list.splice(0..0, head);
        } else {
            return text.to_owned();
        }
        list.join(",")
    }

    /// Everything that holds, in order of key.
    fn settings(&mut self) -> Vec<SshSetting> {
        for (name, values) in std::mem::take(&mut self.overrides) {
            self.values.insert(name, values);
        }
        let compiled = self.compiled.iter().copied().flatten().copied();
        let defaults = keywords().filter_map(|(name, _, default)| Some((*name, (*default)?))).chain(compiled);
        for (name, value) in defaults.chain([("port", "22")]) {
            self.values.entry(name).or_insert_with(|| vec![(value.to_owned(), "default".to_owned())]);
        }
        self.default_host_keys();
        self.listen_addresses();
        let entries = self.values.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        entries
            .map(|(name, (value, source))| SshSetting {
                key: (*name).to_owned(),
                value: value.clone(),
                source: source.clone(),
            })
            .collect()
    }

    fn default_host_keys(&mut self) {
        let keys = ["rsa", "ecdsa", "ed25519"].map(|kind| format!("/etc/ssh/ssh_host_{kind}_key"));
        let defaults = || keys.into_iter().map(|path| (path, "default".to_owned())).collect();
        self.values.entry("hostkey").or_insert_with(defaults);
    }

    /// Addresses with the ports that stand beside them.
    fn listen_addresses(&mut self) {
        let ports: Vec<String> = self.values.get("port").into_iter().flatten().map(|(port, _)| port.clone()).collect();
        let family = self.values.get("addressfamily").and_then(|values| values.first()).map(|(value, _)| value.clone());
        let addresses = match self.values.get("listenaddress") {
            Some(explicit) => explicit.clone(),
            None => {
                let both = [("[::]", "inet"), ("0.0.0.0", "inet6")];
                let wanted = both.iter().filter(|(_, other)| family.as_deref() != Some(*other));
                wanted.map(|(address, _)| ((*address).to_owned(), "default".to_owned())).collect()
            }
        };
        let mut found = Vec::new();
        for (address, source) in addresses {
            let with_port = |port: &String| (with_port(&address, port), source.clone());
            found.extend(ports.iter().map(with_port));
        }
        found.dedup();
        self.values.insert("listenaddress", found);
    }
}

fn keywords() -> impl Iterator<Item = &'static (&'static str, Kind, Option<&'static str>)> {
    KEYWORDS.iter().chain(&FURTHER_KEYWORDS)
}

/// `192.0.2.1` becomes `192.0.2.1:22`; an address with a port keeps it; IPv6 stands in brackets.
fn with_port(address: &str, port: &str) -> String {
    let colons = address.matches(':').count();
    if address.starts_with('[') {
        return if address.ends_with(']') { format!("{address}:{port}") } else { address.to_owned() };
    }
    match colons {
        0 => format!("{address}:{port}"),
        1 => address.to_owned(),
        _ => format!("[{address}]:{port}"),
    }
}

/// Whether anything behind the first argument is an error.
fn takes_one(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Flag
            | Kind::Choice(_)
            | Kind::Number
            | Kind::Octal
            | Kind::Time
            | Kind::Word
            | Kind::Upper
            | Kind::Algorithms
            | Kind::MaxStartups
    )
}

fn is_key_option(word: &str) -> bool {
    ["none", "touch-required", "verify-required"].iter().any(|known| known.eq_ignore_ascii_case(word))
}

/// Classes of service and their numbers, as sshd_config(5), "IPQoS", names them (RFC 2474, RFC 2597, RFC 3246, RFC 1349).
const QUALITIES: [(&str, u8); 24] = [
    ("af11", 0x28),
    ("af12", 0x30),
    ("af13", 0x38),
    ("af21", 0x48),
    ("af22", 0x50),
    ("af23", 0x58),
    ("af31", 0x68),
    ("af32", 0x70),
    ("af33", 0x78),
    ("af41", 0x88),
    ("af42", 0x90),
    ("af43", 0x98),
    ("cs0", 0x00),
    ("cs1", 0x20),
    ("cs2", 0x40),
    ("cs3", 0x60),
    ("cs4", 0x80),
    ("cs5", 0xa0),
    ("cs6", 0xc0),
    ("cs7", 0xe0),
    ("ef", 0xb8),
    ("lowdelay", 0x10),
    ("throughput", 0x08),
    ("reliability", 0x04),
];

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

/// The keyword in lower case, and the rest of the line behind white space and one optional `=`.
fn keyword(line: &str) -> Option<(String, &str)> {
    let line = line.trim_matches(|c: char| c.is_whitespace() || c == '\u{c}');
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
    let (word, rest) = line.split_at_checked(end)?;
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    Some((word.trim_matches('"').to_ascii_lowercase(), rest))
}

/// The arguments: words apart by white space, quotes taken off; a `#` at the start of a word begins a comment.
fn arguments(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut characters = text.chars().peekable();
    loop {
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        match characters.peek() {
            None | Some('#') => return words,
            Some(_) => {}
        }
        let (mut word, mut quote) = (String::new(), None);
        while let Some(character) = characters.next_if(|c| quote.is_some() || !c.is_whitespace()) {
            match (quote, character) {
                (None, '"' | '\'') => quote = Some(character),
                (Some(open), _) if open == character => quote = None,
                (_, '\\') if matches!(characters.peek(), Some('"' | '\'' | '\\')) => word.extend(characters.next()),
                _ => word.push(character),
            }
        }
        words.push(word);
    }
}

fn choose(choices: &[(&str, &str)], word: &str) -> Option<String> {
    choices.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, printed)| (*printed).to_owned())
}

/// `1h30m` in seconds.
fn seconds(text: &str) -> Option<u64> {
    let mut total = 0_u64;
    let mut number: Option<u64> = None;
    for character in text.chars() {
        if let Some(digit) = character.to_digit(10) {
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(u64::from(digit))?);
            continue;
        }
        let unit = match character.to_ascii_lowercase() {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    total.checked_add(number.unwrap_or(0))
}

/// `start:rate:full`, or one number for both ends.
fn max_startups(text: &str) -> Option<String> {
    let numbers: Vec<u32> = text.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    match numbers.as_slice() {
        [start] => Some(format!("{start}:30:{start}")),
        [start, rate, full] if start <= full && (1..=100).contains(rate) => Some(format!("{start}:{rate}:{full}")),
        _ => None,
    }
}

/// Bytes and seconds.
fn rekey_limit(words: &[String]) -> Option<String> {
    let bytes = match words.first()?.as_str() {
        "default" => 0,
        text => {
            let unit = match text.chars().last()?.to_ascii_lowercase() {
                'k' => 1_u64 << 10,
                'm' => 1 << 20,
                'g' => 1 << 30,
                _ => 1,
            };
            text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).parse::<u64>().ok()?.checked_mul(unit)?
        }
    };
    let time = match words.get(1).map(String::as_str) {
        None | Some("none") => 0,
        Some(text) => seconds(text)?,
    };
    Some(format!("{bytes} {time}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::guest::linux::fixture::{Fixture, tree_of};

    fn debian() -> Vec<Package> {
        let package = Package {
            name: "openssh-server".to_owned(),
            state: "installed".to_owned(),
            full_version: "1:9.2p1-2+deb12u10".to_owned(),
            ..Package::default()
        };
        vec![package]
    }

    /// `sshd -T` of OpenSSH 9.2p1-2+deb12u10 printed `sshd-T.txt` for each tree: what is told here must be there, and
    /// everything that a tree changes must be told.
    #[test]
    fn settings_agree_with_sshd_on_its_own_configuration_trees() {
        let Some(corpus) = std::env::var_os("GUESTKIT_CORPUS") else {
            assert!(std::env::var_os("CI").is_none(), "GUESTKIT_CORPUS must be set");
            println!("corpus not present");
            return;
        };
        let cases = Path::new(&corpus).join("profile/sshd-cases");
        let default = std::fs::read_to_string(cases.join("01-default/sshd-T.txt")).unwrap();
        let default: BTreeSet<_> = default.lines().collect();
        let mut checked = 0;
        for case in std::fs::read_dir(cases).unwrap() {
            let case = case.unwrap().path();
            let truth = std::fs::read_to_string(case.join("sshd-T.txt")).unwrap_or_default();
            let refused = std::fs::read_to_string(case.join("sshd-T.err")).unwrap().contains("rc=255");
            let tree = tree_of(&case);
            let found = inspect(&Files::new(&tree), &debian()).unwrap();
            assert_eq!(!found.errors.is_empty(), refused, "{}: {:?}", case.display(), found.errors);
            if refused {
                continue;
            }
            let truth: BTreeSet<_> = truth.lines().collect();
            let told: BTreeSet<_> =
                found.settings.iter().map(|setting| format!("{} {}", setting.key, setting.value)).collect();
            for line in &told {
                assert!(truth.contains(line.as_str()), "{}: sshd does not say {line:?}", case.display());
            }
            for line in truth.difference(&default) {
                assert!(told.contains(*line), "{}: {line:?} is missing", case.display());
            }
            checked += 1;
        }
        assert!(checked > 15);
    }

    #[test]
    fn odd_spellings_are_read_as_sshd_reads_them() {
        let fixture = Fixture::new();
        fixture.file("etc/ssh/sshd_config", "PORT=2222\nPort 22 # both\nListenAddress ::1\nListenAddress 10.0.0.1:5\nLoginGraceTime 1m30s\nPermitRootLogin no\nPermitRootLogin yes\n");
        let tree = fixture.tree();
        let found = inspect(&Files::new(&tree), &[]).unwrap();
        let values =
            |key: &str| found.settings.iter().filter(|s| s.key == key).map(|s| s.value.as_str()).collect::<Vec<_>>();
        assert_eq!(values("port"), ["2222", "22"]);
        assert_eq!(values("listenaddress"), ["[::1]:2222", "[::1]:22", "10.0.0.1:5"]);
        assert_eq!(values("logingracetime"), ["90"]);
        assert_eq!(values("permitrootlogin"), ["no"]);
        assert!(values("ciphers").is_empty(), "an unknown build's lists are not told");
    }

    /// As `sshd -T` of 9.2p1-2+deb12u10 printed for these lines, or refused them.
    #[test]
    fn arguments_are_judged_as_sshd_does() {
        let cases = [
            ("IPQoS 0x10", Some("ipqos lowdelay lowdelay")),
            ("IPQoS AF21 cs1", Some("ipqos af21 cs1")),
            ("PermitListen 8080 localhost:9", Some("permitlisten *:8080 localhost:9")),
            ("SetEnv X=1\nSetEnv Y=2", Some("setenv X=1")),
            ("RekeyLimit default 1h", Some("rekeylimit 0 3600")),
            ("RekeyLimit none", None),
            ("PubkeyAuthOptions touch-required,verify-required", None),
            ("PasswordAuthentication no yes", None),
        ];
        for (text, expected) in cases {
            let fixture = Fixture::new();
            fixture.file("etc/ssh/sshd_config", text);
            let tree = fixture.tree();
            let found = inspect(&Files::new(&tree), &debian()).unwrap();
            let key = expected.unwrap_or_default().split(' ').next().unwrap_or_default();
            let told: Vec<_> = found.settings.iter().filter(|setting| setting.key == key).collect();
            let told: Vec<_> = told.iter().map(|setting| format!("{key} {}", setting.value)).collect();
            assert_eq!(told.first().map(String::as_str), expected, "{text}: {:?}", found.errors);
            assert!(told.len() <= 1 && found.errors.is_empty() == expected.is_some(), "{text}: {told:?}");
        }
    }

    /// As `sshd -T` of 8.4p1-5+deb11u3 and of 10.0p1-7+deb13u4 printed for these lines.
    #[test]
    fn lists_are_derived_from_those_of_the_build() {
        let fixture = Fixture::new();
        fixture.file("etc/ssh/sshd_config", "Ciphers +aes128-cbc\nMACs -*sha1*\nIPQoS lowdelay throughput\nKexAlgorithms ^diffie-hellman-group14-sha256\n");
        let tree = fixture.tree();
        let tell = |version: &str, key: &str| {
            let mut packages = debian();
            packages[0].full_version = version.to_owned();
            let found = inspect(&Files::new(&tree), &packages).unwrap();
            found.settings.into_iter().find(|setting| setting.key == key).map(|setting| setting.value)
        };
        let macs = "umac-64-etm@openssh.com,umac-128-etm@openssh.com,hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,umac-64@openssh.com,umac-128@openssh.com,hmac-sha2-256,hmac-sha2-512";
        let cases = [
            (
                "1:8.4p1-5+deb11u3",
                "ciphers",
                "chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr,aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-cbc",
            ),
            ("1:8.4p1-5+deb11u3", "ipqos", "lowdelay throughput"),
            ("1:8.4p1-5+deb11u3", "macs", macs),
            (
                "1:10.0p1-7+deb13u4",
                "ciphers",
                "chacha20-poly1305@openssh.com,aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr,aes128-cbc",
            ),
            ("1:10.0p1-7+deb13u4", "ipqos", "none none"),
            ("1:10.0p1-7+deb13u4", "macs", macs),
            (
                "1:10.0p1-7+deb13u4",
                "kexalgorithms",
                "diffie-hellman-group14-sha256,mlkem768x25519-sha256,sntrup761x25519-sha512,sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521",
            ),
        ];
        for (version, key, expected) in cases {
            assert_eq!(tell(version, key).as_deref(), Some(expected), "{version} {key}");
        }
    }

    #[test]
    fn hostile_configurations_end() {
        let fixture = Fixture::new();
        fixture.file(
            "etc/ssh/sshd_config",
            "Include /etc/ssh/sshd_config\n= = =\n\"\nMatch\nPort 99999\nClientAliveInterval 99999999999999999999d\n",
        );
        let tree = fixture.tree();
        assert!(!inspect(&Files::new(&tree), &[]).unwrap().errors.is_empty());
    }
}
