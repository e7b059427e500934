//! Accounts: passwd(5), shadow(5), group(5), and what decides how passwords are made, aged and locked.

use std::collections::{BTreeMap, BTreeSet};

use crate::guest::report::User;
use crate::profile::evaluate::{Asked, shown};
use crate::profile::facts;
use crate::profile::guest::Guest;
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::pam;
use crate::profile::report::Evidence;
use crate::profile::rule::Severity;
use crate::profile::text::{Assignment, last};

use super::ssh::stat;

const PASSWD: &str = "/etc/passwd";
const SHADOW: &str = "/etc/shadow";
const GROUP: &str = "/etc/group";

/// Lines of a file of accounts, split at colons, with their numbers.
fn lines(guest: &Guest<'_>, path: &str) -> Option<Vec<(usize, Vec<String>)>> {
    let text = guest.files.text(path)?;
    let lines =
        text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with(['#', '+', '-']));
    Some(
        lines
            .take(50_000)
            .map(|(at, line)| (at.saturating_add(1), line.split(':').map(str::to_owned).collect()))
            .collect(),
    )
}

fn field(fields: &[String], at: usize) -> &str {
    fields.get(at).map_or("", String::as_str)
}

fn missing(path: &str) -> Outcome {
    Outcome::unknown(format!("{path} is not there or cannot be read"))
}

/// What was looked at where nothing is wrong: the file and how many lines it has.
fn all_of(path: &str, count: usize, what: &str) -> Vec<Evidence> {
    vec![Evidence::explicit(path, what, count.to_string())]
}

/// Whether a password opens the account: its hash is there, or nothing is.
fn is_usable(user: &User) -> bool {
    matches!(user.password_state.as_str(), "set" | "empty")
}

/// User id 0 is root's alone.
pub(crate) fn uid0_duplicate(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(lines) = lines(guest, PASSWD) else { return missing(PASSWD) };
    let zero = lines.iter().filter(|(_, fields)| field(fields, 2).parse::<u64>() == Ok(0));
    let bad = zero.filter(|(_, fields)| field(fields, 0) != "root").map(|(line, fields)| {
        Bad::new(field(fields, 0), Evidence::explicit(PASSWD, field(fields, 0), "uid 0").at_line(*line))
    });
    let bad: Vec<_> = bad.collect();
    let has_root = lines.iter().any(|(_, fields)| field(fields, 0) == "root" && field(fields, 2) == "0");
    if bad.is_empty() && !has_root {
        return Outcome::fail("there is no root of user id 0", all_of(PASSWD, lines.len(), "accounts"));
    }
    Outcome::none_of(
        bad,
        "accounts of user id 0 beside root",
        "user id 0 is root's alone",
        all_of(PASSWD, lines.len(), "accounts"),
    )
}

/// Accounts that open without a password.
pub(crate) fn empty_password(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(accounts) = lines(guest, PASSWD) else { return missing(PASSWD) };
    let shadow = lines(guest, SHADOW);
    if shadow.is_none() && accounts.iter().any(|(_, fields)| field(fields, 1) == "x") {
        return missing(SHADOW);
    }
    let shadow = shadow.unwrap_or_default();
    let in_passwd = accounts.iter().filter(|(_, fields)| field(fields, 1).is_empty()).map(|(at, of)| (PASSWD, at, of));
    let in_shadow = shadow.iter().filter(|(_, fields)| field(fields, 1).is_empty()).map(|(at, of)| (SHADOW, at, of));
    let bad = in_passwd.chain(in_shadow).map(|(path, line, fields)| {
        Bad::new(field(fields, 0), Evidence::explicit(path, field(fields, 0), "empty password").at_line(*line))
    });
    let looked_at = all_of(SHADOW, shadow.len(), "accounts");
    Outcome::none_of(bad.collect(), "accounts without a password", "no account opens without a password", looked_at)
}

/// `nullok`, which lets empty passwords in.
pub(crate) fn pam_nullok(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let lines = pam::everywhere(guest.files, "auth");
    if lines.is_empty() {
        return Outcome::unknown("no PAM stack was found in /etc/pam.d");
    }
    let unix = lines.iter().filter(|line| line.module == "pam_unix");
    let lax = unix.clone().filter(|line| line.has("nullok") || line.has("nullok_secure"));
    let bad = lax.map(|line| Bad::new(format!("{}:{}", line.path, line.line), line.evidence())).collect();
    let looked_at: Vec<_> = unix.map(pam::Line::evidence).collect();
    let looked_at =
        if looked_at.is_empty() { vec![Evidence::absent("/etc/pam.d", "auth pam_unix")] } else { looked_at };
    Outcome::none_of(bad, "empty passwords are taken", "empty passwords are not taken", looked_at)
}

/// Hashes that stand in /etc/passwd, for everybody to read.
pub(crate) fn unshadowed(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(lines) = lines(guest, PASSWD) else { return missing(PASSWD) };
    let is_shadowed = |text: &str| text == "x" || text.starts_with(['*', '!']);
    let bad = lines.iter().filter(|(_, fields)| !is_shadowed(field(fields, 1))).map(|(line, fields)| {
        let told = if field(fields, 1).is_empty() { "empty password" } else { "password hash (not shown)" };
        Bad::new(field(fields, 0), Evidence::explicit(PASSWD, field(fields, 0), told).at_line(*line))
    });
    Outcome::none_of(
        bad.collect(),
        "passwords outside of /etc/shadow",
        "every password is in /etc/shadow",
        all_of(PASSWD, lines.len(), "accounts"),
    )
}

/// Algorithms of usable hashes: what a laptop breaks fails, SHA-256 is a warning.
pub(crate) fn weak_hash(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let users = guest.users();
    if users.is_empty() {
        return missing(PASSWD);
    }
    if users.iter().all(|user| user.password_state == "unknown") {
        return missing(SHADOW);
    }
    let rounds = few_rounds(guest);
    let mut looked_at = Vec::new();
    let (mut bad, mut middling) = (Vec::new(), Vec::new());
    for user in users.iter().filter(|user| user.password_state == "set") {
        let Some(algorithm) = user.password_algorithm.as_deref() else { continue };
        let evidence = Evidence::explicit(SHADOW, &*user.name, algorithm);
        match algorithm {
            "yescrypt" | "gost-yescrypt" | "scrypt" | "bcrypt" => {}
            "sha512crypt" if !rounds.contains(&user.name) => {}
            "sha512crypt" => bad.push(Bad::new(
                &*user.name,
                Evidence::explicit(SHADOW, &*user.name, "sha512crypt of less than 5000 rounds"),
            )),
            "sha256crypt" => middling.push(Bad::new(&*user.name, evidence.clone())),
            _ => bad.push(Bad::new(&*user.name, evidence.clone())),
        }
        looked_at.push(evidence);
    }
    if looked_at.is_empty() {
        looked_at.push(Evidence::explicit(SHADOW, "usable passwords", "0"));
    }
    if bad.is_empty() && !middling.is_empty() {
        return Outcome::none_of(middling, "passwords kept as SHA-256", "", looked_at).softened();
    }
    Outcome::none_of(
        bad,
        "passwords kept in a way that is quickly broken",
        "passwords are kept as slow hashes",
        looked_at,
    )
}

