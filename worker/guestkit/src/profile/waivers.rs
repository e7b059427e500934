//! Waivers: findings that somebody accepts, with why, by whom and until when. What is waived stays in the report; what has
//! expired counts again and says so.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
use super::{Content, ProfileOptions, report};
use crate::guest::linux::{pattern, time};
use crate::guest::report::OperatingSystem;

/// Waivers of one file, or one job.
const WAIVERS_MAX: usize = 1000;

/// An accepted exception.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiver {
    /// The check.
    pub id: String,
    /// Where it holds; everywhere by default.
    #[serde(default, skip_serializing_if = "Scope::is_everywhere")]
    pub scope: Scope,
    /// Why.
    pub justification: String,
    /// By whom.
    pub approver: String,
    /// The last day it holds, `2027-01-31`.
    pub expires: String,
}

/// Where a waiver holds: everything that is given must match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Pattern of the image: of its path where it has a `/`, else of its file name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Pattern of the system: host name, distribution, product name, or device of the root file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Pattern of what is concerned: paths, users, units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

impl Scope {
    fn is_everywhere(&self) -> bool {
        *self == Self::default()
    }

    fn patterns(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let of = [("image", &self.image), ("system", &self.system), ("path", &self.path)];
        of.into_iter().filter_map(|(name, pattern)| Some((name, pattern.as_ref()?)))
    }
}

impl Waiver {
    /// What is wrong with it.
    fn flaw(&self) -> Option<String> {
        let empty = |text: &str| text.trim().is_empty();
        if empty(&self.justification) || empty(&self.approver) {
            return Some("it says why and by whom it was approved".to_owned());
        }
        if self.expires.len() != 10 || self.expires.parse::<jiff::civil::Date>().is_err() {
            return Some(format!("it expires on a day such as 2027-01-31, not on {:?}", self.expires));
        }
        // An empty pattern is a variable that was not set: it would hold everywhere.
        let unset = self.scope.patterns().find(|(_, pattern)| empty(pattern));
        unset.map(|(name, _)| format!("scope.{name} is empty; give a pattern, or leave it out"))
    }

    fn told(&self, expired: bool) -> report::Waiver {
        report::Waiver {
            justification: self.justification.clone(),
            approver: self.approver.clone(),
            expires: self.expires.clone(),
            expired,
        }
    }
}

/// The waivers of a YAML file: a list.
///
/// # Errors
/// What is wrong with it, for whoever wrote it.
pub fn read(yaml: &str) -> Result<Vec<Waiver>, String> {
    let waivers: Vec<Waiver> = serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?;
    if waivers.len() > WAIVERS_MAX {
        return Err(format!("at most {WAIVERS_MAX} waivers, there are {}", waivers.len()));
    }
    let flaw = |waiver: &Waiver| Some(format!("the waiver of {:?}: {}", waiver.id, waiver.flaw()?));
    waivers.iter().find_map(flaw).map_or(Ok(()), Err)?;
    Ok(waivers)
}

impl Content {
    /// Everything that is wrong with the waivers of `options`: a check that does not exist or is not among those that run can
    /// never be waived, and whoever wrote it must hear of it.
    ///
    /// # Errors
    /// Each problem, with the waiver's id.
    pub fn check_waivers(&self, options: &ProfileOptions) -> Result<(), Vec<String>> {
        let known: BTreeSet<&str> = self.ids().collect();
        let selected: BTreeSet<&str> = self.selected(options).iter().map(|rule| rule.id.as_str()).collect();
        let problem = |waiver: &Waiver| {
            let id = waiver.id.as_str();
            let why = if !known.contains(id) {
                Some("there is no such check".to_owned())
            } else if !selected.contains(id) {
                Some("it is not among the checks of these profiles and standards".to_owned())
            } else {
                waiver.flaw()
            };
            why.map(|why| format!("the waiver of {id:?}: {why}"))
        };
        let problems: Vec<_> = options.waivers.iter().filter_map(problem).collect();
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

/// What a system is called.
#[derive(Debug, Clone)]
pub(super) struct Place<'a> {
    pub(super) image: &'a str,
    pub(super) root: &'a str,
    pub(super) system: &'a OperatingSystem,
}

impl Place<'_> {
    fn is_in(&self, scope: &Scope) -> bool {
        let os = self.system;
        let image = scope.image.as_deref().is_none_or(|pattern| {
            let name = if pattern.contains('/') { Some(self.image) } else { self.image.rsplit('/').next() };
            name.is_some_and(|name| pattern::matches(pattern, name))
        });
        let names =
            [os.hostname.as_deref(), os.fqdn.as_deref(), os.distribution.as_deref(), os.product_name.as_deref()];
        let mut names = names.into_iter().flatten().chain([self.root]);
        image && scope.system.as_deref().is_none_or(|pattern| names.any(|name| pattern::matches(pattern, name)))
    }
}

