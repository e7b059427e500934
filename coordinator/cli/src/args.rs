//! What can be typed. Every flag here changes something; what a flag means for a document stands in `proto/guestkit/v1`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use guestkit::export::{Form, ProfileForm};
use guestkit_protocol::v1;

const EXAMPLES: &str = "\
Examples:
  guestkit local inspect disk.qcow2                 what is in this image (no coordinator needed)
  guestkit inspect /vms/web1.qcow2 --watch          the same on the fleet, with live progress
  guestkit submit job.json --watch -o json          run a job document, print its report as JSON
  jq … template.json | guestkit submit -            a document from standard input
  guestkit list --state failed --since 2h           what went wrong lately
  guestkit explain JOB                              why a job is not running
  guestkit report JOB -o yaml                       what a job found
  guestkit local inspect disk.qcow2 -o cyclonedx    what is installed, as a bill of materials
  guestkit local profile disk.qcow2                 is it configured as it should be
  guestkit local profile disk.qcow2 --profile compliance --standard pci-dss -o html > report.html
  guestkit profile diff before.json after.json      what has changed between two of its reports

Exit codes:
  0  done; with --watch, and for `report`: the job completed
  1  the job failed, was cancelled or ran out of time, or the command itself failed
  2  wrong usage: flags, or a file that cannot be read
  3  refused: the document or the request was not taken; every problem is listed
  4  no coordinator could be reached
  5  a profile found something critical, and --fail-on-critical was given; the report is there
  130  interrupted; jobs that were submitted go on";

/// Submit, watch and read jobs on virtual machine disk images, or inspect an image right here.
#[derive(Debug, Parser)]
#[command(name = "guestkit", version, after_help = EXAMPLES, propagate_version = true, max_term_width = 120)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// What standard output is: a JSON or YAML document, or tables for people; for the report of an inspection also the XML of
    /// virt-inspector, a bill of materials (CycloneDX 1.6, SPDX 2.3) or a page of HTML, for that of a profile SARIF 2.1.0, HTML,
    /// JUnit's XML or comma-separated values.
    #[arg(short, long, global = true, value_enum, default_value_t = Wanted::Table, value_name = "FORMAT", help_heading = "Global options")]
    pub(crate) output: Wanted,
    /// Where the coordinator is; several are tried in turn (repeat the flag or separate by commas), and one that does not
    /// lead says who does.
    #[arg(
        long,
        global = true,
        env = "GUESTKIT_COORDINATOR",
        value_delimiter = ',',
        value_name = "URL",
        default_value = "http://127.0.0.1:7443",
        value_parser = NonEmptyStringValueParser::new(),
        help_heading = "Global options"
    )]
    pub(crate) coordinator: Vec<String>,
    /// No progress and no notes on standard error; errors remain.
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
    /// Colour: auto is on a terminal; NO_COLOR in the environment switches it off.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN", help_heading = "Global options")]
    pub(crate) color: Color,
}

/// What was asked for. (Its words explain themselves: described one by one they would unfold every help page.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wanted {
    Json,
    Yaml,
    Table,
    VirtInspector,
    Cyclonedx,
    Spdx,
    Html,
    Sarif,
    Junit,
    Csv,
}

/// A form of other tools that a report can have, and of which operation's it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OtherForm {
    /// The word that was typed.
    pub(crate) name: &'static str,
    /// For the report of an inspection.
    pub(crate) inspection: Option<Form>,
    /// For the report of a profile.
    pub(crate) profile: Option<ProfileForm>,
}

impl Wanted {
    /// How documents are written.
    pub(crate) fn format(self) -> Format {
        match self {
            Self::Json => Format::Json,
            Self::Yaml => Format::Yaml,
            _ => Format::Table,
        }
    }

