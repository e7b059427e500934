//! Settings of `Defaults` lines and the values they take. Source: sudoers(5) of sudo 1.9.13 to 1.9.16, "SUDOERS OPTIONS"; which forms
//! `visudo -c` of 1.9.13 accepted.

/// What a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing.
    Flag,
    /// Nothing, or one of these.
    Choice(&'static [&'static str]),
    /// One of these.
    Named(&'static [&'static str]),
    /// A number of 0 or more; it may be switched off.
    Number,
    /// Limits of a process, soft and hard.
    Limit,
    /// A number that cannot be switched off.
    Count,
    /// Minutes, with a fraction.
    Minutes,
    /// Seconds, or a time with units.
    Timeout,
    /// Permissions in octal.
    Mode,
    /// A path from the root; it may be switched off.
    Path,
    /// The same, or one that begins at somebody's home, or `*` for any.
    WorkingDirectory,
    /// Paths from the root, apart by colons.
    Paths,
    /// A path that cannot be switched off.
    Directory,
    /// Text.
    Text,
    /// Text that may be switched off.
    OptionalText,
    /// Names that others are added to and taken from.
    List,
}

const FACILITIES: &[&str] = &[
    "auth", "authpriv", "daemon", "user", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];
const PRIORITIES: &[&str] = &["alert", "crit", "debug", "emerg", "err", "info", "notice", "warning", "none"];
const WHEN: &[&str] = &["all", "any", "never", "always"];

