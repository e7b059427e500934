//! What an inspection costs, beside the tools that people use for it today, on the same files in the same minutes; then a
//! fleet that inspects ten thousand images.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::images::with_rpms;
use super::program::{Program, Run, median};
use crate::record::record;
use crate::shell::{Need, cargo, check, require, root, say, target_dir};

/// The others, as they are measured: exact, because figures of another version are other figures.
const VMSPECT: &str = "0.9.0";
const DISSECT: &str = "dissect.target[full]==3.25.1";
/// The server of the README's figures, in a corpus that was laid out.
pub(super) const SERVER: &str = "profile-debian12-vm";

#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    /// Runs of which the median is taken; virt-inspector, which starts a machine, runs once.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Without the fleet of ten thousand images.
    #[arg(long)]
    no_fleet: bool,
    /// Put the tables into docs/inspect-speed.md.
    #[arg(long, conflicts_with = "no_fleet")]
    record: bool,
}

/// What an inspection may cost.
struct Aim {
    cpu_ms: f64,
    peak_mb: f64,
    read_mb: f64,
}

pub(super) fn run(what: &Inspect) -> Result<()> {
    require(&[
        Need { program: "qemu-img", package: "qemu-utils" },
        Need { program: "mkfs.ext4", package: "e2fsprogs" },
        Need { program: "python3", package: "python3-venv" },
        Need { program: "sqlite3", package: "sqlite3" },
        Need { program: "virt-inspector", package: "libguestfs-tools" },
    ])?;
    let corpus = corpus()?;
    let peers = peers()?;
    let mut rows = Vec::new();
    let raw = corpus.join(format!("guests/{SERVER}.raw"));
    let qcow2 = corpus.join(format!("guests/{SERVER}.qcow2"));
    let server = Aim { cpu_ms: 40.0, peak_mb: 48.0, read_mb: 8.0 };
    let rpms = with_rpms(&corpus)?;
    // vmspect has qemu-nbd read what is not raw or VMDK, which needs root and a module of the kernel.
    for (of, image, aim, beside) in [
        ("Debian 12 server, 202 packages, raw", &raw, &server, peers.of(&raw)),
        ("the same, qcow2", &qcow2, &server, Vec::new()),
        ("2,000 rpm packages on ext4, raw", &rpms, &Aim { cpu_ms: 120.0, ..server_like() }, peers.of(&rpms)),
    ] {
        measure(of, image, aim, &beside, what.runs.max(1), &mut rows)?;
    }
    let head = "| of what | tool | wall | CPU | CPU, times ours | peak RSS | read | packages | verdict |";
    let mut tables = format!(
        "Medians of {}, whole processes, start and end included; virt-inspector once, its machine emulated as in a build \
         without KVM.\n\n{head}\n{}|\n{}\n",
        what.runs.max(1),
        "|---".repeat(9),
        rows.join("\n")
    );
    say(&tables);
    if !what.no_fleet {
        let mut command = Command::new(cargo());
        command.args(["bench", "--quiet", "--locked", "--workspace", "--bench", "fleet", "--", "--only", "images"]);
        let output = command.env("GUESTKIT_CORPUS", &corpus).current_dir(root()).output();
        let output = output.context("failed to start the benchmark of the fleet")?;
        let told = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!("the fleet's benchmark ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        say(&told);
        tables.push('\n');
        tables.push_str(&told);
    }
    if what.record { record("docs/inspect-speed.md", "inspect", "cargo xtask bench inspect", &tables) } else { Ok(()) }
}

/// No bound but that of memory is given for the large guest.
const fn server_like() -> Aim {
    Aim { cpu_ms: 0.0, peak_mb: 64.0, read_mb: f64::INFINITY }
}

fn measure(of: &str, image: &Path, aim: &Aim, beside: &[Peer], runs: u32, rows: &mut Vec<String>) -> Result<()> {
    say(format_args!("measuring: {of}"));
    let guestkit = target_dir().join("release/guestkit");
    let ours = Program::new("`guestkit local inspect`", &guestkit).args(["local", "inspect", "-q", "-o", "json"]);
    let ours = ours.args([image]);
    ours.run()?;
    let others: Vec<_> = beside.iter().filter(|peer| !peer.is_slow).collect();
    for peer in &others {
        peer.program.run()?;
    }
    let mut own = Vec::new();
    let mut theirs = vec![Vec::new(); others.len()];
    for _ in 0..runs {
        own.push(ours.run()?);
        for (peer, runs) in others.iter().zip(&mut theirs) {
            runs.push(peer.program.run()?);
        }
    }
    let own = median(&own);
    let output = Command::new(&guestkit).args(["local", "inspect", "-q", "-o", "json"]).arg(image).output();
    let report: Value = serde_json::from_slice(&output.context("failed to start guestkit")?.stdout)?;
    let packages =
        report.pointer("/packages/count").and_then(Value::as_u64).map_or_else(String::new, |n| n.to_string());
    let is_met = own.cpu_ms <= aim.cpu_ms && own.peak_mb <= aim.peak_mb && own.read_mb <= aim.read_mb;
    let read = if aim.read_mb.is_finite() { format!(", ≤ {} MB read", aim.read_mb) } else { String::new() };
    let verdict =
        format!("≤ {} ms CPU, ≤ {} MB{read}: {}", aim.cpu_ms, aim.peak_mb, if is_met { "met" } else { "**missed**" });
    rows.push(row(of, ours.name, &own, &own, &packages, &verdict));
    for (peer, runs) in others.iter().zip(&theirs) {
        rows.push(row(of, peer.program.name, &median(runs), &own, &peer.packages()?, &peer.verdict));
    }
    for peer in beside.iter().filter(|peer| peer.is_slow) {
        rows.push(row(of, peer.program.name, &peer.program.run()?, &own, &peer.packages()?, &peer.verdict));
    }
    Ok(())
}

fn row(of: &str, tool: &str, run: &Run, ours: &Run, packages: &str, verdict: &str) -> String {
    let Run { wall_ms, cpu_ms, peak_mb, read_mb } = run;
    format!(
        "| {of} | {tool} | {wall_ms:.0} ms | {cpu_ms:.0} ms | {:.1} | {peak_mb:.0} MB | {read_mb:.1} MB | {packages} | {verdict} |",
        cpu_ms / ours.cpu_ms
    )
}

/// Another tool at work on one image.
struct Peer {
    program: Program,
    /// It runs once: it takes a minute.
    is_slow: bool,
    /// Says in a line how many packages it found, of its own output.
    count: fn(&str) -> usize,
    words: Vec<String>,
    verdict: String,
}

impl Peer {
    fn packages(&self) -> Result<String> {
        let (program, args) = self.words.split_first().context("a tool without a name")?;
        let output = Command::new(program).args(args).output().with_context(|| format!("failed to start {program}"))?;
        Ok((self.count)(&String::from_utf8_lossy(&output.stdout)).to_string())
    }
}

/// Where the others are.
struct Peers {
    vmspect: PathBuf,
    dissect: PathBuf,
}

impl Peers {
    fn of(&self, image: &Path) -> Vec<Peer> {
        let image = image.display().to_string();
        let peer = |name, words: &[&str], is_slow, count, verdict: &str| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let (program, args) = words.split_at(1);
            let program = Program::new(name, &program[0]).args(args);
            Peer { program, is_slow, count, words, verdict: verdict.to_owned() }
        };
        let vmspect = self.vmspect.display().to_string();
        let query = self.dissect.join("target-query").display().to_string();
        let emulated = ["env", "LIBGUESTFS_BACKEND=direct", "LIBGUESTFS_BACKEND_SETTINGS=force_tcg", "virt-inspector"];
        vec![
            peer("vmspect 0.9", &[&vmspect, "--json", &image], false, vmspect_programs, "≥ 2 × ours"),
            peer(
                "dissect.target 3.25, `target-query`",
                &[&query, "-q", "-s", "-f", "os,hostname,version,users,services,dpkg.status", &image],
                false,
                |text| text.matches("<linux/debian/dpkg/package/status").count(),
                "",
            ),
            peer(
                "virt-inspector 1.48",
                &[emulated[0], emulated[1], emulated[2], emulated[3], "-a", &image],
                true,
                |text| text.matches("<application>").count(),
                "≥ 500 × ours",
            ),
        ]
    }
}

