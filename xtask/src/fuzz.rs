//! libFuzzer over the engine, for as long as one likes: it changes real disks and keeps what leads into code not yet seen.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::shell::{cargo, check, find, root, say, target_dir};
use crate::test::lay_out_corpus;

/// The engine's crate, where cargo-fuzz looks for `fuzz/`.
const ENGINE: &str = "worker/guestkit";
/// The longest input (`INPUT_MAX` of the targets).
const INPUT_MAX: &str = "-max_len=1024";
/// Kept inputs of one target: enough to lead everywhere, few enough to be run each time.
const KEPT_MAX: usize = 100;

/// What to fuzz.
#[derive(Debug, Args)]
pub(crate) struct Fuzz {
    /// Minutes for each target.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Only these targets (worker/guestkit/fuzz/fuzz_targets).
    #[arg(long)]
    target: Vec<String>,
    /// How many targets run at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Keep what was found to lead somewhere, in worker/guestkit/fuzz/corpus.
    #[arg(long)]
    keep: bool,
    /// Folder with the corpus of real disks, which some seeds are.
    #[arg(long, value_name = "DIR", env = "GUESTKIT_CORPUS")]
    corpus: Option<PathBuf>,
}

/// A target and where its files lie.
struct Target {
    name: String,
    program: PathBuf,
    /// Inputs of this machine, which later runs go on from.
    inputs: PathBuf,
    folder: PathBuf,
}

