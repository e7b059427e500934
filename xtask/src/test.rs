//! Everything that must pass, in the order in which a fault is cheapest to find.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::shell::{Need, cargo, check, find, require, root, run as shell, say, target_dir};

/// Tools of the tests themselves; the product needs none of them.
const NEEDS: [Need; 13] = [
    Need { program: "qemu-img", package: "qemu-utils" },
    Need { program: "qemu-io", package: "qemu-utils" },
    Need { program: "blkid", package: "util-linux" },
    Need { program: "xz", package: "xz-utils" },
    Need { program: "bzip2", package: "bzip2" },
    Need { program: "mkfs.ext4", package: "e2fsprogs" },
    Need { program: "debugfs", package: "e2fsprogs" },
    Need { program: "sfdisk", package: "fdisk" },
    Need { program: "zstd", package: "zstd" },
    Need { program: "node", package: "nodejs" },
    Need { program: "npm", package: "npm" },
    Need { program: "initdb", package: "postgresql" },
    Need { program: "python3", package: "python3-venv" },
];

/// The gRPC client that is not ours, and the linter of the contract.
const BUF: &str = "@bufbuild/buf@1.75.0";

/// The S3-compatible server that is not ours.
const MOTO: [&str; 3] = ["moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.5"];

/// Runs everything.
pub(crate) fn run(corpus: Option<PathBuf>) -> Result<()> {
    require(&NEEDS)?;
    let started = Instant::now();
    let buf = buf()?;
    moto()?;
    let corpus = lay_out_corpus(corpus)?;

    step("format");
    shell(&cargo(), ["fmt", "--all", "--check"])?;
    step("contract (buf lint)");
    check(Command::new(&buf).arg("lint").current_dir(root().join("proto")))?;
    step("tidy");
    crate::tidy::run()?;
    step("clippy");
    shell(&cargo(), ["clippy", "--quiet", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])?;
    step("documentation");
    check(
        Command::new(cargo())
            .args(["doc", "--quiet", "--workspace", "--no-deps", "--locked"])
            .env("RUSTDOCFLAGS", "-D warnings")
            .current_dir(root()),
    )?;
    licences()?;
    step("binaries");
    shell(&cargo(), ["build", "--workspace", "--bins", "--locked"])?;
    step("tests: unit, story, simulation slice, real disks, system, examples");
    tests(&buf, corpus.as_deref())?;
    step("changed disks, with every checksum taken for right");
    changed_disks(corpus.as_deref())?;
    step("simulation");
    crate::simulate::run(0, 2_000, 1_000)?;
    step("demo");
    crate::demo::run(None)?;
    say(format_args!("everything passed in {} s", started.elapsed().as_secs()));
    Ok(())
}

fn step(name: &str) {
    say(format_args!("== {name}"));
}

/// nextest where it is installed (it bounds each test's time), cargo's own runner elsewhere; the same tests.
fn tests(buf: &Path, corpus: Option<&Path>) -> Result<()> {
    let runner: &[&str] = match find("cargo-nextest") {
        Some(_) => {
            // The examples in the documentation, which nextest leaves out.
            shell(&cargo(), ["test", "--quiet", "--workspace", "--doc", "--locked"])?;
            &["nextest", "run"]
        }
        None => &["test"],
    };
    let mut command = Command::new(cargo());
    command.args(runner).args(["--workspace", "--locked"]).current_dir(root()).env("GUESTKIT_BUF", buf);
    match corpus {
        Some(folder) => command.env("GUESTKIT_CORPUS", folder),
        None => command.env_remove("GUESTKIT_CORPUS"),
    };
    check(&mut command)?;
    Ok(())
}

/// The tests of changed disks once more, by an engine that is built as cargo-fuzz builds it: checksums stop no change, and what
/// libFuzzer found is found again. No libFuzzer and no other compiler is needed.
fn changed_disks(corpus: Option<&Path>) -> Result<()> {
    let mut command = Command::new(cargo());
    command.args(["test", "--quiet", "--locked", "--package", "guestkit", "--test", "fuzz", "--target-dir"]);
    command.arg(target_dir().join("fuzzing")).env("RUSTFLAGS", "--cfg fuzzing").current_dir(root());
    match corpus {
        Some(folder) => command.env("GUESTKIT_CORPUS", folder),
        None => command.env_remove("GUESTKIT_CORPUS"),
    };
    check(&mut command)
}

/// Licences and sources of what we ship, where cargo-deny is installed. Its advisories need a network of their own:
/// `cargo deny check advisories`.
fn licences() -> Result<()> {
    if find("cargo-deny").is_none() {
        say("== licences: cargo-deny is not installed (cargo install cargo-deny --locked), not checked");
        return Ok(());
    }
    step("licences");
    shell(&cargo(), ["deny", "--log-level", "error", "check", "bans", "licenses", "sources"])
}

/// buf from the PATH, or from npm into the target folder.
fn buf() -> Result<PathBuf> {
    if let Some(found) = find("buf") {
        return Ok(found);
    }
    let folder = target_dir().join("npm");
    let program = folder.join("node_modules/.bin/buf");
    if !program.is_file() {
        step("installing buf from npm");
        std::fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
        check(
            Command::new("npm")
                .args(["install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"])
                .arg(&folder)
                .arg(BUF)
                .stdout(Stdio::null()),
        )
        .context("missing on this machine: buf; npm install -g @bufbuild/buf")?;
    }
    Ok(program)
}

/// moto from PyPI into the target folder, where the tests look for it.
fn moto() -> Result<()> {
    let folder = target_dir().join("s3");
    if folder.join("bin/moto_server").is_file() {
        return Ok(());
    }
    step("installing moto from PyPI");
    let missing = "missing on this machine: the S3-compatible server of the tests; apt-get install python3-venv";
    check(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder)).context(missing)?;
    let mut pip = Command::new(folder.join("bin/pip"));
    check(pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(MOTO)).context(missing)?;
    Ok(())
}

/// The corpus lies beside the checkout where there is one; it is laid out once into the target folder.
pub(crate) fn lay_out_corpus(given: Option<PathBuf>) -> Result<Option<PathBuf>> {
    let source = given.unwrap_or_else(|| root().join("../shared/corpus"));
    let unpack = source.join("unpack.sh");
    if !unpack.is_file() {
        if source.join("guests").is_dir() {
            return Ok(Some(source));
        }
        if std::env::var_os("CI").is_some() {
            bail!("the corpus is not present at {}; set GUESTKIT_CORPUS", source.display());
        }
        say("== corpus not present (GUESTKIT_CORPUS): the tests that need real guests will say so and pass");
        return Ok(None);
    }
    step("laying out the corpus");
    let folder = target_dir().join("corpus");
    check(Command::new("sh").arg(&unpack).arg(&folder))?;
    Ok(Some(folder))
}