/// Accounts whose SHA-512 hash says fewer rounds than crypt(5)'s default.
fn few_rounds(guest: &Guest<'_>) -> BTreeSet<String> {
    let lines = lines(guest, SHADOW).unwrap_or_default();
    let few = lines.into_iter().filter(|(_, fields)| {
        let rounds = field(fields, 1).trim_start_matches('!').strip_prefix("$6$rounds=");
        rounds.and_then(|rest| rest.split('$').next()?.parse::<u32>().ok()).is_some_and(|rounds| rounds < 5_000)
    });
    few.map(|(_, fields)| field(&fields, 0).to_owned()).collect()
}

/// How new passwords are kept: PAM's argument is before login.defs, which other programs go by.
pub(crate) fn hash_method(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let is_sound =
        |name: &str| ["yescrypt", "gost_yescrypt", "sha512", "blowfish"].contains(&name.to_ascii_lowercase().as_str());
    let stack = pam::common(guest.files, "password");
    let unix = stack.iter().find(|line| line.module == "pam_unix");
    let known = ["yescrypt", "gost_yescrypt", "sha512", "sha256", "blowfish", "md5", "bigcrypt"];
    let by_pam = unix
        .and_then(|line| line.arguments.iter().find(|word| known.contains(&word.as_str())).map(|word| (line, word)));
    let definitions = login_defs(guest);
    let by_definitions = last(&definitions, "ENCRYPT_METHOD", "/etc/login.defs");
    let defined = by_definitions.value.as_ref().map(shown);
    let mut evidence: Vec<_> = by_pam.iter().map(|(line, _)| line.evidence()).collect();
    evidence.extend(by_definitions.evidence);
    match (by_pam.map(|(_, word)| word.as_str()), defined.as_deref()) {
        (None, None) => Outcome::fail("nothing says how passwords are kept, which means DES or MD5", evidence),
        (Some(pam), Some(defined)) if is_sound(pam) && !is_sound(defined) => {
            let reason = format!("passwd(1) keeps passwords as {pam}, but programs that go by login.defs as {defined}");
            Outcome::warn(reason, evidence)
        }
        (Some(method), _) | (None, Some(method)) if is_sound(method) => {
            Outcome::pass(format!("new passwords are kept as {method}"), evidence)
        }
        (Some(method), _) | (None, Some(method)) => {
            Outcome::fail(format!("new passwords are kept as {method}"), evidence)
        }
    }
}

pub(crate) fn login_defs(guest: &Guest<'_>) -> Vec<Assignment> {
    let path = if guest.files.exists("/etc/login.defs") { "/etc/login.defs" } else { "/usr/etc/login.defs" };
    let mut all = crate::profile::text::assignments(guest.files, path);
    for path in guest.files.with_suffix("/etc/login.defs.d", ".defs") {
        all.extend(crate::profile::text::assignments(guest.files, &path));
    }
    all
}

/// Names or numbers that stand twice in a file of accounts; `with: {file, field, names}`.
pub(crate) fn duplicates(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let path = asked.text("file");
    let Some(lines) = lines(guest, path) else { return missing(path) };
    let fields = asked.with.get("fields").and_then(|fields| fields.as_array()).cloned().unwrap_or_default();
    let mut bad = Vec::new();
    for at in fields.iter().filter_map(|field| usize::try_from(field.as_u64()?).ok()) {
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for (line, of) in &lines {
            let value = field(of, at);
            let name = field(of, 0);
            match seen.get(value) {
                Some(first) if !value.is_empty() => {
                    let told = format!("{value}, as {first} has");
                    bad.push(Bad::new(name, Evidence::explicit(path, name, told).at_line(*line)));
                }
                _ => {
                    seen.insert(value, name);
                }
            }
        }
    }
    let what = asked.text("what");
    Outcome::none_of(
        bad,
        &format!("{what} that are there twice"),
        &format!("no {what} twice"),
        all_of(path, lines.len(), "lines"),
    )
}

/// Groups of accounts that are no groups.
pub(crate) fn gid_missing(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(accounts) = lines(guest, PASSWD) else { return missing(PASSWD) };
    let Some(groups) = lines(guest, GROUP) else { return missing(GROUP) };
    let known: BTreeSet<&str> = groups.iter().map(|(_, fields)| field(fields, 2)).collect();
    let bad = accounts.iter().filter(|(_, fields)| !known.contains(field(fields, 3))).map(|(line, fields)| {
        let told = format!("gid {}", field(fields, 3));
        Bad::new(field(fields, 0), Evidence::explicit(PASSWD, field(fields, 0), told).at_line(*line))
    });
    Outcome::none_of(
        bad.collect(),
        "accounts of a group that is not there",
        "the group of every account is there",
        all_of(GROUP, groups.len(), "groups"),
    )
}

/// Members of the group that may read every hash.
pub(crate) fn shadow_group_members(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(groups) = lines(guest, GROUP) else { return missing(GROUP) };
    let Some((line, group)) = groups.iter().find(|(_, fields)| field(fields, 0) == "shadow") else {
        return Outcome::pass("there is no group shadow", vec![Evidence::absent(GROUP, "shadow")]);
    };
    let mut bad = Vec::new();
    for member in field(group, 3).split(',').map(str::trim).filter(|name| !name.is_empty()) {
        bad.push(Bad::new(member, Evidence::explicit(GROUP, "shadow", member).at_line(*line)));
    }
    for (line, fields) in lines(guest, "/etc/gshadow").unwrap_or_default() {
        if field(&fields, 0) == "shadow" {
            for member in field(&fields, 3).split(',').map(str::trim).filter(|name| !name.is_empty()) {
                if !bad.iter().any(|one| one.subject == member) {
                    bad.push(Bad::new(member, Evidence::explicit("/etc/gshadow", "shadow", member).at_line(line)));
                }
            }
        }
    }
    let gid = field(group, 2);
    for (line, fields) in lines(guest, PASSWD).unwrap_or_default() {
        if field(&fields, 3) == gid {
            let name = field(&fields, 0);
            bad.push(Bad::new(name, Evidence::explicit(PASSWD, name, format!("gid {gid}")).at_line(line)));
        }
    }
    let looked_at = vec![Evidence::explicit(GROUP, "shadow", "no members").at_line(*line)];
    Outcome::none_of(bad, "accounts that may read every hash", "nobody is in group shadow", looked_at)
}

