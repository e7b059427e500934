//! How much of the machine one disk may use: the bounds, and the one account every layer is charged on.
//!
//! A bound that is met is [`Error::LimitReached`], never a shortened answer. The account ([`Budget`]) is shared by all
//! layers of one disk: image files charge the bytes they read, trees the entries they visit, and whoever allocates by
//! an on-disk count asks here first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Limit, Result};

/// The bounds of one disk. Every field has a default that ordinary guests stay far below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes read from the image files in all, checksums apart.
    pub bytes_read: u64,
    /// Bytes of one allocation whose size an image asked for.
    pub allocation_bytes: u64,
    /// Directories below one another in a walk.
    pub directory_depth: u32,
    /// Directory entries visited in all.
    pub entries: u64,
    /// Images of one backing chain, the top one counted.
    pub chain_length: u32,
    /// Devices that the partitions and volumes of the disks make.
    pub devices: u32,
    /// Symbolic links followed for one path.
    pub symlink_depth: u32,
    /// Bytes of one file that is read whole.
    pub text_bytes: u64,
    /// Time since the disk was opened.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A whole inspection of a server guest reads some ten megabytes; a deep scan of a large one a few gigabytes.
            bytes_read: 64 << 30,
            // The largest honest table is a qcow2 image's L1 table, which QEMU bounds to 32 MiB.
            allocation_bytes: 64 << 20,
            // PATH_MAX (4096) leaves room for 2048 names; real trees stay below 40.
            directory_depth: 256,
            // A full desktop or a build server holds one to five million files.
            entries: 20_000_000,
            // qemu-img itself warns of chains past some tens; snapshots of a year of nights stay below this.
            chain_length: 64,
            // A host of many guests has a logical volume for each of their disks.
            devices: 4_096,
            // The kernel's MAXSYMLINKS.
            symlink_depth: 40,
            // The dpkg status file of a full archive install is about 100 MB; configuration is kilobytes.
            text_bytes: 128 << 20,
            // The job's own timeout is stricter; this one catches a caller who sets none.
            time: Duration::from_secs(3600),
        }
    }
}

impl Limits {
    /// Sets the bound called `name`, by the name that an error tells it by ([`Limit`]'s text), to `value`.
    ///
    /// # Errors
    /// The names there are, or the largest value, in words.
    pub fn set(&mut self, name: &str, value: u64) -> std::result::Result<(), String> {
        let narrow = || u32::try_from(value).map_err(|_| format!("{name} is at most {}", u32::MAX));
        match Limit::ALL.into_iter().find(|limit| limit.to_string() == name) {
            Some(Limit::BytesRead) => self.bytes_read = value,
            Some(Limit::Allocation) => self.allocation_bytes = value,
            Some(Limit::DirectoryDepth) => self.directory_depth = narrow()?,
            Some(Limit::Entries) => self.entries = value,
            Some(Limit::ChainLength) => self.chain_length = narrow()?,
            Some(Limit::Devices) => self.devices = narrow()?,
            Some(Limit::SymlinkDepth) => self.symlink_depth = narrow()?,
            Some(Limit::TextSize) => self.text_bytes = value,
            Some(Limit::Time) => self.time = Duration::from_secs(value),
            None => {
                let names: Vec<_> = Limit::ALL.iter().map(ToString::to_string).collect();
                return Err(format!("there is no limit {name}; those there are: {}", names.join(", ")));
            }
        }
        Ok(())
    }
}

/// What one disk has used of its [`Limits`].
#[derive(Debug)]
pub struct Budget {
    limits: Limits,
    started: Instant,
    bytes_read: AtomicU64,
    reads: AtomicU64,
    entries: AtomicU64,
}

