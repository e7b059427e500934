//! Typed facts by name, `family:argument`: a value, where it comes from, and what it overrides. Precedence lives here and in
//! the engine's readers, never in a rule.

use serde_json::Value;

use super::guest::Guest;
use super::report::Evidence;

/// A fact that was read.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    /// `None` where nothing sets it.
    pub(crate) value: Option<Value>,
    /// Where it stands, or where it was looked for.
    pub(crate) evidence: Vec<Evidence>,
    /// Whether somebody wrote it down: compiled-in defaults are not.
    pub(crate) explicit: bool,
}

impl Fact {
    pub(crate) fn set(value: impl Into<Value>, evidence: Evidence) -> Self {
        Self { value: Some(value.into()), evidence: vec![evidence], explicit: true }
    }

    /// What a program does where nothing is written down.
    pub(crate) fn default(value: impl Into<Value>, evidence: Evidence) -> Self {
        Self { value: Some(value.into()), evidence: vec![evidence], explicit: false }
    }

    /// Nothing sets it; it was looked for at `path`.
    pub(crate) fn absent(path: impl Into<String>, key: &str) -> Self {
        Self { value: None, evidence: vec![Evidence::absent(path, key)], explicit: false }
    }
}

/// Why there is no fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The platform has no such thing.
    NotApplicable(String),
    /// It could not be read.
    Unknown(String),
}

/// Reads one family of facts.
pub(crate) type Family = fn(&Guest<'_>, &str) -> Result<Fact, Missing>;

/// A keyword of the SSH server's effective configuration.
pub(crate) fn sshd(guest: &Guest<'_>, keyword: &str) -> Result<Fact, Missing> {
    let Some(server) = guest.ssh() else {
        return Err(Missing::NotApplicable("no SSH server is installed".to_owned()));
    };
    let key = keyword.to_ascii_lowercase();
    // A value that is refused is no value that complies; what else would have held is not known.
    if let Some((place, error)) = server.errors.iter().find_map(|error| error.split_once(&format!(": {key}: "))) {
        let (path, line) = split_line(place);
        return Ok(Fact::set(error, Evidence { line, ..Evidence::explicit(path, keyword, error) }));
    }
    if let Some(error) = server.errors.first() {
        return Err(Missing::Unknown(format!("the server refuses its configuration: {error}")));
    }
    let Some(setting) = server.settings.iter().find(|setting| setting.key == key) else {
        return Ok(Fact::absent("/etc/ssh/sshd_config", keyword));
    };
    let (path, line) = split_line(&setting.source);
    let evidence = Evidence { line, ..Evidence::explicit(path, keyword, &*setting.value) };
    Ok(if setting.source.starts_with('/') {
        Fact::set(&*setting.value, evidence)
    } else {
        Fact::default(&*setting.value, Evidence::default("/usr/sbin/sshd", keyword, &*setting.value))
    })
}

/// `path:line` as reports name a place in a text.
pub(crate) fn split_line(source: &str) -> (&str, Option<u32>) {
    match source.rsplit_once(':') {
        Some((path, line)) if line.parse::<u32>().is_ok() => (path, line.parse().ok()),
        _ => (source, None),
    }
}

/// A kernel parameter as it will stand after start; the kernel's own default where nothing sets it and it is known.
pub(crate) fn sysctl(guest: &Guest<'_>, key: &str) -> Result<Fact, Missing> {
    super::sysctl::read(guest, key)
}

/// Whether a package is installed, by its names, and files that tell so where no package database could be read:
/// `package:auditd,audit,/etc/audit/auditd.conf`.
pub(crate) fn package(guest: &Guest<'_>, names: &str) -> Result<Fact, Missing> {
    let (files, packages): (Vec<&str>, Vec<&str>) = names.split(',').partition(|name| name.starts_with('/'));
    let found = guest.presence(&packages, &files).map_err(|reason| Missing::Unknown(reason.to_owned()))?;
    Ok(match found {
        Some(evidence) => Fact::set(true, evidence),
        None => Fact { value: Some(false.into()), ..Fact::absent(guest.package_database(), &packages.join(", ")) },
    })
}

/// Whether the system has a kernel of its own.
pub(crate) fn kernel(guest: &Guest<'_>, _: &str) -> Result<Fact, Missing> {
    let kernels = &guest.system.operating_system.kernels;
    let evidence = Evidence::metadata("/boot", "kernels", kernels.len().to_string());
    Ok(Fact::set(guest.has_kernel(), evidence))
}

/// A definition of login.defs(5), the last that counts.
pub(crate) fn login_defs(guest: &Guest<'_>, key: &str) -> Result<Fact, Missing> {
    let definitions = super::checks::accounts::login_defs(guest);
    if definitions.is_empty() {
        return Err(Missing::Unknown("/etc/login.defs is not there or cannot be read".to_owned()));
    }
    Ok(super::text::last(&definitions, key, "/etc/login.defs"))
}

/// A value of the registry of Windows, by its places: `registry:software:Policies\…:Name|system:Control\…:Name`.
pub(crate) fn registry(guest: &Guest<'_>, places: &str) -> Result<Fact, Missing> {
    super::registry::read(guest, places)
}

/// The policy of the local accounts of Windows: `password-policy:password-min-length`.
pub(crate) fn password_policy(guest: &Guest<'_>, name: &str) -> Result<Fact, Missing> {
    super::release::password_policy(guest, name)
}