/// What waivers say of a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cover {
    /// Nothing.
    None,
    /// It is accepted.
    Whole(report::Waiver),
    /// Of what is concerned, so many are accepted.
    Part { covered: usize, concerned: usize },
    /// It was accepted until then.
    Expired(report::Waiver),
}

/// A job's waivers, and which of them met something.
#[derive(Debug)]
pub(super) struct Waivers<'a> {
    all: &'a [Waiver],
    /// The day of the reference time.
    today: String,
    used: BTreeSet<usize>,
}

impl<'a> Waivers<'a> {
    pub(super) fn new(all: &'a [Waiver], reference_time: i64) -> Self {
        let today = time::day(reference_time.div_euclid(86_400)).unwrap_or_default();
        Self { all, today, used: BTreeSet::new() }
    }

    fn of(&self, place: &Place<'_>, id: &str) -> Vec<(usize, &'a Waiver)> {
        let all = self.all.iter().enumerate();
        all.filter(|(_, waiver)| waiver.id == id && place.is_in(&waiver.scope)).collect()
    }

    fn is_live(&self, waiver: &Waiver) -> bool {
        waiver.expires >= self.today
    }

    /// What they say of a check that fails or warns.
    pub(super) fn cover(&mut self, place: &Place<'_>, id: &str, outcome: &Outcome) -> Cover {
        let (live, expired): (Vec<_>, Vec<_>) =
            self.of(place, id).into_iter().partition(|(_, waiver)| self.is_live(waiver));
        let concerned = concerned(outcome);
        let covered = self.covering(&live, &concerned);
        if let Some((_, waiver)) = covered.whole {
            return Cover::Whole(waiver.told(false));
        }
        let was = self.covering(&expired, &concerned);
        match (covered.count, was.whole.or(was.first)) {
            (_, Some((_, waiver))) => Cover::Expired(waiver.told(true)),
            (0, None) => Cover::None,
            (count, None) => Cover::Part { covered: count, concerned: concerned.len() },
        }
    }

    /// Whether a check is accepted whatever it concerns.
    pub(super) fn is_waived_whole(&self, place: &Place<'_>, id: &str) -> bool {
        self.of(place, id).iter().any(|(_, waiver)| waiver.scope.path.is_none() && self.is_live(waiver))
    }

    fn covering<'w>(&mut self, waivers: &[(usize, &'w Waiver)], concerned: &[Vec<&str>]) -> Covering<'w> {
        if let Some(whole) = waivers.iter().find(|(_, waiver)| waiver.scope.path.is_none()) {
            self.used.insert(whole.0);
            return Covering { whole: Some(*whole), first: Some(*whole), count: concerned.len() };
        }
        let mut covering = Covering { whole: None, first: None, count: 0 };
        for names in concerned {
            let by = waivers.iter().find(|(_, waiver)| {
                let wanted = waiver.scope.path.as_deref().unwrap_or_default();
                names.iter().any(|name| pattern::matches(wanted, name))
            });
            let Some(by) = by else { continue };
            self.used.insert(by.0);
            covering.count = covering.count.saturating_add(1);
            covering.first = covering.first.or(Some(*by));
        }
        if covering.count == concerned.len() {
            covering.whole = covering.first;
        }
        covering
    }

    /// Those that met nothing, for the report.
    pub(super) fn unused(&self) -> impl Iterator<Item = String> {
        let idle = self.all.iter().enumerate().filter(|(at, _)| !self.used.contains(at));
        idle.map(|(_, waiver)| {
            format!("the waiver of {} (until {}) covers no finding of this disk", waiver.id, waiver.expires)
        })
    }
}

