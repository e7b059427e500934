//! Accounts: passwd(5), shadow(5), group(5), gshadow(5), sudoers(5), authorized_keys. A password's hash is looked at for its
//! algorithm and never leaves this module.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::guest::report::{AccountProblem, Group, User, Users};

use super::files::Files;
use super::sudoers::{Account, Sudoers};
use super::{authorized_keys, sshd, time};

/// Shells that end a session at once.
const NO_LOGIN: [&str; 6] = ["nologin", "false", "sync", "halt", "shutdown", "true"];
/// Accounts and groups of one guest: the largest sites keep some ten thousand in files, and each takes kilobytes on its way
/// to the report.
const LINES_MAX: usize = 50_000;
/// Problems told: homes that lie on a server are missing for every account.
const PROBLEMS_MAX: usize = 10_000;
/// Homes that pwck(8) does not miss.
const NO_HOME: &str = "/nonexistent";

/// The module.
pub(crate) fn inspect(files: &Files<'_>) -> Users {
    let passwd = lines(files.text("/etc/passwd"));
    if passwd.is_empty() {
        files.warn("/etc/passwd", "no account was found");
    }
    let shadow: BTreeMap<_, _> = lines(files.text("/etc/shadow"))
        .into_iter()
        .filter_map(|fields| Some((fields.first()?.clone(), fields)))
        .rev()
        .collect();
    let group_lines = lines(files.text("/etc/group"));
    let gshadow_lines = lines(files.text("/etc/gshadow"));
    let mut groups: Vec<_> = group_lines.iter().filter_map(|fields| group(fields)).collect();
    let gshadow = by_name(&gshadow_lines);
    for group in &mut groups {
        join_gshadow(group, gshadow.get(group.name.as_str()).copied());
    }
    for (path, lines) in [("/etc/passwd", &passwd), ("/etc/group", &group_lines), ("/etc/gshadow", &gshadow_lines)] {
        if lines.len() >= LINES_MAX {
            files.warn(path, format!("has more than {LINES_MAX} lines; the rest is left out"));
        }
    }
    let sudo = Sudoers::read(files);
    let key_files = sshd::authorized_keys_files(files);
    let mut users: Vec<_> = passwd.iter().filter_map(|fields| user(fields)).collect();
    let passwd_by_name = by_name(&passwd);
    let memberships = Memberships::of(&groups);
    let mut keys = authorized_keys::Reader::new(files, &key_files);
    for user in &mut users {
        let password = passwd_by_name.get(user.name.as_str()).map_or("", |fields| field(fields, 1));
        join_shadow(user, password, shadow.get(&user.name).map(Vec::as_slice));
        user.groups = memberships.names(user);
        let gids = memberships.gids(user);
        let account = Account { name: &user.name, uid: user.uid, groups: &user.groups, gids: &gids };
        user.sudo = sudo.gives_everything(&account);
        user.authorized_keys = keys.read(user);
    }
    if sudo.is_exhausted() {
        files.warn("/etc/sudoers", "aliases and rules are too many to tell who may do everything");
    }
    let mut problems = problems(files, &passwd, &users, &group_lines, &groups, &gshadow_lines, &shadow);
    if problems.len() > PROBLEMS_MAX {
        files.warn("account problems", format!("problems past the first {PROBLEMS_MAX} are left out"));
        problems.truncate(PROBLEMS_MAX);
    }
    let logs_in = |user: &&User| {
        let shell = user.shell.rsplit('/').next().unwrap_or_default();
        !NO_LOGIN.contains(&shell) && (!user.locked || !user.authorized_keys.is_empty())
    };
    Users {
        count: users.len() as u64,
        login_users: users.iter().filter(logs_in).map(|user| user.name.clone()).collect(),
        users,
        groups,
        sudo_rules: sudo.rules,
        sudo_defaults: sudo.defaults,
        sudo_aliases: sudo.aliases,
        problems,
        policy: None,
    }
}

/// Colon-separated lines; empty lines, and the `+` and `-` lines of NIS, left out.
fn lines(text: Option<String>) -> Vec<Vec<String>> {
    let text = text.unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with(['+', '-', '#']));
    // The longest honest line has nine fields.
    lines.take(LINES_MAX).map(|line| line.splitn(12, ':').map(str::to_owned).collect()).collect()
}

fn field(fields: &[String], index: usize) -> &str {
    fields.get(index).map_or("", String::as_str)
}

