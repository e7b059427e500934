//! What reading disks costs: whole processes, each beside the kernel or the format's own tool doing the same in the same
//! minutes, run in turns. Caches are warm: what is measured is the reader, not the measuring machine's disk.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use super::images::{Converted, FILE, FILE_SYSTEMS, FILES, FORMATS, Mounted, with_file, with_tree};
use super::program::{Program, Run, median};
use crate::record::record;
use crate::shell::{Need, require, root, say, target_dir};

/// The guest of the README's figures, in a corpus that was laid out.
const GUEST: &str = "corpus/guests/profile-debian12-vm.qcow2";
/// Peak of resident memory that no command may pass.
const PEAK_MB_MAX: f64 = 64.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Engine {
    /// Guest image to inspect.
    #[arg(long, value_name = "PATH")]
    image: Option<PathBuf>,
    /// Runs of which the median is taken.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Only these parts.
    #[arg(long, value_enum, value_name = "PART", value_delimiter = ',')]
    only: Vec<Which>,
    /// Put the tables into docs/engine-speed.md.
    #[arg(long, conflicts_with_all = ["image", "only"])]
    record: bool,
}

impl Default for Engine {
    fn default() -> Self {
        Self { image: None, runs: 5, only: Vec::new(), record: false }
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// A file of 1 GiB from end to end.
    Read,
    /// A tree of 200,000 files.
    Walk,
    /// Opening an image to list one directory.
    Open,
    /// SHA-256 of an image and of a file in it.
    Sha256,
    /// The inspection of a guest.
    Inspect,
}

type Measuring = fn(&mut Bench) -> Result<()>;

pub(super) fn run(what: &Engine) -> Result<()> {
    require(&[
        Need { program: "qemu-img", package: "qemu-utils" },
        Need { program: "mkfs.ext4", package: "e2fsprogs" },
        Need { program: "mkfs.xfs", package: "xfsprogs" },
        Need { program: "mkfs.btrfs", package: "btrfs-progs" },
        Need { program: "openssl", package: "openssl" },
    ])?;
    let mut bench = Bench { runs: what.runs.max(1), rows: Vec::new() };
    let parts: [(Which, Measuring); 4] = [
        (Which::Read, Bench::read),
        (Which::Walk, Bench::walk),
        (Which::Open, Bench::open),
        (Which::Sha256, Bench::sha256),
    ];
    let is_asked = |part| what.only.is_empty() || what.only.contains(&part);
    for (part, measure) in parts {
        if is_asked(part) {
            measure(&mut bench)?;
        }
    }
    let mut tables = bench.table();
    if is_asked(Which::Inspect) {
        tables.push_str(&bench.inspect(what.image.as_deref())?);
    }
    say(&tables);
    if what.record { record("docs/engine-speed.md", "engine", "cargo xtask bench engine", &tables) } else { Ok(()) }
}

/// What a row is held to.
#[derive(Debug, Clone, Copy)]
enum Aim {
    /// So much of the other's speed.
    Ratio(f64),
    /// At most so many milliseconds, and megabytes read.
    Cost { wall_ms: f64, read_mb: f64 },
}

struct Row {
    what: &'static str,
    of: String,
    ours: Run,
    /// What ran beside it, or why nothing could.
    beside: Result<(&'static str, Run)>,
    aim: Aim,
}

struct Bench {
    runs: u32,
    rows: Vec<Row>,
}

impl Bench {
    /// Measures `ours` and `beside` in turns, after a run of each that warms the caches.
    fn measure(
        &mut self,
        what: &'static str,
        of: impl Into<String>,
        ours: &Program,
        beside: Result<Program>,
        aim: Aim,
    ) -> Result<()> {
        let of = of.into();
        say(format_args!("measuring: {what}, {of}"));
        ours.run()?;
        let beside = beside.and_then(|program| program.run().map(|_| program));
        let (mut own, mut other) = (Vec::new(), Vec::new());
        for _ in 0..self.runs {
            own.push(ours.run()?);
            if let Ok(program) = &beside {
                other.push(program.run()?);
            }
        }
        let beside = beside.map(|program| (program.name, median(&other)));
        self.rows.push(Row { what, of, ours: median(&own), beside, aim });
        Ok(())
    }

