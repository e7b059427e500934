//! What is compiled into one build: its default lists, the names that it knows, and how a configuration derives its own lists from
//! them. Source: `sshd -T` of an empty configuration and `ssh -Q` of Debian's packages; ssh_config(5), "PATTERNS".

use super::keywords::List;
use crate::guest::linux::pattern;

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

/// Ciphers of all three.
const CIPHERS: &str = "3des-cbc,aes128-cbc,aes192-cbc,aes256-cbc,aes128-ctr,aes192-ctr,aes256-ctr,aes128-gcm@openssh.com,\
aes256-gcm@openssh.com,chacha20-poly1305@openssh.com";
/// Message authentication codes of all three.
const MACS: &str = "hmac-sha1,hmac-sha1-96,hmac-sha2-256,hmac-sha2-512,hmac-md5,hmac-md5-96,umac-64@openssh.com,umac-128@openssh.com,\
hmac-sha1-etm@openssh.com,hmac-sha1-96-etm@openssh.com,hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,\
hmac-md5-etm@openssh.com,hmac-md5-96-etm@openssh.com,umac-64-etm@openssh.com,umac-128-etm@openssh.com";
/// Key exchanges of 9.2; older and newer builds have others besides.
const KEY_EXCHANGES: &str = "diffie-hellman-group1-sha1,diffie-hellman-group14-sha1,diffie-hellman-group14-sha256,\
diffie-hellman-group16-sha512,diffie-hellman-group18-sha512,diffie-hellman-group-exchange-sha1,\
diffie-hellman-group-exchange-sha256,ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,curve25519-sha256,\
curve25519-sha256@libssh.org,sntrup761x25519-sha512,sntrup761x25519-sha512@openssh.com";
/// Public keys of 9.2 in the order in which patterns meet them; the last version with `ssh-dss` is 9.9.
const KEYS: &str = "ssh-ed25519,ssh-ed25519-cert-v01@openssh.com,sk-ssh-ed25519@openssh.com,sk-ssh-ed25519-cert-v01@openssh.com,\
ecdsa-sha2-nistp256,ecdsa-sha2-nistp256-cert-v01@openssh.com,ecdsa-sha2-nistp384,ecdsa-sha2-nistp384-cert-v01@openssh.com,\
ecdsa-sha2-nistp521,ecdsa-sha2-nistp521-cert-v01@openssh.com,sk-ecdsa-sha2-nistp256@openssh.com,\
sk-ecdsa-sha2-nistp256-cert-v01@openssh.com,webauthn-sk-ecdsa-sha2-nistp256@openssh.com,ssh-dss,ssh-dss-cert-v01@openssh.com,\
ssh-rsa,ssh-rsa-cert-v01@openssh.com,rsa-sha2-256,rsa-sha2-256-cert-v01@openssh.com,rsa-sha2-512,\
rsa-sha2-512-cert-v01@openssh.com";
/// GSSAPI key exchanges of Debian's.
const GSS_EXCHANGES: [&str; 7] = [
    "gss-gex-sha1-",
    "gss-group1-sha1-",
    "gss-group14-sha1-",
    "gss-group14-sha256-",
    "gss-group16-sha512-",
    "gss-nistp256-sha256-",
    "gss-curve25519-sha256-",
];

/// Keywords of Red Hat's builds alone.
const RED_HAT_ONLY: [&str; 2] = ["gssapienablek5users", "kerberosusekuserok"];
/// Keywords that came after 9.2.
const SINCE_9_8: [&str; 6] = [
    "pamservicename",
    "persourcepenalties",
    "persourcepenaltyexemptlist",
    "refuseconnection",
    "sshdauthpath",
    "sshdsessionpath",
];
/// Keywords that came after 8.4.
const SINCE_8_5: [&str; 9] = [
    "channeltimeout",
    "hostbasedacceptedalgorithms",
    "logverbose",
    "modulifile",
    "persourcemaxstartups",
    "persourcenetblocksize",
    "pubkeyacceptedalgorithms",
    "requiredrsasize",
    "unusedconnectiontimeout",
];

/// What is known of the server's build.
#[derive(Debug, Clone, Copy)]
pub(super) struct Build {
    /// What it prints where nothing is written, part by part; nothing where the build is not known.
    defaults: &'static [&'static [(&'static str, &'static str)]],
    /// Keywords that it refuses.
    lacks: &'static [&'static [&'static str]],
    /// Key exchanges that 9.2 does not have.
    key_exchanges: &'static str,
    has_dsa: bool,
    /// Whether a Match block may hold subsystems, and take the place of one of the same name.
    pub(super) has_matched_subsystems: bool,
}

/// A build of which nothing is known.
pub(super) const UNKNOWN: Build =
    Build { defaults: &[], lacks: &[], key_exchanges: "", has_dsa: true, has_matched_subsystems: true };

