//! Permissions of files: those whose place is known, and those that a walk finds.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::filesystem::FileType;
use crate::guest::linux::cron;
use crate::guest::linux::files::without_usr;
use crate::guest::linux::rpm::{self, Shipped};
use crate::profile::evaluate::Asked;
use crate::profile::guest::Guest;
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::report::Evidence;
use crate::profile::rule::Severity;
use crate::profile::walk::{Found as WalkedFile, Kind, Walk};

use super::ssh::stat;

/// Files whose owner and mode are known: `with: {paths, groups, when_absent}`, the mask as limit. `groups` names who besides
/// root may be the group.
pub(crate) fn permissions(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let default = asked.text("mask");
    let mask = asked.limit.and_then(|limit| limit.as_str()).unwrap_or(default);
    let Ok(mask) = u16::from_str_radix(mask, 8) else { return Outcome::unknown("the rule has no mask") };
    let groups = guest.system.users.as_ref().map(|users| users.groups.as_slice()).unwrap_or_default();
    let allowed: BTreeSet<u64> = groups
        .iter()
        .filter(|group| asked.texts("groups").contains(&group.name.as_str()))
        .map(|group| group.gid)
        .collect();
    let (mut bad, mut looked_at, mut open) = (Vec::new(), Vec::new(), false);
    for pattern in asked.texts("paths") {
        let paths = if pattern.contains('*') { guest.files.glob(pattern) } else { vec![pattern.to_owned()] };
        for path in paths {
            let Some(metadata) = guest.files.stat(&path) else { continue };
            let evidence = stat(&path, &metadata);
            let in_group = metadata.gid == 0 || allowed.contains(&u64::from(metadata.gid));
            if metadata.uid != 0 || !in_group || metadata.mode & 0o7777 & !mask & !0o1000 != 0 {
                open |= metadata.mode & 0o002 != 0;
                bad.push(Bad::new(path, evidence.clone()));
            }
            looked_at.push(evidence);
        }
    }
    if looked_at.is_empty() {
        let paths = asked.texts("paths").join(", ");
        return match asked.text("when_absent") {
            "pass" => Outcome::pass("there is no such file", vec![Evidence::absent(paths, "file")]),
            "fail" => Outcome::fail("there is no such file", vec![Evidence::absent(paths, "file")]),
            "not-applicable" => Outcome::not_applicable(format!("{paths} is not there")),
            _ => Outcome::unknown(format!("{paths} is not there or cannot be read")),
        };
    }
    let outcome = Outcome::none_of(
        bad,
        &format!("laxer than root:root {mask:04o}"),
        "owner and mode are as they should be",
        looked_at,
    );
    if open { outcome.with_severity(Severity::Critical) } else { outcome }
}

/// What a walk found of one kind, as an outcome.
fn walked(walk: &Walk, kind: &Kind, found: &str, clean: &str, is_bad: impl Fn(&str) -> bool) -> Outcome {
    let bad: Vec<_> = kind
        .found
        .iter()
        .filter(|one| is_bad(&one.path))
        .map(|one| Bad::new(&*one.path, stat(&one.path, &one.metadata)))
        .collect();
    if bad.is_empty()
        && let Some(why) = &walk.incomplete
    {
        return Outcome::unknown(format!("not every directory could be read: {why}"));
    }
    let looked_at = vec![Evidence::metadata("/", "entries", walk.entries.to_string())];
    Outcome::none_of(bad, found, clean, looked_at)
}

/// Where a file that everybody may write gives root away.
const TRUSTED: [&str; 10] =
    ["/etc/", "/usr/", "/boot/", "/bin/", "/sbin/", "/lib/", "/lib64/", "/root/", "/opt/", "/var/spool/cron/"];

/// Files that everybody may write.
pub(crate) fn world_writable(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let walk = guest.walk();
    // Sockets of lock files that programs make so by design.
    let outcome = walked(
        walk,
        &walk.world_writable_files,
        "files that everybody may write",
        "no file that everybody may write",
        |_| true,
    );
    let is_trusted = outcome.subjects.iter().any(|path| TRUSTED.iter().any(|start| path.starts_with(start)));
    if is_trusted { outcome.with_severity(Severity::Critical) } else { outcome }
}

/// Directories that everybody may write and whose entries everybody may remove.
pub(crate) fn world_writable_dirs(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let walk = guest.walk();
    let kind = &walk.world_writable_directories;
    walked(
        walk,
        kind,
        "directories that everybody may write, without the sticky bit",
        "every open directory is sticky",
        |_| true,
    )
}