    /// A whole file, read by `cat` through the kernel where the image is raw; in other formats, all of the image read by
    /// qemu-img, which hands its bytes to nobody.
    fn read(&mut self) -> Result<()> {
        const WHAT: &str = "read 1 GiB";
        let aim = Aim::Ratio(0.7);
        for kind in FILE_SYSTEMS {
            let image = with_file(kind)?;
            let mounted = Mounted::new(&image);
            let beside = through(&mounted, |at| Program::new("`cat`, mounted", "cat").args([at.join(&FILE[1..])]));
            self.measure(WHAT, format!("{kind} in raw"), &local("cat", &image, &[FILE]), beside, aim)?;
            drop(mounted);
            for format in &FORMATS {
                let converted = Converted::new(&image, format)?;
                let nowhere = format!("driver=null-co,read-zeroes=on,size={}", converted.virtual_bytes);
                let beside = Program::new("`qemu-img convert`", "qemu-img")
                    .args(["convert", "-n", "-f", format.driver, "--target-image-opts"])
                    .args([converted.path.as_os_str(), nowhere.as_ref()]);
                let of = format!("{kind} in {}", format.name);
                self.measure(WHAT, of, &local("cat", &converted.path, &[FILE]), Ok(beside), aim)?;
            }
        }
        Ok(())
    }

    /// Each name with all that stat(2) tells of it. The kernel has it all in its caches, as after a walk before.
    fn walk(&mut self) -> Result<()> {
        for kind in FILE_SYSTEMS {
            let image = with_tree(kind)?;
            let mounted = Mounted::new(&image);
            let beside = through(&mounted, |at| {
                Program::new("`find -printf`, mounted", "find").args([at]).args(["-printf", "%M %n %U %G %s %T@ %p\n"])
            });
            let of = format!("{FILES} files on {kind}");
            self.measure("stat a tree", of, &local("find", &image, &["/", "--long"]), beside, Aim::Ratio(1.0))?;
        }
        Ok(())
    }

    /// What a process costs that does nothing is a row of its own.
    fn open(&mut self) -> Result<()> {
        const WHAT: &str = "open, list /";
        let aim = Aim::Cost { wall_ms: 3.0, read_mb: 1.0 };
        let nobody = || Err(anyhow::anyhow!("nothing"));
        let start = Program::new("guestkit", guestkit()).args(["--version"]);
        self.measure("start and end", "the process alone, `guestkit --version`", &start, nobody(), aim)?;
        for kind in FILE_SYSTEMS {
            let image = with_tree(kind)?;
            let of = format!("{FILES} files on {kind}, raw");
            self.measure(WHAT, of, &local("ls", &image, &["/"]), nobody(), aim)?;
        }
        let guest = guest();
        let listing = Program::new("guestkit", guestkit()).args(["local", "ls", "-i", "-a"]);
        let listing = listing.args([guest.as_os_str(), "/".as_ref()]);
        self.measure(WHAT, format!("{}, as it mounts itself", name(&guest)), &listing, nobody(), aim)
    }

    fn sha256(&mut self) -> Result<()> {
        const WHAT: &str = "SHA-256";
        let aim = Aim::Ratio(0.9);
        let image = with_file("ext4")?;
        let output = Command::new("sha256sum").arg(&image).output().context("failed to start sha256sum")?;
        let sum = String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap_or_default().to_owned();
        let ours =
            Program::new("guestkit", guestkit()).args(["local", "inspect", "-q", "--checksum", &sum]).args([&image]);
        let sha256sum = |file: &Path| Program::new("`sha256sum`", "sha256sum").args([file]);
        let openssl = |file: &Path| Program::new("`openssl dgst`", "openssl").args(["dgst", "-sha256"]).args([file]);
        let of = "an image of 1.3 GiB, then inspected";
        self.measure(WHAT, of, &ours, Ok(sha256sum(&image)), aim)?;
        self.measure(WHAT, of, &ours, Ok(openssl(&image)), aim)?;
        let mounted = Mounted::new(&image);
        let ours = local("checksum", &image, &[FILE]);
        let of = "1 GiB on ext4 in raw";
        let file = |at: &Path| at.join(&FILE[1..]);
        self.measure(WHAT, of, &ours, through(&mounted, |at| sha256sum(&file(at))), aim)?;
        self.measure(WHAT, of, &ours, through(&mounted, |at| openssl(&file(at))), aim)
    }