/// Accounts of group id 0 beside root.
pub(crate) fn gid0(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(accounts) = lines(guest, PASSWD) else { return missing(PASSWD) };
    // Red Hat's own accounts that do one thing.
    let allowed = ["root", "sync", "shutdown", "halt", "operator"];
    let bad = accounts
        .iter()
        .filter(|(_, fields)| field(fields, 3).parse::<u64>() == Ok(0) && !allowed.contains(&field(fields, 0)));
    let bad = bad.map(|(line, fields)| {
        Bad::new(field(fields, 0), Evidence::explicit(PASSWD, field(fields, 0), "gid 0").at_line(*line))
    });
    Outcome::none_of(
        bad.collect(),
        "accounts of group id 0",
        "group id 0 is root's",
        all_of(PASSWD, accounts.len(), "accounts"),
    )
}

fn uid_min(guest: &Guest<'_>) -> u64 {
    let value = last(&login_defs(guest), "UID_MIN", "/etc/login.defs").value;
    value.and_then(|value| value.as_str()?.parse().ok()).unwrap_or(1_000)
}

/// Whether a shell lets nobody stay.
fn is_no_login(shell: &str) -> bool {
    let name = shell.rsplit('/').next().unwrap_or_default();
    ["nologin", "false", "true"].contains(&name)
}

/// Accounts of the system with a shell that a login gets.
pub(crate) fn system_shell(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let users = guest.users();
    if users.is_empty() {
        return missing(PASSWD);
    }
    let least = uid_min(guest);
    let allowed = ["root", "sync", "shutdown", "halt"];
    let bad = users.iter().filter(|user| user.uid < least && !allowed.contains(&user.name.as_str()));
    let bad = bad.filter(|user| !is_no_login(&user.shell) && !user.locked).map(|user| {
        let shell = if user.shell.is_empty() { "/bin/sh (by default)" } else { &user.shell };
        Bad::new(&*user.name, Evidence::explicit(PASSWD, &*user.name, shell))
    });
    let looked_at = all_of(PASSWD, users.len(), "accounts");
    Outcome::none_of(
        bad.collect(),
        "accounts of the system that may log in",
        "accounts of the system have no shell",
        looked_at,
    )
}

/// Root is locked, or has a hash that holds.
pub(crate) fn root_password_state(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(root) = guest.users().iter().find(|user| user.name == "root") else { return missing(PASSWD) };
    let evidence = vec![Evidence::explicit(SHADOW, "root", format!("password {}", root.password_state))];
    match root.password_state.as_str() {
        "locked" | "disabled" => Outcome::pass("root has no password that opens", evidence),
        "set" => match root.password_algorithm.as_deref() {
            Some("yescrypt" | "gost-yescrypt" | "scrypt" | "bcrypt" | "sha512crypt") => {
                Outcome::pass("root's password is kept as a slow hash", evidence)
            }
            other => {
                Outcome::fail(format!("root's password is kept as {}", other.unwrap_or("an unknown hash")), evidence)
            }
        },
        "empty" => Outcome::fail("root has an empty password", evidence).with_severity(Severity::Critical),
        _ => missing(SHADOW),
    }
}

/// The largest age of the passwords that are usable.
pub(crate) fn max_age_users(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let limit = asked.limit_number(365);
    aged(guest, "password is never too old", |user| {
        let days = user.password_max_days;
        let told = days.map_or_else(|| "never expires".to_owned(), |days| format!("{days} days"));
        (!days.is_some_and(|days| (1..=limit).contains(&days))).then_some(told)
    })
}

/// Asks something of every account that has a hash.
fn aged(guest: &Guest<'_>, found: &str, is_bad: impl Fn(&User) -> Option<String>) -> Outcome {
    let users = guest.users();
    if users.is_empty() {
        return missing(PASSWD);
    }
    if users.iter().all(|user| user.password_state == "unknown") {
        return missing(SHADOW);
    }
    let usable: Vec<_> = users.iter().filter(|user| user.password_state == "set").collect();
    let bad = usable.iter().filter_map(|user| {
        let told = is_bad(user)?;
        Some(Bad::new(&*user.name, Evidence::explicit(SHADOW, &*user.name, told)))
    });
    let looked_at = vec![Evidence::explicit(SHADOW, "accounts with a password", usable.len().to_string())];
    Outcome::none_of(
        bad.collect(),
        &format!("accounts whose {found}"),
        "every account with a password complies",
        looked_at,
    )
}

/// Days after a password's end until the account is locked.
pub(crate) fn inactive_lock(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let limit = asked.limit_number(45);
    let defaults = crate::profile::text::assignments(guest.files, "/etc/default/useradd");
    let fact = last(&defaults, "INACTIVE", "/etc/default/useradd");
    let value: Option<i64> = fact.value.as_ref().and_then(|value| value.as_str()?.parse().ok());
    let mut evidence = fact.evidence;
    let is_sound = |days: Option<i64>| days.is_some_and(|days| (1..=limit).contains(&days));
    let mut bad = Vec::new();
    for user in guest.users().iter().filter(|user| user.password_state == "set") {
        if !is_sound(user.password_inactive_days) {
            let told = user.password_inactive_days.map_or_else(|| "never".to_owned(), |days| format!("{days} days"));
            bad.push(user.name.clone());
            evidence.push(Evidence::explicit(SHADOW, &*user.name, format!("locked after {told}")));
        }
    }
    if !is_sound(value) {
        let told = value.map_or_else(|| "is not set".to_owned(), |days| format!("is {days}"));
        return Outcome::fail(format!("INACTIVE {told}, should be 1 to {limit}"), evidence).with_subjects(bad);
    }
    if bad.is_empty() {
        return Outcome::pass(format!("unused accounts are locked within {limit} days"), evidence);
    }
    Outcome::fail(format!("accounts that are never locked: {}", bad.join(", ")), evidence).with_subjects(bad)
}

