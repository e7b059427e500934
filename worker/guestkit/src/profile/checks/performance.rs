//! What costs speed. Three honest classes: what the configuration says, what was recorded while the system ran, and what a
//! disk cannot tell, which is unknown.

use std::collections::BTreeMap;

use crate::guest::linux::unit::UnitFile;
use crate::guest::report::MountUsage;
use crate::profile::evaluate::{Asked, number};
use crate::profile::facts;
use crate::profile::guest::Guest;
use crate::profile::history::{self, Interval};
use crate::profile::kernel_log::{KernelLog, Kind};
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::report::Evidence;
use crate::profile::rule::Severity;
use crate::profile::settings::Systemd;
use crate::profile::superblock;
use crate::profile::text::assignments;

use super::migration::ntfs_states;
use super::mounts::{fstab, is_local};
use super::services::{any_installed, any_started};

const MIB: u64 = 1 << 20;

/// The kernel's arguments, where they are known.
pub(super) fn command_line(guest: &Guest<'_>) -> Result<String, Outcome> {
    if !guest.has_kernel() {
        return Err(Outcome::not_applicable("no kernel is installed"));
    }
    guest
        .system
        .operating_system
        .kernel_command_line
        .clone()
        .ok_or_else(|| Outcome::unknown("the kernel's command line is not known"))
}

fn usage<'g>(guest: &'g Guest<'_>) -> &'g [MountUsage] {
    guest.system.storage.as_ref().map(|storage| storage.mounts.as_slice()).unwrap_or_default()
}

fn usage_evidence(mount: &MountUsage) -> Evidence {
    Evidence::metadata(
        &*mount.path,
        "usage",
        format!("{:.0} % of {} MiB, {} MiB free", mount.used_percent, mount.size_bytes / MIB, mount.free_bytes / MIB),
    )
}

/// File systems with room: bytes and inodes.
pub(crate) fn fs_usage(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let mounts = usage(guest);
    if mounts.is_empty() {
        return Outcome::unknown("how full the file systems are is not known");
    }
    let (mut full, mut filling, mut looked_at) = (Vec::new(), Vec::new(), Vec::new());
    for mount in mounts {
        let evidence = usage_evidence(mount);
        let inodes_left = mount
            .inodes
            .zip(mount.inodes_used)
            .filter(|(all, _)| *all > 0)
            .map(|(all, used)| all.saturating_sub(used).saturating_mul(100) / all);
        let is_boot_full = mount.path == "/boot" && mount.free_bytes < 100 * MIB;
        if mount.used_percent >= 95.0 || inodes_left.is_some_and(|left| left <= 5) {
            full.push(Bad::new(&*mount.path, evidence));
        } else if mount.used_percent >= 85.0 || is_boot_full {
            filling.push(Bad::new(&*mount.path, evidence));
        } else {
            looked_at.push(evidence);
        }
    }
    if full.is_empty() && !filling.is_empty() {
        return Outcome::none_of(filling, "file systems that fill up", "", looked_at).softened();
    }
    Outcome::none_of(full, "file systems that are full", "every file system has room", looked_at)
}

/// File systems that recorded errors, or were not unmounted cleanly.
pub(crate) fn fs_errors(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for device in guest.disk.devices().iter().filter(|device| device.is_candidate()) {
        let Some(state) = superblock::state(device) else { continue };
        let told = format!("{}, {} errors", if state.is_clean { "clean" } else { "not clean" }, state.errors);
        let evidence = Evidence::metadata(&*device.name, "state", told);
        if state.is_clean && state.errors == 0 {
            looked_at.push(evidence);
        } else {
            bad.push(Bad::new(&*device.name, evidence));
        }
    }
    let (dirty, clean) = ntfs_states(guest);
    bad.extend(dirty);
    looked_at.extend(clean);
    if bad.is_empty() && looked_at.is_empty() {
        return Outcome::unknown("no file system of the disk records its state in a way that is read here");
    }
    Outcome::none_of(bad, "file systems with errors", "no file system has recorded an error", looked_at)
}

