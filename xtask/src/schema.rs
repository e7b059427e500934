//! Writes the JSON Schemas of the job document and of reports again; the protocol crate's test tells when that is due.

use std::process::Command;

use anyhow::Result;

use crate::shell::{cargo, check, root};

pub(crate) fn run() -> Result<()> {
    check(
        Command::new(cargo())
            .args(["test", "--quiet", "--package", "guestkit-protocol", "schema"])
            .env("GUESTKIT_UPDATE", "1")
            .current_dir(root()),
    )
}
