//! Windows. Facts come from the registry as it will be loaded at the next start; a policy wins over what is set locally, and
//! that over the default of the build. Sources: Microsoft's documentation of the values that are named.

use crate::guest::report::Unit;
use crate::profile::Semantics;
use crate::profile::evaluate::Asked;
use crate::profile::guest::Guest;
use crate::profile::outcome::Outcome;
use crate::profile::registry::{self, Found};
use crate::profile::report::Evidence;

pub(in crate::profile) mod accounts;
mod bcd;
pub(in crate::profile) mod credentials;
pub(in crate::profile) mod migration;
pub(in crate::profile) mod network;
pub(in crate::profile) mod performance;
pub(in crate::profile) mod persistence;
pub(in crate::profile) mod services;
pub(in crate::profile) mod system;

/// What a number must be.
#[derive(Debug, Clone, Copy)]
enum Holds {
    Is(i64),
    AtLeast(i64),
    Within(i64, i64),
    /// All of these bits are set.
    Bits(i64),
}

impl Holds {
    const fn meets(self, number: i64) -> bool {
        match self {
            Self::Is(wanted) => number == wanted,
            Self::AtLeast(least) => number >= least,
            Self::Within(least, most) => least <= number && number <= most,
            Self::Bits(bits) => number & bits == bits,
        }
    }

    fn told(self) -> String {
        match self {
            Self::Is(wanted) => wanted.to_string(),
            Self::AtLeast(least) => format!("at least {least}"),
            Self::Within(least, most) => format!("{least} to {most}"),
            Self::Bits(bits) => format!("{bits} ({bits:#x})"),
        }
    }
}

/// A setting that is asked for.
#[derive(Debug, Clone)]
struct Setting {
    /// What to call it.
    name: String,
    places: String,
    /// What it is where nothing sets it; `None` where that does not meet what is asked.
    default: Option<i64>,
    holds: Holds,
}

impl Setting {
    fn new(name: impl Into<String>, places: impl Into<String>, default: Option<i64>, holds: Holds) -> Self {
        Self { name: name.into(), places: places.into(), default, holds }
    }

    /// Its evidence, and what is wrong with it.
    fn judge(&self, guest: &Guest<'_>, semantics: Semantics) -> Result<(Evidence, Option<String>), Outcome> {
        let found = registry::find(guest, &self.places)?;
        let Self { name, default, holds, .. } = self;
        let wanted = holds.told();
        let Some(value) = &found.value else {
            let Some(default) = default.filter(|_| semantics == Semantics::Effective) else {
                return Ok((found.evidence, Some(format!("{name} is not set, should be {wanted}"))));
            };
            let evidence = Evidence::default(found.evidence.path, found.evidence.key, default.to_string());
            let flaw = (!holds.meets(default)).then(|| format!("{name} is {default} by default, should be {wanted}"));
            return Ok((evidence, flaw));
        };
        let meets = found.number().is_some_and(|number| holds.meets(number));
        let told = crate::profile::evaluate::shown(value);
        Ok((found.evidence, (!meets).then(|| format!("{name} is {told}, should be {wanted}"))))
    }
}

/// All of the settings hold; what does not is told, each with its evidence.
fn settings(guest: &Guest<'_>, asked: &Asked<'_>, wanted: &[Setting], good: &str) -> Outcome {
    let (mut evidence, mut flaws) = (Vec::new(), Vec::new());
    for setting in wanted {
        match setting.judge(guest, asked.semantics) {
            Ok((found, flaw)) => {
                evidence.push(found);
                flaws.extend(flaw);
            }
            Err(outcome) => return outcome,
        }
    }
    if flaws.is_empty() { Outcome::pass(good, evidence) } else { Outcome::fail(flaws.join("; "), evidence) }
}

/// A number, by its places, and the default where nothing sets it.
fn number(guest: &Guest<'_>, places: &str, default: i64) -> Result<(i64, Evidence), Outcome> {
    let found = registry::find(guest, places)?;
    match found.number() {
        Some(number) => Ok((number, found.evidence)),
        None => Ok((default, Evidence::default(found.evidence.path, found.evidence.key, default.to_string()))),
    }
}

/// A value, by its places.
fn value(guest: &Guest<'_>, places: &str) -> Result<Found, Outcome> {
    Ok(registry::find(guest, places)?)
}

/// Whether there is a key, and evidence of that.
fn key(guest: &Guest<'_>, hive: &str, path: &str) -> Result<(bool, Evidence), Outcome> {
    let (found, full) = registry::hive(guest, hive, path)?;
    match found.has_key(&full) {
        Ok(true) => Ok((true, Evidence::explicit(found.path(), full, "present"))),
        Ok(false) => Ok((false, Evidence::absent(found.path(), full))),
        Err(error) => {
            Err(Outcome::unknown(format!("{}: {full} cannot be read: {}", found.path(), error.with_causes())))
        }
    }
}

/// The service or driver, whatever the case of its name.
fn service<'g>(guest: &Guest<'g>, name: &str) -> Option<&'g Unit> {
    guest.services()?.units.iter().find(|unit| unit.name.eq_ignore_ascii_case(name))
}

/// Every service, or why they are not known.
fn all_services<'g>(guest: &Guest<'g>) -> Result<&'g [Unit], Outcome> {
    let services = guest.services().map(|services| services.units.as_slice()).unwrap_or_default();
    if services.is_empty() {
        return Err(Outcome::unknown("no services can be read from the registry hive SYSTEM"));
    }
    Ok(services)
}

/// A service's start type as evidence.
fn start_of(guest: &Guest<'_>, unit: &Unit) -> Evidence {
    Evidence::explicit(hive_path(guest, "SYSTEM"), unit.path.clone(), unit.start_type.clone().unwrap_or_default())
}

/// Where a hive lies in the guest.
fn hive_path(guest: &Guest<'_>, name: &str) -> String {
    let root = guest.root.system_root.as_deref().unwrap_or("/Windows");
    format!("{root}/System32/config/{name}")
}

/// Whether the service starts by itself.
fn is_automatic(unit: &Unit) -> bool {
    matches!(unit.start_type.as_deref(), Some("automatic" | "automatic-delayed" | "boot" | "system"))
}

/// Early return of the outcome that there is where a fact is missing.
macro_rules! known {
    ($result:expr) => {
        match $result {
            Ok(found) => found,
            Err(missing) => return missing.into(),
        }
    };
}
use known;