/// Files of users and groups that are not there.
pub(crate) fn unowned(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let walk = guest.walk();
    let delegated = delegated_ids(guest);
    let is_delegated = |path: &str| {
        walk.unowned.found.iter().find(|one| one.path == path).is_some_and(|one| {
            delegated.iter().any(|(first, count)| {
                let id = u64::from(one.metadata.uid);
                id >= *first && id < first.saturating_add(*count)
            })
        })
    };
    let outcome =
        walked(walk, &walk.unowned, "files of users or groups that are not there", "every file has an owner", |path| {
            !is_delegated(path)
        });
    let switch = guest.files.text("/etc/nsswitch.conf").unwrap_or_default();
    let remote = switch.lines().filter(|line| line.starts_with("passwd:") || line.starts_with("group:")).any(|line| {
        ["ldap", "sss", "winbind", "nis"].iter().any(|source| line.split_whitespace().any(|word| word == *source))
    });
    // Accounts that a server knows are not in the files.
    if remote { outcome.softened() } else { outcome }
}

/// Ranges of ids that users may give to their containers. Source: subuid(5).
fn delegated_ids(guest: &Guest<'_>) -> Vec<(u64, u64)> {
    let text = guest.files.text("/etc/subuid").unwrap_or_default();
    let range = |line: &str| {
        let mut fields = line.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?))
    };
    text.lines().take(10_000).filter_map(range).collect()
}

/// Programs that distributions ship set-id.
const SET_ID: [&str; 84] = [
    "at",
    "batch",
    "bsd-write",
    "chage",
    "chfn",
    "chrome-sandbox",
    "chsh",
    "cockpit-session",
    "crontab",
    "dbus-daemon-launch-helper",
    "dma",
    "dma-mbox-create",
    "dotlock.mailutils",
    "dotlockfile",
    "dumpcap",
    "ecryptfs_private",
    "exim",
    "exim4",
    "expiry",
    "fusermount",
    "fusermount3",
    "gpasswd",
    "grub2-set-bootenv",
    "kcheckpass",
    "ksu",
    "locate",
    "lockfile",
    "lockspool",
    "lxc-user-nic",
    "mail-lock",
    "mail-touchlock",
    "mail-unlock",
    "man",
    "mandb",
    "mlocate",
    "mount",
    "mount.cifs",
    "mount.ecryptfs_private",
    "mount.nfs",
    "mtr-packet",
    "newgidmap",
    "newgrp",
    "newuidmap",
    "ntfs-3g",
    "opiepasswd",
    "pam_extrausers_chkpwd",
    "pam_timestamp_check",
    "passwd",
    "ping",
    "ping6",
    "pkexec",
    "plocate",
    "polkit-agent-helper-1",
    "postdrop",
    "postqueue",
    "pppd",
    "procmail",
    "qemu-bridge-helper",
    "rcp",
    "rlogin",
    "rsh",
    "screen",
    "sendmail",
    "sg",
    "slock",
    "snap-confine",
    "spice-client-glib-usb-acl-helper",
    "ssh-agent",
    "ssh-keysign",
    "ssmtp",
    "staprun",
    "su",
    "sudo",
    "sudoedit",
    "suexec",
    "traceroute6",
    "traceroute6.iputils",
    "ubuntu-core-launcher",
    "umount",
    "unix_chkpwd",
    "unix2_chkpwd",
    "userhelper",
    "usernetctl",
    "utempter",
];
/// More of the same: of terminals, X, virtual machines, mail, and what few install.
const SET_ID_MORE: [&str; 69] = [
    "VBoxHeadless",
    "VBoxNetAdpCtl",
    "VBoxNetDHCP",
    "VBoxNetNAT",
    "VBoxSDL",
    "VirtualBoxVM",
    "Xorg",
    "Xorg.wrap",
    "Xwrapper",
    "abrt-action-install-debuginfo-to-abrt-cache",
    "arping",
    "auth_pam_tool",
    "bwrap",
    "camel-lock-helper-1.2",
    "cgexec",
    "check_dhcp",
    "check_icmp",
    "clockdiff",
    "doas",
    "ecryptfs_mount",
    "fcronsighup",
    "fcrontab",
    "fping",
    "fping6",
    "fusermount-glusterfs",
    "gnome-pty-helper",
    "incrontab",
    "kdesud",
    "krb5_child",
    "ldap_child",
    "lppasswd",
    "mail.procmail",
    "maildrop",
    "mount.davfs",
    "newrole",
    "ntfsmount",
    "nullmailer-queue",
    "nvidia-modprobe",
    "p11_child",
    "ping4",
    "pmount",
    "proxy_child",
    "pt_chown",
    "pumount",
    "rdisc",
    "sandbox",
    "selinux_child",
    "sendmail.sendmail",
    "sensible-mda",
    "seunshare",
    "singularity-suid",
    "slocate",
    "smtpctl",
    "sssd_pam",
    "starter-suid",
    "su-rs",
    "sudo-rs",
    "tcptraceroute",
    "traceroute",
    "uml_net",
    "vlock-main",
    "vmware-user-suid-wrapper",
    "wall",
    "wodim",
    "write",
    "write.ul",
    "x2gosqlitewrapper",
    "xlock",
    "xterm",
];
/// Programs that run what they are given, or write where they are told: set-id they are root for everybody.
const INTERPRETERS: [&str; 34] = [
    "ash", "awk", "bash", "busybox", "cp", "csh", "dash", "dd", "ed", "env", "find", "gawk", "gdb", "git", "install",
    "ksh", "less", "lua", "mawk", "more", "mv", "nano", "nmap", "node", "perl", "php", "python", "ruby", "rsync",
    "sed", "sh", "tar", "vim", "zsh",
];

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn is_interpreter(name: &str) -> bool {
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    INTERPRETERS.contains(&bare)
        || INTERPRETERS.iter().any(|shell| name.len() > shell.len() && name.ends_with(shell) && shell.len() > 3)
}

