//! The SSH server. The configuration is what `sshd -T` would print; see `guest/linux/sshd.rs`.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::filesystem::Metadata;
use crate::profile::evaluate::Asked;
use crate::profile::facts::{self, Missing, split_line};
use crate::profile::guest::Guest;
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::report::Evidence;
use crate::profile::rule::Severity;

const CONFIG: &str = "/etc/ssh/sshd_config";

/// The effective value of a keyword and where it comes from; the outcome to give where there is none.
fn effective(guest: &Guest<'_>, keyword: &str) -> Result<(String, Evidence), Outcome> {
    match facts::sshd(guest, keyword) {
        Ok(fact) => {
            let evidence = fact.evidence.into_iter().next().unwrap_or_default();
            match fact.value.as_ref().and_then(|value| value.as_str()) {
                Some(value) => Ok((value.to_owned(), evidence)),
                None => Err(Outcome::unknown(format!("the default of {keyword} in this build of sshd is not known"))),
            }
        }
        Err(Missing::NotApplicable(why)) => Err(Outcome::not_applicable(why)),
        Err(Missing::Unknown(why)) => Err(Outcome::unknown(why)),
    }
}

/// Metadata as evidence.
pub(super) fn stat(path: &str, metadata: &Metadata) -> Evidence {
    let value = format!("{:04o} {}:{}", metadata.mode & 0o7777, metadata.uid, metadata.gid);
    Evidence::metadata(path, "mode owner:group", value)
}

/// Whether root may log in, and how: `no` is what CIS asks for; keys alone are a warning.
pub(crate) fn root_login(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let (value, evidence) = match effective(guest, "PermitRootLogin") {
        Ok(found) => found,
        Err(outcome) => return outcome,
    };
    let mut all = vec![evidence];
    all.extend(match_overrides(guest, "permitrootlogin"));
    match value.as_str() {
        "no" => Outcome::pass("root cannot log in", all),
        refused if refused.contains("unsupported") || refused.contains("argument") => {
            Outcome::fail(format!("PermitRootLogin is refused: {refused}"), all)
        }
        "yes" => {
            let outcome = Outcome::fail("root may log in with a password", all);
            if usable_root_password(guest).is_some() { outcome.with_severity(Severity::Critical) } else { outcome }
        }
        other => {
            Outcome::warn(format!("root may log in without a password ({other})"), all).with_severity(Severity::Medium)
        }
    }
}

/// `Match` blocks that name `keyword`, as evidence: they hold for some connections.
fn match_overrides(guest: &Guest<'_>, keyword: &str) -> Vec<Evidence> {
    let blocks = guest.ssh().map(|server| server.match_blocks.as_slice()).unwrap_or_default();
    let naming = blocks.iter().filter(|block| block.to_ascii_lowercase().contains(keyword));
    naming.map(|block| Evidence::explicit(CONFIG, "Match", block)).collect()
}

/// The name of an account of user id 0 that a password opens: `(name, evidence)`.
fn usable_root_password(guest: &Guest<'_>) -> Option<(String, Evidence)> {
    let user =
        guest.users().iter().find(|user| user.uid == 0 && matches!(user.password_state.as_str(), "set" | "empty"))?;
    let state = if user.password_state == "empty" { "empty" } else { "set" };
    Some((user.name.clone(), Evidence::explicit("/etc/shadow", &*user.name, format!("password {state}"))))
}

/// Root, or whoever has its user id, with a password over the network.
pub(crate) fn root_login_combination(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let (root_login, password) = match (effective(guest, "PermitRootLogin"), effective(guest, "PasswordAuthentication"))
    {
        (Ok(root_login), Ok(password)) => (root_login, password),
        (Err(outcome), _) | (_, Err(outcome)) => return outcome,
    };
    if root_login.0 != "yes" {
        return Outcome::pass("root cannot log in with a password", vec![root_login.1]);
    }
    if password.0 != "yes" {
        return Outcome::pass("passwords are not accepted", vec![password.1]);
    }
    match usable_root_password(guest) {
        None => {
            let evidence = vec![root_login.1, Evidence::explicit("/etc/shadow", "root", "no usable password")];
            Outcome::pass("no account of user id 0 has a password", evidence)
        }
        Some((name, evidence)) => {
            let reason = format!("{name}, of user id 0, may log in over the network with a password");
            Outcome::fail(reason, vec![root_login.1, password.1, evidence]).with_subjects([name])
        }
    }
}

