//! Judges a rule: three-valued, with the evidence of every fact it touched.

use serde_json::Value;

use super::facts::{self, Fact, Family, Missing};
use super::guest::Guest;
use super::outcome::{Outcome, Status};
use super::report::Evidence;
use super::rule::{Check, Rule};
use super::{Semantics, checks};
use crate::guest::linux::pattern;

/// What a function of `checks/` is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// What the rule gives it.
    pub(crate) with: &'a Value,
    /// What `$limit` stands for.
    pub(crate) limit: Option<&'a Value>,
    pub(crate) semantics: Semantics,
}

impl Asked<'_> {
    /// A number of the rule's `with`.
    pub(crate) fn limit_number(&self, default: i64) -> i64 {
        self.limit.and_then(number).unwrap_or(default)
    }

    /// The outcome where only what is written down counts, and this is not.
    pub(crate) fn unwritten(&self, evidence: &Evidence) -> Option<Outcome> {
        let is_unwritten = self.semantics == Semantics::Explicit && evidence.source == "compiled-default";
        is_unwritten.then(|| Outcome::fail(format!("{} is not set explicitly", evidence.key), vec![evidence.clone()]))
    }

    /// Texts of a list of the rule's `with`.
    pub(crate) fn texts(&self, key: &str) -> Vec<&str> {
        let list = self.with.get(key).and_then(Value::as_array);
        list.map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
    }

    /// A text of the rule's `with`.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.with.get(key).and_then(Value::as_str).unwrap_or_default()
    }
}

/// A check written in Rust: a walk or a join.
pub(crate) type Function = fn(&Guest<'_>, &Asked<'_>) -> Outcome;

include!(concat!(env!("OUT_DIR"), "/names.rs"));

/// Whether there is such a function, and such a family of facts: asked of rules that come at run time.
pub(crate) fn knows(check: &Check) -> Result<(), String> {
    let (mut functions, mut families) = (Default::default(), Default::default());
    check.names(&mut functions, &mut families);
    if let Some(name) = functions.iter().find(|name| function(name).is_none()) {
        return Err(format!("there is no function {name:?}"));
    }
    families.iter().find(|name| family(name).is_none()).map_or(Ok(()), |name| Err(format!("there is no fact {name:?}")))
}

/// The rule's verdict with the limit of `standard`.
pub(crate) fn judge(rule: &Rule, guest: &Guest<'_>, standard: &str) -> Outcome {
    let semantics = guest.options.semantics;
    let limit = rule.limits.get(standard).or_else(|| rule.limits.get("default"));
    let context = Context { guest, limit, semantics };
    if let Some(when) = &rule.when {
        // Whether something applies is never a matter of who wrote it down.
        let effective = Context { semantics: Semantics::Effective, ..context };
        match effective.meets(&when.holds) {
            outcome if outcome.status == Status::Pass => {}
            outcome if outcome.status == Status::Unknown => return outcome,
            _ => return Outcome::not_applicable(&*when.otherwise),
        }
    }
    let outcome = context.meets(&rule.check);
    if !matches!(outcome.status, Status::Fail | Status::Warn) {
        return outcome;
    }
    let worse =
        rule.escalate.iter().filter(|one| context.meets(&one.when).status == Status::Pass).map(|one| one.to).max();
    match worse {
        Some(worse) if outcome.severity.is_none_or(|severity| severity < worse) => outcome.with_severity(worse),
        _ => outcome,
    }
}

#[derive(Clone, Copy)]
struct Context<'c, 'g> {
    guest: &'c Guest<'g>,
    limit: Option<&'c Value>,
    semantics: Semantics,
}

