//! The clock.

use crate::profile::evaluate::Asked;
use crate::profile::guest::Guest;
use crate::profile::outcome::Outcome;
use crate::profile::report::Evidence;
use crate::profile::settings::Systemd;

use super::services::{starting, unit_evidence};

/// Files that chrony's configuration is read from, however many are included.
const FILES_MAX: usize = 200;

/// A program that sets the clock: its name and its units.
const CLIENTS: [(&str, &[&str]); 5] = [
    ("chrony", &["chrony", "chronyd"]),
    ("systemd-timesyncd", &["systemd-timesyncd"]),
    ("ntp", &["ntpsec", "ntp", "ntpd", "ntpsec-systemd"]),
    ("openntpd", &["openntpd"]),
    ("ntpdate", &["ntpdate"]),
];

/// One client, and a source for it. Sources: chrony.conf(5), timesyncd.conf(5), ntp.conf(5), ntpd.conf(5).
pub(crate) fn sync(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    if guest.services().is_none() {
        return Outcome::unknown("no service manager was found");
    }
    let mut found = Vec::new();
    for (name, units) in CLIENTS {
        if let Some((unit_name, unit)) = starting(guest, units) {
            found.push((name, unit_evidence(&unit_name, unit)));
        }
    }
    let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
    let mut evidence: Vec<Evidence> = found.iter().map(|(_, evidence)| evidence.clone()).collect();
    let client = match names.as_slice() {
        [] => {
            let evidence = vec![Evidence::absent("/etc/systemd/system", "chrony, systemd-timesyncd, ntpd")];
            return Outcome::fail("nothing sets the clock", evidence);
        }
        [one] => *one,
        several => {
            let reason = format!("several programs set the clock: {}", several.join(", "));
            return Outcome::fail(reason, evidence).with_subjects(several.iter().copied());
        }
    };
    let source = match client {
        "chrony" => chrony_source(guest),
        "systemd-timesyncd" => timesyncd_source(guest),
        "ntpdate" => Some(Evidence::metadata("/usr/sbin/ntpdate", "source", "of its command line")),
        _ => ["/etc/ntpsec/ntp.conf", "/etc/ntp.conf", "/etc/openntpd/ntpd.conf", "/etc/ntpd.conf"].iter().find_map(
            |path| {
                let text = guest.files.text(path)?;
                source_line(&text, path, &["server", "servers", "pool", "peer", "constraint"])
            },
        ),
    };
    match source {
        Some(source) => {
            if let Some(outcome) = asked.unwritten(&source) {
                return outcome;
            }
            evidence.push(source);
            Outcome::pass(format!("{client} sets the clock"), evidence)
        }
        None => {
            evidence.push(Evidence::absent("configuration", "a source"));
            Outcome::fail(format!("{client} starts, but has no source"), evidence)
        }
    }
}

/// The first line that names a source.
fn source_line(text: &str, path: &str, keys: &[&str]) -> Option<Evidence> {
    text.lines().enumerate().find_map(|(number, line)| {
        let mut words = line.split_whitespace();
        let key = words.next()?;
        let value = words.next()?;
        let is_source = keys.iter().any(|known| key.eq_ignore_ascii_case(known)) && !value.starts_with("127.127.1.");
        is_source.then(|| Evidence::explicit(path, key, value).at_line(number.saturating_add(1)))
    })
}

fn chrony_source(guest: &Guest<'_>) -> Option<Evidence> {
    let mut queue: Vec<String> = vec!["/etc/chrony.conf".to_owned(), "/etc/chrony/chrony.conf".to_owned()];
    let mut read = 0_usize;
    while let Some(path) = queue.pop() {
        let Some(text) = guest.files.text(&path) else { continue };
        read = read.saturating_add(1);
        if let Some(found) = source_line(&text, &path, &["server", "pool", "peer", "refclock"]) {
            return Some(found);
        }
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let Some(key) = words.next() else { continue };
            let more: Vec<String> = match key.to_ascii_lowercase().as_str() {
                "include" => words.flat_map(|pattern| guest.files.glob(pattern)).collect(),
                "confdir" => words.flat_map(|directory| guest.files.with_suffix(directory, ".conf")).collect(),
                "sourcedir" => words.flat_map(|directory| guest.files.with_suffix(directory, ".sources")).collect(),
                _ => continue,
            };
            if read.saturating_add(queue.len()) < FILES_MAX {
                queue.extend(more);
            }
        }
    }
    None
}

/// Servers that are written down, or those that the program was built with.
fn timesyncd_source(guest: &Guest<'_>) -> Option<Evidence> {
    let conf = Systemd::read(guest, "timesyncd.conf");
    let named = conf.get("Time", "NTP").or_else(|| conf.get("Time", "FallbackNTP"));
    let (_, evidence) = named.unwrap_or_else(|| conf.get_or("Time", "FallbackNTP", "those of the distribution"));
    Some(evidence)
}