pub(crate) fn run(asked: Fuzz) -> Result<()> {
    if find("cargo-fuzz").is_none() {
        bail!("missing on this machine: cargo-fuzz; cargo install cargo-fuzz --locked");
    }
    if find("c++").is_none() {
        bail!("missing on this machine: c++, which libFuzzer is built with; on Debian: apt-get install g++");
    }
    let corpus = lay_out_corpus(asked.corpus)?;
    let build = target_dir().join("fuzz");
    let mut command = Command::new(cargo());
    // No sanitizer: there is no unsafe code to watch, and without one the stable compiler is enough.
    command.args(["fuzz", "build", "--sanitizer", "none", "--target-dir"]).arg(&build);
    check(command.current_dir(root().join(ENGINE)))?;

    let targets: Result<Vec<_>> = names(&asked.target)?.into_iter().map(|name| Target::new(name, &build)).collect();
    let targets = targets?;
    let seconds = (asked.minutes * 60.0).ceil();
    let mut failed = Vec::new();
    let mut waiting = targets.iter();
    let mut running: Vec<(&Target, Child)> = Vec::new();
    loop {
        while running.len() < asked.jobs.max(1)
            && let Some(target) = waiting.next()
        {
            running.push((target, target.start(seconds, corpus.as_deref())?));
        }
        if running.is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(200));
        let mut still = Vec::new();
        for (target, mut child) in running {
            match child.try_wait().context("failed to wait for a target")? {
                None => still.push((target, child)),
                Some(_) if target.tell()? => {}
                Some(_) => failed.push(target.name.as_str()),
            }
        }
        running = still;
    }
    if asked.keep {
        targets.iter().try_for_each(|target| target.keep(corpus.as_deref()))?;
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// The targets asked for, or all.
fn names(asked: &[String]) -> Result<Vec<String>> {
    let folder = root().join(ENGINE).join("fuzz/fuzz_targets");
    let mut all = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("failed to list {}", folder.display()))? {
        all.extend(entry?.path().file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    all.sort();
    if let Some(unknown) = asked.iter().find(|name| !all.contains(name)) {
        bail!("there is no target {unknown}; there are {}", all.join(", "));
    }
    Ok(if asked.is_empty() { all } else { asked.to_vec() })
}

impl Target {
    fn new(name: String, build: &Path) -> Result<Self> {
        let folder = build.join("runs").join(&name);
        let inputs = folder.join("inputs");
        fs::create_dir_all(&inputs).with_context(|| format!("failed to make {}", inputs.display()))?;
        let kept = ["regressions", "corpus"].map(|kind| kept_file(kind, &name));
        let lines = kept.iter().filter_map(|path| fs::read_to_string(path).ok());
        let inputs_kept: Vec<_> = lines.flat_map(|text| text.lines().filter_map(unhex).collect::<Vec<_>>()).collect();
        // Each seed as it is: an input that is only its number.
        let seeds = (0..16).map(|number| vec![number]);
        for (number, input) in seeds.chain(inputs_kept).enumerate() {
            fs::write(inputs.join(format!("kept-{number:04}")), input)?;
        }
        let program = build.join(format!("{}-unknown-linux-gnu/release/{name}", std::env::consts::ARCH));
        Ok(Self { name, program, inputs, folder })
    }

    fn command(&self, corpus: Option<&Path>) -> Command {
        let mut command = Command::new(&self.program);
        // Its memory is its seeds, its inputs, and what one hostile disk may take.
        command.args([INPUT_MAX, "-timeout=60", "-rss_limit_mb=512"]).stdin(Stdio::null()).current_dir(&self.folder);
        if let Some(corpus) = corpus {
            command.env("GUESTKIT_CORPUS", corpus);
        }
        command
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn start(&self, seconds: f64, corpus: Option<&Path>) -> Result<Child> {
        let log = File::create(self.log()).with_context(|| format!("failed to write {}", self.log().display()))?;
        let mut command = self.command(corpus);
        command.args(["-len_control=0", "-print_final_stats=1", "-use_value_profile=1", "-artifact_prefix=./"]);
        command.arg(format!("-max_total_time={seconds}")).arg(&self.inputs).stdout(Stdio::null()).stderr(log);
        command.spawn().with_context(|| format!("failed to start {}", self.program.display()))
    }

    /// Tells how a run went; whether it found nothing.
    fn tell(&self) -> Result<bool> {
        let log = fs::read_to_string(self.log())?;
        let stat = |name: &str| {
            let line = log.lines().find(|line| line.starts_with(&format!("stat::{name}")));
            line.and_then(|line| line.split_whitespace().last()).unwrap_or("?").to_owned()
        };
        let found = log.lines().find_map(|line| line.split_once("Test unit written to ./")).map(|(_, file)| file);
        let (runs, memory) = (stat("number_of_executed_units"), stat("peak_rss_mb"));
        say(format_args!("fuzz {}: {runs} executions, {memory} MiB at most", self.name));
        let Some(file) = found else { return Ok(true) };
        let input = fs::read(self.folder.join(file))?;
        let why = log.lines().find(|line| line.contains("panicked at") || line.contains("ERROR:")).unwrap_or_default();
        say(format_args!("fuzz {}: {why}; see {}", self.name, self.log().display()));
        say(format_args!("a line of {} repeats it: {}", kept_file("regressions", &self.name).display(), hex(&input)));
        Ok(false)
    }

    /// Writes down the smallest inputs that together lead wherever this machine's lead.
    fn keep(&self, corpus: Option<&Path>) -> Result<()> {
        let merged = self.folder.join("merged");
        if merged.exists() {
            fs::remove_dir_all(&merged)?;
        }
        fs::create_dir(&merged)?;
        let mut command = self.command(corpus);
        command.arg("-merge=1").arg(&merged).arg(&self.inputs).stdout(Stdio::null()).stderr(Stdio::null());
        check(&mut command)?;
        let mut kept = Vec::new();
        for entry in fs::read_dir(&merged)? {
            kept.push(fs::read(entry?.path())?);
        }
        kept.sort_by(|one, other| one.len().cmp(&other.len()).then_with(|| one.cmp(other)));
        kept.truncate(KEPT_MAX);
        let lines: String = kept.iter().map(|input| hex(input) + "\n").collect();
        let path = kept_file("corpus", &self.name);
        fs::write(&path, lines).with_context(|| format!("failed to write {}", path.display()))
    }
}

/// Where inputs of a target are kept, a line of hexadecimal digits for each.
fn kept_file(kind: &str, target: &str) -> PathBuf {
    root().join(ENGINE).join("fuzz").join(kind).join(format!("{target}.txt"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a line; `None` for what is no input.
fn unhex(line: &str) -> Option<Vec<u8>> {
    let byte = |at| u8::from_str_radix(line.get(at..at + 2)?, 16).ok();
    (0..line.len()).step_by(2).map(byte).collect()
}
