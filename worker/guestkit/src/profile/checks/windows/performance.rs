//! What costs speed on Windows, by its configuration.

use crate::filesystem::{FileType, Metadata};
use crate::guest::tree::WalkNext;
use crate::guest::windows::profiles::guest_path;
use crate::profile::evaluate::Asked;
use crate::profile::guest::Guest;
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::release::{build, release};
use crate::profile::report::Evidence;

use super::{hive_path, is_automatic, known, number, service, start_of, value};

/// A page file that Windows manages, or of a size, on a disk that stays.
pub(in crate::profile) fn page_file(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let found = known!(value(guest, "system:Control\\Session Manager\\Memory Management:PagingFiles"));
    let files: Vec<String> =
        found.texts().into_iter().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect();
    if files.is_empty() {
        return Outcome::fail("there is no page file", vec![found.evidence]);
    }
    // The letters of this disk; a drive that is lost at every deallocation is on none of them.
    let letters = &guest.system.drive_mappings;
    let is_elsewhere = |file: &String| {
        let letter =
            file.chars().next().filter(char::is_ascii_alphabetic).map(|letter| letter.to_ascii_uppercase().to_string());
        letter.is_some_and(|letter| {
            letter != "C" && !letters.is_empty() && !letters.iter().any(|known| known.name == letter)
        })
    };
    if files.iter().all(is_elsewhere) {
        let reason = format!("the page file is on a drive that is not on this disk: {}", files.join(", "));
        return Outcome::warn(reason, vec![found.evidence]).with_subjects(files);
    }
    let is_managed = files.iter().any(|file| file.starts_with("?:") || file.ends_with(" 0 0"));
    let how = if is_managed { "Windows manages the page file" } else { "the page file has a size" };
    Outcome::pass(format!("{how}: {}", files.join(", ")), vec![found.evidence])
}

/// Kernel or automatic dumps; a whole dump writes all memory, with what is secret in it.
pub(in crate::profile) fn crash_dump(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    // Automatic since Windows 8; kernel dumps of servers and small ones of clients before.
    let default = match (release.build >= build::WINDOWS_8, release.is_server) {
        (true, _) => 7,
        (false, true) => 2,
        (false, false) => 3,
    };
    let (kind, evidence) = known!(number(guest, "system:Control\\CrashControl:CrashDumpEnabled", default));
    let root = guest.root.system_root.as_deref().unwrap_or("/Windows");
    let named = known!(value(guest, "system:Control\\CrashControl:DumpFile"));
    let path = named.text().and_then(|path| {
        let plain = path.to_ascii_lowercase().starts_with("%systemroot%").then(|| path.get(12..))?;
        plain.map(|rest| format!("{root}{}", rest.replace('\\', "/")))
    });
    let path = path.or_else(|| named.text().and_then(guest_path)).unwrap_or_else(|| format!("{root}/MEMORY.DMP"));
    let dump = guest.files.stat(&path);
    let told = dump.as_ref().map(|metadata| Evidence::metadata(&*path, "size", metadata.size.to_string()));
    let evidence = vec![evidence, told.unwrap_or_else(|| Evidence::absent(&*path, "MEMORY.DMP"))];
    match (kind, dump) {
        (1, _) => Outcome::fail("a crash writes all memory to the disk", evidence),
        (_, Some(dump)) => Outcome::warn(format!("a dump of memory of {} bytes lies in {path}", dump.size), evidence),
        (2 | 7, None) => Outcome::pass("a crash writes the kernel's memory, and no dump is left", evidence),
        (0, None) => Outcome::warn("a crash writes no dump", evidence),
        (_, None) => Outcome::warn("a crash writes a small dump only", evidence),
    }
}

/// The system does not sleep on the disk, and servers do not at every shutdown.
pub(in crate::profile) fn hibernation(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    let sleeps = guest.system.operating_system.windows.as_ref().and_then(|windows| windows.hibernated);
    let file = match sleeps {
        Some(true) => Evidence::metadata("/hiberfil.sys", "session", "held"),
        Some(false) => Evidence::metadata("/hiberfil.sys", "session", "none"),
        None => Evidence::absent("/hiberfil.sys", "session"),
    };
    if sleeps == Some(true) {
        return Outcome::fail("Windows sleeps in hiberfil.sys: its file systems must not be written", vec![file]);
    }
    let fast = known!(value(guest, "system:Control\\Session Manager\\Power:HiberbootEnabled"));
    let hibernate = known!(value(guest, "system:Control\\Power:HibernateEnabled"));
    let is_fast = fast.number().is_some_and(|number| number != 0) && hibernate.number() != Some(0);
    let evidence = vec![file, fast.evidence, hibernate.evidence];
    if is_fast && release.is_server {
        return Outcome::fail("fast startup is on: every shutdown of the server leaves a sleeping kernel", evidence);
    }
    if is_fast && sleeps.is_some() {
        return Outcome::warn("fast startup is on: a shutdown may leave a sleeping kernel", evidence);
    }
    Outcome::pass("Windows does not sleep on the disk", evidence)
}