/// The programs of vmspect's document.
fn vmspect_programs(text: &str) -> usize {
    let document: Option<Value> = serde_json::from_str(text).ok();
    document.and_then(|document| Some(document.get("installed_programs")?.as_array()?.len())).unwrap_or_default()
}

pub(super) fn corpus() -> Result<PathBuf> {
    let corpus = std::env::var_os("GUESTKIT_CORPUS").map_or_else(|| target_dir().join("corpus"), PathBuf::from);
    corpus.canonicalize().with_context(|| format!("failed to find the corpus in {}", corpus.display()))
}

/// The others, installed into a folder beside the build.
fn peers() -> Result<Peers> {
    let folder = target_dir().join("bench-peers");
    fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let vmspect = folder.join("bin/vmspect");
    if !vmspect.is_file() {
        say("installing vmspect");
        let install = ["install", "--quiet", "--locked", "vmspect", "--version", VMSPECT, "--root"];
        check(Command::new(cargo()).args(install).arg(&folder))?;
    }
    let dissect = folder.join("dissect");
    if !dissect.join("bin/target-query").is_file() {
        say("installing dissect.target");
        check(Command::new("python3").args(["-m", "venv"]).arg(&dissect))?;
        check(Command::new(dissect.join("bin/pip")).args(["install", "--quiet", DISSECT]))?;
    }
    Ok(Peers { vmspect, dissect: dissect.join("bin") })
}