    /// The form of other tools that a report is to have.
    pub(crate) fn form(self) -> Option<OtherForm> {
        let (inspection, profile) = match self {
            Self::Json | Self::Yaml | Self::Table => return None,
            Self::VirtInspector => (Some(Form::VirtInspector), None),
            Self::Cyclonedx => (Some(Form::CycloneDx), None),
            Self::Spdx => (Some(Form::Spdx), None),
            Self::Html => (Some(Form::Html), Some(ProfileForm::Html)),
            Self::Sarif => (None, Some(ProfileForm::Sarif)),
            Self::Junit => (None, Some(ProfileForm::Junit)),
            Self::Csv => (None, Some(ProfileForm::Csv)),
        };
        let name = inspection.map(Form::name).or(profile.map(ProfileForm::name)).unwrap_or_default();
        Some(OtherForm { name, inspection, profile })
    }
}

/// How documents are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
    /// Tables for people.
    Table,
}

/// When tables are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

/// The commands, in the order people meet them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Submit job documents.
    Submit(Submit),
    /// Submit an inspection of one image; the document is built for you.
    Inspect(Inspect),
    /// Submit a profile of one image, or compare the reports of two.
    Profile(Profile),
    /// Follow a job to its end, then print its report.
    Watch(Watch),
    /// Show one job.
    Get(OneJob),
    /// Print what a job found.
    Report(Report),
    /// List jobs, newest first.
    List(List),
    /// Ask for a job to end.
    Cancel(Cancel),
    /// Give a job that is over, and did not complete, new attempts.
    Retry(OneJob),
    /// Forget a job that is over.
    Delete(OneJob),
    /// Say why a job is not running.
    Explain(OneJob),
    /// List the workers, or show one.
    Workers(Workers),
    /// Give a worker no new work.
    Drain(Drain),
    /// Give a drained worker work again.
    Resume(Selected),
    /// Count jobs, slots and workers.
    Summary,
    /// Work right here, without a coordinator.
    Local(Local),
    /// Print a completion script for a shell.
    ///
    /// For bash: guestkit completions bash > ~/.local/share/bash-completion/completions/guestkit
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
}

/// `submit`
#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// Job documents, one for each file; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) follow: Follow,
}

/// Whether and how a job is followed after it was submitted.
#[derive(Debug, Args)]
pub(crate) struct Follow {
    /// Follow to the end, then print the report; the exit code is the outcome's.
    #[arg(short, long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) patience: Patience,
}

/// How long a broken connection is tried again.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Patience {
    /// Seconds to keep trying when the coordinator goes away while a job is watched.
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub(crate) reconnect: u32,
}

/// `watch`
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// The job.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) job: String,
    /// Only what came after this sequence number of the job's log.
    #[arg(long, default_value_t = 0, value_name = "SEQUENCE")]
    pub(crate) after: u64,
    /// Print the log's entries on standard output instead of progress and report (JSON: one entry per line).
    #[arg(long)]
    pub(crate) events: bool,
    #[command(flatten)]
    pub(crate) patience: Patience,
}

/// A command about one job.
#[derive(Debug, Args)]
pub(crate) struct OneJob {
    /// The job.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) job: String,
}

/// `report`
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// The job.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) job: String,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// How much of an outcome is printed.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Shown {
    /// The whole outcome document: status, times, metrics and outputs around the report.
    #[arg(long)]
    pub(crate) outcome: bool,
}

/// `cancel`
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The job.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) job: String,
    /// Why, for the job's log.
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    pub(crate) reason: String,
}

/// `list`
#[derive(Debug, Args)]
pub(crate) struct List {
    /// In one of these states.
    #[arg(long = "state", value_enum, value_delimiter = ',', value_name = "STATE")]
    pub(crate) states: Vec<State>,
    /// Of one of these operations.
    #[arg(long = "operation", value_delimiter = ',', value_name = "OPERATION")]
    pub(crate) operations: Vec<String>,
    /// Of this namespace.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// With all of these labels.
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) labels: Vec<(String, String)>,
    /// Held, or held last, by this worker.
    #[arg(long)]
    pub(crate) worker: Option<String>,
    /// Submitted at or after: a time (2026-01-31T08:00:00Z) or how long ago (90s, 2h, 3 days).
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Submitted before: as --since.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// At most this many.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
    /// Every one, however many pages they are.
    #[arg(long, conflicts_with = "limit")]
    pub(crate) all: bool,
}

