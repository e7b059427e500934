//! Who may become whom: sudoers(5).

use crate::guest::linux::sudoers::Sudoers;
use crate::guest::report::{SudoDefault, SudoRule};
use crate::profile::evaluate::Asked;
use crate::profile::facts::split_line;
use crate::profile::guest::Guest;
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::report::Evidence;

use super::ssh::stat;

const SUDOERS: &str = "/etc/sudoers";

fn source(source: &str) -> (&str, Option<u32>) {
    split_line(source)
}

fn rule_evidence(rule: &SudoRule) -> Evidence {
    let (path, line) = source(&rule.source);
    let tags = if rule.tags.is_empty() { String::new() } else { format!("{}: ", rule.tags.join(": ")) };
    let value = format!("{} = ({}) {tags}{}", rule.hosts.join(", "), rule.run_as_users.join(", "), rule.command);
    Evidence { line, ..Evidence::explicit(path, rule.users.join(", "), value) }
}

fn default_evidence(default: &SudoDefault) -> Evidence {
    let (path, line) = source(&default.source);
    let value = if default.value.is_empty() {
        default.operator.clone()
    } else {
        format!("{}{}", default.operator, default.value)
    };
    Evidence { line, ..Evidence::explicit(path, format!("Defaults{} {}", default.scope, default.name), value) }
}

/// Where there is no sudo, there is nothing to judge.
fn absent(guest: &Guest<'_>) -> Option<Outcome> {
    let paths = [SUDOERS, "/usr/etc/sudoers", "/etc/sudoers.d", "/usr/bin/sudo"];
    guest.files.first_existing(&paths).is_none().then(|| Outcome::not_applicable("sudo is not installed"))
}

fn rules<'g>(guest: &'g Guest<'_>) -> &'g [SudoRule] {
    guest.system.users.as_ref().map_or(&[], |users| &users.sudo_rules)
}

fn defaults<'g>(guest: &'g Guest<'_>) -> &'g [SudoDefault] {
    guest.system.users.as_ref().map_or(&[], |users| &users.sudo_defaults)
}

fn looked_at(guest: &Guest<'_>) -> Vec<Evidence> {
    vec![Evidence::explicit(SUDOERS, "rules", rules(guest).len().to_string())]
}

/// Whether a flag of Defaults without a scope holds in the end, and the line that says so.
fn flag<'g>(guest: &'g Guest<'_>, name: &str) -> Option<(bool, &'g SudoDefault)> {
    let last = defaults(guest)
        .iter()
        .rfind(|default| default.scope.is_empty() && default.name.trim_start_matches('!') == name)?;
    let is_off = last.name.starts_with('!') || last.operator == "!" || last.value == "false";
    Some((!is_off, last))
}

/// The file of the rule that cloud-init writes for the user of an image.
fn is_of_cloud(rule: &SudoRule) -> bool {
    source(&rule.source)
        .0
        .rsplit('/')
        .next()
        .is_some_and(|name| name.contains("cloud-init") || name == "google_sudoers" || name == "waagent")
}

/// Commands without a password.
pub(crate) fn nopasswd(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if let Some(outcome) = absent(guest) {
        return outcome;
    }
    let lax: Vec<_> = rules(guest).iter().filter(|rule| rule.tags.iter().any(|tag| tag == "NOPASSWD")).collect();
    let is_cloud = !lax.is_empty() && lax.iter().all(|rule| is_of_cloud(rule));
    let bad = lax.iter().map(|rule| Bad::new(rule.users.join(", "), rule_evidence(rule))).collect();
    let outcome =
        Outcome::none_of(bad, "commands without a password", "every command asks for a password", looked_at(guest));
    if is_cloud { outcome.softened() } else { outcome }
}

/// `!authenticate`, which asks nobody.
pub(crate) fn authenticate(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if let Some(outcome) = absent(guest) {
        return outcome;
    }
    let names = |default: &&SudoDefault| default.name.trim_start_matches('!') == "authenticate";
    let off =
        |default: &&SudoDefault| default.name.starts_with('!') || default.operator == "!" || default.value == "false";
    let lax = defaults(guest).iter().filter(names).filter(off);
    let bad = lax.map(|default| Bad::new(&*default.source, default_evidence(default))).collect();
    Outcome::none_of(bad, "sudo asks for no password", "sudo asks for a password", looked_at(guest))
}

/// Everything, for others than root and the group of administrators.
pub(crate) fn all_all(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if let Some(outcome) = absent(guest) {
        return outcome;
    }
    let expected = ["root", "%sudo", "%wheel", "%admin"];
    let everything = rules(guest).iter().filter(|rule| {
        let as_somebody = rule.run_as_users.is_empty() || rule.run_as_users.iter().any(|user| !user.starts_with('!'));
        rule.command == "ALL" && as_somebody && rule.hosts.iter().any(|host| host == "ALL")
    });
    let bad = everything.flat_map(|rule| rule.users.iter().map(move |user| (user, rule)));
    let bad = bad.filter(|(user, _)| !expected.contains(&user.as_str()) && !user.starts_with('!'));
    let bad = bad.map(|(user, rule)| Bad::new(user, rule_evidence(rule))).collect();
    Outcome::none_of(
        bad,
        "others than root and the administrators may do everything",
        "only root and the administrators may do everything",
        looked_at(guest),
    )
}