/// `start:rate:full`: the share of connections that is refused once `start` of them wait, and the number from which all are;
/// a higher share is stricter. Source: sshd_config(5).
pub(crate) fn max_startups(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let (value, evidence) = match effective(guest, "MaxStartups") {
        Ok(found) => found,
        Err(outcome) => return outcome,
    };
    let numbers: Vec<u32> = value.split(':').filter_map(|part| part.parse().ok()).collect();
    let holds = match numbers.as_slice() {
        [start, rate, full] => *start <= 10 && *rate >= 30 && *full <= 60,
        _ => false,
    };
    if holds {
        Outcome::pass(format!("MaxStartups is {value}"), vec![evidence])
    } else {
        Outcome::fail(format!("MaxStartups is {value}, should be 10:30:60 or stricter"), vec![evidence])
    }
}

/// An idle session ends within the limit's seconds.
pub(crate) fn idle_timeout(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let (interval, count) = match (effective(guest, "ClientAliveInterval"), effective(guest, "ClientAliveCountMax")) {
        (Ok(interval), Ok(count)) => (interval, count),
        (Err(outcome), _) | (_, Err(outcome)) => return outcome,
    };
    let limit = asked.limit_number(900);
    let evidence = vec![interval.1, count.1];
    let (seconds, times) = (interval.0.parse::<i64>().unwrap_or(0), count.0.parse::<i64>().unwrap_or(0));
    let total = seconds.saturating_mul(times);
    if seconds > 0 && times > 0 && total <= limit {
        return Outcome::pass(format!("a client that is silent is cut after {total} s"), evidence);
    }
    let reason = if seconds == 0 || times == 0 {
        "a client that is silent is never cut".to_owned()
    } else {
        format!("a client that is silent is cut only after {total} s, should be {limit}")
    };
    Outcome::fail(reason, evidence)
}

/// Seconds to log in: 1 to the limit; 0 is for ever.
pub(crate) fn login_grace_time(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let (value, evidence) = match effective(guest, "LoginGraceTime") {
        Ok(found) => found,
        Err(outcome) => return outcome,
    };
    let limit = asked.limit_number(60);
    let seconds = value.parse::<i64>().unwrap_or(0);
    if (1..=limit).contains(&seconds) {
        return Outcome::pass(format!("LoginGraceTime is {value} s"), vec![evidence]);
    }
    let told = if seconds == 0 { "is unlimited".to_owned() } else { format!("is {value} s") };
    Outcome::fail(format!("LoginGraceTime {told}, should be at most {limit} s"), vec![evidence])
}

/// Either everything at once, or each kind of forwarding by itself.
pub(crate) fn forwarding(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let all = match effective(guest, "DisableForwarding") {
        Ok(found) => found,
        Err(outcome) => return outcome,
    };
    if all.0 == "yes" {
        return match leaky_disable_forwarding(guest) {
            Some(version) => {
                let reason =
                    format!("DisableForwarding of {version} leaves X11 and agent forwarding on (CVE-2025-32728)");
                let others = ["X11Forwarding", "AllowAgentForwarding"].map(|keyword| effective(guest, keyword));
                let off = others.iter().all(|found| found.as_ref().is_ok_and(|(value, _)| value == "no"));
                if off {
                    Outcome::pass("nothing is forwarded", vec![all.1])
                } else {
                    Outcome::warn(reason, vec![all.1])
                }
            }
            None => Outcome::pass("nothing is forwarded", vec![all.1]),
        };
    }
    let mut evidence = vec![all.1];
    let mut open = Vec::new();
    for keyword in
        ["AllowTcpForwarding", "AllowAgentForwarding", "AllowStreamLocalForwarding", "X11Forwarding", "PermitTunnel"]
    {
        match effective(guest, keyword) {
            Ok((value, found)) => {
                if value != "no" {
                    open.push(keyword);
                }
                evidence.push(found);
            }
            Err(outcome) => return outcome,
        }
    }
    if open.is_empty() {
        return Outcome::pass("nothing is forwarded", evidence);
    }
    Outcome::fail(format!("forwarding is possible: {}", open.join(", ")), evidence).with_subjects(open)
}

