//! The commands, one module for each group.

mod disk;
mod fleet;
mod jobs;
mod local;
mod profile;
mod submit;

use std::future::Future;

use clap::CommandFactory;

use crate::args::{Cli, Command, LocalCommand, OtherForm, ProfileCommand};
use crate::coordinator::Coordinator;
use crate::failure::Failure;
use crate::output::{Output, write};

/// Does what was typed.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    let output = Output::new(&cli.global);
    if let Some(form) = output.form.filter(|form| !can_print(&cli.command, *form)) {
        let of = if form.inspection.is_some() { "an inspection" } else { "a profile" };
        return Err(Failure::usage(format!("-o {}: only the report of {of} has this form", form.name)));
    }
    let remote = || Coordinator::new(&cli.global);
    match cli.command {
        Command::Submit(args) => block_on(submit::submit(&remote()?, &output, args)),
        Command::Inspect(args) => block_on(submit::inspect(&remote()?, &output, args)),
        Command::Profile(args) => match args.command {
            Some(ProfileCommand::Diff(args)) => profile::diff(&output, &args),
            None => block_on(submit::profile(&remote()?, &output, args.submit)),
        },
        Command::Watch(args) => block_on(jobs::watch(&remote()?, &output, args)),
        Command::Get(args) => block_on(jobs::get(&remote()?, &output, args)),
        Command::Report(args) => block_on(jobs::report(&remote()?, &output, args)),
        Command::List(args) => block_on(jobs::list(&remote()?, &output, args)),
        Command::Cancel(args) => block_on(jobs::cancel(&remote()?, &output, args)),
        Command::Retry(args) => block_on(jobs::retry(&remote()?, &output, args)),
        Command::Delete(args) => block_on(jobs::delete(&remote()?, &output, args)),
        Command::Explain(args) => block_on(jobs::explain(&remote()?, &output, args)),
        Command::Workers(args) => block_on(fleet::workers(&remote()?, &output, args)),
        Command::Drain(args) => block_on(fleet::drain(&remote()?, &output, args)),
        Command::Resume(args) => block_on(fleet::resume(&remote()?, &output, args)),
        Command::Summary => block_on(fleet::summary(&remote()?, &output)),
        Command::Local(local) => match local.command {
            LocalCommand::Inspect(args) => local::inspect(&output, &args),
            LocalCommand::Profile(args) => local::profile(&output, &args),
            LocalCommand::Filesystems(args) => disk::filesystems(&output, &args),
            LocalCommand::Ls(args) => disk::ls(&output, &args),
            LocalCommand::Cat(args) => disk::cat(&output, &args),
            LocalCommand::Stat(args) => disk::stat(&output, &args),
            LocalCommand::Find(args) => disk::find(&output, &args),
            LocalCommand::Readlink(args) => disk::readlink(&output, &args),
            LocalCommand::Checksum(args) => disk::checksum(&output, &args),
            LocalCommand::Run { file, shown } => local::run(&output, &file, shown),
        },
        Command::Completions { shell } => completions(shell),
    }
}

/// Whether a command prints what one job found, and nothing around it, in this form; of a job that is not known yet the
/// report will tell.
fn can_print(command: &Command, form: OtherForm) -> bool {
    match command {
        Command::Watch(args) => !args.events,
        Command::Report(args) => !args.shown.outcome,
        Command::Inspect(args) => args.follow.watch && form.inspection.is_some(),
        Command::Profile(args) => args.command.is_none() && args.submit.follow.watch && form.profile.is_some(),
        Command::Submit(args) => args.follow.watch && args.files.len() == 1,
        Command::Local(local) => match local.command {
            LocalCommand::Inspect(_) => form.inspection.is_some(),
            LocalCommand::Profile(_) => form.profile.is_some(),
            LocalCommand::Run { .. } => true,
            _ => false,
        },
        _ => false,
    }
}

/// Runs a command that talks to a coordinator. One thread: it waits, it does not compute.
fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Work { message: format!("cannot start: {error}") })?;
    runtime.block_on(work)
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "guestkit", &mut script);
    write(&String::from_utf8_lossy(&script))
}
