//! Encryption: policies, protocols, certificates, disks, and what must be one machine's alone.

use crate::guest::linux::certificates::{self, Found};
use crate::guest::linux::time::day;
use crate::guest::windows;
use crate::profile::evaluate::Asked;
use crate::profile::guest::Guest;
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::report::Evidence;

const DAY: i64 = 86_400;

/// The policy of a Red Hat system is none of the past.
pub(crate) fn policy(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let paths = ["/etc/crypto-policies/state/current", "/etc/crypto-policies/config"];
    let found = paths.into_iter().find_map(|path| {
        let text = guest.files.text(path)?;
        let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?.to_owned();
        Some((path, line))
    });
    let Some((path, policy)) = found else {
        return match guest.files.is_dir("/etc/crypto-policies") {
            true => Outcome::unknown("/etc/crypto-policies/config names no policy"),
            false => Outcome::not_applicable("the system has no crypto-policies"),
        };
    };
    let evidence = vec![Evidence::explicit(path, "policy", &*policy)];
    let upper = policy.to_ascii_uppercase();
    if upper.starts_with("LEGACY") || upper.contains(":SHA1") || upper.contains(":AD-SUPPORT-LEGACY") {
        return Outcome::fail(format!("the policy is {policy}"), evidence);
    }
    Outcome::pass(format!("the policy is {policy}"), evidence)
}

/// One place where a service says which protocols it speaks: files, the key, and how the value is read.
const PROTOCOLS: [(&str, &str); 10] = [
    ("/etc/nginx/nginx.conf", "ssl_protocols"),
    ("/etc/nginx/conf.d/*.conf", "ssl_protocols"),
    ("/etc/nginx/sites-enabled/*", "ssl_protocols"),
    ("/etc/apache2/mods-enabled/ssl.conf", "SSLProtocol"),
    ("/etc/apache2/sites-enabled/*", "SSLProtocol"),
    ("/etc/httpd/conf.d/*.conf", "SSLProtocol"),
    ("/etc/haproxy/haproxy.cfg", "ssl-default-bind-options"),
    ("/etc/postfix/main.cf", "smtpd_tls_protocols"),
    ("/etc/dovecot/conf.d/10-ssl.conf", "ssl_min_protocol"),
    ("/etc/ssl/openssl.cnf", "MinProtocol"),
];

/// Protocols of the past that a value lets in.
fn old_protocols(key: &str, value: &str) -> Vec<&'static str> {
    let lower = value.to_ascii_lowercase();
    let words: Vec<&str> = lower.split([' ', ',', '=', ';', ':']).filter(|word| !word.is_empty()).collect();
    let known: [(&str, &[&str]); 4] =
        [("SSL 2", &["sslv2"]), ("SSL 3", &["sslv3"]), ("TLS 1.0", &["tlsv1", "tlsv1.0"]), ("TLS 1.1", &["tlsv1.1"])];
    let excluded = |names: &[&str]| {
        names.iter().any(|name| {
            words.iter().any(|word| {
                *word == format!("-{name}")
                    || *word == format!("!{name}")
                    || *word == format!("no-{name}")
                    || (name == &"tlsv1" && (*word == "no-tlsv10" || *word == "-tlsv1"))
            })
        })
    };
    match key {
        // A least version lets in it and what is newer.
        "ssl_min_protocol" | "MinProtocol" => {
            let from = known.iter().position(|(_, names)| names.iter().any(|name| words.contains(name)));
            from.map(|from| known.iter().skip(from).map(|(name, _)| *name).collect()).unwrap_or_default()
        }
        "ssl-default-bind-options" => match words.iter().find(|word| word.starts_with("tlsv1.")) {
            Some(word) if words.contains(&"ssl-min-ver") => {
                known.iter().filter(|(_, names)| names.contains(word)).map(|(name, _)| *name).collect()
            }
            _ => known
                .iter()
                .skip(1)
                .filter(|(_, names)| !excluded(names) && !words.contains(&"no-tlsv11"))
                .map(|(name, _)| *name)
                .collect(),
        },
        _ => {
            let everything = words.contains(&"all") || words.iter().all(|word| word.starts_with(['-', '!']));
            let lets_in = |names: &&[&str]| {
                (everything && !excluded(names))
                    || names
                        .iter()
                        .any(|name| words.contains(name) || words.iter().any(|word| *word == format!("+{name}")))
            };
            // SSL 2 is in no library any more; `all` does not mean it.
            known
                .iter()
                .filter(|(name, names)| lets_in(names) && !(everything && *name == "SSL 2"))
                .map(|(name, _)| *name)
                .collect()
        }
    }
}