/// The version, where `DisableForwarding` of it does not do all it says: before 10.0, unless the fix was backported.
fn leaky_disable_forwarding(guest: &Guest<'_>) -> Option<String> {
    let version = guest.ssh()?.version.clone()?;
    let upstream = version.rsplit(':').next().unwrap_or(&version);
    let major: u32 = upstream.split(['.', 'p']).next()?.parse().ok()?;
    let has_backport = version
        .split("+deb12u")
        .nth(1)
        .and_then(|update| update.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok())
        .is_some_and(|update| update >= 6);
    (major < 10 && !has_backport).then_some(version)
}

/// X11 is not forwarded.
pub(crate) fn x11_forwarding(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let x11 = effective(guest, "X11Forwarding");
    if let Ok((value, evidence)) = &x11
        && value != "no"
        && value != "yes"
    {
        return Outcome::fail(format!("X11Forwarding is refused: {value}"), vec![evidence.clone()]);
    }
    let (x11, all) = match (x11, effective(guest, "DisableForwarding")) {
        (Ok(x11), Ok(all)) => (x11, all),
        (Err(outcome), _) | (_, Err(outcome)) => return outcome,
    };
    if x11.0 == "no" {
        return Outcome::pass("X11 is not forwarded", vec![x11.1]);
    }
    if all.0 == "yes" && leaky_disable_forwarding(guest).is_none() {
        return Outcome::pass("nothing is forwarded", vec![all.1]);
    }
    Outcome::fail("X11 is forwarded", vec![x11.1, all.1])
}

/// A banner that says nothing of the system.
pub(crate) fn banner(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let (value, evidence) = match effective(guest, "Banner") {
        Ok(found) => found,
        Err(outcome) => return outcome,
    };
    if value == "none" {
        return Outcome::fail("no banner is shown before logging in", vec![evidence]);
    }
    let Some(text) = guest.files.text(&value).filter(|text| !text.trim().is_empty()) else {
        return Outcome::fail(format!("the banner {value} is not there or empty"), vec![evidence]);
    };
    let tells = ["\\m", "\\r", "\\s", "\\v"].into_iter().find(|escape| text.contains(escape));
    match tells {
        None => Outcome::pass(format!("the banner is {value}"), vec![evidence]),
        Some(escape) => Outcome::fail(format!("the banner {value} tells of the system ({escape})"), vec![evidence]),
    }
}

/// Somebody is named who may, or may not, log in.
pub(crate) fn access_list(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(server) = guest.ssh() else { return Outcome::not_applicable("no SSH server is installed") };
    let lists = ["allowusers", "allowgroups", "denyusers", "denygroups"];
    if let Some(error) =
        server.errors.iter().find(|error| lists.iter().any(|list| error.contains(&format!(" {list}: "))))
    {
        return Outcome::fail(
            format!("a list of who may log in is refused: {error}"),
            vec![Evidence::explicit(CONFIG, "error", error)],
        );
    }
    if let Some(error) = server.errors.first() {
        return Outcome::unknown(format!("the server refuses its configuration: {error}"));
    }
    let set: Vec<_> = server.settings.iter().filter(|setting| lists.contains(&setting.key.as_str())).collect();
    let evidence = set.iter().map(|setting| {
        let (path, line) = split_line(&setting.source);
        Evidence { line, ..Evidence::explicit(path, &*setting.key, &*setting.value) }
    });
    let evidence: Vec<_> = evidence.collect();
    if evidence.is_empty() {
        let looked = lists.map(|key| Evidence::absent(CONFIG, key)).to_vec();
        return Outcome::fail("every account may log in", looked);
    }
    Outcome::pass("who may log in is listed", evidence)
}

