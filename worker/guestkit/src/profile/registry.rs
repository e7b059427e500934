//! Values of the registry as rules name them: places parted by `|`, the first that is set wins, so that a policy stands before
//! what is set locally. A place is `hive:key:value`; the hives are `system` (the current control set of it), `machine` (the
//! same hive from its root), `software`, `sam` and `security`.

use serde_json::Value;

use crate::guest::windows::hives::{Data, NamedHive};

use super::facts::{Fact, Missing};
use super::guest::Guest;
use super::outcome::Outcome;
use super::report::Evidence;

/// A value that was looked for.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// `None` where nothing sets it.
    pub(crate) value: Option<Value>,
    /// Where it stands, or where it was looked for first.
    pub(crate) evidence: Evidence,
}

impl Found {
    /// As a number: a text of digits counts, because programs write either.
    pub(crate) fn number(&self) -> Option<i64> {
        self.value.as_ref().and_then(super::evaluate::number)
    }

    /// As a text.
    pub(crate) fn text(&self) -> Option<&str> {
        self.value.as_ref().and_then(Value::as_str)
    }

    /// As several texts, or the one that it is.
    pub(crate) fn texts(&self) -> Vec<&str> {
        match &self.value {
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(text)) if !text.is_empty() => vec![text],
            _ => Vec::new(),
        }
    }
}

/// The family of facts: `registry:software:Policies\…:Name|system:Control\…:Name`.
pub(crate) fn read(guest: &Guest<'_>, places: &str) -> Result<Fact, Missing> {
    let found = find(guest, places)?;
    Ok(Fact { explicit: found.value.is_some(), value: found.value, evidence: vec![found.evidence] })
}

/// What is set at the first of `places` that is set, with what that overrides.
pub(crate) fn find(guest: &Guest<'_>, places: &str) -> Result<Found, Missing> {
    let mut met: Vec<Found> = Vec::new();
    let mut absent = None;
    for place in places.split('|') {
        let found = at(guest, place)?;
        if found.value.is_some() {
            met.push(found);
        } else {
            absent.get_or_insert(found);
        }
    }
    let mut met = met.into_iter();
    let Some(mut winner) = met.next() else {
        return absent.ok_or_else(|| Missing::Unknown(format!("{places:?} is no place of the registry")));
    };
    winner.evidence.overridden = met.map(|lost| lost.evidence).collect();
    Ok(winner)
}

/// The hive called `name` and where in it `key` stands.
pub(crate) fn hive<'g>(guest: &Guest<'g>, name: &str, key: &str) -> Result<(&'g NamedHive<'g>, String), Missing> {
    let Some(hives) = guest.hives else {
        return Err(Missing::NotApplicable("the system has no registry".to_owned()));
    };
    let unread = |name: &str| Missing::Unknown(format!("the registry hive {name} is missing or cannot be read"));
    let found = match name {
        "software" => hives.software().ok_or_else(|| unread("SOFTWARE"))?,
        "sam" => hives.sam().ok_or_else(|| unread("SAM"))?,
        "security" => hives.security().ok_or_else(|| unread("SECURITY"))?,
        _ => hives.system().ok_or_else(|| unread("SYSTEM"))?,
    };
    if name != "system" {
        return Ok((found, key.to_owned()));
    }
    match hives.control_set() {
        Some(set) => Ok((found, format!("{set}\\{key}"))),
        None => Err(Missing::Unknown("SYSTEM\\Select\\Current does not say which control set starts".to_owned())),
    }
}

fn at(guest: &Guest<'_>, place: &str) -> Result<Found, Missing> {
    let parts = place.split_once(':').and_then(|(hive, rest)| Some((hive, rest.rsplit_once(':')?)));
    let Some((name, (key, value))) = parts else {
        return Err(Missing::Unknown(format!("{place:?} is no place of the registry")));
    };
    let (hive, key) = hive(guest, name, key)?;
    let full = format!("{key}\\{value}");
    match hive.look(&key, value) {
        Ok(Some(data)) => {
            let value = json(data);
            let evidence = Evidence::explicit(hive.path(), full, super::evaluate::shown(&value));
            Ok(Found { value: Some(value), evidence })
        }
        Ok(None) => Ok(Found { value: None, evidence: Evidence::absent(hive.path(), &*full) }),
        Err(error) => Err(Missing::Unknown(format!("{}: {full} cannot be read: {}", hive.path(), error.with_causes()))),
    }
}

/// Bytes are told by their length: what they hold is for those who know their layout.
fn json(data: Data) -> Value {
    match data {
        Data::Number(number) => number.into(),
        Data::Text(text) => text.into(),
        Data::Texts(texts) => texts.into(),
        Data::Bytes(bytes) => format!("{} bytes", bytes.len()).into(),
    }
}

impl From<Missing> for Outcome {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::NotApplicable(reason) => Self::not_applicable(reason),
            Missing::Unknown(reason) => Self::unknown(reason),
        }
    }
}