/// What some waivers cover of a finding.
struct Covering<'w> {
    whole: Option<(usize, &'w Waiver)>,
    first: Option<(usize, &'w Waiver)>,
    count: usize,
}

/// Each thing that a finding is about, by the names a pattern may have for it.
fn concerned(outcome: &Outcome) -> Vec<Vec<&str>> {
    let (subjects, evidence) = (&outcome.subjects, &outcome.evidence);
    if subjects.len() == evidence.len() {
        let pairs = subjects.iter().zip(evidence);
        return pairs.map(|(subject, evidence)| vec![subject.as_str(), evidence.path.as_str()]).collect();
    }
    let names: BTreeSet<&str> = match subjects.as_slice() {
        [] => evidence.iter().map(|evidence| evidence.path.as_str()).collect(),
        subjects => subjects.iter().map(String::as_str).collect(),
    };
    names.into_iter().map(|name| vec![name]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::report::Evidence;
    use super::*;

    /// 2026-06-30.
    const TODAY: i64 = 1_782_777_600;

    fn waiver(scope: Scope, expires: &str) -> Waiver {
        let text = str::to_owned;
        Waiver { id: text("a.b"), scope, justification: text("why"), approver: text("who"), expires: text(expires) }
    }

    fn on(path: &str) -> Scope {
        Scope { path: Some(path.to_owned()), ..Scope::default() }
    }

    fn cover(waivers: &[Waiver], outcome: &Outcome) -> (Cover, usize) {
        let system = OperatingSystem { hostname: Some("web1".to_owned()), ..OperatingSystem::default() };
        let place = Place { image: "/vms/web1.qcow2", root: "/dev/sda1", system: &system };
        let mut all = Waivers::new(waivers, TODAY);
        let cover = all.cover(&place, "a.b", outcome);
        (cover, all.unused().count())
    }

    fn two() -> Outcome {
        let evidence = |path: &str| Evidence::metadata(path, "mode", "0666");
        Outcome::fail("they are there", vec![evidence("/srv/a"), evidence("/etc/b")])
            .with_subjects(["/srv/a", "/etc/b"])
    }

    #[test]
    fn a_waiver_covers_what_it_names_until_its_last_day() {
        let everywhere = Scope::default();
        let (covered, unused) = cover(&[waiver(everywhere.clone(), "2026-06-30")], &two());
        assert!(matches!(covered, Cover::Whole(ref told) if told.approver == "who" && !told.expired), "{covered:?}");
        assert_eq!(unused, 0);
        let (covered, _) = cover(&[waiver(everywhere, "2026-06-29")], &two());
        assert!(matches!(covered, Cover::Expired(ref told) if told.expired), "{covered:?}");
        assert_eq!(cover(&[], &two()).0, Cover::None);
    }

    #[test]
    fn scopes_must_all_match() {
        let check = |image: Option<&str>, system: Option<&str>, holds: bool| {
            let scope = Scope { image: image.map(str::to_owned), system: system.map(str::to_owned), path: None };
            let (covered, unused) = cover(&[waiver(scope, "2027-01-01")], &two());
            assert_eq!(matches!(covered, Cover::Whole(_)), holds, "{image:?} {system:?}: {covered:?}");
            assert_eq!(unused, usize::from(!holds));
        };
        check(Some("web*.qcow2"), None, true);
        check(Some("/vms/*"), None, true);
        check(Some("/srv/*"), None, false);
        check(Some("qcow2"), None, false);
        check(None, Some("web?"), true);
        check(None, Some("/dev/sda1"), true);
        check(Some("web1*"), Some("db*"), false);
    }

    #[test]
    fn a_finding_about_several_is_waived_when_each_is_covered() {
        let until = "2027-01-01";
        let (covered, _) = cover(&[waiver(on("/srv/*"), until)], &two());
        assert_eq!(covered, Cover::Part { covered: 1, concerned: 2 });
        let (covered, _) = cover(&[waiver(on("/srv/*"), until), waiver(on("/etc/*"), until)], &two());
        assert!(matches!(covered, Cover::Whole(_)), "{covered:?}");
        let (covered, unused) = cover(&[waiver(on("/opt/*"), until)], &two());
        assert_eq!((covered, unused), (Cover::None, 1));
        // A user is named by where it stands, too.
        let user = Outcome::fail("", vec![Evidence::explicit("/etc/sudoers.d/90-cloud-init-users", "debian", "ALL")]);
        let user = user.with_subjects(["debian"]);
        for path in ["debian", "/etc/sudoers.d/90-*"] {
            assert!(matches!(cover(&[waiver(on(path), until)], &user).0, Cover::Whole(_)), "{path}");
        }
    }

    #[test]
    fn files_are_read_strictly() {
        let sound =
            "- id: a.b\n  justification: why\n  approver: who\n  expires: 2027-01-31\n  scope: {path: /srv/*}\n";
        let read_one = read(sound).unwrap();
        assert_eq!(read_one, [waiver(on("/srv/*"), "2027-01-31")]);
        let refused = |from: &str, to: &str, words: &str| {
            let error = read(&sound.replace(from, to)).expect_err(to);
            assert!(error.contains(words), "{to:?}: {error}");
        };
        refused("  approver: who\n", "", "approver");
        refused("expires: 2027-01-31", "expires: never", "2027-01-31");
        refused("expires: 2027-01-31", "expires: 2027-02-30", "a.b");
        refused("path: /srv/*", "path: ''", "scope.path is empty");
        refused("path: /srv/*", "host: a", "host");
        refused("why", "' '", "why and by whom");
    }
}
