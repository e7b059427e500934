//! Local accounts and their policy. Source: [MS-SAMR], section 2.2.1.12, for the flags.

use crate::guest::report::User;
use crate::profile::evaluate::{Asked, number};
use crate::profile::facts::Missing;
use crate::profile::guest::Guest;
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::release::{password_policy, release, sam_path};
use crate::profile::report::Evidence;

use super::known;

/// Numbers of the accounts and of the group that every Windows has.
const ADMINISTRATOR: u64 = 500;
const GUEST: u64 = 501;
const ADMINISTRATORS: u64 = 544;
/// What Windows calls the built-in administrator, in its languages.
const ADMINISTRATOR_NAMES: [&str; 10] = [
    "Administrator",
    "Administrador",
    "Administrateur",
    "Amministratore",
    "Administratör",
    "Järjestelmänvalvoja",
    "Rendszergazda",
    "Администратор",
    "Administrátor",
    "Beheerder",
];
/// Groups of a domain that are made members when a machine joins it.
const DOMAIN_GROUPS: [&str; 2] = ["-512", "-519"];

/// A number of the policy, with its evidence.
fn policy(guest: &Guest<'_>, name: &str) -> Result<(i64, Evidence), Missing> {
    let fact = password_policy(guest, name)?;
    let evidence = fact.evidence.into_iter().next().unwrap_or_default();
    Ok((fact.value.as_ref().and_then(number).unwrap_or(0), evidence))
}

/// Passwords expire, after the limit at most.
pub(in crate::profile) fn max_age(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let (days, evidence) = known!(policy(guest, "max-days"));
    let limit = asked.limit_number(365);
    match days {
        0 => Outcome::fail(format!("passwords never expire, should after at most {limit} days"), vec![evidence]),
        days if days <= limit => Outcome::pass(format!("passwords expire after {days} days"), vec![evidence]),
        days => {
            Outcome::fail(format!("passwords expire after {days} days, should after at most {limit}"), vec![evidence])
        }
    }
}

/// Wrong passwords lock an account, after the limit at most.
pub(in crate::profile) fn lockout_threshold(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let (wrong, evidence) = known!(policy(guest, "lockout-threshold"));
    let limit = asked.limit_number(5);
    match wrong {
        0 => Outcome::fail("wrong passwords never lock an account", vec![evidence]),
        wrong if wrong <= limit => Outcome::pass(format!("{wrong} wrong passwords lock an account"), vec![evidence]),
        wrong => Outcome::fail(
            format!("an account is locked after {wrong} wrong passwords, should after {limit}"),
            vec![evidence],
        ),
    }
}

/// A locked account stays locked long enough, and wrong passwords are remembered as long.
pub(in crate::profile) fn lockout_duration(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let (minutes, duration) = known!(policy(guest, "lockout-minutes"));
    let (window, counted) = known!(policy(guest, "lockout-window"));
    let limit = asked.limit_number(15);
    let mut flaws = Vec::new();
    if minutes != 0 && minutes < limit {
        flaws.push(format!("accounts are unlocked after {minutes} minutes, should after at least {limit}"));
    }
    if window < 15 {
        flaws.push(format!("wrong passwords are forgotten after {window} minutes, should after at least 15"));
    }
    if !flaws.is_empty() {
        return Outcome::fail(flaws.join("; "), vec![duration, counted]);
    }
    let told =
        if minutes == 0 { "until an administrator opens it".to_owned() } else { format!("for {minutes} minutes") };
    Outcome::pass(format!("an account stays locked {told}"), vec![duration, counted])
}

fn has(user: &User, flag: &str) -> bool {
    user.flags.iter().any(|known| known == flag)
}

fn evidence_of(guest: &Guest<'_>, user: &User) -> Evidence {
    let key = format!("SAM\\Domains\\Account\\Users\\{:08X} ({})", user.uid, user.name);
    let mut flags = user.flags.clone();
    if user.password_state == "empty" {
        flags.push("empty password".to_owned());
    }
    let told = if flags.is_empty() { "enabled".to_owned() } else { flags.join(", ") };
    Evidence::explicit(sam_path(guest), key, told)
}

/// The local accounts, or why they are not known.
fn accounts<'g>(guest: &Guest<'g>) -> Result<&'g [User], Outcome> {
    let users = guest.users();
    if users.is_empty() {
        return Err(Outcome::unknown("no accounts can be read from the registry hive SAM"));
    }
    Ok(users)
}

