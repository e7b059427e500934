//! How much of the system a service could reach, as `systemd-analyze security --offline=true` weighs it. Sources:
//! systemd-analyze(1), systemd.exec(5), systemd.resource-control(5); the weights are those of systemd 252.

use std::collections::BTreeSet;

use crate::guest::linux::unit::UnitFile;

use super::settings::is_yes;

/// Switches of `[Service]` that restrict where they are on, and their weights. Those marked need default dependencies.
const SWITCHES: [(&str, u64, bool); 15] = [
    ("PrivateDevices", 1_000, false),
    ("PrivateMounts", 1_000, false),
    ("PrivateNetwork", 2_500, false),
    ("PrivateTmp", 1_000, true),
    ("PrivateUsers", 1_000, false),
    ("ProtectControlGroups", 1_000, false),
    ("ProtectKernelModules", 1_000, false),
    ("ProtectKernelTunables", 1_000, false),
    ("ProtectKernelLogs", 1_000, false),
    ("ProtectClock", 1_000, false),
    ("ProtectHostname", 50, false),
    ("LockPersonality", 100, false),
    ("MemoryDenyWriteExecute", 100, false),
    ("RestrictRealtime", 500, false),
    ("RestrictSUIDSGID", 1_000, false),
];

/// Capabilities that weigh together: one of them in the bounding set is enough.
const CAPABILITIES: [(u64, &[&str]); 26] = [
    (1_500, &["CAP_SYS_ADMIN"]),
    (1_500, &["CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"]),
    (1_500, &["CAP_SYS_PTRACE"]),
    (1_000, &["CAP_SYS_TIME"]),
    (1_000, &["CAP_NET_ADMIN"]),
    (1_000, &["CAP_SYS_RAWIO"]),
    (1_000, &["CAP_SYS_MODULE"]),
    (500, &["CAP_AUDIT_CONTROL", "CAP_AUDIT_READ", "CAP_AUDIT_WRITE"]),
    (500, &["CAP_SYSLOG"]),
    (500, &["CAP_SYS_NICE", "CAP_SYS_RESOURCE"]),
    (500, &["CAP_MKNOD"]),
    (1_000, &["CAP_CHOWN", "CAP_FSETID", "CAP_SETFCAP"]),
    (1_000, &["CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_IPC_OWNER"]),
    (500, &["CAP_KILL"]),
    (500, &["CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_RAW"]),
    (100, &["CAP_SYS_BOOT"]),
    (100, &["CAP_MAC_ADMIN", "CAP_MAC_OVERRIDE"]),
    (75, &["CAP_LINUX_IMMUTABLE"]),
    (50, &["CAP_IPC_LOCK"]),
    (50, &["CAP_SYS_CHROOT"]),
    (25, &["CAP_BLOCK_SUSPEND"]),
    (25, &["CAP_WAKE_ALARM"]),
    (25, &["CAP_LEASE"]),
    (25, &["CAP_SYS_TTY_CONFIG"]),
    (25, &["CAP_SYS_PACCT"]),
    (25, &["CAP_BPF"]),
];

const NAMESPACES: [(&str, u64); 7] =
    [("user", 1_500), ("mnt", 500), ("ipc", 500), ("pid", 500), ("cgroup", 500), ("net", 500), ("uts", 100)];

/// Groups of system calls that weigh, and their members of x86-64.
const CALLS: [(&str, u64, &[&str]); 11] = [
    ("@swap", 1_000, &["swapon", "swapoff"]),
    (
        "@obsolete",
        250,
        &["_sysctl", "create_module", "get_kernel_syms", "query_module", "sysfs", "uselib", "ustat", "vserver"],
    ),
    ("@clock", 1_000, &["adjtimex", "clock_adjtime", "clock_settime", "settimeofday"]),
    ("@cpu-emulation", 250, &["modify_ldt"]),
    ("@debug", 1_000, &["lookup_dcookie", "perf_event_open", "pidfd_getfd", "ptrace"]),
    (
        "@mount",
        1_000,
        &[
            "chroot",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "pivot_root",
            "umount2",
        ],
    ),
    ("@module", 1_000, &["delete_module", "finit_module", "init_module"]),
    ("@raw-io", 1_000, &["ioperm", "iopl"]),
    ("@reboot", 1_000, &["kexec_file_load", "kexec_load", "reboot"]),
    (
        "@privileged",
        700,
        &[
            "@chown",
            "@clock",
            "@module",
            "@raw-io",
            "@reboot",
            "@swap",
            "_sysctl",
            "acct",
            "bpf",
            "capset",
            "chroot",
            "fanotify_init",
            "nfsservctl",
            "open_by_handle_at",
            "pivot_root",
            "quotactl",
            "setdomainname",
            "setfsuid",
            "setgroups",
            "sethostname",
            "setresuid",
            "setreuid",
            "setuid",
            "vhangup",
        ],
    ),
    (
        "@resources",
        700,
        &[
            "ioprio_set",
            "mbind",
            "migrate_pages",
            "move_pages",
            "sched_setaffinity",
            "sched_setattr",
            "sched_setparam",
            "sched_setscheduler",
            "set_mempolicy",
            "setpriority",
            "setrlimit",
        ],
    ),
];