/// What a package database tells of files.
enum Shipping<'p> {
    /// dpkg: which of them packages bring; how is not kept.
    Names(BTreeSet<&'p str>),
    /// rpm: how packages bring them, without `/usr` in front.
    Modes(HashMap<String, Shipped>),
    /// No database that lists files.
    Unknown,
}

impl<'p> Shipping<'p> {
    fn of(guest: &Guest<'_>, paths: &[&'p str]) -> Self {
        if let Some(modes) = rpm::shipped(guest.files, paths) {
            return Self::Modes(modes);
        }
        let directory = "/var/lib/dpkg/info";
        let lists: Vec<_> = guest.files.names(directory).into_iter().filter(|name| name.ends_with(".list")).collect();
        if lists.is_empty() {
            return Self::Unknown;
        }
        let mut wanted: BTreeMap<String, &'p str> =
            paths.iter().map(|path| (without_usr(path).to_owned(), *path)).collect();
        let mut found = BTreeSet::new();
        for name in lists {
            if wanted.is_empty() {
                break;
            }
            for line in guest.files.text(&format!("{directory}/{name}")).unwrap_or_default().lines() {
                found.extend(wanted.remove(without_usr(line)));
            }
        }
        Self::Names(found)
    }
}

/// Modes that an administrator gave files for good. Source: dpkg-statoverride(1): owner, group, mode in octal, path.
fn overrides(guest: &Guest<'_>) -> BTreeMap<String, u16> {
    let text = guest.files.text("/var/lib/dpkg/statoverride").unwrap_or_default();
    let entry = |line: &str| {
        let mut words = line.split_whitespace().skip(2);
        let mode = u16::from_str_radix(words.next()?, 8).ok()?;
        Some((without_usr(words.next()?).to_owned(), mode))
    };
    text.lines().filter_map(entry).collect()
}

/// Set-id programs that no package ships so.
pub(crate) fn suid_sgid_unexpected(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    const SET_IDS: u16 = 0o6000;
    let walk = guest.walk();
    let paths: Vec<&str> = walk.set_id.found.iter().map(|one| one.path.as_str()).collect();
    let shipping = if paths.is_empty() { Shipping::Unknown } else { Shipping::of(guest, &paths) };
    let overrides = overrides(guest);
    let is_bad = |one: &WalkedFile| {
        let (path, bits) = (one.path.as_str(), one.metadata.mode & SET_IDS);
        let name = base_name(path);
        if is_interpreter(name) {
            return true;
        }
        if overrides.get(without_usr(path)).is_some_and(|mode| bits & !mode == 0) {
            return false;
        }
        let is_game = path.starts_with("/usr/games/") && bits == 0o2000;
        let is_known = is_game || SET_ID.contains(&name) || SET_ID_MORE.contains(&name);
        match &shipping {
            Shipping::Modes(modes) => modes.get(without_usr(path)).is_none_or(|one| bits & !one.mode != 0),
            // dpkg keeps no modes: of what packages bring, a program that is set-id nowhere was made so here.
            Shipping::Names(names) => !names.contains(path) || !is_known,
            // Without a list of files, the place and the name are what is left.
            Shipping::Unknown => {
                !is_known
                    || ["/home/", "/tmp/", "/var/tmp/", "/dev/shm/", "/usr/local/"]
                        .iter()
                        .any(|start| path.starts_with(start))
            }
        }
    };
    let bad: BTreeSet<&str> = walk.set_id.found.iter().filter(|one| is_bad(one)).map(|one| one.path.as_str()).collect();
    let outcome = walked(
        walk,
        &walk.set_id,
        "set-id programs that no package ships so",
        "every set-id program is a package's",
        |path| bad.contains(path),
    );
    if outcome.subjects.iter().any(|path| is_interpreter(base_name(path))) {
        return outcome.with_severity(Severity::Critical);
    }
    outcome
}