/// Power plans that Windows has: identifier, name. Source: Microsoft, "Power Policy Settings".
const PLANS: [(&str, &str); 4] = [
    ("8c5e7fda-e8bf-4a96-9a85-a6e23a8c635c", "high performance"),
    ("e9a42b02-d5df-448d-aa00-03f14749eb61", "ultimate performance"),
    ("381b4222-f694-41f0-9685-ff5bb260df2e", "balanced"),
    ("a1841308-3541-4fab-bc81-f71556f20b4a", "power saver"),
];

/// No plan that saves power at the cost of speed.
pub(in crate::profile) fn power_plan(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let places = "software:Policies\\Microsoft\\Power\\PowerSettings:ActivePowerScheme|\
                  system:Control\\Power\\User\\PowerSchemes:ActivePowerScheme";
    let found = known!(value(guest, places));
    let plan =
        found.text().unwrap_or("381b4222-f694-41f0-9685-ff5bb260df2e").trim_matches(['{', '}']).to_ascii_lowercase();
    let name = PLANS.iter().find(|(id, _)| *id == plan).map(|(_, name)| *name);
    let evidence = vec![found.evidence];
    match name {
        Some("power saver") => Outcome::fail("the power plan saves power at the cost of speed", evidence),
        Some(name) => Outcome::pass(format!("the power plan is {name}"), evidence),
        None => Outcome::warn(format!("the power plan {plan} is none of Windows' own"), evidence),
    }
}

/// Servers do not index, prefetch or report by themselves.
pub(in crate::profile) fn background(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    if !release.is_server {
        return Outcome::not_applicable("it is for servers");
    }
    known!(super::all_services(guest));
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for name in ["WSearch", "SysMain", "DiagTrack"] {
        match service(guest, name) {
            Some(unit) if is_automatic(unit) => bad.push(Bad::new(name, start_of(guest, unit))),
            Some(unit) => looked_at.push(start_of(guest, unit)),
            None => looked_at.push(Evidence::absent(hive_path(guest, "SYSTEM"), format!("Services\\{name}"))),
        }
    }
    Outcome::none_of(
        bad,
        "services that load a server in the background",
        "no such service starts by itself",
        looked_at,
    )
}

/// Where updates pile up, below Windows' folder.
const STORES: [&str; 4] = ["WinSxS", "SoftwareDistribution/Download", "Installer", "Logs/CBS"];
/// Entries of one of them that are measured: the component store has tens of thousands of folders, each of a few files, and
/// every so many of them tell how large it is.
const MEASURED_MAX: usize = 1_000;
/// Entries below one that is measured.
const ENTRIES_MAX: u32 = 20_000;

/// About how many bytes lie below `path`. A file of several names is also elsewhere in Windows, and counts for its share.
fn measure(guest: &Guest<'_>, path: &str) -> Result<u64, String> {
    let own = |metadata: &Metadata| metadata.size / u64::from(metadata.links.max(1));
    let entries = guest.files.entries(path);
    let step = (entries.len() / MEASURED_MAX).saturating_add(1);
    let (mut size, mut count) = (0_u64, 0_u32);
    for entry in entries.iter().step_by(step) {
        let below = format!("{path}/{}", entry.name);
        if entry.file_type != Some(FileType::Directory) {
            size = size.saturating_add(guest.files.stat_link(&below).as_ref().map_or(0, own));
            continue;
        }
        let walked = guest.root.tree.walk(&below, |entry| {
            count = count.saturating_add(1);
            if count > ENTRIES_MAX {
                return Ok(WalkNext::Stop);
            }
            if entry.file_type == FileType::Regular
                && let Ok(metadata) = entry.metadata()
            {
                size = size.saturating_add(own(&metadata));
            }
            Ok(WalkNext::Descend)
        });
        walked.map_err(|error| format!("{below} cannot be walked: {}", error.with_causes()))?;
    }
    Ok(size.saturating_mul(step as u64))
}

/// What updates leave takes less than the limit of the drive, in percent.
pub(in crate::profile) fn component_store(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let limit = asked.limit_number(30);
    let root = guest.root.system_root.as_deref().unwrap_or("/Windows");
    let drive = guest.filesystems.iter().find(|filesystem| filesystem.device == guest.root.device);
    let Some(drive) = drive.and_then(|filesystem| filesystem.size_bytes).filter(|size| *size > 0) else {
        return Outcome::unknown("the size of the drive of Windows is unknown");
    };
    let (mut sum, mut evidence) = (0_u64, Vec::new());
    for store in STORES {
        let path = format!("{root}/{store}");
        if !guest.files.is_dir(&path) {
            evidence.push(Evidence::absent(path, "size"));
            continue;
        }
        match measure(guest, &path) {
            Ok(size) => {
                sum = sum.saturating_add(size);
                evidence.push(Evidence::metadata(path, "size (about)", size.to_string()));
            }
            Err(why) => return Outcome::unknown(why),
        }
    }
    let percent = i64::try_from(sum.saturating_mul(100) / drive).unwrap_or(i64::MAX);
    let told = format!("updates and installers take about {percent} % of the drive");
    if percent < limit {
        return Outcome::pass(told, evidence);
    }
    Outcome::fail(format!("{told}, should be less than {limit} %"), evidence)
}
