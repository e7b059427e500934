//! Accounts and groups of the security account manager (hive SAM). Password hashes are not read: only how long they are,
//! which tells whether there is a password.
//!
//! Sources: the layouts of the values F, V and C as Samba's and winreg-kb's documentation of the SAM have them
//! (libyal/winreg-kb, "Security Account Manager keys"); the account flags of [MS-SAMR], section 2.2.1.12.

use std::collections::HashMap;

use crate::bytes::{le_u16, le_u32, le_u64, slice};
use crate::guest::linux::files::Files;
use crate::guest::linux::time::{day, rfc3339};
use crate::guest::registry::{filetime_seconds, utf16_text};
use crate::guest::report::{AccountPolicy, Group, User, Users};

use super::hives::{Hives, NamedHive, Node};
use super::profiles;
use super::sid::Sid;

/// Where the data begins that the offsets of a V, and of a C, count from.
const V_DATA: usize = 0xcc;
const C_DATA: usize = 0x34;
/// Accounts and members that are taken in: a local database has tens.
const ACCOUNTS_MAX: usize = 50_000;
/// Steps of 100 ns.
const STEPS_PER_DAY: u64 = 864_000_000_000;
const STEPS_PER_MINUTE: u64 = 600_000_000;
const DAY_SECONDS: i64 = 86_400;

/// Account flags that are told by name.
const FLAGS: [(u16, &str); 12] = [
    (0x0001, "disabled"),
    (0x0002, "home-directory-required"),
    (0x0004, "password-not-required"),
    (0x0008, "temporary-duplicate"),
    (0x0020, "mns-logon"),
    (0x0040, "interdomain-trust"),
    (0x0080, "workstation-trust"),
    (0x0100, "server-trust"),
    (0x0200, "password-never-expires"),
    (0x0400, "locked-out"),
    (0x0800, "encrypted-text-password"),
    (0x1000, "smartcard-required"),
];
const DISABLED: u16 = 0x0001;
const LOCKED_OUT: u16 = 0x0400;

/// The module; `None` where there is no database of accounts.
pub(crate) fn inspect(files: &Files<'_>, hives: &Hives<'_>) -> Option<Users> {
    let sam = hives.sam()?;
    let account = sam.key("SAM\\Domains\\Account")?;
    let machine = account.bytes("V").and_then(|value| machine_sid(&value));
    let homes: HashMap<String, String> =
        profiles::all(hives).into_iter().map(|profile| (profile.sid, profile.path)).collect();
    let mut report = Users::default();
    let keys = account.key("Users").map(|key| key.keys()).unwrap_or_default();
    for key in keys.iter().take(ACCOUNTS_MAX) {
        // Beside the accounts stands the key Names.
        let Ok(number) = u32::from_str_radix(key.name(), 16) else { continue };
        match user(key, number) {
            Some(mut user) => {
                let sid = machine.as_ref().map(|machine| machine.with(number).to_string());
                user.home = sid.as_ref().and_then(|sid| homes.get(sid)).cloned().unwrap_or(user.home);
                user.sid = sid;
                report.users.push(user);
            }
            None => files.warn(key.path(), "the account's values are cut off"),
        }
    }
    report.users.sort_by_key(|user| user.uid);
    report.groups = groups(files, sam, &report.users, machine.as_ref());
    for user in &mut report.users {
        let own = report.groups.iter().filter(|group| group.members.contains(&user.name));
        user.groups = own.map(|group| group.name.clone()).collect();
    }
    report.count = report.users.len() as u64;
    let may_log_in = |user: &&User| !user.locked;
    report.login_users = report.users.iter().filter(may_log_in).map(|user| user.name.clone()).collect();
    report.policy = account.bytes("F").and_then(|value| policy(&value));
    Some(report)
}

/// The identifier of the machine ends the V of its accounts: S-1-5-21 and three numbers.
fn machine_sid(value: &[u8]) -> Option<Sid> {
    let start = value.len().checked_sub(24)?;
    Sid::parse(value.get(start..)?)
}