/// Capabilities that are as good as root: bit and name. Source: capabilities(7), linux/capability.h.
const STRONG: [(u32, &str); 5] =
    [(1, "cap_dac_override"), (7, "cap_setuid"), (16, "cap_sys_module"), (19, "cap_sys_ptrace"), (21, "cap_sys_admin")];

/// Programs that distributions ship with such capabilities.
const CAPABLE: [&str; 12] = [
    "newuidmap",
    "newgidmap",
    "dumpcap",
    "mtr-packet",
    "gst-ptp-helper",
    "kwin_wayland",
    "gnome-keyring-daemon",
    "snap-confine",
    "suexec",
    "ksysguard_process_helper",
    "sssd_pam",
    "bwrap",
];

/// Programs with capabilities that are as good as root, and that no package ships so.
pub(crate) fn capabilities_unexpected(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let walk = guest.walk();
    let strong: Vec<_> = walk
        .capabilities
        .iter()
        .filter_map(|(found, permitted)| {
            let names: Vec<&str> =
                STRONG.iter().filter(|(bit, _)| permitted & (1 << bit) != 0).map(|(_, name)| *name).collect();
            (!names.is_empty()).then_some((found, names.join(",")))
        })
        .collect();
    let paths: Vec<&str> = strong.iter().map(|(found, _)| found.path.as_str()).collect();
    let shipping = if paths.is_empty() { Shipping::Unknown } else { Shipping::of(guest, &paths) };
    let bad = strong.iter().filter(|(found, _)| {
        let path = found.path.as_str();
        let is_shipped = match &shipping {
            Shipping::Modes(modes) => modes.get(without_usr(path)).is_some_and(|one| one.has_capabilities),
            Shipping::Names(names) => names.contains(path) && CAPABLE.contains(&base_name(path)),
            Shipping::Unknown => CAPABLE.contains(&base_name(path)),
        };
        is_interpreter(base_name(&found.path)) || !is_shipped
    });
    let bad: Vec<_> = bad
        .map(|(found, names)| Bad::new(&*found.path, Evidence::metadata(&*found.path, "security.capability", &**names)))
        .collect();
    if bad.is_empty()
        && let Some(why) = &walk.incomplete
    {
        return Outcome::unknown(format!("not every directory could be read: {why}"));
    }
    let looked_at = vec![Evidence::metadata("/", "programs with capabilities", walk.capabilities.len().to_string())];
    Outcome::none_of(
        bad,
        "programs with capabilities that are as good as root",
        "no program has such capabilities by itself",
        looked_at,
    )
}

/// Who may use cron and at is listed.
pub(crate) fn cron_allow(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let has_cron = guest.files.first_existing(&["/usr/sbin/cron", "/usr/sbin/crond", "/etc/crontab"]).is_some();
    let has_at = guest.files.first_existing(&["/usr/bin/at", "/usr/sbin/atd"]).is_some();
    if !has_cron && !has_at {
        return Outcome::not_applicable("neither cron nor at is installed");
    }
    let (mut evidence, mut problems) = (Vec::new(), Vec::new());
    for (is_there, allow, deny) in
        [(has_cron, "/etc/cron.allow", "/etc/cron.deny"), (has_at, "/etc/at.allow", "/etc/at.deny")]
    {
        if !is_there {
            continue;
        }
        match guest.files.stat(allow) {
            None => {
                problems.push(format!("{allow} is not there"));
                evidence.push(Evidence::absent(allow, "file"));
            }
            Some(metadata) => {
                if metadata.uid != 0 || metadata.mode & 0o137 != 0 {
                    problems.push(format!("{allow} is laxer than 0640"));
                }
                evidence.push(stat(allow, &metadata));
            }
        }
        if let Some(metadata) = guest.files.stat(deny) {
            problems.push(format!("{deny} is there"));
            evidence.push(stat(deny, &metadata));
        }
    }
    if problems.is_empty() {
        Outcome::pass("who may plan jobs is listed", evidence)
    } else {
        Outcome::fail(problems.join(", "), evidence)
    }
}

