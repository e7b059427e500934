//! `guestkit`: submit, watch and read jobs, or inspect a disk image right here.
//!
//! Standard output is the document that was asked for and nothing else; progress, notes and errors go to standard error;
//! the exit code says which of five things happened ([`failure`]). This program decides nothing about jobs: it writes down
//! what the coordinator, or the worker's own handlers, say.

#[cfg(fuzzing)]
compile_error!("this build would take every checksum of a disk for right; it is for fuzz targets only");

mod args;
mod command;
mod coordinator;
mod document;
mod failure;
mod follow;
mod instant;
mod outcome;
mod output;
mod progress;
mod table;

use std::process::ExitCode;

use clap::Parser;

/// A report is many small pieces, and reading a disk many large ones: the system's allocator took a tenth of the time, most of it
/// for pages that it had given back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator's own pages would each be 2 MB of zeros first: twice the memory and a fifth of the time of an inspection.
    // A kernel without them has nothing to refuse.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    match command::run(args::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            failure.into()
        }
    }
}