const SETTINGS: [(Kind, &[&str]); 22] = [
    (
        Kind::Flag,
        &[
            "always_query_group_plugin",
            "always_set_home",
            "authenticate",
            "case_insensitive_group",
            "case_insensitive_user",
            "closefrom_override",
            "compress_io",
            "env_editor",
            "env_reset",
            "exec_background",
            "fast_glob",
            "fqdn",
            "ignore_audit_errors",
            "ignore_dot",
            "ignore_iolog_errors",
            "ignore_local_sudoers",
            "ignore_logfile_errors",
            "ignore_unknown_defaults",
            "insults",
            "intercept",
            "intercept_allow_setid",
            "intercept_authenticate",
            "intercept_verify",
            "iolog_flush",
            "log_allowed",
            "log_denied",
            "log_exit_status",
            "log_host",
            "log_input",
            "log_output",
            "log_passwords",
            "log_server_keepalive",
            "log_server_verify",
            "log_stderr",
            "log_stdin",
            "log_stdout",
            "log_subcmds",
            "log_ttyin",
            "log_ttyout",
            "log_year",
            "long_otp_prompt",
            "mail_all_cmnds",
            "mail_always",
            "mail_badpass",
            "mail_no_host",
            "mail_no_perms",
            "mail_no_user",
            "match_group_by_gid",
            "netgroup_tuple",
            "noexec",
            "noninteractive_auth",
            "pam_acct_mgmt",
            "pam_rhost",
            "pam_ruser",
            "pam_session",
            "pam_setcred",
            "pam_silent",
            "passprompt_override",
            "path_info",
            "preserve_groups",
            "pwfeedback",
            "requiretty",
            "root_sudo",
            "rootpw",
            "runas_allow_unknown_id",
            "runas_check_shell",
            "runaspw",
            "selinux",
            "set_home",
            "set_logname",
            "set_utmp",
            "setenv",
            "shell_noargs",
            "stay_setuid",
            "sudoedit_checkdir",
            "sudoedit_follow",
            "syslog_pid",
            "targetpw",
            "tty_tickets",
            "umask_override",
            "use_loginclass",
            "use_netgroups",
            "use_pty",
            "user_command_timeouts",
            "utmp_runas",
            "visiblepw",
        ],
    ),
    (
        Kind::Text,
        &[
            "apparmor_profile",
            "authfail_message",
            "badpass_message",
            "cmddenial_message",
            "group_plugin",
            "iolog_file",
            "limitprivs",
            "mailsub",
            "noexec_file",
            "pam_askpass_service",
            "pam_login_service",
            "pam_service",
            "passprompt",
            "privs",
            "role",
            "runas_default",
            "sudoers_locale",
            "timestampowner",
            "type",
        ],
    ),
    (
        Kind::OptionalText,
        &["exempt_group", "iolog_group", "iolog_user", "mailerflags", "mailfrom", "mailto", "secure_path"],
    ),
    (Kind::List, &["env_check", "env_delete", "env_keep", "log_servers", "passprompt_regex"]),
    (
        Kind::Path,
        &[
            "admin_flag",
            "env_file",
            "lecture_file",
            "log_server_cabundle",
            "log_server_peer_cert",
            "log_server_peer_key",
            "logfile",
            "mailerpath",
            "restricted_env_file",
        ],
    ),
    (Kind::WorkingDirectory, &["runchroot", "runcwd"]),
    (Kind::Directory, &["iolog_dir", "lecture_status_dir", "timestampdir"]),
    (Kind::Paths, &["editor"]),
    (Kind::Count, &["closefrom", "maxseq", "passwd_tries", "syslog_maxlen"]),
    (Kind::Number, &["log_server_timeout", "loglinelen"]),
    (
        Kind::Limit,
        &[
            "rlimit_as",
            "rlimit_core",
            "rlimit_cpu",
            "rlimit_data",
            "rlimit_fsize",
            "rlimit_locks",
            "rlimit_memlock",
            "rlimit_nofile",
            "rlimit_nproc",
            "rlimit_rss",
            "rlimit_stack",
        ],
    ),
    (Kind::Minutes, &["passwd_timeout", "timestamp_timeout"]),
    (Kind::Timeout, &["command_timeout"]),
    (Kind::Mode, &["iolog_mode", "umask"]),
    (Kind::Choice(WHEN), &["listpw", "verifypw"]),
    (Kind::Choice(FACILITIES), &["syslog"]),
    (Kind::Named(PRIORITIES), &["syslog_badpri", "syslog_goodpri"]),
    (Kind::Choice(&["always", "never", "digest_only"]), &["fdexec"]),
    (Kind::Choice(&["never", "always", "once"]), &["lecture"]),
    (Kind::Named(&["dso", "trace"]), &["intercept_type"]),
    (Kind::Named(&["sudo", "json", "json_compact", "json_pretty"]), &["log_format"]),
    (Kind::Named(&["global", "ppid", "tty", "kernel"]), &["timestamp_type"]),
];
/// Whether a setting is one, and takes this operator and value.
///
/// # Errors
/// Why it does not.
pub(super) fn check(name: &str, operator: &str, value: &str) -> Result<(), &'static str> {
    let (kind, _) = SETTINGS.iter().find(|(_, names)| names.contains(&name)).ok_or("an unknown setting")?;
    let kind = *kind;
    let is_path = |text: &str| text.starts_with('/');
    let can_be_off = !matches!(kind, Kind::Text | Kind::Count | Kind::Directory | Kind::Paths);
    let is_right = match operator {
        "!" => can_be_off,
        "" => matches!(kind, Kind::Flag | Kind::Choice(_)),
        "+=" | "-=" => kind == Kind::List,
        _ => match kind {
            Kind::Flag => false,
            Kind::Choice(names) | Kind::Named(names) => names.contains(&value),
            Kind::Limit => is_limit(value),
            Kind::Number | Kind::Count => value.parse::<u32>().is_ok_and(|number| i32::try_from(number).is_ok()),
            Kind::Minutes => value.parse::<f64>().is_ok_and(f64::is_finite),
            Kind::Timeout => is_timeout(value),
            Kind::Mode => u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o777),
            Kind::WorkingDirectory => is_working_directory(value),
            Kind::Path | Kind::Directory => is_path(value),
            Kind::Paths => value.split(':').all(is_path),
            Kind::Text | Kind::OptionalText | Kind::List => true,
        },
    };
    if is_right { Ok(()) } else { Err("a setting with a value that it cannot have") }
}

/// A limit of a process, soft and hard.
fn is_limit(text: &str) -> bool {
    let is_one = |word: &str| matches!(word, "infinity" | "default" | "user") || word.parse::<u64>().is_ok();
    text.split(',').all(is_one)
}

/// A path from the root or from somebody's home, or `*` for any.
pub(super) fn is_working_directory(text: &str) -> bool {
    text.starts_with(['/', '~']) || text == "*"
}

/// Seconds, or days, hours, minutes and seconds with their letters.
pub(super) fn is_timeout(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || b"dhmsDHMS".contains(&byte))
}