/// Passwords that were changed after the disk was taken.
pub(crate) fn last_change_future(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(lines) = lines(guest, SHADOW) else { return missing(SHADOW) };
    let today = guest.reference_time.div_euclid(86_400);
    let bad = lines.iter().filter_map(|(line, fields)| {
        let day: i64 = field(fields, 2).parse().ok()?;
        let told = format!("changed on day {day}, the disk is of day {today}");
        (day > today)
            .then(|| Bad::new(field(fields, 0), Evidence::explicit(SHADOW, field(fields, 0), told).at_line(*line)))
    });
    Outcome::none_of(
        bad.collect(),
        "passwords changed in the future",
        "no password was changed in the future",
        all_of(SHADOW, lines.len(), "accounts"),
    )
}

/// Accounts that nobody has used for the limit's days.
pub(crate) fn inactive_users(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let limit = asked.limit_number(90);
    let least = uid_min(guest);
    let people: Vec<_> = guest
        .users()
        .iter()
        .filter(|user| {
            (user.uid == 0 || user.uid >= least) && user.uid < 65_534 && is_usable(user) && !is_no_login(&user.shell)
        })
        .collect();
    if people.is_empty() {
        return Outcome::pass(
            "nobody has a password to log in with",
            vec![Evidence::explicit(SHADOW, "accounts with a password", "0")],
        );
    }
    let sources = ["/var/log/lastlog", "/var/lib/lastlog/lastlog2.db", "/var/log/wtmp", "/var/lib/wtmpdb/wtmp.db"];
    if guest.files.first_existing(&sources).is_none() {
        return Outcome::unknown(format!("no record of logins is there ({})", sources.join(", ")));
    }
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for user in people {
        let at = user.last_login_at.as_deref().and_then(|at| at.parse::<jiff::Timestamp>().ok());
        let evidence = |told: String| Evidence::metadata("/var/log/lastlog", &*user.name, told);
        match at {
            None => bad.push(Bad::new(&*user.name, evidence("never logged in".to_owned()))),
            Some(at) => {
                let days = guest.reference_time.saturating_sub(at.as_second()).div_euclid(86_400);
                let told = evidence(format!("{days} days before the reference time"));
                if days > limit { bad.push(Bad::new(&*user.name, told)) } else { looked_at.push(told) }
            }
        }
    }
    Outcome::none_of(bad, &format!("accounts unused for more than {limit} days"), "every account is in use", looked_at)
}

/// The module that judges new passwords, where one is in the stack.
fn quality_module(guest: &Guest<'_>) -> Result<pam::Line, Outcome> {
    let stack = pam::common(guest.files, "password");
    if stack.is_empty() && !guest.files.is_dir("/etc/pam.d") {
        return Err(Outcome::unknown("no PAM stack for changing passwords was found in /etc/pam.d"));
    }
    let known = ["pam_pwquality", "pam_passwdqc", "pam_cracklib"];
    stack.into_iter().find(|line| known.contains(&line.module.as_str())).ok_or_else(|| {
        let looked = Evidence::absent("/etc/pam.d", "password pam_pwquality");
        Outcome::fail("nothing in the PAM stack judges new passwords", vec![looked])
    })
}

/// One setting of pwquality: the module's argument is before its file (pam_pwquality(8)).
fn quality(guest: &Guest<'_>, line: &pam::Line, key: &str, default: i64) -> (i64, Evidence) {
    if let Some(value) = line.argument(key).and_then(|value| value.parse().ok()) {
        return (value, line.evidence());
    }
    let file = pam::configuration(guest.files, "pwquality");
    let fact = last(&file, key, "/etc/security/pwquality.conf");
    let value = fact.value.as_ref().and_then(|value| value.as_str()?.trim().parse().ok());
    match value {
        Some(value) => (value, fact.evidence.into_iter().next().unwrap_or_default()),
        None => (default, Evidence::default("pam_pwquality", key, default.to_string())),
    }
}

/// The least length of a new password.
pub(crate) fn password_minlen(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let line = match quality_module(guest) {
        Ok(line) => line,
        Err(outcome) => return outcome,
    };
    let limit = asked.limit_number(14);
    let (length, evidence) = quality(guest, &line, "minlen", 8);
    let evidence = vec![line.evidence(), evidence];
    if length >= limit {
        return Outcome::pass(format!("new passwords have at least {length} characters"), evidence);
    }
    Outcome::fail(format!("new passwords need {length} characters, should be {limit}"), evidence)
}

/// Kinds of characters that a new password needs.
pub(crate) fn password_complexity(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let line = match quality_module(guest) {
        Ok(line) => line,
        Err(outcome) => return outcome,
    };
    let (classes, evidence) = quality(guest, &line, "minclass", 0);
    let credits: Vec<_> = ["dcredit", "ucredit", "lcredit", "ocredit"].map(|key| quality(guest, &line, key, 0)).into();
    if classes >= 3 {
        return Outcome::pass(
            format!("new passwords have {classes} kinds of characters"),
            vec![line.evidence(), evidence],
        );
    }
    let demanded = credits.iter().filter(|(credit, _)| *credit < 0).count();
    let all: Vec<_> =
        std::iter::once(line.evidence()).chain(credits.into_iter().map(|(_, evidence)| evidence)).collect();
    if demanded >= 4 {
        return Outcome::pass("new passwords have every kind of character", all);
    }
    Outcome::fail("new passwords need fewer than three kinds of characters", all)
}

/// Whether a number is one that a rule allows.
type Holds = fn(i64) -> bool;

/// Dictionary words, repeats and sequences in new passwords.
pub(crate) fn password_dictcheck(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let line = match quality_module(guest) {
        Ok(line) => line,
        Err(outcome) => return outcome,
    };
    let mut evidence = vec![line.evidence()];
    let mut lax = Vec::new();
    let rules: [(&str, i64, Holds); 4] = [
        ("dictcheck", 1, |value| value != 0),
        ("maxrepeat", 0, |value| (1..=3).contains(&value)),
        ("maxsequence", 0, |value| (1..=3).contains(&value)),
        ("difok", 1, |value| value >= 2),
    ];
    for (key, default, holds) in rules {
        let (value, found) = quality(guest, &line, key, default);
        if !holds(value) {
            lax.push(format!("{key} is {value}"));
        }
        evidence.push(found);
    }
    if lax.is_empty() {
        return Outcome::pass("words, repeats and sequences are refused", evidence);
    }
    Outcome::fail(lax.join(", "), evidence)
}