/// States that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    Pending,
    Queued,
    Assigned,
    Running,
    Cancelling,
    Completed,
    Failed,
    Cancelled,
    Timeout,
}

impl From<State> for v1::JobState {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Queued => Self::Queued,
            State::Assigned => Self::Assigned,
            State::Running => Self::Running,
            State::Cancelling => Self::Cancelling,
            State::Completed => Self::Completed,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
            State::Timeout => Self::Timeout,
        }
    }
}

/// `workers`
#[derive(Debug, Args)]
pub(crate) struct Workers {
    /// Show this worker alone.
    #[arg(conflicts_with = "pool")]
    pub(crate) worker: Option<String>,
    /// Only of this pool.
    #[arg(long)]
    pub(crate) pool: Option<String>,
}

/// One worker by name, or several by label.
#[derive(Debug, Args)]
pub(crate) struct Selected {
    /// The worker.
    #[arg(required_unless_present = "selector")]
    pub(crate) worker: Option<String>,
    /// All workers with all of these labels.
    #[arg(short = 'l', long, value_name = "KEY=VALUE", value_parser = parse_pair, conflicts_with = "worker")]
    pub(crate) selector: Vec<(String, String)>,
}

/// `drain`
#[derive(Debug, Args)]
pub(crate) struct Drain {
    #[command(flatten)]
    pub(crate) selected: Selected,
    /// Seconds that running jobs may go on; then they go elsewhere. Without it they may end.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) deadline: Option<u32>,
    /// Wait until none of them holds a job any more. Ending the wait does not end the drain.
    #[arg(long)]
    pub(crate) wait: bool,
}

/// `local`
#[derive(Debug, Args)]
pub(crate) struct Local {
    #[command(subcommand)]
    pub(crate) command: LocalCommand,
}

/// What can be done without a coordinator.
#[derive(Debug, Subcommand)]
pub(crate) enum LocalCommand {
    /// Inspect an image here and print the report.
    Inspect(LocalInspect),
    /// Judge how the systems on an image are configured, and print the findings.
    Profile(LocalProfile),
    /// List the file systems on disk images, or everything that is on them.
    ///
    /// Types, labels and UUIDs are those that blkid prints, partitions those of sfdisk, sizes those of qemu-img.
    Filesystems(LocalFilesystems),
    /// List the files in directories of a guest.
    Ls(LocalLs),
    /// Print files of a guest.
    Cat(LocalCat),
    /// Tell what is known about files of a guest, links not followed.
    Stat(LocalPaths),
    /// List everything below directories of a guest.
    Find(LocalFind),
    /// Print the targets of symbolic links of a guest.
    Readlink(LocalPaths),
    /// Print the checksums of files of a guest.
    Checksum(LocalChecksum),
    /// Run a job document here and print its report.
    Run {
        /// The document; `-` is standard input.
        #[arg(value_name = "JOB.json")]
        file: PathBuf,
        #[command(flatten)]
        shown: Shown,
    },
}

/// How disk images are opened.
#[derive(Debug, Args)]
pub(crate) struct Opening {
    /// A key of an encrypted volume: `ID:key:PASSPHRASE` or `ID:file:PATH`, where ID is the volume's UUID, its device
    /// (`/dev/sda2`, `/dev/vg/lv`) or `all`.
    #[arg(long = "key", value_name = "SELECTOR", help_heading = "Disks")]
    pub(crate) keys: Vec<String>,
    /// A bound of the engine: `bytes_read`, `allocation_bytes`, `directory_depth`, `entries`, `chain_length`,
    /// `symlink_depth`, `text_bytes` or `time_seconds`.
    #[arg(long = "limit", value_name = "NAME=VALUE", value_parser = parse_pair, help_heading = "Disks")]
    pub(crate) limits: Vec<(String, String)>,
}