fn user(fields: &[String]) -> Option<User> {
    Some(User {
        name: fields.first().filter(|name| !name.is_empty())?.clone(),
        uid: field(fields, 2).parse().ok()?,
        gid: field(fields, 3).parse().ok()?,
        gecos: field(fields, 4).to_owned(),
        home: field(fields, 5).to_owned(),
        shell: field(fields, 6).to_owned(),
        ..User::default()
    })
}

/// Lines by their first field; of several the first.
fn by_name(lines: &[Vec<String>]) -> HashMap<&str, &[String]> {
    let pairs = lines.iter().rev().filter_map(|fields| Some((fields.first()?.as_str(), fields.as_slice())));
    pairs.collect()
}

/// Who is in which group, worked out once.
struct Memberships<'a> {
    by_gid: HashMap<u64, &'a str>,
    by_member: HashMap<&'a str, Vec<&'a Group>>,
}

impl<'a> Memberships<'a> {
    fn of(groups: &'a [Group]) -> Self {
        let by_gid = groups.iter().rev().map(|group| (group.gid, group.name.as_str())).collect();
        let mut by_member: HashMap<&str, Vec<&Group>> = HashMap::new();
        for group in groups {
            for member in &group.members {
                by_member.entry(member).or_default().push(group);
            }
        }
        Self { by_gid, by_member }
    }

    /// The primary group first.
    fn names(&self, user: &User) -> Vec<String> {
        let primary = self.by_gid.get(&user.gid).map(|name| (*name).to_owned());
        let others = self.by_member.get(user.name.as_str()).into_iter().flatten();
        let others = others.filter(|group| group.gid != user.gid).map(|group| group.name.clone());
        primary.into_iter().chain(others).collect()
    }

    /// The primary group first.
    fn gids(&self, user: &User) -> Vec<u64> {
        let others = self.by_member.get(user.name.as_str()).into_iter().flatten().map(|group| group.gid);
        std::iter::once(user.gid).chain(others).collect()
    }
}

fn group(fields: &[String]) -> Option<Group> {
    Some(Group {
        name: fields.first().filter(|name| !name.is_empty())?.clone(),
        gid: field(fields, 2).parse().ok()?,
        members: list(field(fields, 3)),
        has_password: is_password(field(fields, 1)),
        ..Group::default()
    })
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn is_password(text: &str) -> bool {
    !text.is_empty() && !text.starts_with(['!', '*']) && text != "x"
}

fn join_gshadow(group: &mut Group, entry: Option<&[String]>) {
    let Some(entry) = entry else { return };
    group.has_password |= is_password(field(entry, 1));
    group.administrators = list(field(entry, 2));
}

fn join_shadow(user: &mut User, passwd_field: &str, shadow: Option<&[String]>) {
    // A field of `x` sends readers to /etc/shadow; anything else is the password itself (passwd(5)).
    let password = match shadow {
        Some(entry) if passwd_field == "x" => field(entry, 1),
        _ if passwd_field == "x" => {
            "unknown".clone_into(&mut user.password_state);
            return;
        }
        _ => passwd_field,
    };
    let (state, algorithm) = password_state(password);
    state.clone_into(&mut user.password_state);
    user.password_algorithm = algorithm.map(str::to_owned);
    user.locked = matches!(state, "locked" | "disabled");
    let Some(entry) = shadow else { return };
    let number = |index: usize| field(entry, index).parse::<i64>().ok().filter(|number| *number >= 0);
    // Day 0 means that the password must be changed at the next login (shadow(5)).
    user.password_change_required = number(2) == Some(0);
    user.password_changed_on = number(2).filter(|day| *day > 0).and_then(time::day);
    user.password_min_days = number(3);
    user.password_max_days = number(4);
    user.password_warn_days = number(5);
    user.password_inactive_days = number(6);
    user.expires_on = number(7).and_then(time::day);
}

/// What a password field allows, and the algorithm of its hash. Source: shadow(5), crypt(5).
fn password_state(password: &str) -> (&'static str, Option<&'static str>) {
    if password.is_empty() {
        return ("empty", None);
    }
    let bare = password.trim_start_matches('!');
    let algorithm = algorithm(bare);
    match (password.starts_with('!'), algorithm) {
        (true, Some(algorithm)) => ("locked", Some(algorithm)),
        (false, Some(algorithm)) => ("set", Some(algorithm)),
        (_, None) => ("disabled", None),
    }
}

fn algorithm(hash: &str) -> Option<&'static str> {
    const PREFIXES: [(&str, &str); 13] = [
        ("$y$", "yescrypt"),
        ("$gy$", "gost-yescrypt"),
        ("$7$", "scrypt"),
        ("$2b$", "bcrypt"),
        ("$2a$", "bcrypt"),
        ("$2y$", "bcrypt"),
        ("$2x$", "bcrypt"),
        ("$6$", "sha512crypt"),
        ("$5$", "sha256crypt"),
        ("$sha1", "sha1crypt"),
        ("$md5", "sunmd5"),
        ("$1$", "md5crypt"),
        ("$3$", "nt"),
    ];
    if let Some((_, name)) = PREFIXES.iter().find(|(prefix, _)| hash.starts_with(prefix)) {
        return Some(name);
    }
    let is_base64 = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'/');
    match hash.len() {
        // crypt(5): two characters of salt and eleven of hash; bigcrypt goes on; bsdi starts with `_`.
        13 if is_base64(hash) => Some("descrypt"),
        20 if hash.starts_with('_') && hash.get(1..).is_some_and(is_base64) => Some("bsdicrypt"),
        24.. if is_base64(hash) => Some("bigcrypt"),
        _ => None,
    }
}

