//! `local`: the worker's own handlers in this process, so that a report here is the report of the fleet.

use std::path::{Path, PathBuf};

use guestkit::Keys;
use guestkit_protocol::document::{Source, check};
use guestkit_worker::local;
use guestkit_worker::roots::RootsError;
use guestkit_worker::rules::RulesFolder;

use super::disk;
use crate::args::{LocalInspect, LocalProfile, Shown};
use crate::document::{self, Named};
use crate::failure::Failure;
use crate::instant;
use crate::outcome;
use crate::output::Output;
use crate::progress::Board;

/// Inspects an image here.
pub(crate) fn inspect(output: &Output, args: &LocalInspect) -> Result<(), Failure> {
    let images: Vec<PathBuf> = args.images.iter().chain(&args.add).cloned().collect();
    let named = document::inspection(&images, &[], &args.what, None)?;
    let held = Held { keys: disk::keys(&args.keys)?, rules: RulesFolder::none() };
    execute(output, &name_of(&images), named, held, args.shown)
}

/// Judges an image here.
pub(crate) fn profile(output: &Output, args: &LocalProfile) -> Result<(), Failure> {
    let images: Vec<PathBuf> = args.images.iter().chain(&args.add).cloned().collect();
    let named = document::profile(&images, &[], &args.what, None)?;
    let rules = match &args.rules {
        Some(folder) => RulesFolder::of(folder).map_err(Failure::usage)?,
        None => RulesFolder::none(),
    };
    execute(output, &name_of(&images), named, Held { keys: disk::keys(&args.keys)?, rules }, args.shown)
}

fn name_of(images: &[PathBuf]) -> String {
    let image = images.first().map_or(Path::new(""), PathBuf::as_path);
    image.file_name().unwrap_or(image.as_os_str()).display().to_string()
}

/// What whoever runs a job here has beside its document.
struct Held {
    keys: Keys,
    rules: RulesFolder,
}

/// Runs a document here.
pub(crate) fn run(output: &Output, file: &Path, asked: Shown) -> Result<(), Failure> {
    let named = document::load(file)?;
    let shown = if named.document.job_id.is_empty() { named.name.clone() } else { named.document.job_id.clone() };
    execute(output, &shown, named, Held { keys: Keys::none(), rules: RulesFolder::none() }, asked)
}

fn execute(
    output: &Output,
    shown: &str,
    Named { name, document }: Named,
    Held { keys, rules }: Held,
    asked: Shown,
) -> Result<(), Failure> {
    let checked = check(document, Source::Local, instant::now()).map_err(|refusal| Failure::refused(name, refusal))?;
    let unusable = |error: RootsError| Failure::Work { message: error.to_string() };
    let settings = local::Settings { keys, rules, ..local::Settings::unrestricted().map_err(unusable)? };
    let board = Board::new(1, output.quiet, output.color_progress);
    let row = board.row(shown);
    let result = local::run(&checked.document, &settings, &mut |step| {
        row.step(&step.phase, step.progress_percent, &step.message);
    });
    row.over(outcome::is_completed(&result), &result.status);
    outcome::print(output, &result, asked)?;
    outcome::judge(&result)
}