/// Reads write nothing: relatime, the default, or noatime.
pub(crate) fn fs_mount_atime(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let entries: Vec<_> = fstab(guest).iter().filter(|entry| is_local(entry)).collect();
    let bad = entries.iter().filter(|entry| entry.options.iter().any(|option| option == "strictatime"));
    let bad: Vec<_> = bad
        .map(|entry| Bad::new(&*entry.path, Evidence::explicit("/etc/fstab", &*entry.path, entry.options.join(","))))
        .collect();
    let looked_at = vec![Evidence::explicit("/etc/fstab", "disks", entries.len().to_string())];
    Outcome::none_of(bad, "every read writes (strictatime)", "reads write nothing, or little", looked_at).softened()
}

/// Room that is freed is given back.
pub(crate) fn fs_discard(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if let Some(evidence) = any_started(guest, &["fstrim.timer"]) {
        return Outcome::pass("free room is given back every week", vec![evidence]);
    }
    let by_option = fstab(guest)
        .iter()
        .find(|entry| entry.options.iter().any(|option| option == "discard" || option == "discard=async"));
    match by_option {
        Some(entry) => Outcome::pass(
            "free room is given back at once",
            vec![Evidence::explicit("/etc/fstab", &*entry.path, entry.options.join(","))],
        ),
        None => Outcome::fail(
            "free room is never given back",
            vec![Evidence::absent("/etc/systemd/system", "fstrim.timer"), Evidence::absent("/etc/fstab", "discard")],
        ),
    }
}

/// File systems as they are made today.
pub(crate) fn fs_legacy(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for device in guest.disk.devices().iter().filter(|device| device.is_candidate()) {
        let kind = device.probe.as_ref().map_or("", |probe| probe.kind);
        let Some(state) = superblock::state(device) else { continue };
        let essential: Vec<_> =
            state.lacks.iter().copied().filter(|lack| !matches!(*lack, "metadata_csum" | "64bit")).collect();
        let evidence = Evidence::metadata(
            &*device.name,
            kind,
            if state.lacks.is_empty() { "complete".to_owned() } else { format!("without {}", state.lacks.join(", ")) },
        );
        if matches!(kind, "ext2" | "ext3") || !essential.is_empty() {
            bad.push(Bad::new(&*device.name, evidence));
        } else {
            looked_at.push(evidence);
        }
    }
    if bad.is_empty() && looked_at.is_empty() {
        return Outcome::not_applicable("no ext or XFS file system is on the disk");
    }
    Outcome::none_of(bad, "file systems of the past", "the file systems are as they are made today", looked_at)
}

