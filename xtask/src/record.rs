//! Tables in documents that are what a command printed, with the command, the day and the machine.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell::{root, say};

/// Puts `table`, which `command` made, between the marks of `section` in `document`.
pub(crate) fn record(document: &str, section: &str, command: &str, table: &str) -> Result<()> {
    let path = root().join(document);
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let [begin, end] = ["begin", "end"].map(|mark| format!("<!-- {section}: {mark} -->"));
    let parts = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let Some((before, after)) = parts else { bail!("{} has no section between {begin} and {end}", path.display()) };
    let made = format!("`{command}`, {}; {}.", today()?, machine());
    fs::write(&path, format!("{before}{begin}\n\n{made}\n\n{}\n\n{end}{after}", table.trim()))
        .with_context(|| format!("failed to write {}", path.display()))?;
    say(format_args!("recorded in {}", path.display()));
    Ok(())
}

fn today() -> Result<String> {
    let output = Command::new("date").args(["-u", "+%Y-%m-%d"]).output().context("failed to start date")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Processor, cores, memory and kernel.
pub(crate) fn machine() -> String {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "machine: {}, {cores} cores, {} memory, Linux {}",
        field("/proc/cpuinfo", "model name"),
        field("/proc/meminfo", "MemTotal"),
        kernel.trim()
    )
}