/// `local filesystems`: what can be typed is what virt-filesystems(1) takes, `-h` for sizes included.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct LocalFilesystems {
    /// The disk images of one machine, in its order.
    #[arg(value_name = "IMAGE", required_unless_present = "add")]
    pub(crate) images: Vec<PathBuf>,
    /// Add a disk image; the same as naming it without the flag.
    #[arg(short = 'a', long, value_name = "IMAGE", help_heading = "Disks")]
    pub(crate) add: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) opening: Opening,
    #[command(flatten)]
    pub(crate) listed: Listed,
    /// Type, label, size, parents and UUID of each.
    #[arg(short, long)]
    pub(crate) long: bool,
    /// Sizes as people say them; with --long.
    #[arg(short = 'h', long, requires = "long")]
    pub(crate) human_readable: bool,
    /// UUIDs beside the names; --long has them anyway.
    #[arg(long, alias = "uuid")]
    pub(crate) uuids: bool,
    /// Comma-separated values.
    #[arg(long)]
    pub(crate) csv: bool,
    /// No row of titles; with --long.
    #[arg(long, requires = "long")]
    pub(crate) no_title: bool,
    /// Print help.
    #[arg(long, action = clap::ArgAction::HelpLong)]
    pub(crate) help: Option<bool>,
}

/// What is listed; file systems where nothing is chosen.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "What is listed")]
pub(crate) struct Listed {
    /// Everything.
    #[arg(long)]
    pub(crate) all: bool,
    /// What holds files.
    #[arg(long)]
    pub(crate) filesystems: bool,
    /// That, and what holds none: swap, members of volumes, what is not recognised.
    #[arg(long)]
    pub(crate) extra: bool,
    /// Partitions, whatever lies on them.
    #[arg(long, alias = "parts")]
    pub(crate) partitions: bool,
    /// Disks, and what is put together to be one.
    #[arg(long, alias = "blkdevs")]
    pub(crate) block_devices: bool,
    /// Logical volumes, whatever lies on them.
    #[arg(long, aliases = ["lvs", "logvols"])]
    pub(crate) logical_volumes: bool,
    /// Volume groups.
    #[arg(long, aliases = ["vgs", "volgroups"])]
    pub(crate) volume_groups: bool,
    /// Physical volumes.
    #[arg(long, aliases = ["pvs", "physvols"])]
    pub(crate) physical_volumes: bool,
}

/// Which files: of which disks, and how these are put together.
#[derive(Debug, Args)]
pub(crate) struct Files {
    /// The disk image, unless `--add` names it, then paths inside the guest.
    #[arg(value_name = "IMAGE] [PATH", required = true)]
    pub(crate) names: Vec<OsString>,
    /// Add a disk image. Several make one machine, in this order.
    #[arg(short = 'a', long, value_name = "IMAGE", help_heading = "Disks")]
    pub(crate) add: Vec<PathBuf>,
    /// Mount a device: `DEVICE[:MOUNTPOINT[:OPTIONS]]`; `subvol=PATH` is the one option that matters. Without a mount
    /// point it is the root.
    #[arg(short, long, value_name = "MOUNT", help_heading = "Disks")]
    pub(crate) mount: Vec<String>,
    /// Mount as the guest does, by its own fstab. This is done without the flag too, unless --mount is given; with it, a
    /// disk without an operating system is an error.
    #[arg(short, long, conflicts_with = "mount", help_heading = "Disks")]
    pub(crate) inspector: bool,
    #[command(flatten)]
    pub(crate) opening: Opening,
}

/// A command about paths.
#[derive(Debug, Args)]
pub(crate) struct LocalPaths {
    #[command(flatten)]
    pub(crate) files: Files,
}