/// Partitions begin at whole mebibytes.
pub(crate) fn partition_alignment(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(table) = guest.partition_table.filter(|table| !table.partitions.is_empty()) else {
        return Outcome::not_applicable("the disk has no partition table");
    };
    let extended = ["05", "0f", "85"];
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for partition in table.partitions.iter().filter(|partition| !extended.contains(&partition.r#type.as_str())) {
        let evidence = Evidence::metadata(&*partition.device, "start", format!("{} bytes", partition.start_bytes));
        // The small one that holds GRUB is read once.
        let is_boot_code = partition.type_name.as_deref() == Some("bios-boot");
        if partition.start_bytes % MIB != 0 && !is_boot_code {
            bad.push(Bad::new(&*partition.device, evidence));
        } else {
            looked_at.push(evidence);
        }
    }
    Outcome::none_of(
        bad,
        "partitions that begin inside a mebibyte",
        "every partition begins at a whole mebibyte",
        looked_at,
    )
}

/// Snapshots inside the image.
pub(super) fn internal_snapshots(guest: &Guest<'_>) -> u32 {
    let top = guest.disk.drives().first().and_then(|drive| drive.image.top());
    top.map_or(0, |layer| layer.internal_snapshots)
}

/// The image is one file, without layers below and snapshots inside.
pub(crate) fn image_chain(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let depth = guest.image.backing_chain.len().saturating_add(1);
    let snapshots = internal_snapshots(guest);
    let evidence = vec![
        Evidence::metadata(&*guest.image.path, "layers", depth.to_string()),
        Evidence::metadata(&*guest.image.path, "internal snapshots", snapshots.to_string()),
    ];
    if depth > 2 {
        return Outcome::fail(format!("every read may pass {depth} layers"), evidence);
    }
    if snapshots > 0 {
        return Outcome::fail(format!("the image holds {snapshots} snapshots"), evidence);
    }
    Outcome::pass("the image is one, or lies on one other", evidence)
}

/// Snapshots of logical volumes, which every write pays for.
pub(crate) fn lvm_snapshots(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let groups = guest.disk.volume_groups();
    if groups.is_empty() {
        return Outcome::not_applicable("the disk has no volume group");
    }
    let volumes = groups.iter().flat_map(|group| group.logical_volumes.iter().map(move |volume| (group, volume)));
    let bad = volumes.clone().filter(|(_, volume)| volume.kind == "snapshot").map(|(group, volume)| {
        let name = format!("{}/{}", group.name, volume.name);
        Bad::new(&*name, Evidence::metadata(&*name, "snapshot of", volume.origin.clone().unwrap_or_default()))
    });
    let looked_at = volumes
        .clone()
        .take(20)
        .map(|(group, volume)| Evidence::metadata(format!("{}/{}", group.name, volume.name), "kind", &*volume.kind))
        .collect();
    Outcome::none_of(bad.collect(), "classic snapshots, whose age is not recorded", "no classic snapshot", looked_at)
        .softened()
}

/// Arrays with every member.
pub(crate) fn raid_degraded(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let arrays = guest.disk.arrays();
    if arrays.is_empty() {
        return Outcome::not_applicable("the disk is in no array");
    }
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for array in arrays {
        let name = array.device.clone().or_else(|| array.name.clone()).unwrap_or_else(|| array.uuid.clone());
        let present = array.members.len();
        let evidence =
            Evidence::metadata(&*name, &*array.level, format!("{present} of {} members", array.members_expected));
        if u32::try_from(present).unwrap_or(u32::MAX) < array.members_expected {
            bad.push(Bad::new(name, evidence));
        } else {
            looked_at.push(evidence);
        }
    }
    Outcome::none_of(
        bad,
        "arrays that lack members, at least among the disks that were given",
        "every array has its members",
        looked_at,
    )
}

/// Somewhere to put what memory cannot hold.
pub(crate) fn swap(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let storage = guest.system.storage.as_ref();
    let areas = storage.map(|storage| storage.swap.as_slice()).unwrap_or_default();
    let zram = ["/etc/systemd/zram-generator.conf", "/usr/lib/systemd/zram-generator.conf"]
        .into_iter()
        .find(|path| guest.files.exists(path));
    let mut evidence: Vec<_> = areas.iter().map(|area| Evidence::explicit("/etc/fstab", "swap", &*area.path)).collect();
    evidence.extend(zram.map(|path| Evidence::metadata(path, "zram", "configured")));
    let lost = fstab(guest)
        .iter()
        .find(|entry| entry.r#type == "swap" && entry.device.is_none() && !entry.spec.starts_with('/'));
    if let Some(entry) = lost {
        evidence.push(Evidence::explicit("/etc/fstab", "swap", &*entry.spec));
        return Outcome::fail("fstab names a swap area that is not there, for which every start waits", evidence);
    }
    if evidence.is_empty() {
        return Outcome::warn(
            "there is no swap: a lack of memory ends programs",
            vec![Evidence::absent("/etc/fstab", "swap")],
        );
    }
    let swappiness = facts::sysctl(guest, "vm.swappiness").ok();
    let value = swappiness.as_ref().and_then(|fact| fact.value.as_ref()).and_then(number).unwrap_or(60);
    evidence.extend(swappiness.into_iter().flat_map(|fact| fact.evidence));
    if (1..=60).contains(&value) {
        Outcome::pass("there is swap", evidence)
    } else {
        Outcome::warn(format!("vm.swappiness is {value}"), evidence)
    }
}

/// What was kept of the kernel's messages of one kind.
fn recorded(log: &KernelLog, kind: &Kind, found: &str, clean: &str) -> Outcome {
    if kind.count > 0 {
        return Outcome::fail(format!("{found}: {} times in what was kept", kind.count), kind.found.clone());
    }
    if let Some(why) = &log.incomplete {
        return Outcome::unknown(format!("not everything that was kept could be looked through: {why}"));
    }
    if log.sources.is_empty() {
        return Outcome::unknown("no messages of the kernel were kept on the disk");
    }
    Outcome::pass(clean, log.sources.iter().map(|source| Evidence::absent(source, clean)).collect())
}

/// Programs that were ended for lack of memory.
pub(crate) fn oom_history(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let log = guest.kernel_log();
    let found = "programs were ended for lack of memory";
    recorded(log, &log.out_of_memory, found, "no program was ended for lack of memory")
}

/// Disks that failed to read or write.
pub(crate) fn io_errors(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if guest.is_windows() {
        return Outcome::unknown("event logs of Windows are not read here");
    }
    let log = guest.kernel_log();
    recorded(log, &log.failures, "disks failed", "no failure of a disk was recorded")
}

/// Files of history that are read, the last ones: a month of days.
const HISTORY_FILES_MAX: usize = 31;
/// Bytes of one: a day of a machine with a hundred disks has some 10 MB.
const HISTORY_BYTES_MAX: u64 = 32 << 20;
/// Intervals below which a percentile says nothing: two hours of sysstat's own ten minutes.
const INTERVALS_MIN: usize = 12;

/// How busy the system was by what sysstat recorded: processors, disks, memory and swap, in the busiest twentieth of the time.
pub(crate) fn sar_history(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let is_raw = |path: &String| path.rsplit("/sa").next().is_some_and(|day| day.bytes().all(|b| b.is_ascii_digit()));
    let mut paths: Vec<String> =
        ["/var/log/sysstat/sa[0-9]*", "/var/log/sa/sa[0-9]*"].iter().flat_map(|glob| guest.files.glob(glob)).collect();
    paths.retain(is_raw);
    let modified = |path: &str| guest.files.stat(path).map_or(0, |metadata| metadata.modified.seconds);
    paths.sort_by_key(|path| std::cmp::Reverse(modified(path)));
    let (mut intervals, mut unread, mut last) = (Vec::new(), None, None);
    for path in paths.iter().take(HISTORY_FILES_MAX) {
        let bytes = match guest.files.tree().read_file_within(path, HISTORY_BYTES_MAX) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(error) => {
                unread = unread.or(Some(format!("{path}: {error}")));
                continue;
            }
        };
        match history::intervals(&bytes) {
            Ok(found) => {
                intervals.extend(found);
                last = last.or(Some(path));
            }
            Err(reason) => unread = unread.or(Some(format!("{path}: {reason}"))),
        }
    }
    let (Some(last), true) = (last, intervals.len() >= INTERVALS_MIN) else {
        let atop = guest.files.glob("/var/log/atop/atop_*");
        return match (unread, atop.last().or(paths.last())) {
            (_, None) => Outcome::unknown("no history of utilisation was kept (sysstat is off)"),
            (Some(reason), Some(_)) => Outcome::unknown(reason),
            (None, Some(path)) if atop.is_empty() => {
                Outcome::unknown(format!("{path}: fewer than {INTERVALS_MIN} intervals were recorded"))
            }
            (None, Some(path)) => {
                let evidence = vec![Evidence::metadata(&**path, "history", "present")];
                Outcome::manual("how busy the system was is for atop to tell", evidence)
            }
        };
    };
    let busiest = |pick: fn(&Interval) -> Option<f64>| history::percentile_95(intervals.iter().filter_map(pick));
    let figures = [
        ("processors, % busy", busiest(|interval| Some(100.0 - interval.idle)), 80.0),
        ("processors, % waiting for disks", busiest(|interval| Some(interval.waiting)), 20.0),
        ("memory, % used", busiest(|interval| interval.memory), 90.0),
        ("swap, pages a second", busiest(|interval| interval.swapped), 1.0),
    ];
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for (what, figure, limit) in figures {
        let Some(figure) = figure else { continue };
        let told = format!("{figure:.1} (95th percentile of {} intervals)", intervals.len());
        let evidence = Evidence::metadata(&**last, what, told);
        if figure < limit { looked_at.push(evidence) } else { bad.push(Bad::new(what, evidence)) }
    }
    Outcome::none_of(bad, "what was short", "nothing was short", looked_at)
}

/// What grows without bound.
pub(crate) fn log_growth(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let walk = guest.walk();
    let mounts = usage(guest);
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for (path, size) in &walk.sizes {
        let (path, size) = (*path, *size);
        let below = |mount: &&MountUsage| {
            mount.path == "/"
                || path == mount.path
                || path.strip_prefix(mount.path.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        let mount = mounts.iter().filter(below).max_by_key(|mount| mount.path.len());
        let evidence = Evidence::metadata(path, "bytes", size.to_string());
        let is_large = mount.is_some_and(|mount| mount.size_bytes > 0 && size.saturating_mul(5) > mount.size_bytes);
        let is_core = matches!(path, "/var/lib/systemd/coredump" | "/var/crash") && size > 0;
        if is_large || is_core {
            bad.push(Bad::new(path, evidence));
        } else {
            looked_at.push(evidence);
        }
    }
    if looked_at.is_empty() && bad.is_empty() {
        looked_at.push(Evidence::absent("/var/log", "files"));
    }
    Outcome::none_of(bad, "what has grown large", "nothing has grown large", looked_at)
}

/// The journal has a bound that fits its file system.
pub(crate) fn journal_limit(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if let Some((_, evidence)) = Systemd::read(guest, "journald.conf").get("Journal", "SystemMaxUse") {
        return Outcome::pass("the journal is bounded", vec![evidence]);
    }
    let root = usage(guest)
        .iter()
        .filter(|mount| matches!(mount.path.as_str(), "/" | "/var" | "/var/log"))
        .max_by_key(|mount| mount.path.len());
    let evidence = vec![Evidence::default("/etc/systemd/journald.conf", "SystemMaxUse", "10 %, at most 4 GiB")];
    match root {
        Some(mount) if mount.size_bytes / 10 > mount.free_bytes => {
            Outcome::fail("the journal may grow larger than what is free", evidence)
        }
        _ => Outcome::pass("the journal takes a tenth at most", evidence),
    }
}

/// A profile of tuned's that fits a virtual machine.
pub(crate) fn tuned_profile(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if any_started(guest, &["tuned.service"]).is_none() {
        return Outcome::not_applicable("tuned does not start");
    }
    let Some(profile) = guest.files.first_line("/etc/tuned/active_profile") else {
        return Outcome::fail(
            "tuned has no active profile",
            vec![Evidence::absent("/etc/tuned/active_profile", "profile")],
        );
    };
    let evidence = vec![Evidence::explicit("/etc/tuned/active_profile", "profile", &*profile)];
    let includes = assignments(guest.files, &format!("/etc/tuned/{profile}/tuned.conf"))
        .into_iter()
        .find(|one| one.key == "include")
        .map(|one| one.value);
    let fits = |name: &str| {
        ["virtual-guest", "throughput-performance", "latency-performance", "network-latency"]
            .iter()
            .any(|known| name.contains(known))
    };
    if fits(&profile) || includes.as_deref().is_some_and(fits) {
        return Outcome::pass(format!("tuned's profile is {profile}"), evidence);
    }
    Outcome::fail(format!("tuned's profile is {profile}, which is made for other machines"), evidence)
}

/// Words of the kernel's arguments that match one of these beginnings.
pub(super) fn arguments(line: &str, starts: &[&str]) -> Vec<String> {
    line.split_whitespace()
        .filter(|word| starts.iter().any(|start| word.starts_with(start)))
        .map(str::to_owned)
        .collect()
}

fn argument_check(guest: &Guest<'_>, starts: &[&str], found: &str, clean: &str) -> Outcome {
    let line = match command_line(guest) {
        Ok(line) => line,
        Err(outcome) => return outcome,
    };
    let evidence = vec![Evidence::explicit("kernel command line", "arguments", &*line)];
    let words = arguments(&line, starts);
    if words.is_empty() {
        Outcome::pass(clean, evidence)
    } else {
        Outcome::warn(format!("{found}: {}", words.join(" ")), evidence).with_subjects(words)
    }
}

/// The scheduler is the kernel's choice.
pub(crate) fn io_scheduler(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    argument_check(guest, &["elevator="], "an argument that kernels ignore since 5.0", "no scheduler is forced")
}

/// Databases that suffer from huge pages have them where they ask.
pub(crate) fn thp(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let databases =
        ["mongodb-org-server", "redis-server", "redis", "postgresql", "oracle-database-ee-19c", "couchbase-server"];
    let Some(package) = any_installed(guest, &databases) else {
        return Outcome::not_applicable("no database that huge pages hurt is installed");
    };
    let line = match command_line(guest) {
        Ok(line) => line,
        Err(outcome) => return outcome,
    };
    let evidence = vec![package, Evidence::explicit("kernel command line", "arguments", &*line)];
    if arguments(&line, &["transparent_hugepage=never", "transparent_hugepage=madvise"]).is_empty() {
        return Outcome::warn(
            "huge pages are the kernel's choice, which the database's maker advises against",
            evidence,
        );
    }
    Outcome::pass("huge pages are only where they are asked for", evidence)
}

/// What protects against flaws of processors is as the kernel chooses.
pub(crate) fn mitigations_cost(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    argument_check(
        guest,
        &["mitigations=", "spectre_v2=", "mds=", "l1tf=", "nopti", "pti="],
        "set by hand",
        "the kernel chooses",
    )
}

/// The clock is the kernel's choice.
pub(crate) fn clocksource(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    argument_check(
        guest,
        &["clocksource=", "tsc=", "notsc", "lpj=", "divider=", "hpet=", "nohz=off"],
        "the clock of another hypervisor is forced",
        "no clock is forced",
    )
}

/// Memory and processors that are set aside, which the target must have too.
pub(crate) fn numa_hugepages(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let line = match command_line(guest) {
        Ok(line) => line,
        Err(outcome) => return outcome,
    };
    let mut words =
        arguments(&line, &["hugepages=", "hugepagesz=", "default_hugepagesz=", "isolcpus=", "nohz_full=", "numa="]);
    let pages =
        facts::sysctl(guest, "vm.nr_hugepages").ok().and_then(|fact| fact.value).as_ref().and_then(number).unwrap_or(0);
    if pages > 0 {
        words.push(format!("vm.nr_hugepages={pages}"));
    }
    let evidence = vec![Evidence::explicit("kernel command line", "arguments", &*line)];
    if words.is_empty() {
        Outcome::pass("nothing is set aside", evidence)
    } else {
        Outcome::warn(format!("the target must offer the same: {}", words.join(" ")), evidence).with_subjects(words)
    }
}

/// Settings of the network that do harm.
pub(crate) fn net_buffers(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let settings = guest.system.security.as_ref().map(|security| security.sysctls.as_slice()).unwrap_or_default();
    let is_harmful = |key: &str, value: &str| match key {
        // Removed in 4.12, and before that it lost connections behind address translation.
        "net.ipv4.tcp_tw_recycle" => true,
        "net.core.rmem_max" | "net.core.wmem_max" | "net.core.rmem_default" | "net.core.wmem_default" => {
            value.trim().parse::<u64>().is_ok_and(|bytes| bytes < 212_992)
        }
        "net.ipv4.tcp_window_scaling" | "net.ipv4.tcp_sack" => value.trim() == "0",
        _ => false,
    };
    let bad = settings.iter().filter(|setting| is_harmful(&setting.key, &setting.value));
    let bad: Vec<_> = bad
        .map(|setting| Bad::new(&*setting.key, Evidence::explicit(&*setting.source, &*setting.key, &*setting.value)))
        .collect();
    let looked_at = vec![Evidence::explicit("/etc/sysctl.d", "settings", settings.len().to_string())];
    Outcome::none_of(bad, "settings of the network that do harm", "no setting of the network does harm", looked_at)
        .softened()
}

/// Daemons that open much may open enough.
pub(crate) fn limits(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let known = [
        "nginx.service",
        "apache2.service",
        "httpd.service",
        "mysql.service",
        "mariadb.service",
        "postgresql.service",
        "haproxy.service",
        "redis.service",
        "redis-server.service",
        "mongod.service",
        "elasticsearch.service",
    ];
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    let default = Systemd::read(guest, "system.conf").get("Manager", "DefaultLimitNOFILE");
    for name in known.into_iter().filter(|name| guest.is_enabled(name)) {
        let Some(unit) = guest.unit(name) else { continue };
        let mut file = UnitFile::parse(&guest.files.text(&unit.path).unwrap_or_default());
        for path in &unit.drop_ins {
            file.merge(&guest.files.text(path).unwrap_or_default());
        }
        let value = file
            .last("Service", "LimitNOFILE")
            .map(str::to_owned)
            .or_else(|| default.as_ref().map(|(value, _)| value.clone()));
        // systemd's own default is 1024, up to 524288 for programs that ask.
        let told = value.clone().unwrap_or_else(|| "1024:524288".to_owned());
        let most = told
            .rsplit(':')
            .next()
            .and_then(|value| if value == "infinity" { Some(u64::MAX) } else { value.parse::<u64>().ok() })
            .unwrap_or(0);
        let evidence = Evidence::explicit(&*unit.path, "LimitNOFILE", told);
        if most < 65_536 { bad.push(Bad::new(name, evidence)) } else { looked_at.push(evidence) }
    }
    if bad.is_empty() && looked_at.is_empty() {
        return Outcome::not_applicable("no daemon that is known to open much is installed");
    }
    Outcome::none_of(bad, "daemons that may open fewer than 65536 files", "daemons may open enough", looked_at)
}

/// Two of a kind that do one job.
pub(crate) fn service_count(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(services) = guest.services() else { return Outcome::unknown("no service manager was found") };
    let kinds: [(&str, &[&str]); 4] = [
        ("loggers", &["rsyslog.service", "syslog-ng.service", "syslog.service"]),
        (
            "clocks",
            &["chrony.service", "chronyd.service", "ntpd.service", "ntpsec.service", "systemd-timesyncd.service"],
        ),
        (
            "monitoring agents",
            &[
                "zabbix-agent.service",
                "zabbix-agent2.service",
                "nrpe.service",
                "telegraf.service",
                "datadog-agent.service",
                "node_exporter.service",
                "prometheus-node-exporter.service",
            ],
        ),
        (
            "scanners for malware",
            &[
                "clamav-daemon.service",
                "falcon-sensor.service",
                "mdatp.service",
                "ds_agent.service",
                "sophos-spl.service",
            ],
        ),
    ];
    let mut bad = Vec::new();
    for (kind, names) in kinds {
        let mut paths = std::collections::BTreeSet::new();
        let running: Vec<_> = names
            .iter()
            .copied()
            .filter(|name| guest.is_enabled(name))
            .filter(|name| {
                // An alias is the same unit under another name.
                guest.unit(name).is_some_and(|unit| unit.alias_of.is_none() && paths.insert(unit.path.clone()))
            })
            .collect();
        if running.len() > 1 {
            bad.push(Bad::new(
                format!("{kind}: {}", running.join(", ")),
                Evidence::metadata("/etc/systemd/system", kind, running.join(", ")),
            ));
        }
    }
    let looked_at =
        vec![Evidence::metadata("/etc/systemd/system", "enabled units", services.enabled.len().to_string())];
    Outcome::none_of(bad, "two of a kind", "no two units do one job", looked_at).softened()
}

/// What every start waits for.
pub(crate) fn boot_blockers(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(_) = guest.services() else { return Outcome::unknown("no service manager was found") };
    let mut bad = Vec::new();
    let waits = [
        "NetworkManager-wait-online.service",
        "systemd-networkd-wait-online.service",
        "ifupdown-wait-online.service",
        "plymouth-quit-wait.service",
    ];
    for name in waits {
        bad.extend(any_started(guest, &[name]).map(|evidence| Bad::new(name, evidence)));
    }
    for entry in fstab(guest) {
        let has = |option: &str| {
            entry.options.iter().any(|known| known == option || known.starts_with(&format!("{option}=")))
        };
        let optional = has("nofail") || has("noauto") || has("x-systemd.automount");
        let is_remote = matches!(entry.r#type.as_str(), "nfs" | "nfs4" | "cifs" | "ceph" | "glusterfs");
        let evidence = Evidence::explicit(
            "/etc/fstab",
            &*entry.path,
            format!("{} {} {}", entry.spec, entry.r#type, entry.options.join(",")),
        );
        if is_remote && !optional && !has("_netdev") {
            bad.push(Bad::new(&*entry.path, evidence));
        } else if is_local(entry) && entry.device.is_none() && !optional && entry.path != "/" {
            bad.push(Bad::new(&*entry.spec, evidence));
        }
    }
    let looked_at = vec![Evidence::absent("/etc/fstab", "mounts that a start waits for")];
    Outcome::none_of(bad, "every start waits", "no start waits for what may not come", looked_at)
}

/// Memory that databases are told to take: the sum, for people who know the machine.
pub(crate) fn db_memory(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let places = [
        ("/etc/mysql/my.cnf", "innodb_buffer_pool_size"),
        ("/etc/mysql/mariadb.conf.d/50-server.cnf", "innodb_buffer_pool_size"),
        ("/etc/my.cnf", "innodb_buffer_pool_size"),
        ("/etc/postgresql/*/*/postgresql.conf", "shared_buffers"),
        ("/var/lib/pgsql/data/postgresql.conf", "shared_buffers"),
        ("/etc/elasticsearch/jvm.options", "-Xmx"),
    ];
    let mut evidence = Vec::new();
    for (pattern, key) in places {
        let paths = if pattern.contains('*') { guest.files.glob(pattern) } else { vec![pattern.to_owned()] };
        for path in paths {
            for (at, line) in guest.files.text(&path).unwrap_or_default().lines().enumerate() {
                let line = line.split('#').next().unwrap_or_default().trim();
                if let Some(rest) = line.strip_prefix(key) {
                    evidence.push(
                        Evidence::explicit(&*path, key, rest.trim_start_matches([' ', '=', '\t']))
                            .at_line(at.saturating_add(1)),
                    );
                }
            }
        }
    }
    if evidence.is_empty() {
        return Outcome::not_applicable("no database is told how much memory to take");
    }
    Outcome::unknown("how much memory the machine has is not on the disk; compare it with what the databases are told")
        .with_evidence(evidence)
}

/// Jobs that start in the same minute.
pub(crate) fn cron_storm(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let mut at: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut tables = vec!["/etc/crontab".to_owned()];
    tables.extend(guest.files.glob("/etc/cron.d/*"));
    tables.extend(guest.files.glob("/var/spool/cron/crontabs/*"));
    for path in &tables {
        for line in guest.files.text(path).unwrap_or_default().lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [minute, hour, ..] = words.as_slice()
                && minute.chars().all(|c| c.is_ascii_digit())
                && !minute.is_empty()
                && words.len() > 5
            {
                at.entry(format!("{hour}:{minute}"))
                    .or_default()
                    .push(format!("{path}: {}", words.get(5..).unwrap_or_default().join(" ")));
            }
        }
    }
    let bad = at
        .iter()
        .filter(|(_, jobs)| jobs.len() >= 5)
        .map(|(time, jobs)| Bad::new(&**time, Evidence::explicit("/etc/crontab", &**time, jobs.len().to_string())));
    let looked_at = vec![Evidence::explicit(
        "/etc/crontab",
        "jobs at a fixed minute",
        at.values().map(Vec::len).sum::<usize>().to_string(),
    )];
    Outcome::none_of(bad.collect(), "five jobs or more in one minute", "no crowd in one minute", looked_at)
        .softened()
        .with_severity(Severity::Info)
}