/// Every part of the configuration belongs to root and is as strict as the limit.
pub(crate) fn config_permissions(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let Some(server) = guest.ssh() else { return Outcome::not_applicable("no SSH server is installed") };
    let mask = asked.limit.and_then(|limit| u16::from_str_radix(limit.as_str()?, 8).ok()).unwrap_or(0o600);
    let mut paths: BTreeSet<&str> = server.sources.iter().map(String::as_str).collect();
    paths.insert(CONFIG);
    let mut looked_at = Vec::new();
    let mut bad = Vec::new();
    let mut severity = None;
    for path in paths {
        let Some(metadata) = guest.files.stat(path) else { continue };
        let evidence = stat(path, &metadata);
        if metadata.mode & 0o022 != 0 || metadata.uid != 0 {
            severity = Some(Severity::High);
        }
        if metadata.uid != 0 || metadata.gid != 0 || metadata.mode & !mask & 0o777 != 0 {
            bad.push(Bad::new(path, evidence.clone()));
        }
        looked_at.push(evidence);
    }
    let found = format!("laxer than root:root {mask:04o}");
    let outcome = Outcome::none_of(bad, &found, "the configuration is root's alone", looked_at);
    Outcome { severity, ..outcome }
}

/// Paths of private host keys: what the configuration names, and what lies where keys lie.
fn host_keys(guest: &Guest<'_>) -> BTreeSet<String> {
    let settings = guest.ssh().map(|server| server.settings.as_slice()).unwrap_or_default();
    let named = settings.iter().filter(|setting| setting.key == "hostkey").map(|setting| setting.value.clone());
    let mut paths: BTreeSet<String> = named.filter(|path| guest.files.exists(path)).collect();
    paths.extend(guest.files.glob("/etc/ssh/*_key"));
    paths
}

/// Private host keys are for root, or for the group that signs with them.
pub(crate) fn host_key_permissions(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let keys = host_keys(guest);
    if guest.ssh().is_none() && keys.is_empty() {
        return Outcome::not_applicable("no SSH server is installed");
    }
    if keys.is_empty() {
        // They are made at the first start, by root and for root.
        let looked = Evidence::absent("/etc/ssh", "*_key");
        return Outcome::pass("there are no host keys yet", vec![looked]);
    }
    let groups = guest.system.users.as_ref().map(|users| users.groups.as_slice()).unwrap_or_default();
    let signers = groups.iter().find(|group| group.name == "ssh_keys").map(|group| group.gid);
    let mut looked_at = Vec::new();
    let mut bad = Vec::new();
    for path in keys {
        let Some(metadata) = guest.files.stat(&path) else { continue };
        let for_signers = signers == Some(u64::from(metadata.gid)) && metadata.mode & 0o137 == 0;
        let evidence = stat(&path, &metadata);
        if metadata.uid != 0 || (metadata.mode & 0o177 != 0 && !for_signers) {
            bad.push(Bad::new(path, evidence.clone()));
        }
        looked_at.push(evidence);
    }
    Outcome::none_of(
        bad,
        "host keys that others may read, which sshd refuses to load",
        "host keys are root's alone",
        looked_at,
    )
}

/// A public key as OpenSSH writes it: its type, its bits where its type says, and the rest of the line.
struct PublicKey {
    kind: String,
    bits: Option<u32>,
}

/// `type base64 comment`. Source: RFC 4253, section 6.6.
fn public_key(line: &str) -> Option<PublicKey> {
    let mut words = line.split_whitespace();
    let kind = words.next()?.to_owned();
    let blob = STANDARD.decode(words.next()?).ok()?;
    let mut fields = Fields(&blob);
    (fields.next()? == kind.as_bytes()).then_some(())?;
    let bits = match kind.as_str() {
        "ssh-rsa" => bit_length(fields.nth(1)?),
        "ssh-dss" => bit_length(fields.next()?),
        _ => None,
    };
    Some(PublicKey { kind, bits })
}

/// Strings of the SSH wire form, each with its length in front.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let (field, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        self.0 = rest;
        Some(field)
    }
}

fn bit_length(number: &[u8]) -> Option<u32> {
    let digits = number.iter().position(|byte| *byte != 0).and_then(|first| number.get(first..))?;
    let bits = u32::try_from(digits.len()).ok()?.checked_mul(8)?;
    bits.checked_sub(digits.first()?.leading_zeros())
}