    /// `guestkit local inspect`: no other tool does it without starting a machine, so it is told alone.
    fn inspect(&self, image: Option<&Path>) -> Result<String> {
        let image = image.map_or_else(guest, Path::to_path_buf);
        let image = image.canonicalize().with_context(|| format!("failed to find the image {}", image.display()))?;
        let inspection =
            Program::new("guestkit", guestkit()).args(["local", "inspect", "-q", "-o", "json"]).args([&image]);
        inspection.run()?;
        let runs = (0..self.runs).map(|_| inspection.run()).collect::<Result<Vec<_>>>()?;
        let Run { wall_ms, cpu_ms, peak_mb, read_mb } = median(&runs);
        Ok(format!(
            "\n`guestkit local inspect {}`, median of {}:\n\n\
             | wall | CPU | peak RSS | read |\n|---|---|---|---|\n\
             | {wall_ms:.1} ms | {cpu_ms:.1} ms | {peak_mb:.1} MB | {read_mb:.1} MB |\n",
            name(&image),
            self.runs
        ))
    }

    fn table(&self) -> String {
        let head =
            "| what | of what | guestkit | beside it | speed | speed per CPU | aim | peak RSS | read | verdict |";
        let mut lines =
            vec![format!("Medians of {}.", self.runs), String::new(), head.to_owned(), "|---".repeat(10) + "|"];
        lines.extend(self.rows.iter().map(Row::line));
        lines.join("\n") + "\n"
    }
}

impl Row {
    fn line(&self) -> String {
        let Self { what, of, ours, beside, aim } = self;
        let speeds = beside.as_ref().ok().map(|(_, run)| (run.wall_ms / ours.wall_ms, run.cpu_ms / ours.cpu_ms));
        let told = match beside {
            Ok((name, run)) => format!("{name}: {}", time(run.wall_ms)),
            Err(why) => format!("{why:#}"),
        };
        let (aim, is_met) = match *aim {
            Aim::Ratio(least) => (format!("≥ {least}"), speeds.map(|(wall, _)| wall >= least)),
            Aim::Cost { wall_ms, read_mb } => {
                (format!("≤ {wall_ms} ms, ≤ {read_mb} MB"), Some(ours.wall_ms <= wall_ms && ours.read_mb <= read_mb))
            }
        };
        let verdict = match is_met.map(|met| met && ours.peak_mb <= PEAK_MB_MAX) {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "not judged",
        };
        let [wall, cpu] = match speeds {
            Some((wall, cpu)) => [wall, cpu].map(|speed| format!("{speed:.2}")),
            None => ["", ""].map(str::to_owned),
        };
        format!(
            "| {what} | {of} | {} | {told} | {wall} | {cpu} | {aim} | {:.1} MB | {:.1} MB | {verdict} |",
            time(ours.wall_ms),
            ours.peak_mb,
            ours.read_mb
        )
    }
}

fn time(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

/// `program`, given where the kernel mounted the image; why not, where it could not.
fn through(mounted: &Result<Mounted>, program: impl Fn(&Path) -> Program) -> Result<Program> {
    match mounted {
        Ok(mounted) => Ok(program(&mounted.at)),
        Err(why) => Err(anyhow::anyhow!("nothing: the kernel does not mount here: {why:#}")),
    }
}

fn guestkit() -> PathBuf {
    target_dir().join("release/guestkit")
}

/// `guestkit local` about files of the file system on the whole of `image`.
fn local(command: &'static str, image: &Path, args: &[&str]) -> Program {
    Program::new("guestkit", guestkit()).args(["local", command, "-m", "/dev/sda", "-a"]).args([image]).args(args)
}

fn guest() -> PathBuf {
    let guest = target_dir().join(GUEST);
    if guest.is_file() { guest } else { root().join("tests/fixtures/debian12-small.qcow2") }
}

fn name(image: &Path) -> String {
    image.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