impl Budget {
    /// An unused account; the time starts to run now.
    #[must_use]
    pub fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            limits: limits.clone(),
            started: Instant::now(),
            bytes_read: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            entries: AtomicU64::new(0),
        })
    }

    /// The bounds in force.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Bytes read from image files so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// Read calls made on image files so far.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Directory entries visited so far.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Charges one read of `bytes` from an image file, before it is made.
    ///
    /// # Errors
    /// [`Error::LimitReached`] for bytes or time.
    pub fn charge_read(&self, bytes: usize) -> Result<()> {
        self.check_time()?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        charge(&self.bytes_read, bytes as u64, self.limits.bytes_read, Limit::BytesRead)
    }

    /// Charges `count` directory entries.
    ///
    /// # Errors
    /// [`Error::LimitReached`] for entries or time.
    pub fn charge_entries(&self, count: usize) -> Result<()> {
        self.check_time()?;
        charge(&self.entries, count as u64, self.limits.entries, Limit::Entries)
    }

    /// Fails once the time is over; every loop over what an image says passes here.
    ///
    /// # Errors
    /// [`Error::LimitReached`] for time.
    pub fn check_time(&self) -> Result<()> {
        if self.started.elapsed() > self.limits.time {
            return Err(Error::LimitReached { which: Limit::Time, value: self.limits.time.as_secs() });
        }
        Ok(())
    }

    /// A zeroed buffer of `bytes`, where an image chose the number.
    ///
    /// # Errors
    /// [`Error::LimitReached`] past the allocation bound, or where the machine has no such memory.
    pub fn allocate(&self, bytes: u64) -> Result<Vec<u8>> {
        let refused = Error::LimitReached { which: Limit::Allocation, value: self.limits.allocation_bytes };
        if bytes > self.limits.allocation_bytes {
            return Err(refused);
        }
        zeroed(bytes).ok_or(refused)
    }
}

/// A zeroed buffer, or `None` where the machine cannot give one.
pub(crate) fn zeroed(bytes: u64) -> Option<Vec<u8>> {
    let length = usize::try_from(bytes).ok()?;
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(length).ok()?;
    buffer.resize(length, 0);
    Some(buffer)
}

fn charge(counter: &AtomicU64, amount: u64, bound: u64, which: Limit) -> Result<()> {
    let before = counter.fetch_add(amount, Ordering::Relaxed);
    if before.saturating_add(amount) > bound {
        return Err(Error::LimitReached { which, value: bound });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_limit(result: Result<()>, expected: Limit) -> bool {
        matches!(result, Err(Error::LimitReached { which, .. }) if which == expected)
    }

    #[test]
    fn a_bound_is_met_exactly_once_it_is_passed() {
        let budget = Budget::new(&Limits { bytes_read: 10, entries: 2, ..Limits::default() });
        assert!(budget.charge_read(10).is_ok());
        assert!(is_limit(budget.charge_read(1), Limit::BytesRead));
        assert!(budget.charge_entries(2).is_ok());
        assert!(is_limit(budget.charge_entries(1), Limit::Entries));
    }

    #[test]
    fn every_limit_is_set_by_the_name_it_is_told_by() {
        let mut limits = Limits::default();
        for limit in Limit::ALL {
            limits.set(&limit.to_string(), 7).unwrap();
        }
        let all = Limits {
            bytes_read: 7,
            allocation_bytes: 7,
            directory_depth: 7,
            entries: 7,
            chain_length: 7,
            devices: 7,
            symlink_depth: 7,
            text_bytes: 7,
            time: Duration::from_secs(7),
        };
        assert_eq!(limits, all);
        assert!(limits.set("speed", 1).unwrap_err().contains("bytes_read, "));
        assert!(limits.set("chain_length", 1 << 32).is_err());
    }

    #[test]
    fn time_and_allocation_are_bounded() {
        let budget = Budget::new(&Limits { time: Duration::ZERO, allocation_bytes: 8, ..Limits::default() });
        assert!(is_limit(budget.check_time(), Limit::Time));
        assert_eq!(budget.allocate(8).unwrap().len(), 8);
        assert!(is_limit(budget.allocate(9).map(drop), Limit::Allocation));
    }
}