/// Host keys of a kind and length that still holds.
pub(crate) fn weak_host_keys(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if guest.ssh().is_none() {
        return Outcome::not_applicable("no SSH server is installed");
    }
    let paths = guest.files.glob("/etc/ssh/ssh_host_*_key.pub");
    if paths.is_empty() {
        let looked = Evidence::absent("/etc/ssh", "ssh_host_*_key.pub");
        return Outcome::pass("there are no host keys yet", vec![looked]);
    }
    let (mut looked_at, mut bad, mut short) = (Vec::new(), Vec::new(), Vec::new());
    for path in paths {
        let Some(line) = guest.files.first_line(&path) else { continue };
        let Some(key) = public_key(&line) else {
            // What is no key is no key that anybody could use; it is told, not judged.
            looked_at.push(Evidence::explicit(&*path, "public key", "not an OpenSSH public key"));
            continue;
        };
        let told = key.bits.map_or_else(|| key.kind.clone(), |bits| format!("{} {bits} bits", key.kind));
        let evidence = Evidence::explicit(&*path, "public key", told);
        match (key.kind.as_str(), key.bits) {
            ("ssh-dss", _) => bad.push(Bad::new(path, evidence.clone())),
            ("ssh-rsa", Some(bits)) if bits < 2_048 => bad.push(Bad::new(path, evidence.clone())),
            ("ssh-rsa", Some(bits)) if bits < 3_072 => short.push(Bad::new(path, evidence.clone())),
            _ => {}
        }
        looked_at.push(evidence);
    }
    if bad.is_empty() && !short.is_empty() {
        return Outcome::none_of(short, "RSA host keys of less than 3072 bits", "", looked_at).softened();
    }
    Outcome::none_of(bad, "weak host keys", "host keys are of sound kinds and lengths", looked_at)
}

/// The keys that open root's account: each listed, the weak ones refused.
pub(crate) fn authorized_keys_root(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(root) = guest.users().iter().find(|user| user.uid == 0) else {
        return Outcome::unknown("no account of user id 0 is in /etc/passwd");
    };
    let home = root.home.trim_end_matches('/');
    let files = [format!("{home}/.ssh/authorized_keys"), format!("{home}/.ssh/authorized_keys2")];
    let mut paths: BTreeSet<String> = files.into_iter().filter(|path| guest.files.exists(path)).collect();
    paths.extend(root.authorized_keys.iter().map(|key| key.path.clone()));
    let (mut looked_at, mut bad) = (Vec::new(), Vec::new());
    for path in paths {
        for (number, line) in guest.files.text(&path).unwrap_or_default().lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let number = number.saturating_add(1);
            let at = |what: String| Evidence::explicit(&*path, "key", what).at_line(number);
            // Options stand before the type.
            let start = ["ssh-", "ecdsa-", "sk-"].iter().filter_map(|kind| line.find(kind)).min();
            let key = start.and_then(|start| public_key(line.get(start..)?));
            let subject = format!("{path}:{number}");
            match key {
                None => bad.push(Bad::new(subject, at("it cannot be read as a key".to_owned()))),
                Some(PublicKey { kind, bits }) => {
                    let told = bits.map_or_else(|| kind.clone(), |bits| format!("{kind} {bits} bits"));
                    let is_weak = kind == "ssh-dss" || (kind == "ssh-rsa" && bits.is_none_or(|bits| bits < 2_048));
                    if is_weak {
                        bad.push(Bad::new(subject, at(told)));
                    } else {
                        looked_at.push(at(told));
                    }
                }
            }
        }
    }
    if looked_at.is_empty() {
        looked_at.push(Evidence::absent(format!("{home}/.ssh/authorized_keys"), "key"));
    }
    Outcome::none_of(
        bad,
        "keys of root that are weak or cannot be read",
        "root's keys are sound, or there are none",
        looked_at,
    )
}

/// A configuration that sshd refuses: nobody can log in any more.
pub(crate) fn refused(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(server) = guest.ssh() else { return Outcome::not_applicable("no SSH server is installed") };
    let bad = server.errors.iter().map(|error| {
        let (path, line) = error.split_once(": ").map_or((CONFIG, None), |(place, _)| split_line(place));
        Bad::new(error, Evidence { line, ..Evidence::explicit(path, "error", error) })
    });
    let looked_at = server.sources.iter().map(|path| Evidence::explicit(path, "configuration", "accepted")).collect();
    Outcome::none_of(bad.collect(), "sshd does not start", "sshd accepts its configuration", looked_at)
}