/// The version of sudo, as numbers.
fn version(guest: &Guest<'_>) -> Option<(u32, u32, u32)> {
    let package = guest.installed(&["sudo", "sudo-ldap"])?;
    let upstream = package.full_version.rsplit(':').next()?.split(['-', '+', 'p']).next()?;
    let mut numbers = upstream.split('.').map(|part| part.parse().unwrap_or(0));
    Some((numbers.next()?, numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)))
}

/// A terminal of its own for each command: written down, or the default since 1.9.14.
pub(crate) fn use_pty(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    if let Some(outcome) = absent(guest) {
        return outcome;
    }
    match flag(guest, "use_pty") {
        Some((true, default)) => Outcome::pass("commands get a terminal of their own", vec![default_evidence(default)]),
        Some((false, default)) => Outcome::fail("use_pty is switched off", vec![default_evidence(default)]),
        None => match version(guest) {
            Some(version) if version >= (1, 9, 14) && asked.semantics == crate::profile::Semantics::Effective => {
                Outcome::pass(
                    "use_pty is the default",
                    vec![Evidence::default("/usr/bin/sudo", "use_pty", "on since 1.9.14")],
                )
            }
            Some(_) => Outcome::fail("use_pty is not set", vec![Evidence::absent(SUDOERS, "Defaults use_pty")]),
            None => Outcome::unknown("the version of sudo, which decides the default of use_pty, is not known"),
        },
    }
}

/// A log of its own.
pub(crate) fn logfile(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if let Some(outcome) = absent(guest) {
        return outcome;
    }
    match defaults(guest)
        .iter()
        .rfind(|default| default.scope.is_empty() && default.name == "logfile" && !default.value.is_empty())
    {
        Some(default) => Outcome::pass("sudo keeps a log of its own", vec![default_evidence(default)]),
        None => Outcome::fail("sudo keeps no log of its own", vec![Evidence::absent(SUDOERS, "Defaults logfile")]),
    }
}

/// Minutes for which a password is remembered: the distributions' builds have 15, upstream 5.
pub(crate) fn timestamp(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    if let Some(outcome) = absent(guest) {
        return outcome;
    }
    let limit = asked.limit_number(15);
    let set = defaults(guest).iter().rfind(|default| default.scope.is_empty() && default.name == "timestamp_timeout");
    let Some(default) = set else {
        let evidence = Evidence::default("/usr/bin/sudo", "timestamp_timeout", "15");
        return if asked.semantics == crate::profile::Semantics::Explicit {
            Outcome::fail("timestamp_timeout is not set explicitly", vec![evidence])
        } else {
            Outcome::pass("a password is remembered for 15 minutes, the default", vec![evidence])
        };
    };
    let minutes: Option<f64> = default.value.parse().ok();
    #[allow(clippy::cast_precision_loss, reason = "minutes")]
    let holds = minutes.is_some_and(|minutes| (0.0..=limit as f64).contains(&minutes));
    let told = format!("a password is remembered for {} minutes", default.value);
    let evidence = vec![default_evidence(default)];
    if holds {
        Outcome::pass(told, evidence)
    } else {
        Outcome::fail(format!("{told}, should be 0 to {limit}"), evidence)
    }
}

/// The files of sudo's configuration are root's, and nobody else can write them.
pub(crate) fn file_permissions(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if let Some(outcome) = absent(guest) {
        return outcome;
    }
    let mut paths = vec![SUDOERS.to_owned()];
    let names = guest.files.names("/etc/sudoers.d").into_iter();
    paths.extend(
        names.filter(|name| !name.contains('.') && !name.ends_with('~')).map(|name| format!("/etc/sudoers.d/{name}")),
    );
    let (mut bad, mut lax, mut looked_at) = (Vec::new(), Vec::new(), Vec::new());
    for path in paths {
        let Some(metadata) = guest.files.stat(&path) else { continue };
        let evidence = stat(&path, &metadata);
        if metadata.uid != 0 || metadata.mode & 0o022 != 0 {
            bad.push(Bad::new(path, evidence.clone()));
        } else if metadata.mode & 0o337 != 0 {
            lax.push(Bad::new(path, evidence.clone()));
        }
        looked_at.push(evidence);
    }
    if bad.is_empty() && !lax.is_empty() {
        return Outcome::none_of(lax, "laxer than 0440", "", looked_at).softened();
    }
    Outcome::none_of(bad, "files that others than root can change", "the files are root's, and only to read", looked_at)
}

/// Lines that sudo does not understand.
pub(crate) fn syntax(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if let Some(outcome) = absent(guest) {
        return outcome;
    }
    let bad = Sudoers::read(guest.files).flaws.into_iter().map(|place| {
        let (path, line) = source(&place);
        Bad::new(&*place, Evidence { line, ..Evidence::explicit(path, "line", "not understood") })
    });
    Outcome::none_of(bad.collect(), "lines that sudo does not understand", "every line is understood", looked_at(guest))
}
