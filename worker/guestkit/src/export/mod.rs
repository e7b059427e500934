//! Reports in other tools' forms. A form is a pure function of the report: what carries a report, and whoever prints it, need
//! not agree on anything else.

mod cyclonedx;
mod html;
mod spdx;
mod virt_inspector;
mod xml;

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use crate::bytes::hex;
use crate::guest::report::{GuestSystem, InspectReport, Package};

/// A form that a report of an inspection can have, besides its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// The XML of virt-inspector.
    VirtInspector,
    /// CycloneDX 1.6 in JSON.
    CycloneDx,
    /// SPDX 2.3 in JSON.
    Spdx,
    /// One page of HTML that needs nothing else.
    Html,
}

impl Form {
    /// Every form.
    pub const ALL: [Self; 4] = [Self::VirtInspector, Self::CycloneDx, Self::Spdx, Self::Html];

    /// The word that is typed for it and that documents name it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VirtInspector => "virt-inspector",
            Self::CycloneDx => "cyclonedx",
            Self::Spdx => "spdx",
            Self::Html => "html",
        }
    }

    /// The form called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.name() == name)
    }

    /// What a file of this form is called after its stem.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::VirtInspector => "xml",
            Self::CycloneDx => "cdx.json",
            Self::Spdx => "spdx.json",
            Self::Html => "html",
        }
    }

    /// Its media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::VirtInspector => "application/xml",
            Self::CycloneDx => "application/vnd.cyclonedx+json",
            Self::Spdx => "application/spdx+json",
            Self::Html => "text/html",
        }
    }

    /// `report` in this form, with a line feed at its end; `now` is noted as the time of the document where the form has one.
    #[must_use]
    pub fn render(self, report: &InspectReport, now: SystemTime) -> String {
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let instant = jiff::Timestamp::from_second(i64::try_from(seconds).unwrap_or(0)).unwrap_or_default();
        let created_at = instant.to_string();
        match self {
            Self::VirtInspector => virt_inspector::render(report),
            Self::CycloneDx => cyclonedx::render(report, &created_at),
            Self::Spdx => spdx::render(report, &created_at),
            Self::Html => html::render(report, &created_at),
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The packages that are installed.
fn installed(system: &GuestSystem) -> impl Iterator<Item = &Package> {
    let packages = system.packages.iter().flat_map(|packages| &packages.packages);
    packages.filter(|package| package.state == "installed")
}

/// A UUID that the same report always gets (version 8 of RFC 9562, from a SHA-256).
fn uuid_of(report: &InspectReport) -> String {
    let mut hash = Sha256::new();
    hash.update(report.image_path.as_bytes());
    hash.update(report.image.sha256.as_deref().unwrap_or_default().as_bytes());
    for system in &report.systems {
        hash.update(system.root.as_bytes());
        hash.update(system.operating_system.machine_id.as_deref().unwrap_or_default().as_bytes());
        for package in installed(system) {
            hash.update(package.name.as_bytes());
            hash.update(package.full_version.as_bytes());
            hash.update([0]);
        }
    }
    let digits = hex(&hash.finalize());
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    format!("{}-{}-8{}-a{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
}

/// The last name of a path on the host.
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path)
}

/// A system in words: its product name, or what else is known.
fn system_name(system: &GuestSystem) -> String {
    let os = &system.operating_system;
    os.product_name.clone().or_else(|| os.distribution.clone()).unwrap_or_else(|| os.r#type.clone())
}