/// Other groups, by those of their members that lie in a group that weighs.
const OTHER_CALLS: [(&str, &[&str]); 3] = [
    ("@chown", &["chown", "fchown", "fchownat", "lchown"]),
    ("@setuid", &["setfsuid", "setgroups", "setresuid", "setreuid", "setuid"]),
    ("@system-service", &["@chown", "@setuid", "@resources", "capset"]),
];

/// A sum of badness and of weights.
#[derive(Default)]
struct Sum {
    bad: u64,
    weight: u64,
}

impl Sum {
    /// `badness` of `range` at `weight`.
    fn add(&mut self, badness: u64, range: u64, weight: u64) {
        self.bad = self.bad.saturating_add(badness.saturating_mul(weight).div_ceil(range));
        self.weight = self.weight.saturating_add(weight);
    }
}

/// The exposure of a service in tenths, 0 to 100.
pub(crate) fn of(file: &UnitFile) -> u64 {
    let service = Service { file };
    let has_default_dependencies = file.last("Unit", "DefaultDependencies").is_none_or(is_yes);
    let is_privileged = service.is_privileged();
    let mut sum = Sum::default();
    let user_badness = match file.last("Service", "User") {
        Some("nobody") => 9,
        Some("root" | "0") | None if is_privileged => 10,
        _ => 0,
    };
    sum.add(user_badness, 10, 2_000);
    if !is_privileged {
        sum.add(u64::from(!file.words("Service", "SupplementaryGroups").is_empty()), 1, 200);
        sum.add(u64::from(!(service.is_on("RemoveIPC") || service.is_dynamic())), 1, 100);
    }
    for (key, weight, needs_dependencies) in SWITCHES {
        if has_default_dependencies || !needs_dependencies {
            let is_implied = service.is_dynamic() && matches!(key, "PrivateTmp" | "RestrictSUIDSGID");
            sum.add(u64::from(!(service.is_on(key) || is_implied)), 1, weight);
        }
    }
    sum.add(u64::from(!(service.is_on("NoNewPrivileges") || service.is_dynamic())), 1, 1_000);
    if has_default_dependencies {
        sum.add(service.home(), 10, 1_000);
        sum.add(service.system(), 10, 1_000);
        let is_rooted = |key| file.last("Service", key).is_some_and(|path| path != "/");
        sum.add(u64::from(!(is_rooted("RootDirectory") || is_rooted("RootImage"))), 1, 200);
    }
    service.capabilities(&mut sum);
    sum.add(service.umask(), 10, 100);
    sum.add(u64::from(file.last("Service", "KeyringMode").is_some_and(|mode| mode != "private")), 1, 1_000);
    let processes = match file.last("Service", "ProtectProc") {
        Some("noaccess") => 1,
        Some("invisible" | "ptraceable") => 0,
        _ => 3,
    };
    sum.add(processes, 3, 1_000);
    sum.add(u64::from(file.last("Service", "ProcSubset") != Some("pid")), 1, 10);
    sum.add(u64::from(file.last("Service", "NotifyAccess") == Some("all")), 1, 1_000);
    let is_delegated =
        file.last("Service", "Delegate").is_some_and(|value| !matches!(value, "no" | "false" | "0" | "off"));
    sum.add(u64::from(is_delegated), 1, 100);
    service.namespaces(&mut sum);
    service.families(&mut sum);
    let architectures = file.words("Service", "SystemCallArchitectures");
    let badness = match architectures.as_slice() {
        [] => 10,
        ["native"] => 0,
        _ => 8,
    };
    sum.add(badness, 10, 1_000);
    service.calls(&mut sum);
    sum.add(service.addresses(), 10, 1_000);
    let is_closed = match file.last("Service", "DevicePolicy") {
        Some("strict" | "closed") => true,
        Some("auto") | None => service.is_on("PrivateDevices"),
        Some(_) => false,
    };
    let has_devices = !file.values("Service", "DeviceAllow").is_empty() || service.is_on("ProtectClock");
    sum.add(
        if !is_closed {
            10
        } else if has_devices {
            5
        } else {
            0
        },
        10,
        1_000,
    );
    sum.add(u64::from(!file.words("Service", "AmbientCapabilities").is_empty()), 1, 500);
    sum.bad.saturating_mul(100).div_ceil(sum.weight.max(1))
}

