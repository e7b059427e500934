//! Ten thousand images inspected: overlays of whole servers, each a file of its own, every report durable. The overlays share
//! what lies below them, so that the measuring machine's disk is left out after the first of each; everything else is as with
//! ten thousand machines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use guestkit_processes::Fleet;

use crate::report::{Aim, quantity, table};
use crate::sustained::{Load, run_on};
use crate::{Bench, Failure};

const IMAGES: usize = 10_000;
/// The whole servers of the corpus.
const SERVERS: [&str; 3] = ["profile-debian12-base.qcow2", "profile-debian12-vm.qcow2", "profile-debian12-weak.qcow2"];

pub(crate) async fn measure(bench: &mut Bench) -> Result<(), Failure> {
    let count = if bench.quick { IMAGES / 10 } else { IMAGES };
    let fleet = Fleet::start(&bench.binaries, &[])?;
    let servers = servers()?;
    let images = overlays(fleet.folder(), &servers, count)?;
    let slots = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
    let cost = run_on(fleet, &Load::inspections(images, slots)).await?;
    bench.report.aim("images inspected/s", cost.rate, "/s", Aim::at_least(30.0));
    let names: Vec<_> = servers.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    table(
        "Images inspected by a fleet, SQLite",
        &[
            "images",
            "overlays of",
            "slots",
            "images/s",
            "coordinator CPU per image",
            "worker CPU per image",
            "p50 / p99",
        ],
        &[[
            count.to_string(),
            names.join(", "),
            slots.to_string(),
            quantity(cost.rate, ""),
            format!("{:.2} ms", cost.server_micros / 1e3),
            format!("{:.1} ms", cost.others_micros / 1e3),
            format!("{:.0} / {:.0} ms", cost.p50, cost.p99),
        ]],
    );
    Ok(())
}

fn servers() -> Result<Vec<PathBuf>, Failure> {
    let corpus =
        std::env::var_os("GUESTKIT_CORPUS").ok_or("GUESTKIT_CORPUS names no folder with servers to inspect")?;
    let folder = Path::new(&corpus).join("guests");
    Ok(SERVERS.iter().map(|name| folder.join(name).canonicalize()).collect::<Result<_, _>>()?)
}

/// So many images above copies of the servers, as qemu-img makes them; those of one server are alike to the byte.
fn overlays(folder: &Path, servers: &[PathBuf], count: usize) -> Result<Vec<PathBuf>, Failure> {
    let mut tops = Vec::new();
    for (index, server) in servers.iter().enumerate() {
        let (base, top) = (folder.join(format!("server-{index}.qcow2")), folder.join(format!("top-{index}.qcow2")));
        fs::copy(server, &base)?;
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
            .args([&base, &top])
            .status()?;
        if !made.success() {
            return Err(format!("qemu-img ended with {made}").into());
        }
        tops.push(top);
    }
    let mut images = Vec::new();
    for (index, top) in (0..count).zip(tops.iter().cycle()) {
        let image = folder.join(format!("vm-{index:05}.qcow2"));
        fs::copy(top, &image)?;
        images.push(image);
    }
    Ok(images)
}