/// The built-in guest account is disabled.
pub(in crate::profile) fn guest_account(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let users = known!(accounts(guest));
    let Some(user) = users.iter().find(|user| user.uid == GUEST) else {
        let absent = Evidence::absent(sam_path(guest), "SAM\\Domains\\Account\\Users\\000001F5");
        return Outcome::pass("there is no guest account", vec![absent]);
    };
    let evidence = vec![evidence_of(guest, user)];
    if has(user, "disabled") {
        return Outcome::pass(format!("the guest account {} is disabled", user.name), evidence);
    }
    Outcome::fail(format!("the guest account {} is enabled", user.name), evidence).with_subjects([&*user.name])
}

/// The built-in administrator has another name, or is disabled.
pub(in crate::profile) fn administrator(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let users = known!(accounts(guest));
    let Some(user) = users.iter().find(|user| user.uid == ADMINISTRATOR) else {
        return Outcome::unknown("the built-in administrator (000001F4) is not in the registry hive SAM");
    };
    let evidence = vec![evidence_of(guest, user)];
    if has(user, "disabled") {
        return Outcome::pass(format!("the built-in administrator {} is disabled", user.name), evidence);
    }
    let is_default = ADMINISTRATOR_NAMES.iter().any(|name| name.to_lowercase() == user.name.to_lowercase());
    if is_default {
        let reason = format!("the built-in administrator is enabled and still called {}", user.name);
        return Outcome::fail(reason, evidence).with_subjects([&*user.name]);
    }
    Outcome::pass(format!("the built-in administrator is called {}", user.name), evidence)
}

/// The enabled accounts that `is_bad` names.
fn enabled_accounts(guest: &Guest<'_>, is_bad: fn(&User) -> bool, found: &str, clean: &str) -> Outcome {
    let users = known!(accounts(guest));
    let enabled = || users.iter().filter(|user| !has(user, "disabled"));
    let bad = enabled().filter(|user| is_bad(user)).map(|user| Bad::new(&*user.name, evidence_of(guest, user)));
    let mut looked_at: Vec<_> = enabled().map(|user| evidence_of(guest, user)).collect();
    if looked_at.is_empty() {
        looked_at = users.iter().map(|user| evidence_of(guest, user)).collect();
    }
    Outcome::none_of(bad.collect(), found, clean, looked_at)
}

/// No enabled account may do, or does, without a password.
pub(in crate::profile) fn without_password(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let is_bad = |user: &User| has(user, "password-not-required") || user.password_state == "empty";
    enabled_accounts(guest, is_bad, "accounts that need no password", "every enabled account needs a password")
}

/// Enabled accounts whose password never expires.
pub(in crate::profile) fn never_expires(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let is_bad = |user: &User| has(user, "password-never-expires");
    enabled_accounts(guest, is_bad, "passwords that never expire", "the password of every enabled account expires")
}

/// Who is in the group Administrators; identifiers that nobody here has are told.
pub(in crate::profile) fn administrators(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let groups = guest.system.users.as_ref().map(|users| users.groups.as_slice()).unwrap_or_default();
    let builtin = |sid: &str| sid.starts_with("S-1-5-32-");
    let group = groups.iter().find(|group| group.gid == ADMINISTRATORS && group.sid.as_deref().is_none_or(builtin));
    let Some(group) = group else {
        return Outcome::unknown("the group Administrators cannot be read from the registry hive SAM");
    };
    let key = "SAM\\Domains\\Builtin\\Aliases\\00000220\\C";
    let member = |name: &String| Evidence::explicit(sam_path(guest), key, name);
    let mut evidence: Vec<_> = group.members.iter().map(member).collect();
    if evidence.is_empty() {
        evidence.push(Evidence::explicit(sam_path(guest), key, "no members"));
    }
    let own = guest.system.operating_system.windows.as_ref().and_then(|windows| windows.machine_sid.clone());
    let is_member = release(guest).is_ok() && domain(guest).is_some();
    let is_unknown = |name: &&String| {
        let is_own = own.as_ref().is_some_and(|own| name.starts_with(&format!("{own}-")));
        let is_domains = is_member && !is_own && DOMAIN_GROUPS.iter().any(|group| name.ends_with(group));
        name.starts_with("S-1-") && !is_domains
    };
    let unknown: Vec<&String> = group.members.iter().filter(is_unknown).collect();
    if unknown.is_empty() {
        let names = group.members.join(", ");
        return Outcome::pass(
            format!("administrators are {}", if names.is_empty() { "none" } else { &names }),
            evidence,
        )
        .with_subjects(&group.members);
    }
    let names: Vec<&str> = unknown.iter().map(|name| name.as_str()).collect();
    Outcome::warn(format!("administrators that no account here is known by: {}", names.join(", ")), evidence)
        .with_subjects(names)
}

/// The domain that the machine is a member of.
pub(super) fn domain<'g>(guest: &Guest<'g>) -> Option<&'g str> {
    guest.system.operating_system.windows.as_ref()?.domain.as_deref()
}