/// `local ls`
#[derive(Debug, Args)]
pub(crate) struct LocalLs {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Type, mode, owner, size and time of each.
    #[arg(short, long)]
    pub(crate) long: bool,
    /// Directories below as well, each name with its path.
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// Write the directories as a tar archive to standard output instead.
    #[arg(long, conflicts_with_all = ["long", "recursive"])]
    pub(crate) tar: bool,
}

/// `local cat`
#[derive(Debug, Args)]
pub(crate) struct LocalCat {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Write the files, and trees of directories, as a tar archive to standard output instead.
    #[arg(long)]
    pub(crate) tar: bool,
}

/// `local find`
#[derive(Debug, Args)]
pub(crate) struct LocalFind {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Type, mode, owner, size and time of each.
    #[arg(short, long)]
    pub(crate) long: bool,
    /// Only these types: `f` files, `d` directories, `l` links, `b` and `c` devices, `p` pipes, `s` sockets.
    #[arg(long = "type", value_enum, value_delimiter = ',', value_name = "TYPE")]
    pub(crate) types: Vec<TypeLetter>,
}

/// Types of files, by the letters of find(1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TypeLetter {
    F,
    D,
    L,
    B,
    C,
    P,
    S,
}

/// `local checksum`
#[derive(Debug, Args)]
pub(crate) struct LocalChecksum {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Which checksum.
    #[arg(long, value_enum, default_value_t = Algorithm::Sha256, value_name = "ALGORITHM")]
    pub(crate) algorithm: Algorithm,
}

/// Checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Algorithm {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// `local inspect`
#[derive(Debug, Args)]
pub(crate) struct LocalInspect {
    /// The disk image; of a machine with several disks, each in its order.
    #[arg(value_name = "IMAGE", required_unless_present = "add")]
    pub(crate) images: Vec<PathBuf>,
    /// Add a disk image; the same as naming it without the flag.
    #[arg(short = 'a', long, value_name = "IMAGE", help_heading = "Image")]
    pub(crate) add: Vec<PathBuf>,
    /// A key of an encrypted volume: `ID:key:PASSPHRASE` or `ID:file:PATH`, where ID is the volume's UUID, its device
    /// (`/dev/sda2`, `/dev/vg/lv`) or `all`. Keys are not written into the document.
    #[arg(long = "key", value_name = "SELECTOR", help_heading = "Image")]
    pub(crate) keys: Vec<String>,
    #[command(flatten)]
    pub(crate) what: InspectWhat,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// `inspect`
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The disk image, as the worker sees it, made absolute against the current folder; of a machine with several disks,
    /// each in its order.
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<PathBuf>,
    /// A key of an encrypted volume, by the name of a file beneath the worker's keys root: `ID:FILE`, where ID is the
    /// volume's UUID, its device (`/dev/sda2`) or `all`.
    #[arg(long = "key-file", value_name = "ID:FILE", help_heading = "Image")]
    pub(crate) key_files: Vec<String>,
    #[command(flatten)]
    pub(crate) what: InspectWhat,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    #[command(flatten)]
    pub(crate) follow: Follow,
}

/// What is known of the image.
#[derive(Debug, Args)]
pub(crate) struct Stated {
    /// SHA-256 that the file must have: 64 hexadecimal digits, `sha256:` before them or not.
    #[arg(long, value_name = "SHA256", help_heading = "Image")]
    pub(crate) checksum: Option<String>,
    /// The image's format; one that disagrees with the file is an error.
    #[arg(long, value_enum, value_name = "FORMAT", help_heading = "Image")]
    pub(crate) format: Option<ImageFormat>,
}

