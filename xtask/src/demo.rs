//! The main job, for a newcomer's eyes: a coordinator, two workers, three jobs, one real disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result, bail};
use guestkit_processes::{Binaries, Fleet};

use crate::shell::{cargo, check, root, say, target_dir};

/// What `guestkit` exits with when a job ran and failed.
const JOB_FAILED: i32 = 1;

pub(crate) fn run(image: Option<PathBuf>) -> Result<()> {
    let image = image.unwrap_or_else(|| root().join("tests/fixtures/debian12-small.qcow2"));
    let image = image.canonicalize().with_context(|| format!("failed to find the image {}", image.display()))?;
    let images = image.parent().context("an image lies in a folder")?;

    say("building (the first time takes some minutes)");
    check(Command::new(cargo()).args(["build", "--quiet", "--workspace", "--bins", "--locked"]).current_dir(root()))?;
    let binaries = Binaries::in_folder(&target_dir().join("debug"))?;

    let mut fleet = Fleet::start(&binaries, &[])?;
    let torn = fleet.folder().join("torn");
    fs::create_dir(&torn)?;
    fs::write(torn.join("notes.qcow2"), "this is a text file, whatever its name says\n")?;
    for id in ["worker-a", "worker-b"] {
        let roots = [path(images)?, path(&torn)?];
        fleet.start_worker(id, &["--image-root", roots[0], "--image-root", roots[1], "--slots", "1"])?;
    }
    say(format_args!("\na coordinator serves {}, two workers connect to it\n", fleet.url()));
    jobs(&fleet, &image, &torn)?;
    say("\nstopping the workers and the coordinator");
    fleet.stop()?;
    say("done");
    Ok(())
}

fn jobs(fleet: &Fleet, image: &Path, torn: &Path) -> Result<()> {
    let echo = root().join("tests/jobs/echo-test.json");
    step(fleet, "1. an echo: there and back", &["submit", path(&echo)?, "--watch"], 0)?;
    step(fleet, "2. a real disk image, inspected", &["inspect", path(image)?, "--watch"], 0)?;
    let text = torn.join("notes.qcow2");
    step(fleet, "3. a job that must fail, and say why", &["inspect", path(&text)?, "--watch"], JOB_FAILED)?;
    step(fleet, "4. the workers", &["workers"], 0)?;
    step(fleet, "5. the jobs", &["list"], 0)
}

/// Shows a command as a user would type it, runs it, and holds it to the exit code it must have.
fn step(fleet: &Fleet, title: &str, args: &[&str], expected: i32) -> Result<()> {
    say(format_args!("── {title}\n$ guestkit {}", args.join(" ")));
    let status: ExitStatus = fleet.guestkit().args(args).status().context("failed to start guestkit")?;
    if status.code() != Some(expected) {
        bail!("guestkit {} ended with {status} instead of exit code {expected}", args.join(" "));
    }
    say("");
    Ok(())
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not text", path.display()))
}
