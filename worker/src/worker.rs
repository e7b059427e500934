//! What this worker is: found out from the engine, the handlers and the machine, and told by its operator where it cannot
//! be found out.

use std::collections::BTreeMap;
use std::path::Path;

use guestkit_domain::WorkerId;
use guestkit_protocol::v1;

use crate::handlers::Registry;
use crate::output::OutputRoots;
use crate::roots::{ImageRoots, KeysRoot};
use crate::rules::RulesFolder;

/// The operator's word.
#[derive(Debug, Clone)]
pub struct Declared {
    /// The name it keeps across restarts.
    pub worker_id: WorkerId,
    /// The pool it belongs to.
    pub pool: String,
    /// Attempts at once.
    pub slots: u32,
    /// What people call it by.
    pub labels: BTreeMap<String, String>,
    /// What its machine has.
    pub features: Vec<String>,
    /// Which images may be opened.
    pub images: ImageRoots,
    /// Where keys of encrypted volumes lie.
    pub keys: KeysRoot,
    /// Where reports may be written.
    pub outputs: OutputRoots,
    /// Its own rules for profiles.
    pub rules: RulesFolder,
}

/// The version of this worker.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Processor cores this process may use.
#[must_use]
pub fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
}

/// The machine's name.
#[must_use]
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A worker id made of the machine's name, for an operator who gives none.
#[must_use]
pub fn default_worker_id() -> String {
    let name: String = hostname()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .skip_while(|c| *c == '.')
        .take(128)
        .collect();
    if name.is_empty() { "worker".into() } else { name }
}

/// Bytes free to this user on the file system of `path`; 0 where that cannot be told.
#[must_use]
pub fn free_disk_bytes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize))
}

fn memory_bytes() -> u64 {
    let found = rustix::system::sysinfo();
    #[allow(clippy::useless_conversion)]
    let total = u64::from(found.totalram);
    total.saturating_mul(u64::from(found.mem_unit))
}

/// What a coordinator is told of this worker, which writes at `data`.
#[must_use]
pub fn describe(declared: &Declared, registry: &Registry, data: &Path) -> v1::WorkerDescription {
    let texts = |folders: &[std::path::PathBuf]| folders.iter().map(|f| f.to_string_lossy().into_owned()).collect();
    v1::WorkerDescription {
        version: VERSION.into(),
        operations: registry.operations().into_iter().map(str::to_owned).collect(),
        capabilities: registry.capabilities(),
        features: declared.features.clone(),
        pool: declared.pool.clone(),
        labels: declared.labels.clone().into_iter().collect(),
        slots: declared.slots,
        cores: cores(),
        memory_bytes: memory_bytes(),
        free_disk_bytes: free_disk_bytes(data),
        image_roots: texts(declared.images.folders()),
        output_roots: texts(declared.outputs.folders()),
        privileged: rustix::process::geteuid().is_root(),
        hostname: hostname(),
    }
}