/// Earlier passwords that are remembered.
pub(crate) fn password_history(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let limit = asked.limit_number(24);
    let stack = pam::common(guest.files, "password");
    if stack.is_empty() && !guest.files.is_dir("/etc/pam.d") {
        return Outcome::unknown("no PAM stack for changing passwords was found in /etc/pam.d");
    }
    let history = stack.iter().find(|line| line.module == "pam_pwhistory");
    let unix = stack.iter().find(|line| line.module == "pam_unix" && line.argument("remember").is_some());
    let Some(line) = history.or(unix) else {
        let looked = Evidence::absent("/etc/pam.d", "password pam_pwhistory");
        return Outcome::fail("nothing in the PAM stack remembers passwords", vec![looked]);
    };
    let mut evidence = vec![line.evidence()];
    let written = line.argument("remember").and_then(|value| value.parse::<i64>().ok());
    let remembered = written.unwrap_or_else(|| {
        let file = pam::configuration(guest.files, "pwhistory");
        let fact = last(&file, "remember", "/etc/security/pwhistory.conf");
        let value = fact.value.as_ref().and_then(|value| value.as_str()?.trim().parse().ok());
        evidence.extend(fact.evidence);
        // Source: pam_pwhistory(8).
        value.unwrap_or(10)
    });
    if remembered >= limit {
        return Outcome::pass(format!("{remembered} passwords are remembered"), evidence);
    }
    Outcome::fail(format!("{remembered} passwords are remembered, should be {limit}"), evidence)
}

/// pam_faillock where it counts: before the password is asked and after it failed; or its forerunner.
fn lockout_module(guest: &Guest<'_>) -> Result<Vec<pam::Line>, Outcome> {
    let stack = pam::common(guest.files, "auth");
    if stack.is_empty() && !guest.files.is_dir("/etc/pam.d") {
        return Err(Outcome::unknown("no PAM stack for logging in was found in /etc/pam.d"));
    }
    let faillock: Vec<_> = stack.iter().filter(|line| line.module == "pam_faillock").cloned().collect();
    if !faillock.is_empty() {
        let has = |word: &str| faillock.iter().any(|line| line.has(word));
        if has("preauth") && has("authfail") {
            return Ok(faillock);
        }
        let evidence = faillock.iter().map(pam::Line::evidence).collect();
        return Err(Outcome::fail("pam_faillock is not in both of its places, preauth and authfail", evidence));
    }
    let tally: Vec<_> = stack.into_iter().filter(|line| line.module.starts_with("pam_tally")).collect();
    if tally.is_empty() {
        let looked = Evidence::absent("/etc/pam.d", "auth pam_faillock");
        return Err(Outcome::fail("nothing in the PAM stack locks an account after failures", vec![looked]));
    }
    Ok(tally)
}

/// One setting of faillock: an argument is before the file (pam_faillock(8)).
fn faillock(guest: &Guest<'_>, lines: &[pam::Line], key: &str, default: &str) -> (String, Evidence) {
    if let Some((line, value)) = lines.iter().find_map(|line| Some((line, line.argument(key)?))) {
        return (value.to_owned(), line.evidence());
    }
    let file = pam::configuration(guest.files, "faillock");
    let fact = last(&file, key, "/etc/security/faillock.conf");
    match fact.value.as_ref().map(shown) {
        Some(value) => (value, fact.evidence.into_iter().next().unwrap_or_default()),
        None => (default.to_owned(), Evidence::default("pam_faillock", key, default)),
    }
}

/// Failures after which an account is locked.
pub(crate) fn lockout(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let lines = match lockout_module(guest) {
        Ok(lines) => lines,
        Err(outcome) => return outcome,
    };
    let limit = asked.limit_number(5);
    let (value, evidence) = faillock(guest, &lines, "deny", "3");
    let mut all: Vec<_> = lines.iter().map(pam::Line::evidence).collect();
    all.push(evidence);
    if value.parse::<i64>().is_ok_and(|deny| (1..=limit).contains(&deny)) {
        return Outcome::pass(format!("an account is locked after {value} failures"), all);
    }
    Outcome::fail(format!("an account is locked after {value} failures, should be 1 to {limit}"), all)
}

/// How long it stays locked.
pub(crate) fn lockout_time(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let lines = match lockout_module(guest) {
        Ok(lines) => lines,
        Err(outcome) => return outcome,
    };
    let limit = asked.limit_number(900);
    let (value, evidence) = faillock(guest, &lines, "unlock_time", "600");
    let seconds = if value == "never" { Some(0) } else { value.parse::<i64>().ok() };
    match seconds {
        Some(0) => Outcome::pass("an account stays locked until somebody unlocks it", vec![evidence]),
        Some(seconds) if seconds >= limit => {
            Outcome::pass(format!("an account is locked for {seconds} s"), vec![evidence])
        }
        _ => Outcome::fail(format!("an account is locked for {value} s, should be {limit}"), vec![evidence]),
    }
}

/// Files that a login shell of somebody reads, in its order.
fn shell_files(guest: &Guest<'_>) -> Vec<String> {
    let mut paths = vec!["/etc/profile".to_owned()];
    paths.extend(guest.files.with_suffix("/etc/profile.d", ".sh"));
    paths.extend(["/etc/bash.bashrc", "/etc/bashrc", "/etc/profile.local"].map(str::to_owned));
    paths.retain(|path| guest.files.exists(path));
    paths
}

/// `umask` commands of a shell's file: line and mask.
fn umasks(text: &str) -> Vec<(usize, u32)> {
    let found = text.lines().enumerate().filter_map(|(at, line)| {
        let line = line.split('#').next()?.trim();
        let mask = line.split([';', '&', '|']).find_map(|command| command.trim().strip_prefix("umask "))?.trim();
        Some((at.saturating_add(1), mask_of(mask)?))
    });
    found.collect()
}