struct Service<'f> {
    file: &'f UnitFile,
}

impl<'f> Service<'f> {
    fn is_on(&self, key: &str) -> bool {
        self.file.last("Service", key).is_some_and(|value| is_yes(value) || value == "disconnected")
    }

    fn is_dynamic(&self) -> bool {
        self.is_on("DynamicUser")
    }

    fn is_privileged(&self) -> bool {
        match self.file.last("Service", "User") {
            Some("root" | "0") => true,
            Some(_) => false,
            None => !self.is_dynamic(),
        }
    }

    fn home(&self) -> u64 {
        match self.file.last("Service", "ProtectHome") {
            Some("read-only") => 5,
            Some("tmpfs") => 1,
            Some(value) if is_yes(value) => 0,
            _ if self.is_dynamic() => 5,
            _ => 10,
        }
    }

    fn system(&self) -> u64 {
        match self.file.last("Service", "ProtectSystem") {
            Some("strict") => 0,
            _ if self.is_dynamic() => 0,
            Some("full") => 3,
            Some(value) if is_yes(value) => 5,
            _ => 10,
        }
    }

    fn umask(&self) -> u64 {
        let mask =
            self.file.last("Service", "UMask").and_then(|mask| u32::from_str_radix(mask, 8).ok()).unwrap_or(0o022);
        let rated = [(0o002, 10), (0o004, 5), (0o020, 2), (0o040, 1)];
        rated.into_iter().find(|(bit, _)| mask & bit == 0).map_or(0, |(_, badness)| badness)
    }

    /// What is in the bounding set, less what other settings take from it.
    fn capabilities(&self, sum: &mut Sum) {
        let everything = CAPABILITIES.iter().flat_map(|(_, names)| *names).copied();
        let everything: BTreeSet<&str> = everything.collect();
        let mut held: Option<BTreeSet<&str>> = None;
        for (_, value) in self.file.section("Service").filter(|(key, _)| *key == "CapabilityBoundingSet") {
            let (inverted, list) = value.strip_prefix('~').map_or((false, value), |rest| (true, rest));
            let list: BTreeSet<&str> = list.split_whitespace().collect();
            held = Some(match (held, inverted) {
                // Nothing at all is the empty set; `~` alone is the full one.
                (_, false) if list.is_empty() => BTreeSet::new(),
                (_, true) if list.is_empty() => everything.clone(),
                (None, false) => list,
                (Some(known), false) => known.union(&list).copied().collect(),
                (None, true) => everything.difference(&list).copied().collect(),
                (Some(known), true) => known.difference(&list).copied().collect(),
            });
        }
        let mut held = held.unwrap_or(everything);
        let taken: [(&str, &[&str]); 4] = [
            ("PrivateDevices", &["CAP_MKNOD", "CAP_SYS_RAWIO"]),
            ("ProtectKernelModules", &["CAP_SYS_MODULE"]),
            ("ProtectKernelLogs", &["CAP_SYSLOG"]),
            ("ProtectClock", &["CAP_SYS_TIME", "CAP_WAKE_ALARM"]),
        ];
        for (_, names) in taken.iter().filter(|(key, _)| self.is_on(key)) {
            held.retain(|name| !names.contains(name));
        }
        for (weight, names) in CAPABILITIES {
            sum.add(u64::from(names.iter().any(|name| held.contains(name))), 1, weight);
        }
    }

