//! What checks of Windows ask of the system as a whole: its build, what it is for, and the policy of its accounts.

use serde_json::Value;

use super::facts::{Fact, Missing};
use super::guest::Guest;
use super::report::Evidence;

/// First builds, of clients and servers alike. Source: Microsoft, "Windows release information".
pub(crate) mod build {
    /// Windows Vista and Server 2008.
    pub(crate) const VISTA: u32 = 6_000;
    /// Windows 7 and Server 2008 R2.
    pub(crate) const WINDOWS_7: u32 = 7_600;
    /// Windows 8 and Server 2012.
    pub(crate) const WINDOWS_8: u32 = 9_200;
    /// Windows 8.1 and Server 2012 R2.
    pub(crate) const WINDOWS_8_1: u32 = 9_600;
    /// Windows 10.
    pub(crate) const WINDOWS_10: u32 = 10_240;
    /// Windows 10 1607 and Server 2016.
    pub(crate) const RELEASE_1607: u32 = 14_393;
    /// Windows 10 1709 and Server 1709.
    pub(crate) const RELEASE_1709: u32 = 16_299;
    /// Windows 11 22H2.
    pub(crate) const WINDOWS_11_22H2: u32 = 22_621;
    /// Windows 11 24H2 and Server 2025.
    pub(crate) const WINDOWS_11_24H2: u32 = 26_100;
}

/// Which Windows it is, as far as its defaults depend on that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Release {
    pub(crate) build: u32,
    /// The fourth number of its version, which every cumulative update raises.
    pub(crate) revision: Option<u32>,
    pub(crate) is_server: bool,
    pub(crate) is_domain_controller: bool,
    /// `EditionID`.
    pub(crate) edition: String,
}

/// The release; unknown where the registry does not tell the build.
pub(crate) fn release(guest: &Guest<'_>) -> Result<Release, Missing> {
    let system = &guest.system.operating_system;
    let windows = system.windows.as_ref();
    let build = system.build_id.as_deref().and_then(|build| build.trim().parse().ok());
    let Some(build) = build else {
        return Err(Missing::Unknown(
            "the build of Windows is unknown: SOFTWARE does not tell CurrentBuild".to_owned(),
        ));
    };
    let written = windows.and_then(|windows| windows.build.as_deref()).unwrap_or_default();
    let kind = windows.and_then(|windows| windows.product_type.as_deref());
    let installation = windows.and_then(|windows| windows.installation_type.as_deref()).unwrap_or_default();
    Ok(Release {
        build,
        revision: written.split_once('.').and_then(|(_, revision)| revision.parse().ok()),
        is_server: matches!(kind, Some("server" | "domain-controller")) || installation.contains("Server"),
        is_domain_controller: kind == Some("domain-controller"),
        edition: windows.and_then(|windows| windows.edition.clone()).unwrap_or_default(),
    })
}

/// Where the registry hive SAM lies, for evidence.
pub(crate) fn sam_path(guest: &Guest<'_>) -> String {
    let root = guest.root.system_root.as_deref().unwrap_or("/Windows");
    format!("{root}/System32/config/SAM")
}

/// The key of the accounts' policy.
const POLICY: &str = "SAM\\Domains\\Account\\F";

/// One number of the policy of local accounts; spans in days and minutes, 0 for passwords that never expire and for locks that
/// only an administrator opens.
pub(crate) fn password_policy(guest: &Guest<'_>, name: &str) -> Result<Fact, Missing> {
    if release(guest).is_ok_and(|release| release.is_domain_controller) {
        let why = "a domain controller keeps the policy of its accounts in ntds.dit, which is not read";
        return Err(Missing::Unknown(why.to_owned()));
    }
    let policy = guest.system.users.as_ref().and_then(|users| users.policy.as_ref());
    let Some(policy) = policy else {
        return Err(Missing::Unknown("the policy of accounts cannot be read from the registry hive SAM".to_owned()));
    };
    let value: Value = match name {
        "password-history" => policy.password_history.into(),
        "password-min-length" => policy.password_min_length.into(),
        "password-complexity" => policy.password_complexity.into(),
        "reversible-passwords" => policy.password_reversible.into(),
        "max-days" => policy.password_max_days.unwrap_or(0).into(),
        "lockout-threshold" => policy.lockout_threshold.into(),
        "lockout-minutes" => policy.lockout_minutes.unwrap_or(0).into(),
        "lockout-window" => policy.lockout_window_minutes.into(),
        _ => return Err(Missing::Unknown(format!("there is no {name:?} in the policy of accounts"))),
    };
    let evidence = Evidence::explicit(sam_path(guest), format!("{POLICY} ({name})"), super::evaluate::shown(&value));
    Ok(Fact::set(value, evidence))
}