/// What root runs by a schedule, where others could change it.
pub(crate) fn cron_targets_writable(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let mut targets: BTreeSet<(String, String)> = BTreeSet::new();
    let mut tables = vec!["/etc/crontab".to_owned()];
    tables.extend(guest.files.glob("/etc/cron.d/*"));
    for table in tables.iter().filter(|path| guest.files.exists(path)) {
        targets.insert((table.clone(), "table".to_owned()));
        for job in cron::parse(&guest.files.text(table).unwrap_or_default(), table, None) {
            let program = job.command.split_whitespace().next().unwrap_or_default();
            if program.starts_with('/') {
                targets.insert((program.to_owned(), format!("{table}:{}", job.line.unwrap_or_default())));
            }
        }
    }
    for directory in ["/etc/cron.d", "/etc/cron.hourly", "/etc/cron.daily", "/etc/cron.weekly", "/etc/cron.monthly"] {
        if guest.files.is_dir(directory) {
            targets.insert((directory.to_owned(), "directory".to_owned()));
        }
        for name in guest.files.names(directory) {
            targets.insert((format!("{directory}/{name}"), directory.to_owned()));
        }
    }
    let timers = guest.services().map(|services| services.units.as_slice()).unwrap_or_default();
    for unit in
        timers.iter().filter(|unit| unit.kind == "service" && unit.user.as_deref().is_none_or(|user| user == "root"))
    {
        let command = unit.exec_start.as_deref().unwrap_or_default().trim_start_matches(['-', '@', ':', '+', '!']);
        let command = command.split_whitespace().next().unwrap_or_default();
        if command.starts_with('/') {
            targets.insert((command.to_owned(), unit.name.clone()));
        }
    }
    for path in ["/etc/rc.local", "/etc/rc.d/rc.local"] {
        if guest.files.exists(path) {
            targets.insert((path.to_owned(), "start".to_owned()));
        }
    }
    if targets.is_empty() {
        return Outcome::pass("nothing is run by a schedule", vec![Evidence::absent("/etc/crontab", "commands")]);
    }
    let mut seen = BTreeSet::new();
    let mut bad = Vec::new();
    let mut count = 0_usize;
    for (path, source) in &targets {
        let mut part = String::new();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            part.push('/');
            part.push_str(name);
            if !seen.insert(part.clone()) {
                continue;
            }
            let Some(metadata) = guest.files.stat(&part) else { break };
            count = count.saturating_add(1);
            let sticky = metadata.file_type == FileType::Directory && metadata.mode & 0o1000 != 0;
            let is_open = metadata.mode & 0o002 != 0 || (metadata.mode & 0o020 != 0 && metadata.gid != 0);
            if metadata.uid != 0 || (is_open && !sticky) {
                let evidence = Evidence {
                    overridden: vec![Evidence::explicit(&**source, "runs", &**path)],
                    ..stat(&part, &metadata)
                };
                bad.push(Bad::new(&*part, evidence));
            }
        }
    }
    let looked_at = vec![Evidence::metadata("/etc/crontab", "paths", count.to_string())];
    Outcome::none_of(bad, "others can change what root runs", "what root runs is root's alone", looked_at)
}

/// Logs are not for everybody.
pub(crate) fn var_log_permissions(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let mask = asked.limit.and_then(|limit| u16::from_str_radix(limit.as_str()?, 8).ok()).unwrap_or(0o640);
    let walk = guest.walk();
    // Counted by login and utmp: everybody may read who is logged in (CIS leaves them out as well).
    let may_be_read = ["/var/log/wtmp", "/var/log/btmp", "/var/log/lastlog"];
    let is_bad = |path: &str| {
        let found = walk.logs.found.iter().find(|one| one.path == path);
        found.is_some_and(|one| {
            let allowed = if may_be_read.iter().any(|known| path.starts_with(known)) { mask | 0o664 } else { mask };
            one.metadata.mode & 0o777 & !allowed & !0o111 != 0
        })
    };
    walked(walk, &walk.logs, &format!("logs laxer than {mask:04o}"), "logs are not for everybody", is_bad)
}