/// What pwck(8) and grpck(8) complain of, as far as files tell.
fn problems(
    files: &Files<'_>,
    passwd: &[Vec<String>],
    users: &[User],
    group_lines: &[Vec<String>],
    groups: &[Group],
    gshadow: &[Vec<String>],
    shadow: &BTreeMap<String, Vec<String>>,
) -> Vec<AccountProblem> {
    let mut found = Vec::new();
    let mut add = |file: &str, subject: &str, problem: &str, detail: String| {
        found.push(AccountProblem {
            file: file.to_owned(),
            subject: subject.to_owned(),
            problem: problem.to_owned(),
            detail,
        });
    };
    let has_shadow = !shadow.is_empty();
    let has_gshadow = !gshadow.is_empty();
    let (mut names, mut ids) = (BTreeSet::new(), BTreeMap::new());
    for fields in passwd {
        let name = field(fields, 0);
        if fields.len() != 7 || user(fields).is_none() {
            add(
                "/etc/passwd",
                name,
                "invalid-line",
                format!("the line has {} fields, or an id is no number", fields.len()),
            );
            continue;
        }
        if !names.insert(name.to_owned()) {
            add("/etc/passwd", name, "duplicate-name", "another line has the same name".to_owned());
        }
    }
    let known_gids: HashSet<u64> = groups.iter().map(|group| group.gid).collect();
    for user in users {
        if let Some(other) = ids.insert(user.uid, &user.name).filter(|other| **other != user.name) {
            add("/etc/passwd", &user.name, "duplicate-id", format!("uid {} is also that of {other}", user.uid));
        }
        if !known_gids.contains(&user.gid) {
            add("/etc/passwd", &user.name, "missing-group", format!("no group has gid {}", user.gid));
        }
        if user.home != NO_HOME && !files.exists(&user.home) {
            add("/etc/passwd", &user.name, "missing-home", format!("{} does not exist", user.home));
        }
        if !user.shell.is_empty() && !files.exists(&user.shell) {
            add("/etc/passwd", &user.name, "missing-shell", format!("{} does not exist", user.shell));
        }
        if has_shadow && !shadow.contains_key(&user.name) {
            add("/etc/shadow", &user.name, "missing-entry", "the account has no line in /etc/shadow".to_owned());
        }
    }
    for name in shadow.keys().filter(|name| !names.contains(*name)) {
        add("/etc/shadow", name, "missing-user", "the line has no account in /etc/passwd".to_owned());
    }
    let gshadow_by_name = by_name(gshadow);
    let (mut group_names, mut gids) = (BTreeSet::new(), BTreeMap::new());
    for fields in group_lines {
        let name = field(fields, 0);
        let Some(group) = group(fields).filter(|_| fields.len() == 4) else {
            add(
                "/etc/group",
                name,
                "invalid-line",
                format!("the line has {} fields, or an id is no number", fields.len()),
            );
            continue;
        };
        if !group_names.insert(name.to_owned()) {
            add("/etc/group", name, "duplicate-name", "another line has the same name".to_owned());
        }
        if let Some(other) = gids.insert(group.gid, name).filter(|other| *other != name) {
            add("/etc/group", name, "duplicate-id", format!("gid {} is also that of {other}", group.gid));
        }
        for member in group.members.iter().filter(|member| !names.contains(*member)) {
            add("/etc/group", name, "missing-user", format!("{member} is no account"));
        }
        match gshadow_by_name.get(name) {
            None if has_gshadow => {
                add("/etc/gshadow", name, "missing-entry", "the group has no line in /etc/gshadow".to_owned());
            }
            Some(entry) => {
                let shadow_members: HashSet<String> = list(field(entry, 3)).into_iter().collect();
                for member in group.members.iter().filter(|member| !shadow_members.contains(*member)) {
                    add(
                        "/etc/gshadow",
                        name,
                        "missing-user",
                        format!("{member} is in /etc/group but not in /etc/gshadow"),
                    );
                }
            }
            None => {}
        }
    }
    for entry in gshadow.iter().map(|entry| field(entry, 0)).filter(|name| !group_names.contains(*name)) {
        add("/etc/gshadow", entry, "missing-group", "the line has no group in /etc/group".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::linux::fixture::Fixture;

    #[test]
    fn password_fields_are_told_apart() {
        let cases = [
            ("", "empty", None),
            ("*", "disabled", None),
            ("!", "disabled", None),
            ("!!", "disabled", None),
            ("!*", "disabled", None),
            ("$y$j9T$abc$def", "set", Some("yescrypt")),
            ("!$6$abc$def", "locked", Some("sha512crypt")),
            ("abJnggxhB/yWI", "set", Some("descrypt")),
            ("$1$a$b", "set", Some("md5crypt")),
            ("*LK*", "disabled", None),
        ];
        for (password, state, algorithm) in cases {
            assert_eq!(password_state(password), (state, algorithm), "{password:?}");
        }
    }

    #[test]
    fn accounts_join_their_shadow_and_never_show_a_hash() {
        let fixture = Fixture::new();
        fixture.file(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nbob::1000:100:Bob,,,:/home/bob:\nbad\nnis:x:5:100::/x:/bin/false\n+\n",
        );
        fixture.file("etc/shadow", "root:$6$salt$secrethash:19000:0:99999:7:::\nnis:!:0::::10:20:\nghost:*:1::::::\n");
        fixture.file("etc/group", "root:x:0:\nusers:x:100:nis\nwheel:x:10:root,nobody\n");
        fixture.file("etc/gshadow", "root:*::\nwheel:!:root:root\n");
        fixture.directory("root");
        let tree = fixture.tree();
        let report = inspect(&Files::new(&tree));
        assert_eq!(report.count, 3);
        let root = &report.users[0];
        assert_eq!(root.password_algorithm.as_deref(), Some("sha512crypt"));
        assert_eq!(root.password_changed_on.as_deref(), Some("2022-01-08"));
        assert_eq!(root.groups, ["root", "wheel"]);
        assert_eq!(report.users[1].password_state, "empty");
        assert!(report.users[2].password_change_required);
        assert_eq!(report.users[2].expires_on.as_deref(), Some("1970-01-21"));
        assert_eq!(report.login_users, ["root", "bob"]);
        assert!(!serde_json::to_string(&report).unwrap().contains("secrethash"));
        let has = |file: &str, subject: &str, problem: &str| {
            report
                .problems
                .iter()
                .any(|found| found.file == file && found.subject == subject && found.problem == problem)
        };
        assert!(has("/etc/passwd", "bad", "invalid-line"));
        assert!(has("/etc/shadow", "ghost", "missing-user"));
        assert!(has("/etc/shadow", "bob", "missing-entry"));
        assert!(has("/etc/gshadow", "users", "missing-entry"));
        assert!(has("/etc/group", "wheel", "missing-user"));
    }

    #[test]
    fn hostile_files_end() {
        let fixture = Fixture::new();
        fixture.file("etc/passwd", [&b"\0\xff:x:99999999999999999999:1\n:::::::\n"[..], &[b':'; 100_000]].concat());
        fixture.file(
            "etc/shadow",
            "a:b:9223372036854775807:9223372036854775807:::9223372036854775807:9223372036854775807:\n",
        );
        fixture.file("etc/group", "\n\n:::\n");
        let tree = fixture.tree();
        assert_eq!(inspect(&Files::new(&tree)).count, 0);
    }
}