/// What an inspection looks at and what it writes: the payload of `guestkit.inspect.v1`.
#[derive(Debug, Args)]
pub(crate) struct InspectWhat {
    /// Walk the whole tree as well: set-user-ID files, world-writable files, database files.
    #[arg(long, help_heading = "What to look at")]
    pub(crate) deep_scan: bool,
    /// Look at these modules alone. Without it: all but databases.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "MODULE", help_heading = "What to look at")]
    pub(crate) include: Vec<Module>,
    /// Leave the packages out.
    #[arg(long, help_heading = "What to look at", conflicts_with = "include")]
    pub(crate) no_packages: bool,
    /// Leave the services out.
    #[arg(long, help_heading = "What to look at", conflicts_with = "include")]
    pub(crate) no_services: bool,
    /// Leave the users out.
    #[arg(long, help_heading = "What to look at", conflicts_with = "include")]
    pub(crate) no_users: bool,
    /// Leave the network out.
    #[arg(long, help_heading = "What to look at", conflicts_with = "include")]
    pub(crate) no_network: bool,
    /// Leave the security settings out.
    #[arg(long, help_heading = "What to look at", conflicts_with = "include")]
    pub(crate) no_security: bool,
    /// Leave the storage out.
    #[arg(long, help_heading = "What to look at", conflicts_with = "include")]
    pub(crate) no_storage: bool,
    /// Look for database servers and files as well.
    #[arg(long, help_heading = "What to look at")]
    pub(crate) databases: bool,
    #[command(flatten)]
    pub(crate) stated: Stated,
    /// Where the worker writes the report as well: a file, or a folder when it ends in `/`.
    #[arg(long, value_name = "PATH", help_heading = "Report file")]
    pub(crate) output_destination: Option<PathBuf>,
    /// How that file is written.
    #[arg(long, value_enum, value_name = "FORMAT", requires = "output_destination", help_heading = "Report file")]
    pub(crate) output_format: Option<ReportFormat>,
    /// How that file is compressed.
    #[arg(long, value_enum, value_name = "METHOD", requires = "output_destination", help_heading = "Report file")]
    pub(crate) output_compression: Option<Compression>,
}

/// How the job around an inspection or a profile is run.
#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// The job's name for ever: 8 to 128 of A-Z a-z 0-9 . _ -. Minted when absent.
    #[arg(long, value_name = "ID", help_heading = "Job")]
    pub(crate) job_id: Option<String>,
    /// Two submissions with one key in one namespace are one job.
    #[arg(long, value_name = "KEY", help_heading = "Job")]
    pub(crate) idempotency_key: Option<String>,
    /// A name for people.
    #[arg(long, help_heading = "Job")]
    pub(crate) name: Option<String>,
    /// The namespace the job belongs to.
    #[arg(short, long, help_heading = "Job")]
    pub(crate) namespace: Option<String>,
    /// Labels to select it by.
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = parse_pair, help_heading = "Job")]
    pub(crate) labels: Vec<(String, String)>,
    /// 1 to 10, higher first; 5 when absent.
    #[arg(long, value_name = "N", help_heading = "Job")]
    pub(crate) priority: Option<i32>,
    /// Seconds that one attempt may run; 3600 when absent.
    #[arg(long, value_name = "SECONDS", help_heading = "Job")]
    pub(crate) timeout: Option<i32>,
    /// Attempts that may fail before the job has failed; 1 when absent.
    #[arg(long, value_name = "N", help_heading = "Job")]
    pub(crate) max_attempts: Option<i32>,
    /// This worker and no other.
    #[arg(long, value_name = "WORKER", help_heading = "Job")]
    pub(crate) worker: Option<String>,
    /// This pool and no other.
    #[arg(long, help_heading = "Job")]
    pub(crate) pool: Option<String>,
}

/// `local profile`
#[derive(Debug, Args)]
pub(crate) struct LocalProfile {
    /// The disk image; of a machine with several disks, each in its order.
    #[arg(value_name = "IMAGE", required_unless_present = "add")]
    pub(crate) images: Vec<PathBuf>,
    /// Add a disk image; the same as naming it without the flag.
    #[arg(short = 'a', long, value_name = "IMAGE", help_heading = "Image")]
    pub(crate) add: Vec<PathBuf>,
    /// A key of an encrypted volume: `ID:key:PASSPHRASE` or `ID:file:PATH`, where ID is the volume's UUID, its device
    /// (`/dev/sda2`, `/dev/vg/lv`) or `all`. Keys are not written into the document.
    #[arg(long = "key", value_name = "SELECTOR", help_heading = "Image")]
    pub(crate) keys: Vec<String>,
    /// Rules of your own over those of the program: the `*.yaml` files in this folder. (Workers are told with their `--rules`.)
    #[arg(long, value_name = "DIR", help_heading = "How to judge")]
    pub(crate) rules: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) what: ProfileWhat,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// `profile`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Profile {
    #[command(subcommand)]
    pub(crate) command: Option<ProfileCommand>,
    #[command(flatten)]
    pub(crate) submit: ProfileSubmit,
}