impl<'c> Context<'c, '_> {
    fn meets(&self, check: &'c Check) -> Outcome {
        let outcome = self.meets_plainly(check);
        let Some(warn) = check.warn.as_deref().filter(|_| outcome.status == Status::Fail) else { return outcome };
        if self.meets(warn).status == Status::Pass { outcome.softened() } else { outcome }
    }

    fn meets_plainly(&self, check: &'c Check) -> Outcome {
        if let Some(name) = &check.function {
            let Some(function) = function(name) else {
                return Outcome { status: Status::Error, ..Outcome::unknown(format!("there is no function {name:?}")) };
            };
            return function(self.guest, &Asked { with: &check.with, limit: self.limit, semantics: self.semantics });
        }
        if let Some(fact) = &check.fact {
            return self.fact(fact, check);
        }
        if !check.all.is_empty() {
            return all(check.all.iter().map(|check| self.meets(check)));
        }
        any(check.any.iter().map(|check| self.meets(check)))
    }

    fn fact(&self, name: &str, check: &'c Check) -> Outcome {
        let (family_name, argument) = name.split_once(':').unwrap_or((name, ""));
        let Some(read) = family(family_name) else {
            return Outcome { status: Status::Error, ..Outcome::unknown(format!("there is no fact {family_name:?}")) };
        };
        match read(self.guest, argument) {
            Ok(fact) => self.ask(spoken(family_name, argument), &fact, check),
            Err(Missing::NotApplicable(reason)) => Outcome::not_applicable(reason),
            Err(Missing::Unknown(reason)) => Outcome::unknown(reason),
        }
    }

    /// Asks one thing of a fact.
    fn ask(&self, key: &str, fact: &Fact, check: &'c Check) -> Outcome {
        let default = check.default.as_ref().filter(|_| fact.value.is_none());
        let evidence: Vec<_> = match default {
            Some(default) => {
                let told = shown(default);
                fact.evidence.iter().map(|looked| Evidence::default(&*looked.path, &*looked.key, &*told)).collect()
            }
            None => fact.evidence.clone(),
        };
        let is_set = fact.value.is_some() && (fact.explicit || self.semantics == Semantics::Effective);
        if let Some(wanted) = check.is_set {
            let reason = if is_set { format!("{key} is set") } else { format!("{key} is not set") };
            return if is_set == wanted { Outcome::pass(reason, evidence) } else { Outcome::fail(reason, evidence) };
        }
        let is_known = fact.value.is_some() || check.default.is_some();
        if self.semantics == Semantics::Explicit && is_known && !fact.explicit {
            return Outcome::fail(format!("{key} is not set explicitly"), evidence);
        }
        let Some(value) = fact.value.as_ref().or(check.default.as_ref()) else {
            return Outcome::fail(format!("{key} is not set"), evidence);
        };
        let limit = |wanted: &'c Value| match wanted.as_str() {
            Some("$limit") => self.limit.unwrap_or(&Value::Null),
            _ => wanted,
        };
        let told = shown(value);
        let (holds, wanted) = if let Some(wanted) = &check.eq {
            (Some(equal(value, limit(wanted))), shown(limit(wanted)))
        } else if let Some(wanted) = &check.ne {
            (Some(!equal(value, limit(wanted))), format!("anything but {}", shown(limit(wanted))))
        } else if let Some(wanted) = &check.le {
            (compare(value, limit(wanted)).map(|order| order <= 0), format!("at most {}", shown(limit(wanted))))
        } else if let Some(wanted) = &check.ge {
            (compare(value, limit(wanted)).map(|order| order >= 0), format!("at least {}", shown(limit(wanted))))
        } else if let Some(wanted) = &check.one_of {
            let list: Vec<_> = wanted.iter().map(shown).collect();
            (Some(wanted.iter().any(|wanted| equal(value, wanted))), format!("one of {}", list.join(", ")))
        } else if let Some(wanted) = &check.within_mask {
            let mask = octal(limit(wanted));
            let holds = octal(value).zip(mask).map(|(mode, mask)| mode & !mask == 0);
            (holds, format!("{:04o} or stricter", mask.unwrap_or_default()))
        } else if let Some(patterns) = &check.contains_none {
            let weak: Vec<&str> = entries(value)
                .filter(|entry| patterns.iter().any(|pattern| pattern::matches(pattern, entry)))
                .collect();
            if !weak.is_empty() {
                return Outcome::fail(format!("{key} allows {}", weak.join(", ")), evidence).with_subjects(weak);
            }
            (Some(true), "none of the weak ones".to_owned())
        } else {
            (None, "something that a rule asks".to_owned())
        };
        match holds {
            Some(true) => Outcome::pass(format!("{key} is {told}"), evidence),
            Some(false) => Outcome::fail(format!("{key} is {told}, should be {wanted}"), evidence),
            None => {
                let reason = format!("{key} is {told}, which is not {wanted}");
                Outcome { status: Status::Error, ..Outcome::fail(reason, evidence) }
            }
        }
    }
}

/// What a fact is called in reasons: of places in the registry the name of the value.
fn spoken<'a>(family: &str, argument: &'a str) -> &'a str {
    let last = argument.rsplit(':').next();
    last.filter(|_| family == "registry").unwrap_or(argument)
}

/// Holds where all hold; what fails decides before what is unknown.
pub(crate) fn all(outcomes: impl Iterator<Item = Outcome>) -> Outcome {
    let rank = |status| match status {
        Status::Fail => 6,
        Status::Warn => 5,
        Status::Error => 4,
        Status::Unknown => 3,
        Status::Manual => 2,
        Status::Pass => 1,
        Status::NotApplicable => 0,
    };
    joined(outcomes, rank)
}

/// Holds where one holds; what is unknown decides before what fails.
pub(crate) fn any(outcomes: impl Iterator<Item = Outcome>) -> Outcome {
    let rank = |status| match status {
        Status::Pass => 6,
        Status::Warn => 5,
        Status::Error => 4,
        Status::Unknown => 3,
        Status::Manual => 2,
        Status::Fail => 1,
        Status::NotApplicable => 0,
    };
    joined(outcomes, rank)
}

/// The outcome of the highest rank, with the reasons and the evidence of all of its state.
fn joined(outcomes: impl Iterator<Item = Outcome>, rank: impl Fn(Status) -> u8) -> Outcome {
    outcomes
        .reduce(|mut best, next| {
            if rank(next.status) > rank(best.status) {
                return next;
            }
            if next.status == best.status {
                if !next.reason.is_empty() && !best.reason.contains(&next.reason) {
                    best.reason = format!("{}; {}", best.reason, next.reason);
                }
                best.evidence.extend(next.evidence);
                best.subjects.extend(next.subjects);
                best.severity = best.severity.max(next.severity);
            }
            best
        })
        .unwrap_or_else(|| Outcome::unknown("nothing was asked"))
}

/// A value for people.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(shown).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

pub(crate) fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Bool(flag) => Some(i64::from(*flag)),
        _ => None,
    }
}

fn equal(a: &Value, b: &Value) -> bool {
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a == b,
        _ => shown(a).eq_ignore_ascii_case(&shown(b)),
    }
}

/// Below zero where `a` is less, above where it is more.
fn compare(a: &Value, b: &Value) -> Option<i64> {
    number(a)?.checked_sub(number(b)?)
}

/// Permission bits: a number, or its octal text.
fn octal(value: &Value) -> Option<u32> {
    match value {
        Value::String(text) => u32::from_str_radix(text.trim_start_matches("0o"), 8).ok(),
        other => u32::try_from(other.as_u64()?).ok(),
    }
}

fn entries(value: &Value) -> impl Iterator<Item = &str> {
    let list: Vec<&str> = match value {
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        Value::String(text) => text.split([',', ' ']).collect(),
        _ => Vec::new(),
    };
    list.into_iter().map(str::trim).filter(|entry| !entry.is_empty())
}