/// An octal mask, or a symbolic one as `umask -S` takes it.
fn mask_of(text: &str) -> Option<u32> {
    if let Ok(mask) = u32::from_str_radix(text, 8) {
        return Some(mask);
    }
    let mut allowed = [0_u32; 3];
    for part in text.split(',') {
        let (who, bits) = part.split_once('=')?;
        let bits = bits
            .chars()
            .map(|bit| match bit {
                'r' => 4,
                'w' => 2,
                'x' => 1,
                _ => 0,
            })
            .fold(0, |all, bit| all | bit);
        for (at, class) in ['u', 'g', 'o'].into_iter().enumerate() {
            if who.contains(class) || who.contains('a') || who.is_empty() {
                *allowed.get_mut(at)? = bits;
            }
        }
    }
    let [user, group, others] = allowed;
    Some(0o777 & !((user << 6) | (group << 3) | others))
}

/// The mask that a login gets: the last that is set on the way.
pub(crate) fn umask(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let wanted = asked.limit.and_then(|limit| u32::from_str_radix(limit.as_str()?, 8).ok()).unwrap_or(0o027);
    let mut on_the_way = Vec::new();
    let definitions = login_defs(guest);
    let fact = last(&definitions, "UMASK", "/etc/login.defs");
    let defined = fact.value.as_ref().and_then(|value| u32::from_str_radix(value.as_str()?, 8).ok());
    on_the_way.extend(defined.zip(fact.evidence.first().cloned()));
    let session = pam::everywhere(guest.files, "session");
    if let Some((mask, line)) =
        session.iter().filter(|line| line.module == "pam_umask").find_map(|line| Some((line.argument("umask")?, line)))
    {
        on_the_way.extend(u32::from_str_radix(mask, 8).ok().map(|mask| (mask, line.evidence())));
    }
    for path in shell_files(guest) {
        let text = guest.files.text(&path).unwrap_or_default();
        on_the_way.extend(
            umasks(&text)
                .into_iter()
                .map(|(line, mask)| (mask, Evidence::explicit(&*path, "umask", format!("{mask:03o}")).at_line(line))),
        );
    }
    // What the shell sets last stands; one that any file sets laxer stands for those who read that file.
    let Some((mask, evidence)) = on_the_way.pop() else {
        let default = Evidence::default("login", "umask", "022");
        return Outcome::fail("no umask is set, which leaves 022", vec![default]);
    };
    let evidence =
        vec![Evidence { overridden: on_the_way.into_iter().rev().map(|(_, one)| one).collect(), ..evidence }];
    if mask & wanted == wanted {
        return Outcome::pass(format!("the umask of a login is {mask:03o}"), evidence);
    }
    Outcome::fail(format!("the umask of a login is {mask:03o}, should be {wanted:03o} or stricter"), evidence)
}

/// Root's own files set no laxer mask.
pub(crate) fn root_umask(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for path in ["/root/.profile", "/root/.bash_profile", "/root/.bash_login", "/root/.bashrc"] {
        let Some(text) = guest.files.text(path) else { continue };
        let masks = umasks(&text);
        if masks.is_empty() {
            looked_at.push(Evidence::explicit(path, "umask", "not set"));
        }
        for (line, mask) in masks {
            let evidence = Evidence::explicit(path, "umask", format!("{mask:03o}")).at_line(line);
            if mask & 0o027 != 0o027 {
                bad.push(Bad::new(format!("{path}:{line}"), evidence.clone()));
            }
            looked_at.push(evidence);
        }
    }
    if looked_at.is_empty() {
        looked_at.push(Evidence::absent("/root/.profile", "umask"));
    }
    Outcome::none_of(bad, "root's umask is laxer than 027", "root's files set no laxer umask", looked_at)
}

/// An idle shell ends: TMOUT, read-only and exported.
pub(crate) fn tmout(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let limit = asked.limit_number(900);
    let mut found = None;
    let (mut is_readonly, mut is_exported) = (false, false);
    for path in shell_files(guest) {
        let text = guest.files.text(&path).unwrap_or_default();
        for (at, line) in text.lines().enumerate() {
            for command in line.split('#').next().unwrap_or_default().split([';', '&']) {
                let words: Vec<&str> = command.split_whitespace().collect();
                if !words.iter().any(|word| *word == "TMOUT" || word.starts_with("TMOUT=")) {
                    continue;
                }
                let first = words.first().copied().unwrap_or_default();
                is_readonly |= first == "readonly"
                    || ["declare", "typeset"].contains(&first)
                        && words.iter().any(|word| word.starts_with('-') && word.contains('r'));
                is_exported |= first == "export"
                    || ["declare", "typeset"].contains(&first)
                        && words.iter().any(|word| word.starts_with('-') && word.contains('x'));
                let value = words
                    .iter()
                    .find_map(|word| word.strip_prefix("TMOUT=")?.trim_matches(['"', '\'']).parse::<i64>().ok());
                if let Some(seconds) = value {
                    let evidence =
                        Evidence::explicit(&*path, "TMOUT", seconds.to_string()).at_line(at.saturating_add(1));
                    found = Some((seconds, evidence));
                }
            }
        }
    }
    let Some((seconds, evidence)) = found else {
        return Outcome::fail(
            "TMOUT is not set: an idle shell never ends",
            vec![Evidence::absent("/etc/profile.d", "TMOUT")],
        );
    };
    if !(1..=limit).contains(&seconds) {
        return Outcome::fail(format!("TMOUT is {seconds}, should be 1 to {limit}"), vec![evidence]);
    }
    if !is_readonly || !is_exported {
        let what = if is_readonly { "exported" } else { "read-only" };
        return Outcome::fail(format!("TMOUT is {seconds}, but not {what}: everybody can change it"), vec![evidence]);
    }
    Outcome::pass(format!("an idle shell ends after {seconds} s"), vec![evidence])
}