/// What can be done with reports of profiles.
#[derive(Debug, Subcommand)]
pub(crate) enum ProfileCommand {
    /// Compare two reports (`-o json` of `profile` or `report`): what is new, fixed, unchanged, changed.
    Diff(ProfileDiff),
}

/// `profile diff`
#[derive(Debug, Args)]
pub(crate) struct ProfileDiff {
    /// The earlier report, as JSON.
    #[arg(value_name = "BEFORE.json")]
    pub(crate) before: PathBuf,
    /// The later one; one of the two may be `-`, standard input.
    #[arg(value_name = "AFTER.json")]
    pub(crate) after: PathBuf,
    /// Compare them though they were judged by other checks, profiles, standards or semantics.
    #[arg(long)]
    pub(crate) force: bool,
}

/// `profile IMAGE`
#[derive(Debug, Args)]
pub(crate) struct ProfileSubmit {
    /// The disk image, as the worker sees it, made absolute against the current folder; of a machine with several disks,
    /// each in its order.
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<PathBuf>,
    /// A key of an encrypted volume, by the name of a file beneath the worker's keys root: `ID:FILE`, where ID is the
    /// volume's UUID, its device (`/dev/sda2`) or `all`.
    #[arg(long = "key-file", value_name = "ID:FILE", help_heading = "Image")]
    pub(crate) key_files: Vec<String>,
    #[command(flatten)]
    pub(crate) what: ProfileWhat,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    #[command(flatten)]
    pub(crate) follow: Follow,
}

/// How an image is judged and what is written: the payload of `guestkit.profile.v1`.
#[derive(Debug, Args)]
pub(crate) struct ProfileWhat {
    /// The profiles to judge by; the checks of any of them run. Security when absent.
    #[arg(long = "profile", value_enum, value_delimiter = ',', value_name = "PROFILE", help_heading = "How to judge")]
    pub(crate) profiles: Vec<ProfileName>,
    /// Only checks that give evidence for one of these standards, with its limits.
    #[arg(
        long = "standard",
        value_enum,
        value_delimiter = ',',
        value_name = "STANDARD",
        help_heading = "How to judge"
    )]
    pub(crate) standards: Vec<StandardName>,
    /// What a default that nobody wrote down counts for: nothing with `explicit`.
    #[arg(long, value_enum, value_name = "SEMANTICS", help_heading = "How to judge")]
    pub(crate) semantics: Option<SemanticsName>,
    /// The only target of a migration that matters; with the migration profile.
    #[arg(long, value_enum, value_name = "TARGET", help_heading = "How to judge")]
    pub(crate) target: Option<TargetName>,
    /// The time against which ages are judged (2026-01-31T08:00:00Z); when the image was last written, when absent.
    #[arg(long, value_name = "TIME", help_heading = "How to judge")]
    pub(crate) reference_time: Option<String>,
    /// A YAML file of findings that are accepted, each with its justification, approver and last day; again for each file.
    #[arg(long, value_name = "FILE", help_heading = "How to judge")]
    pub(crate) waivers: Vec<PathBuf>,
    /// List every check with its state and reason, not only findings.
    #[arg(long, help_heading = "What to tell")]
    pub(crate) all: bool,
    /// Leave out findings below this severity.
    #[arg(long, value_enum, value_name = "SEVERITY", help_heading = "What to tell")]
    pub(crate) severity_threshold: Option<SeverityName>,
    /// Leave out what to do about findings.
    #[arg(long, help_heading = "What to tell")]
    pub(crate) no_remediation: bool,
    /// End as failed (exit code 5) where something critical is found that is not waived.
    #[arg(long, help_heading = "What to tell")]
    pub(crate) fail_on_critical: bool,
    #[command(flatten)]
    pub(crate) stated: Stated,
    /// Where the worker writes the report as well: a file, or a folder when it ends in `/`.
    #[arg(long, value_name = "PATH", help_heading = "Report file")]
    pub(crate) output_destination: Option<PathBuf>,
    /// How that file is written.
    #[arg(long, value_enum, value_name = "FORMAT", requires = "output_destination", help_heading = "Report file")]
    pub(crate) output_format: Option<ProfileReportFormat>,
    /// How that file is compressed.
    #[arg(long, value_enum, value_name = "METHOD", requires = "output_destination", help_heading = "Report file")]
    pub(crate) output_compression: Option<Compression>,
}