/// Services speak no protocol of the past.
pub(crate) fn tls_services(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for (pattern, key) in PROTOCOLS {
        let paths = if pattern.contains('*') { guest.files.glob(pattern) } else { vec![pattern.to_owned()] };
        for path in paths {
            for (at, line) in guest.files.text(&path).unwrap_or_default().lines().enumerate() {
                let line = line.split('#').next().unwrap_or_default().trim();
                let Some(rest) = line.strip_prefix(key) else { continue };
                let value = rest.trim_start_matches([' ', '\t', '=']).trim_end_matches(';').trim();
                let old = old_protocols(key, value);
                let evidence = Evidence::explicit(&*path, key, value).at_line(at.saturating_add(1));
                if old.is_empty() {
                    looked_at.push(evidence);
                } else {
                    bad.push(Bad::new(format!("{path}: {}", old.join(", ")), evidence));
                }
            }
        }
    }
    if bad.is_empty() && looked_at.is_empty() {
        return Outcome::not_applicable("no service that is known here names its protocols");
    }
    Outcome::none_of(bad, "protocols of the past are spoken", "no protocol of the past is spoken", looked_at)
}

/// Certificates hold, and with keys that do.
pub(crate) fn certificates(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let all = match guest.hives {
        Some(hives) => windows::certificates::of_machine(hives),
        None => certificates::of_services(guest.files),
    };
    if all.is_empty() {
        return Outcome::not_applicable("no service that is known here names a certificate");
    }
    let (mut bad, mut soon, mut looked_at) = (Vec::new(), Vec::new(), Vec::new());
    for Found { path, chain, .. } in all {
        let Some(first) = chain.first() else {
            looked_at.push(Evidence::explicit(&*path, "certificate", "not a certificate that is read here"));
            continue;
        };
        let ends = day(first.not_after.div_euclid(DAY)).unwrap_or_default();
        let told = format!(
            "{} {} bits, until {ends}",
            first.key,
            first.key_bits.map_or_else(|| "?".to_owned(), |bits| bits.to_string())
        );
        let evidence = Evidence::explicit(&*path, "certificate", told);
        let left = first.not_after.saturating_sub(guest.reference_time);
        let is_short = match (first.key.as_str(), first.key_bits) {
            ("rsa", Some(bits)) => bits < 2_048,
            ("ec", Some(bits)) => bits < 256,
            _ => false,
        };
        let problem = if left < 0 {
            Some(format!("has ended on {ends}"))
        } else if is_short {
            Some("has a short key".to_owned())
        } else if first.is_weakly_signed && !first.is_self_signed {
            Some("is signed over SHA-1 or MD5".to_owned())
        } else {
            None
        };
        match problem {
            Some(problem) => bad.push(Bad::new(format!("{path} {problem}"), evidence)),
            None if left < 30 * DAY => soon.push(Bad::new(format!("{path} ends on {ends}"), evidence)),
            None => looked_at.push(evidence),
        }
    }
    if bad.is_empty() && !soon.is_empty() {
        return Outcome::none_of(soon, "certificates that end within 30 days", "", looked_at).softened();
    }
    Outcome::none_of(bad, "certificates that do not hold", "every certificate holds", looked_at)
}

/// What is on the disk is encrypted on the disk.
pub(crate) fn disk_encryption(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let devices = guest.disk.devices();
    let encrypted: Vec<_> = devices
        .iter()
        .filter(|device| device.probe.as_ref().is_some_and(|probe| matches!(probe.kind, "crypto_LUKS" | "BitLocker")))
        .map(|device| {
            Evidence::metadata(&*device.name, "encryption", device.probe.as_ref().map_or("", |probe| probe.kind))
        })
        .collect();
    let root = &guest.root.device;
    let through = root.starts_with("/dev/mapper/")
        && guest.system.storage.as_ref().is_some_and(|storage| !storage.crypttab.is_empty());
    if !encrypted.is_empty()
        && (through
            || guest.is_windows()
            || root.starts_with("/dev/mapper/")
            || root.contains("luks")
            || root.contains("dm-"))
    {
        return Outcome::pass("the system lies on an encrypted volume", encrypted);
    }
    if !encrypted.is_empty() {
        return Outcome::warn("a volume is encrypted, but not the system's own", encrypted);
    }
    let looked = vec![Evidence::absent(&**root, "LUKS, BitLocker")];
    Outcome::fail("nothing on the disk is encrypted; what the storage below does is not seen here", looked)
}

/// What must be one machine's alone: two machines of one template must not share it.
pub(crate) fn random_seed(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let mut kept = Vec::new();
    let id = guest.files.first_line("/etc/machine-id").filter(|id| id != "uninitialized");
    if let Some(id) = id {
        let start = id.get(..8).unwrap_or(&id).to_owned();
        kept.push(Bad::new(
            "/etc/machine-id",
            Evidence::explicit("/etc/machine-id", "machine id", format!("{start}…")),
        ));
    }
    for path in ["/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed", "/var/lib/NetworkManager/secret_key"] {
        if let Some(metadata) = guest.files.stat(path).filter(|metadata| metadata.size > 0) {
            kept.push(Bad::new(path, super::ssh::stat(path, &metadata)));
        }
    }
    for path in guest.files.glob("/etc/ssh/ssh_host_*_key") {
        let metadata = guest.files.stat(&path);
        kept.extend(metadata.map(|metadata| Bad::new(&*path, super::ssh::stat(&path, &metadata))));
    }
    let looked_at = vec![Evidence::absent("/etc/machine-id", "machine id, seeds, host keys")];
    Outcome::none_of(kept, "a copy of this disk would share", "a copy of this disk shares nothing secret", looked_at)
        .softened()
}