impl Build {
    /// The build of a package's version.
    pub(super) fn of(version: Option<&str>) -> Self {
        match version {
            Some(version) if version.contains("8.4p1-") && version.contains("+deb11") => Self {
                defaults: &[&DEBIAN, &DEBIAN_BEFORE_10, &DEBIAN_8_4],
                lacks: &[&RED_HAT_ONLY, &SINCE_9_8, &SINCE_8_5],
                key_exchanges: "sntrup4591761x25519-sha512@tinyssh.org",
                has_dsa: true,
                has_matched_subsystems: false,
            },
            Some(version) if version.contains("9.2p1-") && version.contains("+deb12") => Self {
                defaults: &[&DEBIAN, &DEBIAN_BEFORE_10, &DEBIAN_SINCE_9, &DEBIAN_9_2],
                lacks: &[&RED_HAT_ONLY, &SINCE_9_8],
                key_exchanges: "",
                has_dsa: true,
                has_matched_subsystems: false,
            },
            Some(version) if version.contains("10.0p1-") => Self {
                defaults: &[&DEBIAN, &DEBIAN_SINCE_9, &DEBIAN_10_0],
                lacks: &[&RED_HAT_ONLY],
                key_exchanges: "mlkem768x25519-sha256",
                has_dsa: false,
                has_matched_subsystems: true,
            },
            _ => UNKNOWN,
        }
    }

    /// Whether its defaults are known.
    pub(super) const fn is_known(&self) -> bool {
        !self.defaults.is_empty()
    }

    /// Whether it refuses a keyword that other builds know.
    pub(super) fn lacks(&self, keyword: &str) -> bool {
        self.lacks.iter().any(|part| part.contains(&keyword))
    }

    /// Whether a Match block may hold `keyword`, as it is written.
    pub(super) fn may_be_matched(&self, keyword: &str) -> bool {
        !super::keywords::GLOBAL_ONLY.contains(&keyword) || (keyword == "subsystem" && self.has_matched_subsystems)
    }

    /// What it prints where nothing is written.
    pub(super) fn defaults(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.defaults.iter().copied().flatten().copied()
    }

    pub(super) fn default_of(&self, name: &str) -> Option<&'static str> {
        self.defaults().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Names that lists of this kind may hold, in the order in which patterns meet them.
    fn known(&self, list: List) -> Vec<&'static str> {
        let (names, further) = match list {
            List::Ciphers => (CIPHERS, ""),
            List::Macs => (MACS, ""),
            List::KeyExchanges => (KEY_EXCHANGES, self.key_exchanges),
            List::Keys | List::Signatures => (KEYS, ""),
        };
        let all = names.split(',').chain(further.split(',').filter(|name| !name.is_empty()));
        let is_certificate = |name: &str| name.ends_with("-cert-v01@openssh.com");
        all.filter(|name| self.has_dsa || !name.starts_with("ssh-dss"))
            .filter(|name| list != List::Signatures || !is_certificate(name))
            .collect()
    }

    /// The list that `text` makes of the default: as it stands where the build is not known.
    ///
    /// # Errors
    /// What the server refuses.
    pub(super) fn algorithms(&self, name: &str, list: List, text: &str) -> Result<String, String> {
        let Some(default) = self.default_of(name) else { return Ok(text.to_owned()) };
        let (operator, operands) = match text.chars().next() {
            Some(operator @ ('+' | '-' | '^')) => (Some(operator), text.get(1..).unwrap_or_default()),
            _ => (None, text),
        };
        let known = self.known(list);
        let default = || default.split(',').map(str::to_owned).collect::<Vec<_>>();
        if operator == Some('-') {
            let mut kept = default();
            let patterns: Vec<_> = operands.split(',').collect();
            kept.retain(|name| !patterns.iter().any(|pattern| pattern::matches(pattern, name)));
            // Nothing is left: then the default holds.
            return Ok(if kept.is_empty() { default() } else { kept }.join(","));
        }
        let operands: Vec<_> = operands.split(',').collect();
        // What may stand in a list of signatures is any key; those that cannot sign are left out.
        let are_keys = matches!(list, List::Keys | List::Signatures);
        let allowed = if are_keys { self.known(List::Keys) } else { known.clone() };
        for operand in &operands {
            let is_known =
                allowed.contains(operand) || (are_keys && allowed.iter().any(|name| pattern::matches(operand, name)));
            if !is_known {
                return Err(format!("{operand:?} is no algorithm of this build"));
            }
        }
        let mut patterns: Vec<String> = operands.into_iter().map(str::to_owned).collect();
        match operator {
            Some('+') => patterns.splice(0..0, default()).for_each(drop),
            Some(_) => patterns.extend(default()),
            None => {}
        }
        let mut names: Vec<&str> = Vec::new();
        for pattern in &patterns {
            let met = known.iter().filter(|name| pattern::matches(pattern, name));
            let new: Vec<_> = met.filter(|name| !names.contains(name)).collect();
            names.extend(new);
        }
        if names.is_empty() { Err("no algorithm is left".to_owned()) } else { Ok(names.join(",")) }
    }

    /// Whether each of these is a GSSAPI key exchange; any name is where the build is not known.
    pub(super) fn has_gss_exchanges(&self, text: &str) -> bool {
        !self.is_known() || text.split(',').all(|name| GSS_EXCHANGES.contains(&name))
    }
}
