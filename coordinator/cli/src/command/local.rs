//! `local`: the worker's own handlers in this process, so that a report here is the report of the fleet.

use std::path::Path;

use guestkit_protocol::document::{Source, check};
use guestkit_worker::local;

use crate::args::{LocalInspect, Shown};
use crate::document::{self, Named};
use crate::failure::Failure;
use crate::instant;
use crate::outcome;
use crate::output::Output;
use crate::progress::Board;

/// Inspects an image here.
pub(crate) fn inspect(output: &Output, args: &LocalInspect) -> Result<(), Failure> {
    let named = document::inspection(&args.image, &args.what, None)?;
    let shown = args.image.file_name().unwrap_or(args.image.as_os_str()).display().to_string();
    execute(output, &shown, named, args.shown)
}

/// Runs a document here.
pub(crate) fn run(output: &Output, file: &Path, asked: Shown) -> Result<(), Failure> {
    let named = document::load(file)?;
    let shown = if named.document.job_id.is_empty() { named.name.clone() } else { named.document.job_id.clone() };
    execute(output, &shown, named, asked)
}

fn execute(output: &Output, shown: &str, Named { name, document }: Named, asked: Shown) -> Result<(), Failure> {
    let checked = check(document, Source::Local, instant::now()).map_err(|refusal| Failure::refused(name, refusal))?;
    let settings = local::Settings::unrestricted().map_err(|error| Failure::Work { message: error.to_string() })?;
    let board = Board::new(1, output.quiet, output.color_progress);
    let row = board.row(shown);
    let result = local::run(&checked.document, &settings, &mut |step| {
        row.step(&step.phase, step.progress_percent, &step.message);
    });
    row.over(outcome::is_completed(&result), &result.status);
    outcome::print(output, &result, asked)?;
    outcome::judge(&result)
}