    fn namespaces(&self, sum: &mut Sum) {
        let mut allowed: BTreeSet<&str> = NAMESPACES.iter().map(|(name, _)| *name).collect();
        let mut is_first = true;
        for (_, value) in self.file.section("Service").filter(|(key, _)| *key == "RestrictNamespaces") {
            let (inverted, list) = value.strip_prefix('~').map_or((false, value), |rest| (true, rest));
            let list: BTreeSet<&str> = list.split_whitespace().collect();
            if is_yes(value) {
                allowed.clear();
            } else if matches!(value, "" | "no" | "false" | "0" | "off") {
                allowed = NAMESPACES.iter().map(|(name, _)| *name).collect();
            } else if inverted {
                allowed.retain(|name| !list.contains(name));
            } else if is_first {
                allowed = list;
            } else {
                allowed.extend(list);
            }
            is_first = false;
        }
        for (name, weight) in NAMESPACES {
            sum.add(u64::from(allowed.contains(name)), 1, weight);
        }
    }

    fn families(&self, sum: &mut Sum) {
        let values = self.file.values("Service", "RestrictAddressFamilies");
        let inverted = values.first().is_none_or(|value| value.starts_with('~'));
        let words = values.iter().flat_map(|value| value.trim_start_matches('~').split_whitespace());
        let named: BTreeSet<&str> = words.filter(|word| *word != "none").collect();
        let known = ["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_PACKET"];
        let is_named = |names: &[&str]| names.iter().any(|name| named.contains(name));
        // With a list of what is allowed, what is named is open; with one of what is not, what is not named.
        let badness = |is_named: bool| u64::from(is_named != inverted);
        sum.add(badness(is_named(&["AF_INET", "AF_INET6"])), 1, 1_500);
        sum.add(badness(is_named(&["AF_UNIX"])), 1, 25);
        sum.add(badness(is_named(&["AF_NETLINK"])), 1, 200);
        sum.add(badness(is_named(&["AF_PACKET"])), 1, 1_000);
        sum.add(badness(named.iter().any(|name| !known.contains(name))), 1, 1_250);
    }

    fn calls(&self, sum: &mut Sum) {
        let values = self.file.values("Service", "SystemCallFilter");
        let mut named: BTreeSet<&'f str> = BTreeSet::new();
        let is_deny_list = values.first().is_none_or(|value| value.starts_with('~'));
        for value in &values {
            let (inverted, list) = value.strip_prefix('~').map_or((false, *value), |rest| (true, rest));
            let mut calls = BTreeSet::new();
            list.split_whitespace().for_each(|word| expand(word.split(':').next().unwrap_or_default(), &mut calls));
            if inverted == is_deny_list {
                named.extend(calls);
            } else {
                named.retain(|call| !calls.contains(call));
            }
        }
        for (name, weight, _) in CALLS {
            let mut members = BTreeSet::new();
            expand(name, &mut members);
            let badness = match (values.is_empty(), is_deny_list) {
                (true, _) => 10,
                (false, true) => {
                    if members.is_subset(&named) {
                        0
                    } else {
                        10
                    }
                }
                (false, false) => {
                    if members.is_disjoint(&named) {
                        0
                    } else {
                        9
                    }
                }
            };
            sum.add(badness, 10, weight);
        }
    }

    fn addresses(&self) -> u64 {
        let has = |key: &str| !self.file.values("Service", key).is_empty();
        if has("IPIngressFilterPath") || has("IPEgressFilterPath") {
            return 0;
        }
        let denied = self.file.words("Service", "IPAddressDeny");
        if !denied.contains(&"any") {
            return 10;
        }
        let allowed = self.file.words("Service", "IPAddressAllow");
        let is_local = |word: &&str| matches!(*word, "localhost" | "127.0.0.0/8" | "::1/128" | "127.0.0.1" | "::1");
        if allowed.is_empty() {
            0
        } else if allowed.iter().all(is_local) {
            2
        } else {
            5
        }
    }
}

