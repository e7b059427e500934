//! Kernel parameters as they will stand after start: sysctl.d(5) in its order, then the kernel's own default, which differs
//! between distributions' builds. Sources: Linux, `Documentation/admin-guide/sysctl/` and `Documentation/networking/
//! ip-sysctl.rst`; the configurations of the distributions' kernels.

use crate::guest::linux::pattern;
use crate::guest::report::Sysctl;

use super::facts::{Fact, Missing};
use super::guest::Guest;
use super::report::Evidence;

/// Defaults that every kernel of the last ten years has.
const DEFAULTS: [(&str, &str); 47] = [
    ("dev.tty.ldisc_autoload", "1"),
    ("fs.protected_fifos", "0"),
    ("fs.protected_hardlinks", "0"),
    ("fs.protected_regular", "0"),
    ("fs.protected_symlinks", "0"),
    ("fs.suid_dumpable", "0"),
    ("kernel.core_uses_pid", "0"),
    ("kernel.ctrl-alt-del", "0"),
    ("kernel.kexec_load_disabled", "0"),
    ("kernel.kptr_restrict", "0"),
    ("kernel.modules_disabled", "0"),
    ("kernel.randomize_va_space", "2"),
    ("kernel.sysrq", "16"),
    ("net.core.bpf_jit_harden", "0"),
    ("net.ipv4.conf.all.accept_redirects", "1"),
    ("net.ipv4.conf.all.accept_source_route", "0"),
    ("net.ipv4.conf.all.log_martians", "0"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.all.secure_redirects", "1"),
    ("net.ipv4.conf.all.send_redirects", "1"),
    ("net.ipv4.conf.all.shared_media", "1"),
    ("net.ipv4.conf.default.accept_redirects", "1"),
    ("net.ipv4.conf.default.accept_source_route", "1"),
    ("net.ipv4.conf.default.log_martians", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.conf.default.secure_redirects", "1"),
    ("net.ipv4.conf.default.send_redirects", "1"),
    ("net.ipv4.conf.default.shared_media", "1"),
    ("net.ipv4.icmp_echo_ignore_broadcasts", "1"),
    ("net.ipv4.icmp_ignore_bogus_error_responses", "1"),
    ("net.ipv4.ip_forward", "0"),
    ("net.ipv4.tcp_rfc1337", "0"),
    ("net.ipv4.tcp_syncookies", "1"),
    ("net.ipv4.tcp_timestamps", "1"),
    ("net.ipv6.conf.all.accept_ra", "1"),
    ("net.ipv6.conf.all.accept_redirects", "1"),
    ("net.ipv6.conf.all.accept_source_route", "0"),
    ("net.ipv6.conf.all.disable_ipv6", "0"),
    ("net.ipv6.conf.all.forwarding", "0"),
    ("net.ipv6.conf.default.accept_ra", "1"),
    ("net.ipv6.conf.default.accept_redirects", "1"),
    ("net.ipv6.conf.default.accept_source_route", "0"),
    ("net.ipv6.conf.default.disable_ipv6", "0"),
    ("net.ipv6.conf.default.forwarding", "0"),
    ("user.max_user_namespaces", "default"),
    ("vm.overcommit_memory", "0"),
    ("vm.swappiness", "60"),
];

/// Defaults that a distribution's kernel configuration decides: key, family, value; the first that fits.
const OF_FAMILIES: [(&str, &str, &str); 12] = [
    ("kernel.yama.ptrace_scope", "ubuntu", "1"),
    ("kernel.yama.ptrace_scope", "debian", "0"),
    ("kernel.yama.ptrace_scope", "linux", "0"),
    ("kernel.dmesg_restrict", "debian", "1"),
    ("kernel.dmesg_restrict", "linux", "0"),
    ("kernel.sysrq", "ubuntu", "176"),
    ("kernel.sysrq", "debian", "438"),
    ("kernel.unprivileged_bpf_disabled", "linux", "2"),
    ("kernel.perf_event_paranoid", "ubuntu", "4"),
    ("kernel.perf_event_paranoid", "debian", "3"),
    ("kernel.perf_event_paranoid", "linux", "2"),
    ("kernel.unprivileged_userns_clone", "linux", "1"),
];

pub(crate) fn read(guest: &Guest<'_>, key: &str) -> Result<Fact, Missing> {
    let Some(security) = &guest.system.security else {
        return Err(Missing::Unknown("the security configuration could not be read".to_owned()));
    };
    if let Some(setting) = setting(&security.sysctls, key) {
        return Ok(Fact::set(&*setting.value, Evidence::explicit(&*setting.source, &*setting.key, &*setting.value)));
    }
    let families = guest.families();
    let own = OF_FAMILIES.iter().find(|(known, family, _)| *known == key && families.contains(family));
    let default = own.map(|(_, _, value)| *value);
    let default = default.or_else(|| DEFAULTS.iter().find(|(known, _)| *known == key).map(|(_, value)| *value));
    Ok(match default {
        Some(value) => Fact::default(value, Evidence::default("kernel", key, value)),
        None => Fact::absent("/etc/sysctl.d", key),
    })
}

/// What sets `key`: a line that names it, or a pattern that matches it; a name is before a pattern, wherever it stands.
fn setting<'s>(settings: &'s [Sysctl], key: &str) -> Option<&'s Sysctl> {
    let named = settings.iter().find(|setting| setting.key == key);
    named.or_else(|| {
        let mut patterns = settings.iter().filter(|setting| setting.key.contains(['*', '?', '[']));
        patterns.find(|setting| pattern::matches(&setting.key, key))
    })
}