/// The search path of root: nothing that others can put programs into.
pub(crate) fn root_path(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let mut sources = vec!["/etc/environment".to_owned(), "/etc/profile".to_owned()];
    sources.extend(guest.files.with_suffix("/etc/profile.d", ".sh"));
    sources.extend(["/etc/bash.bashrc", "/etc/bashrc"].map(str::to_owned));
    sources.extend(["/root/.profile", "/root/.bash_profile", "/root/.bash_login", "/root/.bashrc"].map(str::to_owned));
    let mut paths = Vec::new();
    for source in sources {
        let Some(text) = guest.files.text(&source) else { continue };
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            let assigned = line.strip_prefix("export ").unwrap_or(line).trim_start().strip_prefix("PATH=");
            if let Some(value) = assigned {
                let value = value.split([';', '#']).next().unwrap_or_default().trim().trim_matches(['"', '\'']);
                paths.push((
                    value.to_owned(),
                    Evidence::explicit(&*source, "PATH", value).at_line(at.saturating_add(1)),
                ));
            }
        }
    }
    let definitions = login_defs(guest);
    let fact = last(&definitions, "ENV_SUPATH", "/etc/login.defs");
    if let Some(value) = fact.value.as_ref().and_then(|value| value.as_str()) {
        let value = value.trim_start_matches("PATH=").to_owned();
        paths.push((value, fact.evidence.into_iter().next().unwrap_or_default()));
    }
    if paths.is_empty() {
        paths.push((
            "/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            Evidence::default("login", "PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        ));
    }
    let (mut bad, mut gone) = (Vec::new(), Vec::new());
    for (value, evidence) in &paths {
        for element in value.split(':') {
            if element.starts_with('/') && !guest.files.exists(element) {
                gone.push(Bad::new(element, evidence.clone()));
            }
            let problem = match element {
                "" => Some("an empty element, which is the current directory".to_owned()),
                "$PATH" | "${PATH}" => None,
                // Variables are the shell's to fill in; the user's own directory is his.
                _ if element.starts_with(['$', '~']) => None,
                _ if !element.starts_with('/') => Some(format!("{element}, which depends on the current directory")),
                _ => open_directory(guest, element),
            };
            bad.extend(problem.map(|problem| Bad::new(problem, evidence.clone())));
        }
    }
    let looked_at = paths.into_iter().map(|(_, evidence)| evidence).collect();
    if bad.is_empty() && !gone.is_empty() {
        return Outcome::none_of(gone, "directories of root's search path that are not there", "", looked_at)
            .softened();
    }
    Outcome::none_of(bad, "root's search path holds", "root's search path is root's alone", looked_at)
}

/// What is wrong with a directory of root's search path.
fn open_directory(guest: &Guest<'_>, path: &str) -> Option<String> {
    let metadata = guest.files.stat(path)?;
    if metadata.mode & 0o022 != 0 && metadata.mode & 0o002 != 0 {
        return Some(format!("{path}, which everybody may write"));
    }
    if metadata.mode & 0o020 != 0 && metadata.gid != 0 && metadata.uid != 0 {
        return Some(format!("{path}, which group {} may write", metadata.gid));
    }
    (metadata.uid != 0).then(|| format!("{path}, which belongs to user {}", metadata.uid))
}

/// People with a home: user ids of people, and a directory that is there.
fn homes<'g>(guest: &'g Guest<'_>) -> Vec<(&'g User, crate::filesystem::Metadata)> {
    let least = uid_min(guest);
    let people = guest.users().iter().filter(|user| user.uid >= least && user.uid < 65_534 && user.home.len() > 1);
    people.filter_map(|user| Some((user, guest.files.stat(&user.home)?))).collect()
}

/// Homes are closed to others.
pub(crate) fn home_permissions(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if guest.users().is_empty() {
        return missing(PASSWD);
    }
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for (user, metadata) in homes(guest) {
        let evidence = stat(&user.home, &metadata);
        if metadata.mode & 0o027 != 0 || u64::from(metadata.uid) != user.uid {
            bad.push(Bad::new(&*user.home, evidence.clone()));
        }
        looked_at.push(evidence);
    }
    if looked_at.is_empty() {
        looked_at.push(Evidence::explicit(PASSWD, "homes of people", "none is there"));
    }
    Outcome::none_of(bad, "homes open to others, or not their user's", "homes are closed to others", looked_at)
}

/// Files in homes that let others in or that others can change.
pub(crate) fn dotfiles(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if guest.users().is_empty() {
        return missing(PASSWD);
    }
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for path in ["/etc/hosts.equiv", "/etc/shosts.equiv", "/etc/ssh/shosts.equiv"] {
        match guest.files.stat(path) {
            Some(metadata) => bad.push(Bad::new(path, stat(path, &metadata))),
            None => looked_at.push(Evidence::absent(path, "file")),
        }
    }
    let least = uid_min(guest);
    let people = guest.users().iter().filter(|user| user.uid == 0 || (user.uid >= least && user.uid < 65_534));
    let mut homes: BTreeSet<String> = people.map(|user| user.home.trim_end_matches('/').to_owned()).collect();
    // Homes of accounts that are gone, or that a server knows.
    homes.extend(guest.files.names("/home").into_iter().map(|name| format!("/home/{name}")));
    homes.extend(["/root", "/home"].map(str::to_owned));
    homes.remove("");
    for home in homes {
        let owners: BTreeSet<u64> =
            guest.users().iter().filter(|user| user.home.trim_end_matches('/') == home).map(|user| user.uid).collect();
        for name in guest.files.names(&home).into_iter().filter(|name| name.starts_with('.')) {
            let path = format!("{home}/{name}");
            let Some(metadata) =
                guest.files.stat_link(&path).filter(|found| found.file_type == crate::filesystem::FileType::Regular)
            else {
                continue;
            };
            let evidence = stat(&path, &metadata);
            let is_bad = match name.as_str() {
                ".rhosts" | ".shosts" => true,
                ".netrc" => metadata.mode & 0o077 != 0,
                _ => {
                    metadata.mode & 0o022 != 0
                        || (metadata.uid != 0 && !owners.is_empty() && !owners.contains(&u64::from(metadata.uid)))
                }
            };
            if is_bad {
                bad.push(Bad::new(path, evidence));
            } else if looked_at.len() < 50 {
                looked_at.push(evidence);
            }
        }
    }
    Outcome::none_of(bad, "files that let others in or that others can change", "no such files", looked_at)
}

/// Who may become root by su: a group that is asked for.
pub(crate) fn su_wheel(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(stack) = pam::stack(guest.files, "su", "auth") else {
        return Outcome::not_applicable("su has no PAM service");
    };
    let Some(line) = stack.iter().find(|line| line.module == "pam_wheel" && line.is_required()) else {
        return Outcome::fail(
            "everybody may try su",
            vec![Evidence::absent("/etc/pam.d/su", "auth required pam_wheel")],
        );
    };
    if line.has("use_uid") || line.argument("group").is_some() {
        return Outcome::pass("only a group may use su", vec![line.evidence()]);
    }
    Outcome::fail("pam_wheel asks the login name, not the user: use_uid is not set", vec![line.evidence()])
}

