//! What judging a guest costs, beside OpenSCAP on the same files in the same minutes.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::inspect::{SERVER, corpus};
use super::program::{Program, Run, median};
use crate::record::record;
use crate::shell::{Need, require, say, target_dir, unpack_guest};

/// OpenSCAP's content for Debian 12, and the profile of it with the most rules. Debian's package `ssg-debian` has it from version
/// 0.1.73 on, which is in Debian 13.
const CONTENT: &str = "/usr/share/xml/scap/ssg/content/ssg-debian12-ds.xml";
const CIS: &str = "xccdf_org.ssgproject.content_profile_cis_level2_server";
/// Every profile, several on one opening of the disk.
const PROFILES: [&str; 5] = ["security", "compliance", "hardening", "performance", "migration"];

#[derive(Debug, clap::Args)]
pub(crate) struct Profile {
    /// Runs of which the median is taken.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// OpenSCAP's content (a source data stream).
    #[arg(long, value_name = "FILE", default_value = CONTENT)]
    content: PathBuf,
    /// Put the table into docs/profiles.md.
    #[arg(long)]
    record: bool,
}

pub(super) fn run(what: &Profile) -> Result<()> {
    require(&[Need { program: "oscap", package: "openscap-scanner" }, Need { program: "tar", package: "tar" }])?;
    if !what.content.is_file() {
        bail!("{} is not there; Debian 13 has it in ssg-debian, and --content names another", what.content.display());
    }
    let image = corpus()?.join(format!("guests/{SERVER}.qcow2"));
    let guestkit = target_dir().join("release/guestkit");
    let tree = target_dir().join("bench-peers/tree");
    unpack_guest(&image, &tree)?;

    let ours = |name, profiles: &[&str], form| {
        let named = profiles.iter().flat_map(|profile| ["--profile", profile]);
        Program::new(name, &guestkit).args(["local", "profile", "-q", "--all", "-o", form]).args(named).args([&image])
    };
    // OpenSCAP ends with 2 where a rule fails, which is no failure of its own.
    let scap = |name, written: &str| {
        let judged = format!(
            "OSCAP_PROBE_ROOT={} oscap xccdf eval --profile {CIS} {written} {}; test $? -ne 1",
            quoted(&tree),
            quoted(&what.content)
        );
        Program::new(name, "sh").args(["-c", &judged])
    };
    let peers = target_dir().join("bench-peers");
    let results = format!("--results {}", quoted(&peers.join("oscap.xml")));
    let report = format!("{results} --report {}", quoted(&peers.join("oscap.html")));
    let programs = [
        ours("`guestkit local profile`, all five, JSON", &PROFILES, "json"),
        ours("the same, security alone", &PROFILES[..1], "json"),
        scap("`oscap xccdf eval`, CIS level 2, results in XML", &results),
        ours("`guestkit local profile`, all five, HTML", &PROFILES, "html"),
        scap("`oscap xccdf eval`, CIS level 2, results and HTML report", &report),
    ];
    let mut runs: [Vec<Run>; 5] = Default::default();
    for program in &programs {
        program.run()?;
    }
    for _ in 0..what.runs.max(1) {
        for (program, runs) in programs.iter().zip(&mut runs) {
            runs.push(program.run()?);
        }
    }
    let medians = runs.each_ref().map(|runs| median(runs));
    let [all, _, _, html, reported] = medians;
    let is_met = all.cpu_ms <= 150.0 && all.peak_mb <= 96.0;
    let verdicts = [
        format!("≤ 150 ms CPU, ≤ 96 MB: {}", verdict(is_met)),
        String::new(),
        String::new(),
        String::new(),
        format!("≥ 30 × our HTML: {}", verdict(reported.cpu_ms >= 30.0 * html.cpu_ms)),
    ];
    let mut table = format!(
        "Medians of {}, whole processes, start and end included; OpenSCAP reads the same guest's files unpacked into a folder.\n\n\
         | tool | wall | CPU | CPU, times ours (JSON) | peak RSS | verdict |\n{}|\n",
        what.runs.max(1),
        "|---".repeat(6)
    );
    for ((program, run), verdict) in programs.iter().zip(medians).zip(verdicts) {
        let Run { wall_ms, cpu_ms, peak_mb, .. } = run;
        table.push_str(&format!(
            "| {} | {wall_ms:.0} ms | {cpu_ms:.0} ms | {:.1} | {peak_mb:.0} MB | {verdict} |\n",
            program.name,
            cpu_ms / all.cpu_ms
        ));
    }
    say(&table);
    if what.record { record("docs/profiles.md", "profile", "cargo xtask bench profile", &table) } else { Ok(()) }
}

fn verdict(is_met: bool) -> &'static str {
    if is_met { "met" } else { "**missed**" }
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}
