//! The attempt's own process: makes itself ready, takes one order from its pipe, shuts itself in, runs the handler and tells
//! its keeper. It lives no longer than its keeper, whatever ends that one.

use std::io::{self, BufRead as _, Read as _, Write};
use std::time::Duration;

use guestkit_protocol::{document, v1};
use prost::Message as _;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use super::frame::{self, Kind};
use crate::handlers::{Job, Registry};
use crate::output::OutputRoots;
use crate::roots::{ImageRoots, KeysRoot};
use crate::rules::RulesFolder;
use crate::sandbox;
use crate::usage::{Account, Meter};

/// What a keeper tells its attempt's process besides the document.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// The keeper's process.
    pub(super) keeper: u32,
    /// Which images may be opened.
    pub(super) images: ImageRoots,
    /// Where keys lie.
    pub(super) keys: KeysRoot,
    /// Where reports may be written.
    pub(super) outputs: OutputRoots,
    /// The operator's own rules for profiles.
    pub(super) rules: RulesFolder,
    /// Tells this attempt from all others; fit for a file name.
    pub(super) unique: String,
    /// How long the attempt may run.
    pub(super) timeout_seconds: u64,
}

/// Runs the attempt that the keeper orders on standard input, and answers on standard output.
///
/// # Errors
/// A keeper that is gone or talks nonsense, or a sandbox that cannot be entered.
pub fn main() -> anyhow::Result<()> {
    // What every attempt needs, done while nobody waits for it.
    document::prepare();
    let registry = Registry::default();

    let mut stdin = io::stdin().lock();
    if stdin.fill_buf()?.is_empty() {
        // The keeper left without an order.
        return Ok(());
    }
    let order: Order = serde_json::from_slice(&expect(&mut stdin, Kind::Order)?)?;
    let document = v1::JobDocument::decode(expect(&mut stdin, Kind::Document)?.as_slice())?;
    drop(stdin);

    die_with(order.keeper)?;
    let meter = Meter::new(true);
    let mut readable = order.images.readable();
    readable.extend(order.keys.folder().map(Into::into));
    readable.extend(order.rules.folder().map(Into::into));
    let level = sandbox::enter(&sandbox::Rules {
        readable,
        writable: order.outputs.folders().to_vec(),
        timeout: Duration::from_secs(order.timeout_seconds),
    })?;
    // After the sandbox, because a thread keeps the rules it was born under.
    std::thread::spawn(exit_when_the_keeper_lets_go);

    let mut stdout = io::stdout().lock();
    frame::write(&mut stdout, Kind::Sandbox, level.to_string().as_bytes())?;
    let account = Account::default();
    let job = Job {
        document: &document,
        images: &order.images,
        keys_root: &order.keys,
        keys: &guestkit::Keys::none(),
        outputs: &order.outputs,
        rules: &order.rules,
        unique: &order.unique,
        own_process: true,
        account: &account,
    };
    let result = registry.execute(&job, &meter, &mut |progress| {
        // A progress too large for its frame is not worth the attempt; a keeper that is gone is noticed elsewhere.
        let _ = tell(&mut stdout, &progress, &meter.metrics(&account));
    });
    frame::write(&mut stdout, Kind::Done, &result.encode_to_vec())?;
    Ok(())
}

fn expect(from: &mut impl io::Read, kind: Kind) -> anyhow::Result<Vec<u8>> {
    match frame::read(from)? {
        (met, body) if met == kind => Ok(body),
        (met, _) => anyhow::bail!("expected {kind:?}, got {met:?}"),
    }
}

fn tell(to: &mut impl Write, progress: &v1::Progress, metrics: &v1::Metrics) -> io::Result<()> {
    frame::write(to, Kind::Progress, &progress.encode_to_vec())?;
    frame::write(to, Kind::Metrics, &metrics.encode_to_vec())
}

/// Asks the kernel to kill this process when its keeper ends, however it ends.
fn die_with(keeper: u32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The keeper may have died before the line above; then the parent is another already.
    let keeper = i32::try_from(keeper).ok().and_then(Pid::from_raw);
    anyhow::ensure!(getppid() == keeper, "the keeper is gone");
    Ok(())
}

/// The keeper's end of the pipe closes when the keeper ends: a second way to notice, without the kernel's help.
fn exit_when_the_keeper_lets_go() {
    let mut nothing = [0; 64];
    while matches!(io::stdin().lock().read(&mut nothing), Ok(length) if length > 0) {}
    std::process::exit(KEEPER_GONE);
}

/// Exit code of an attempt whose keeper let go of it.
const KEEPER_GONE: i32 = 70;