/// The system calls of a group or a name, of those that weigh.
fn expand<'a>(word: &'a str, calls: &mut BTreeSet<&'a str>) {
    let own = CALLS.iter().find(|(name, _, _)| *name == word).map(|(_, _, members)| *members);
    let members = own.or_else(|| OTHER_CALLS.iter().find(|(name, _)| *name == word).map(|(_, members)| *members));
    match members {
        Some(members) => members.iter().for_each(|member| expand(member, calls)),
        None if word.starts_with('@') => {}
        None => {
            calls.insert(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MORE: [(&str, u64); 4] = [
        (
            "[Unit]\nDefaultDependencies=no\n[Service]\nDeviceAllow=char-* rw\nIPAddressDeny=any\nLockPersonality=yes\n\
             MemoryDenyWriteExecute=yes\nNoNewPrivileges=yes\nProtectClock=yes\nRestrictAddressFamilies=AF_UNIX AF_NETLINK\n\
             RestrictNamespaces=yes\nRestrictRealtime=yes\nRestrictSUIDSGID=yes\nSystemCallArchitectures=native\n\
             SystemCallFilter=@system-service\nCapabilityBoundingSet=CAP_SYS_ADMIN CAP_DAC_OVERRIDE CAP_SYS_PTRACE \
             CAP_SYSLOG CAP_AUDIT_CONTROL CAP_AUDIT_READ CAP_CHOWN CAP_DAC_READ_SEARCH CAP_FOWNER CAP_SETUID CAP_SETGID \
             CAP_MAC_OVERRIDE\n",
            43,
        ),
        (
            "[Unit]\nDefaultDependencies=no\n[Service]\nAmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW\n\
             CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_RAW\nDeviceAllow=char-* rw\n\
             LockPersonality=yes\nMemoryDenyWriteExecute=yes\nNoNewPrivileges=yes\nProtectProc=invisible\nProtectClock=yes\n\
             ProtectControlGroups=yes\nProtectHome=yes\nProtectKernelLogs=yes\nProtectKernelModules=yes\n\
             ProtectSystem=strict\nRestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6 AF_PACKET\n\
             RestrictNamespaces=yes\nRestrictRealtime=yes\nRestrictSUIDSGID=yes\nSystemCallArchitectures=native\n\
             SystemCallFilter=@system-service\nUser=systemd-network\n",
            28,
        ),
        (
            "[Service]\nCapabilityBoundingSet=\nIPAddressDeny=any\nLockPersonality=yes\nMemoryDenyWriteExecute=yes\n\
             NoNewPrivileges=yes\nPrivateDevices=yes\nPrivateNetwork=yes\nPrivateTmp=yes\nProtectProc=invisible\n\
             ProtectControlGroups=yes\nProtectHome=yes\nProtectHostname=yes\nProtectKernelLogs=yes\n\
             ProtectKernelModules=yes\nProtectKernelTunables=yes\nProtectSystem=strict\nRestrictAddressFamilies=AF_UNIX\n\
             RestrictNamespaces=yes\nRestrictRealtime=yes\nRestrictSUIDSGID=yes\nSystemCallArchitectures=native\n\
             SystemCallFilter=@system-service\n",
            12,
        ),
        (
            "[Service]\nCapabilityBoundingSet=CAP_SYS_TIME\nDeviceAllow=char-rtc r\nIPAddressDeny=any\nLockPersonality=yes\n\
             MemoryDenyWriteExecute=yes\nNoNewPrivileges=yes\nPrivateTmp=yes\nProtectProc=invisible\n\
             ProtectControlGroups=yes\nProtectHome=yes\nProtectHostname=yes\nProtectKernelLogs=yes\n\
             ProtectKernelModules=yes\nProtectKernelTunables=yes\nProtectSystem=strict\nRestrictAddressFamilies=AF_UNIX\n\
             RestrictNamespaces=yes\nRestrictRealtime=yes\nRestrictSUIDSGID=yes\nSystemCallArchitectures=native\n\
             SystemCallFilter=@system-service @clock\n",
            24,
        ),
    ];

    /// As `systemd-analyze security --offline=true` of systemd 252 tells it of Debian's own units.
    #[test]
    fn exposures_are_those_of_systemd() {
        let cases = [
            ("[Service]\nExecStart=/usr/sbin/sshd -D\nType=notify\n", 96),
            ("[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\n", 95),
            (
                "[Unit]\nDefaultDependencies=no\n[Service]\nNoNewPrivileges=yes\nNotifyAccess=all\nSystemCallArchitectures=native\n",
                94,
            ),
            (
                "[Service]\nBusName=x\nCapabilityBoundingSet=CAP_SYS_ADMIN\nIPAddressDeny=any\nLockPersonality=yes\n\
                 MemoryDenyWriteExecute=yes\nNoNewPrivileges=yes\nPrivateDevices=yes\nPrivateNetwork=yes\nPrivateTmp=yes\n\
                 ProtectProc=invisible\nProtectControlGroups=yes\nProtectHome=yes\nProtectKernelLogs=yes\n\
                 ProtectKernelModules=yes\nProtectKernelTunables=yes\nProtectSystem=strict\nReadWritePaths=/etc /run/systemd\n\
                 RestrictAddressFamilies=AF_UNIX\nRestrictNamespaces=yes\nRestrictRealtime=yes\nRestrictSUIDSGID=yes\n\
                 SystemCallArchitectures=native\nSystemCallFilter=@system-service sethostname\n",
                15,
            ),
            (
                "[Unit]\nDefaultDependencies=no\n[Service]\nAmbientCapabilities=CAP_SYS_TIME\nCapabilityBoundingSet=CAP_SYS_TIME\n\
                 LockPersonality=yes\nMemoryDenyWriteExecute=yes\nNoNewPrivileges=yes\nPrivateDevices=yes\nPrivateTmp=yes\n\
                 ProtectProc=invisible\nProtectControlGroups=yes\nProtectHome=yes\nProtectHostname=yes\nProtectKernelLogs=yes\n\
                 ProtectKernelModules=yes\nProtectKernelTunables=yes\nProtectSystem=strict\n\
                 RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\nRestrictNamespaces=yes\nRestrictRealtime=yes\n\
                 RestrictSUIDSGID=yes\nSystemCallArchitectures=native\nSystemCallFilter=@system-service @clock\n\
                 User=systemd-timesync\n",
                23,
            ),
            (
                "[Service]\nCapabilityBoundingSet=CAP_SYS_ADMIN CAP_MAC_ADMIN CAP_AUDIT_CONTROL CAP_CHOWN CAP_DAC_READ_SEARCH \
                 CAP_DAC_OVERRIDE CAP_FOWNER CAP_SYS_TTY_CONFIG CAP_LINUX_IMMUTABLE\nDeviceAllow=block-* r\nIPAddressDeny=any\n\
                 LockPersonality=yes\nMemoryDenyWriteExecute=yes\nNoNewPrivileges=yes\nPrivateTmp=yes\nProtectClock=yes\n\
                 ProtectControlGroups=yes\nProtectHome=yes\nProtectHostname=yes\nProtectKernelLogs=yes\n\
                 ProtectKernelModules=yes\nProtectSystem=strict\nRestrictAddressFamilies=AF_UNIX AF_NETLINK\n\
                 RestrictNamespaces=yes\nRestrictRealtime=yes\nRestrictSUIDSGID=yes\nSystemCallArchitectures=native\n\
                 SystemCallFilter=@system-service\n",
                30,
            ),
            (
                "[Unit]\nDefaultDependencies=no\n[Service]\nCapabilityBoundingSet=~CAP_SYS_TIME CAP_WAKE_ALARM\nDelegate=pids\n\
                 PrivateMounts=yes\nProtectHostname=yes\nMemoryDenyWriteExecute=yes\n\
                 RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6\nRestrictRealtime=yes\nRestrictSUIDSGID=yes\n\
                 SystemCallFilter=@system-service @module @raw-io bpf\nSystemCallFilter=~@clock\n\
                 LockPersonality=yes\nIPAddressDeny=any\n",
                71,
            ),
            (
                "[Service]\nPrivateDevices=no\nPrivateNetwork=yes\nPrivateUsers=no\nProtectKernelTunables=yes\n\
                 ProtectKernelModules=yes\nProtectControlGroups=yes\nMemoryDenyWriteExecute=yes\n\
                 SystemCallFilter=@default @file-system @basic-io @system-service\n",
                70,
            ),
            (
                "[Service]\nLockPersonality=true\nMemoryDenyWriteExecute=true\nPrivateDevices=true\nPrivateTmp=true\n\
                 ProtectClock=true\nProtectControlGroups=true\nProtectHostname=true\nProtectKernelLogs=true\n\
                 ProtectKernelModules=true\nProtectKernelTunables=true\nProtectSystem=full\nRestrictNamespaces=true\n\
                 RestrictRealtime=true\n",
                65,
            ),
            (
                "[Service]\nPrivateNetwork=true\nProtectSystem=true\nProtectHome=read-only\nPrivateTmp=yes\n\
                 AmbientCapabilities=CAP_SYS_ADMIN CAP_SYS_RAWIO\nNoNewPrivileges=yes\nUser=root\n",
                87,
            ),
        ];
        for (text, exposure) in cases.into_iter().chain(MORE) {
            assert_eq!(of(&UnitFile::parse(text)), exposure, "{text}");
        }
    }
}
