//! File systems beside this machine's kernel, which reads each from a loop device: the corpus, and made ones with what is rare.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::shell::{cargo, check, root, target_dir, unpack_guest};
use crate::test::lay_out_corpus;

/// Folders of the corpus whose images hold file systems that a kernel mounts.
const FAMILIES: [&str; 3] = ["guests", "distros", "phony"];

/// What to compare.
#[derive(Debug, Args)]
pub(crate) struct Oracle {
    /// Images, and folders of images; several disks of one machine are called `NAME.1.img`, `NAME.2.img`. Without any, those
    /// of the corpus, and file systems that are made for it.
    #[arg(value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Make only these file systems; `worker/guestkit/tests/kernel/make.sh --list` names them.
    #[arg(long, value_name = "CASE", value_delimiter = ',')]
    only: Vec<String>,
    /// Instead: ask the tools that know whole guests (dpkg-query, systemctl, systemd-analyze, pwck, grpck, visudo, sshd), as far as
    /// this machine has them, once more of the guests whose answers the corpus keeps.
    #[arg(long, conflicts_with_all = ["images", "only"])]
    guests: bool,
    /// Folder with the corpus of real disks.
    #[arg(long, value_name = "DIR", env = "GUESTKIT_CORPUS")]
    corpus: Option<PathBuf>,
}

pub(crate) fn run(asked: Oracle) -> Result<()> {
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        bail!("a kernel mounts for root alone; run this as root");
    }
    if asked.guests {
        return guests(asked.corpus);
    }
    let mut images = asked.images;
    if images.is_empty() {
        if let (Some(corpus), []) = (lay_out_corpus(asked.corpus)?, asked.only.as_slice()) {
            images.extend(FAMILIES.map(|family| corpus.join(family)));
        }
        let made = target_dir().join("oracle");
        let make = root().join("worker/guestkit/tests/kernel/make.sh");
        check(Command::new("bash").arg(make).arg(&made).args(&asked.only))?;
        images.push(made);
    }
    let images: OsString = std::env::join_paths(images).context("a path with a colon in it cannot be passed on")?;
    let mut command = Command::new(cargo());
    command.args(["test", "--quiet", "--release", "--locked", "--workspace", "--test", "kernel"]);
    command.args(["--", "--nocapture"]).current_dir(root()).env("GUESTKIT_ORACLE", images);
    check(&mut command)
}

/// Configurations that nobody wrote, of each kind.
const CASES: &str = "3000";
/// The guests of the corpus that tools were asked about.
const GUESTS: [&str; 3] = ["base", "weak", "vm"];

fn guests(corpus: Option<PathBuf>) -> Result<()> {
    let corpus = lay_out_corpus(corpus)?.context("the corpus is not there; name its folder with --corpus")?;
    let build = ["build", "--quiet", "--release", "--locked", "--workspace", "--bins"];
    check(Command::new(cargo()).args(build).current_dir(root()))?;
    let trees = target_dir().join("oracle-trees");
    for guest in GUESTS {
        unpack_guest(&corpus.join(format!("guests/profile-debian12-{guest}.qcow2")), &trees.join(guest))?;
    }
    let mut command = Command::new(cargo());
    command.args(["test", "--quiet", "--release", "--locked", "--workspace", "--test", "linux_guests"]);
    command.args(["--test", "random_configurations", "agree", "--", "--nocapture"]).current_dir(root());
    check(command.env("GUESTKIT_CORPUS", corpus).env("GUESTKIT_GUEST_TREES", trees).env("GUESTKIT_CASES", CASES))
}