/// `nologin` is no shell that a user may choose.
pub(crate) fn nologin_shells(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(text) = guest.files.text("/etc/shells") else {
        return Outcome::pass("there is no list of shells", vec![Evidence::absent("/etc/shells", "nologin")]);
    };
    let bad = text
        .lines()
        .enumerate()
        .filter(|(_, line)| line.split('#').next().unwrap_or_default().trim().ends_with("/nologin"))
        .map(|(at, line)| {
            Bad::new(line.trim(), Evidence::explicit("/etc/shells", "shell", line.trim()).at_line(at.saturating_add(1)))
        });
    let looked_at = all_of("/etc/shells", text.lines().count(), "lines");
    Outcome::none_of(bad.collect(), "shells that are none", "every shell that is listed is one", looked_at)
}

/// Files of keys and tokens that people leave in homes: what the name ends in, and what it is.
const SECRETS: [(&str, &str); 14] = [
    (".ssh/id_rsa", "SSH private key"),
    (".ssh/id_dsa", "SSH private key"),
    (".ssh/id_ecdsa", "SSH private key"),
    (".ssh/id_ed25519", "SSH private key"),
    (".aws/credentials", "AWS credentials"),
    (".kube/config", "Kubernetes credentials"),
    (".docker/config.json", "registry credentials"),
    (".git-credentials", "Git credentials"),
    (".pgpass", "PostgreSQL password"),
    (".my.cnf", "MySQL password"),
    (".netrc", "passwords of FTP and HTTP"),
    (".npmrc", "npm token"),
    (".pypirc", "PyPI token"),
    (".config/gcloud/credentials.db", "Google Cloud credentials"),
];

/// Keys and tokens in homes. The values are never shown.
pub(crate) fn secrets_in_home(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let mut homes: BTreeSet<String> =
        guest.users().iter().map(|user| user.home.trim_end_matches('/').to_owned()).collect();
    homes.retain(|home| {
        home.len() > 1 && (home.starts_with("/root") || home.starts_with("/home") || home.starts_with("/Users"))
    });
    if guest.is_windows() {
        homes.extend(guest.files.names("/Users").into_iter().map(|name| format!("/Users/{name}")));
    }
    if homes.is_empty() {
        return Outcome::unknown("no home directory is known");
    }
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for home in &homes {
        for (name, what) in SECRETS {
            let path = format!("{home}/{name}");
            let Some(metadata) = guest.files.stat(&path) else { continue };
            let Some(told) = secret_in(guest, &path, what) else { continue };
            bad.push(Bad::new(
                &*path,
                Evidence::metadata(&*path, what, format!("{told}, mode {:04o}", metadata.mode & 0o7777)),
            ));
        }
        looked_at.push(Evidence::absent(home, "keys and tokens"));
    }
    // Whether it is meant to be there, only people can tell.
    Outcome::none_of(bad, "keys and tokens lie on the disk", "no keys or tokens in homes", looked_at).softened()
}

/// What a file of secrets holds, where it holds one: encrypted keys and configurations without a token are none.
fn secret_in(guest: &Guest<'_>, path: &str, what: &str) -> Option<String> {
    let text = guest.files.text(path)?;
    let has = |needle: &str| text.contains(needle);
    match what {
        "SSH private key" if has("ENCRYPTED") || !has("PRIVATE KEY") => None,
        // A key of OpenSSH's own form names its cipher; `none` stands at the same place in all that are not encrypted.
        "SSH private key"
            if has("OPENSSH") && !text.replace(['\n', '\r'], "").contains("b3BlbnNzaC1rZXktdjEAAAAABG5vbmU") =>
        {
            None
        }
        "registry credentials" if !has("\"auth\"") => None,
        "MySQL password" if !has("password") => None,
        "npm token" if !has("_authToken") && !has("_password") => None,
        "Kubernetes credentials" if !has("token") && !has("client-key-data") && !has("password") => None,
        _ if text.trim().is_empty() => None,
        _ => Some("not encrypted".to_owned()),
    }
}

/// Histories of shells and clients in which passwords were typed.
pub(crate) fn shell_history(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    const HISTORIES: [&str; 6] =
        [".bash_history", ".zsh_history", ".mysql_history", ".psql_history", ".python_history", ".ash_history"];
    const PATTERNS: [&str; 9] = [
        "password=",
        "passwd=",
        "--password ",
        "-u root -p",
        "identified by",
        "mysql_pwd=",
        "pgpassword=",
        "aws_secret_access_key=",
        "authorization: bearer",
    ];
    let mut homes: BTreeSet<&str> = guest.users().iter().map(|user| user.home.trim_end_matches('/')).collect();
    homes.retain(|home| home.len() > 1);
    if homes.is_empty() {
        return Outcome::unknown("no home directory is known");
    }
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for home in homes {
        for name in HISTORIES {
            let path = format!("{home}/{name}");
            let Some(text) = guest.files.text(&path) else { continue };
            looked_at.push(Evidence::explicit(&*path, "lines", text.lines().count().to_string()));
            for (at, line) in text.lines().enumerate() {
                let lower = line.to_ascii_lowercase();
                if let Some(pattern) = PATTERNS.iter().find(|pattern| lower.contains(**pattern)) {
                    let evidence = Evidence::explicit(&*path, pattern.trim_end_matches([' ', '=']), "(not shown)")
                        .at_line(at.saturating_add(1));
                    bad.push(Bad::new(format!("{path}:{}", at.saturating_add(1)), evidence));
                }
            }
        }
    }
    if looked_at.is_empty() {
        looked_at.push(Evidence::absent("/root", ".bash_history"));
    }
    Outcome::none_of(bad, "passwords stand in histories", "no passwords in histories", looked_at)
}

/// A number of login.defs within limits; `with: {key, least, unset}`.
pub(crate) fn login_definition(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let key = asked.text("key");
    let fact = match facts::login_defs(guest, key) {
        Ok(fact) => fact,
        Err(_) => return missing("/etc/login.defs"),
    };
    let number = |name: &str| asked.with.get(name).and_then(serde_json::Value::as_i64);
    let unset = number("unset").unwrap_or(-1);
    let value = fact.value.as_ref().and_then(|value| value.as_str()?.trim().parse::<i64>().ok()).unwrap_or(unset);
    let most = if asked.with.get("most").is_some() { asked.limit_number(i64::MAX) } else { i64::MAX };
    let least = number("least").unwrap_or(i64::MIN);
    if (least..=most).contains(&value) {
        return Outcome::pass(format!("{key} is {value}"), fact.evidence);
    }
    let wanted = if most == i64::MAX { format!("at least {least}") } else { format!("{least} to {most}") };
    Outcome::fail(format!("{key} is {value}, should be {wanted}"), fact.evidence)
}