fn user(key: &Node<'_>, number: u32) -> Option<User> {
    let fixed = key.bytes("F")?;
    let variable = key.bytes("V")?;
    let text = |at: usize| part(&variable, V_DATA, at).map(utf16_text);
    let time = |at: usize| le_u64(&fixed, at).and_then(filetime_seconds);
    let flags = le_u16(&fixed, 0x38)?;
    let hash_bytes = part(&variable, V_DATA, 0xa8).map_or(0, <[u8]>::len);
    // An empty password has a header and no hash: 4 bytes where RC4 hides hashes, 24 where AES does (Windows 10 1607).
    let has_password = !matches!(hash_bytes, 0 | 4 | 24);
    let is_disabled = flags & DISABLED != 0;
    let password_state = match (is_disabled, has_password) {
        (true, _) => "disabled",
        (false, true) => "set",
        (false, false) => "empty",
    };
    let changed = time(0x18);
    let given = |text: String| (!text.is_empty()).then_some(text);
    Some(User {
        name: text(0x0c)?,
        uid: u64::from(number),
        gid: u64::from(le_u32(&fixed, 0x34)?),
        gecos: text(0x18).unwrap_or_default(),
        home: text(0x48).unwrap_or_default(),
        password_state: password_state.to_owned(),
        locked: flags & (DISABLED | LOCKED_OUT) != 0,
        password_changed_on: changed.and_then(|seconds| day(seconds.div_euclid(DAY_SECONDS))),
        password_change_required: changed.is_none() && has_password,
        expires_on: time(0x20).and_then(|seconds| day(seconds.div_euclid(DAY_SECONDS))),
        last_login_at: time(0x08).and_then(rfc3339),
        comment: text(0x24).and_then(given),
        flags: FLAGS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| (*name).to_owned()).collect(),
        bad_password_count: le_u16(&fixed, 0x40).map(u32::from),
        login_count: le_u16(&fixed, 0x42).map(u32::from),
        ..User::default()
    })
}

/// A part of a value: its place, counted from `data`, stands at `at`, its length behind that.
fn part(value: &[u8], data: usize, at: usize) -> Option<&[u8]> {
    let start = usize::try_from(le_u32(value, at)?).ok()?.checked_add(data)?;
    slice(value, start, usize::try_from(le_u32(value, at + 4)?).ok()?)
}

fn groups(files: &Files<'_>, sam: &NamedHive<'_>, users: &[User], machine: Option<&Sid>) -> Vec<Group> {
    let mut groups = Vec::new();
    let builtin = Sid::parse(&[1, 1, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0]);
    for (domain, sid) in [("Builtin", builtin.as_ref()), ("Account", machine)] {
        let key = sam.key(&format!("SAM\\Domains\\{domain}\\Aliases"));
        let keys = key.map(|key| key.keys()).unwrap_or_default();
        for key in keys.iter().take(ACCOUNTS_MAX) {
            let Ok(number) = u32::from_str_radix(key.name(), 16) else { continue };
            let value = key.bytes("C").unwrap_or_default();
            match group(&value, number, users, machine) {
                Some(group) => {
                    groups.push(Group { sid: sid.map(|sid| sid.with(number).to_string()), ..group });
                }
                None => files.warn(key.path(), "the group's value is cut off"),
            }
        }
    }
    groups.sort_by(|one, other| (one.gid, &one.name).cmp(&(other.gid, &other.name)));
    groups
}

fn group(value: &[u8], number: u32, users: &[User], machine: Option<&Sid>) -> Option<Group> {
    let name = part(value, C_DATA, 0x10).map(utf16_text)?;
    let comment = part(value, C_DATA, 0x1c).map(utf16_text).filter(|text| !text.is_empty());
    let mut members = Vec::new();
    let mut list = part(value, C_DATA, 0x28).unwrap_or_default();
    while let Some(sid) = Sid::parse(list) {
        let own = sid.split().filter(|(domain, _)| machine == Some(domain));
        let user = own.and_then(|(_, number)| users.iter().find(|user| user.uid == u64::from(number)));
        members.push(match (user, sid.well_known()) {
            (Some(user), _) => user.name.clone(),
            (None, Some(name)) => name.to_owned(),
            (None, None) => sid.to_string(),
        });
        list = list.get(sid.length()..).unwrap_or_default();
    }
    Some(Group { name, gid: u64::from(number), members, comment, ..Group::default() })
}

/// The F of the accounts. Spans of time are negative, and the smallest number means for ever.
fn policy(value: &[u8]) -> Option<AccountPolicy> {
    let span = |at: usize, step: u64| {
        let steps = le_u64(value, at)?.cast_signed();
        (steps != i64::MIN).then(|| u32::try_from(steps.unsigned_abs() / step).unwrap_or(u32::MAX))
    };
    let properties = le_u32(value, 0x4c)?;
    Some(AccountPolicy {
        password_max_days: span(0x18, STEPS_PER_DAY).filter(|days| *days > 0),
        password_min_days: span(0x20, STEPS_PER_DAY).unwrap_or(0),
        lockout_minutes: span(0x30, STEPS_PER_MINUTE),
        lockout_window_minutes: span(0x38, STEPS_PER_MINUTE).unwrap_or(0),
        password_complexity: properties & 1 != 0,
        password_reversible: properties & 16 != 0,
        password_min_length: u32::from(le_u16(value, 0x50)?),
        password_history: u32::from(le_u16(value, 0x52)?),
        lockout_threshold: u32::from(le_u16(value, 0x54)?),
    })
}
