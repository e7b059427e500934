//! What an attempt's process may still do once its work begins: read beneath the image roots, write beneath the output
//! roots, and nothing else; no network, no signals to others, and bounds on memory, time and file size.
//!
//! The file and network rules are Landlock's and as strict as the kernel allows; [`Level`] says how strict that is.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::process::{Resource, Rlimit, setrlimit};

/// How much of the file and network rules the kernel enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// All of them.
    Full,
    /// Those this kernel knows.
    Partial,
    /// None: the kernel has no Landlock, or it is switched off.
    None,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Partial => "partial",
            Self::None => "none",
        })
    }
}

/// What an attempt may use.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Folders it may read beneath.
    pub readable: Vec<PathBuf>,
    /// Folders it may write beneath.
    pub writable: Vec<PathBuf>,
    /// How long it may run; processor time is bounded by a multiple of it.
    pub timeout: Duration,
}

/// Why the sandbox could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A limit of the process.
    #[error("cannot limit {what}")]
    Limit {
        /// Which limit.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A rule.
    #[error("cannot restrict file access")]
    Rules(#[from] landlock::RulesetError),
}

/// Address space of an attempt: reading a disk takes tens of megabytes, the largest report some hundreds; a reader that
/// an image talks into more than this ends here instead of in the machine's last page.
const ADDRESS_SPACE_BYTES: u64 = 8 << 30;
/// The largest file an attempt may write: a report of a guest with millions of files stays below it.
const FILE_BYTES: u64 = 4 << 30;
/// Open files: a chain of 64 images, twice over, and the process's own.
const OPEN_FILES: u64 = 256;

/// Restricts this process for good.
///
/// # Errors
/// When a limit cannot be lowered or a rule is refused by a kernel that has Landlock.
pub fn enter(rules: &Rules) -> Result<Level, SandboxError> {
    limit("address space", Resource::As, ADDRESS_SPACE_BYTES)?;
    limit("file size", Resource::Fsize, FILE_BYTES)?;
    limit("open files", Resource::Nofile, OPEN_FILES)?;
    limit("core size", Resource::Core, 0)?;
    // The keeper ends the attempt at its timeout; this is for a process whose keeper cannot. Hashing beside reading
    // uses two cores at most.
    limit("processor time", Resource::Cpu, rules.timeout.as_secs().saturating_mul(2).saturating_add(60))?;
    Ok(restrict(&rules.readable, &rules.writable)?)
}

fn limit(what: &'static str, resource: Resource, value: u64) -> Result<(), SandboxError> {
    let held = rustix::process::getrlimit(resource);
    // Never raised: a stricter limit of the operator stands.
    let value = held.maximum.map_or(value, |maximum| maximum.min(value));
    setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
        .map_err(|errno| SandboxError::Limit { what, source: errno.into() })
}

fn restrict(readable: &[PathBuf], writable: &[PathBuf]) -> Result<Level, landlock::RulesetError> {
    // The newest rules this code was written for; older kernels enforce those they know.
    let abi = ABI::V6;
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write =
        read | AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::MakeDir | AccessFs::RemoveFile | AccessFs::Truncate;
    let ruleset = ruleset.add_rules(beneath(readable, read))?.add_rules(beneath(writable, write))?;
    let status = ruleset.restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Level::Full,
        RulesetStatus::PartiallyEnforced => Level::Partial,
        RulesetStatus::NotEnforced => Level::None,
    })
}

/// A folder that is gone meanwhile gets no rule: nothing beneath it can be opened anyway.
fn beneath(
    folders: &[PathBuf],
    access: landlock::BitFlags<AccessFs>,
) -> impl Iterator<Item = Result<PathBeneath<PathFd>, landlock::RulesetError>> + '_ {
    folders.iter().filter_map(|folder| PathFd::new(folder).ok()).map(move |folder| Ok(PathBeneath::new(folder, access)))
}