/// Profiles that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileName {
    Security,
    Compliance,
    Hardening,
    Performance,
    Migration,
    All,
}

/// Standards that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StandardName {
    Cis,
    #[value(name = "cis-level1")]
    CisLevel1,
    #[value(alias = "pci")]
    PciDss,
    Hipaa,
    #[value(name = "nist-800-53", alias = "nist")]
    Nist,
}

/// Severities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SeverityName {
    Info,
    Low,
    Medium,
    High,
    Critical,
}

/// Semantics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SemanticsName {
    Effective,
    Explicit,
}

/// Targets of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TargetName {
    Kvm,
    Kubevirt,
    Proxmox,
    Openstack,
    Hyperv,
    Aws,
    Azure,
    Gcp,
}

/// Formats of a profile's report file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileReportFormat {
    Json,
    Yaml,
    Sarif,
    Html,
    Junit,
    Csv,
}

/// Modules of an inspection that can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Module {
    Packages,
    Services,
    Users,
    Network,
    Security,
    Storage,
    Databases,
}

/// Formats an image can be said to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImageFormat {
    Auto,
    Raw,
    Qcow2,
    Vmdk,
    Vdi,
    Vhd,
    Vhdx,
}

/// Formats of a report file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    Json,
    Yaml,
    VirtInspector,
    Cyclonedx,
    Spdx,
    Html,
}

/// Compressions of a report file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// The word that documents use for a value: the one that is typed.
pub(crate) fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_do_not_contradict_themselves() {
        Cli::command().debug_assert();
    }

    #[test]
    fn forms_are_typed_as_documents_name_them() {
        for wanted in Wanted::value_variants() {
            assert_eq!(wanted.form().map(|form| form.name), wanted.form().map(|_| word(*wanted)).as_deref());
        }
        for format in ProfileReportFormat::value_variants().iter().map(|format| word(*format)) {
            assert!(
                matches!(format.as_str(), "json" | "yaml") || ProfileForm::from_name(&format).is_some(),
                "{format}"
            );
        }
        for format in ReportFormat::value_variants().iter().map(|format| word(*format)) {
            assert!(matches!(format.as_str(), "json" | "yaml") || Form::from_name(&format).is_some(), "{format}");
        }
    }

    #[test]
    fn endpoints_are_repeated_or_separated_by_commas() {
        let cli = Cli::parse_from([
            "guestkit",
            "summary",
            "--coordinator",
            "http://a:1,http://b:2",
            "--coordinator",
            "http://c:3",
        ]);
        assert_eq!(cli.global.coordinator, ["http://a:1", "http://b:2", "http://c:3"]);
    }

    #[test]
    fn a_label_needs_a_key() {
        assert!(parse_pair("=x").is_err());
        assert!(parse_pair("x").is_err());
        assert_eq!(parse_pair("a=b=c"), Ok(("a".into(), "b=c".into())));
    }
}
