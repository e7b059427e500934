//! What the kernel wrote about memory that ran out and disks that failed, as far as it was kept: in logs of text, as they are and
//! rotated, and in systemd's journals.

use std::io::{BufRead, BufReader, Read as _};
use std::sync::Arc;

use crate::guest::linux::files::Files;
use crate::guest::linux::{journal, time};
use crate::read_at::Cursor;

use super::report::Evidence;

/// Logs of text that syslog daemons keep kernel messages in.
const LOGS: [&str; 4] = ["/var/log/kern.log*", "/var/log/messages*", "/var/log/syslog*", "/var/log/dmesg*"];
/// Unpacked bytes of text that are looked through, all logs together.
const TEXT_BYTES_MAX: u64 = 128 << 20;
/// Bytes of one line: longer ones are looked at in parts.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// Pieces of evidence kept of each kind; all are counted.
const KEPT_MAX: usize = 1_000;

const OUT_OF_MEMORY: [&str; 3] = ["Out of memory: Kill", "oom-kill:", "Memory cgroup out of memory"];
const FAILURES: [&str; 7] = [
    "I/O error, dev",
    "Buffer I/O error",
    "blk_update_request: I/O error",
    "EXT4-fs error",
    "ata1.00: failed",
    "blocked for more than 120 seconds",
    "Metadata corruption detected",
];

/// Messages of one kind.
#[derive(Debug, Default)]
pub(crate) struct Kind {
    pub(crate) found: Vec<Evidence>,
    pub(crate) count: usize,
}

impl Kind {
    fn add(&mut self, evidence: impl FnOnce() -> Evidence) {
        self.count = self.count.saturating_add(1);
        if self.found.len() < KEPT_MAX {
            self.found.push(evidence());
        }
    }
}

/// What was kept.
#[derive(Debug, Default)]
pub(crate) struct KernelLog {
    /// Programs that were ended because memory had run out.
    pub(crate) out_of_memory: Kind,
    /// Reads and writes that failed, and file systems that were found broken.
    pub(crate) failures: Kind,
    /// Logs and journals that were looked through.
    pub(crate) sources: Vec<String>,
    /// Why not everything was, where it was not.
    pub(crate) incomplete: Option<String>,
}

impl KernelLog {
    pub(super) fn read(files: &Files<'_>) -> Self {
        let mut log = Self::default();
        let mut left = TEXT_BYTES_MAX;
        for path in LOGS.iter().flat_map(|pattern| files.glob(pattern)) {
            let Some(file) = files.open(&path) else { continue };
            let plain = BufReader::with_capacity(1 << 17, Cursor::new(Arc::new(file)));
            let read = match path.rsplit('.').next() {
                Some("gz") => log.lines(&path, BufReader::new(flate2::bufread::MultiGzDecoder::new(plain)), &mut left),
                Some("xz" | "bz2" | "zst") => Err("it is compressed in a way that is not read here".to_owned()),
                _ => log.lines(&path, plain, &mut left),
            };
            match read {
                Ok(()) => log.sources.push(path),
                Err(why) => log.incomplete = Some(format!("{path}: {why}")),
            }
            if left == 0 {
                log.incomplete = Some(format!("logs are longer than {} MiB", TEXT_BYTES_MAX >> 20));
                break;
            }
        }
        let kept = journal::kernel_messages(files, &mut |at, message, path| {
            log.take(message, |shown| Evidence::explicit(path, time::rfc3339(at).unwrap_or_default(), shown));
        });
        match kept {
            Ok(count) => {
                log.sources.extend(count.map(|count| format!("/var/log/journal ({count} messages of the kernel)")));
            }
            Err(why) => log.incomplete = Some(why),
        }
        log
    }

    fn lines(&mut self, path: &str, input: impl BufRead, left: &mut u64) -> Result<(), String> {
        let mut input = input.take(*left);
        let mut line = Vec::new();
        let mut number = 0_usize;
        loop {
            line.clear();
            let length = input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            let length = length.map_err(|error| error.to_string())?;
            if length == 0 {
                return Ok(());
            }
            *left = left.saturating_sub(length as u64);
            number = number.saturating_add(1);
            let text = String::from_utf8_lossy(&line);
            self.take(&text, |shown| Evidence::explicit(path, "message", shown).at_line(number));
        }
    }

    fn take(&mut self, message: &str, evidence: impl Fn(String) -> Evidence) {
        let shown = || evidence(message.trim().chars().take(200).collect());
        if OUT_OF_MEMORY.iter().any(|pattern| message.contains(pattern)) {
            self.out_of_memory.add(shown);
        }
        if FAILURES.iter().any(|pattern| message.contains(pattern)) {
            self.failures.add(shown);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::guest::linux::fixture::Fixture;

    fn packed(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn rotated_logs_count_and_those_that_cannot_be_read_are_told() {
        let fixture = Fixture::new();
        fixture.file("var/log/syslog", "Jan 2 kernel: fine\n");
        fixture.file("var/log/syslog.1", "Jan 1 kernel: Buffer I/O error on dev sda1\n");
        fixture.file("var/log/syslog.2.gz", packed("a\nkernel: Out of memory: Killed process 7 (java)\n"));
        let tree = fixture.tree();
        let log = KernelLog::read(&Files::new(&tree));
        assert_eq!((log.failures.count, log.out_of_memory.count, log.incomplete.as_deref()), (1, 1, None));
        assert_eq!(log.sources, ["/var/log/syslog", "/var/log/syslog.1", "/var/log/syslog.2.gz"]);
        let evidence = &log.out_of_memory.found[0];
        assert_eq!((evidence.path.as_str(), evidence.line), ("/var/log/syslog.2.gz", Some(2)));

        fixture.file("var/log/kern.log.3.xz", "");
        fixture.file("var/log/syslog.2.gz", &packed(&"a line\n".repeat(1_000))[..40]);
        let tree = fixture.tree();
        let log = KernelLog::read(&Files::new(&tree));
        assert!(log.incomplete.is_some());
        assert_eq!(log.sources, ["/var/log/syslog", "/var/log/syslog.1"]);
    }

    #[test]
    fn a_journal_that_cannot_be_read_is_told() {
        let fixture = Fixture::new();
        fixture.file("var/log/syslog", "Jan 2 kernel: fine\n");
        fixture.file("var/log/journal/4444/system.journal", "no journal");
        let tree = fixture.tree();
        let log = KernelLog::read(&Files::new(&tree));
        assert!(log.incomplete.is_some_and(|why| why.starts_with("/var/log/journal/4444/system.journal: ")));
    }
}
