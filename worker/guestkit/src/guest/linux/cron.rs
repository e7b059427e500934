//! What runs by a schedule: tables of cron, scripts of its folders, anacron, and what at was told. Sources: crontab(5),
//! run-parts(8), anacrontab(5), at(1).

use std::cell::OnceCell;

use crate::filesystem::FileType;
use crate::guest::report::CronJob;

use super::files::Files;
use super::time;

/// Commands of one guest: a host of ten thousand users with a table each has some tens of thousands.
const JOBS_MAX: usize = 100_000;

/// Tables with a user in each line.
const SYSTEM_TABLES: &str = "/etc/crontab";
const TABLE_FOLDER: &str = "/etc/cron.d";
/// Where each user's table lies under the user's name: Debian, SUSE, Red Hat, Alpine. The third holds the first two.
const USER_TABLES: [&str; 4] = ["/var/spool/cron/crontabs", "/var/spool/cron/tabs", "/var/spool/cron", "/etc/crontabs"];
/// Folders of scripts.
const SCRIPTS: [(&str, &str); 12] = [
    ("/etc/cron.hourly", "@hourly"),
    ("/etc/cron.daily", "@daily"),
    ("/etc/cron.weekly", "@weekly"),
    ("/etc/cron.monthly", "@monthly"),
    ("/etc/cron.yearly", "@yearly"),
    ("/etc/periodic/15min", "*/15 * * * *"),
    ("/etc/periodic/hourly", "@hourly"),
    ("/etc/periodic/daily", "@daily"),
    ("/etc/periodic/weekly", "@weekly"),
    ("/etc/periodic/monthly", "@monthly"),
    ("/usr/lib/cron.daily", "@daily"),
    ("/usr/lib/cron.weekly", "@weekly"),
];
/// Where at keeps its jobs.
const AT_JOBS: [&str; 3] = ["/var/spool/cron/atjobs", "/var/spool/atjobs", "/var/spool/at"];

/// Everything that is scheduled, in order of file, then line.
pub(super) fn read(files: &Files<'_>) -> Vec<CronJob> {
    let mut jobs = Vec::new();
    jobs.extend(table(files, SYSTEM_TABLES, None));
    for name in files.names(TABLE_FOLDER).into_iter().filter(|name| is_read(files, name)) {
        jobs.extend(table(files, &format!("{TABLE_FOLDER}/{name}"), None));
    }
    for folder in USER_TABLES {
        for entry in files.entries(folder) {
            if entry.file_type == Some(FileType::Regular) && !entry.name.starts_with('.') {
                jobs.extend(table(files, &format!("{folder}/{}", entry.name), Some(&entry.name)));
            }
        }
        if jobs.len() > JOBS_MAX {
            break;
        }
    }
    for (folder, schedule) in SCRIPTS {
        jobs.extend(scripts(files, folder, schedule));
    }
    jobs.extend(files.text("/etc/anacrontab").map(|text| anacrontab(&text)).unwrap_or_default());
    let accounts = OnceCell::new();
    let accounts = || accounts.get_or_init(|| files.text("/etc/passwd").unwrap_or_default()).as_str();
    for folder in AT_JOBS {
        jobs.extend(files.names(folder).iter().filter_map(|name| at_job(files, accounts, folder, name)));
    }
    if jobs.len() > JOBS_MAX {
        files.warn("cron", format!("more than {JOBS_MAX} commands are scheduled; the rest is left out"));
        jobs.truncate(JOBS_MAX);
    }
    jobs.sort_by(|a, b| (&a.source, a.line).cmp(&(&b.source, b.line)));
    jobs
}

/// Whether cron and run-parts take a file of this name: Debian's take none with a dot, the others none that a package manager or
/// an editor left.
fn is_read(files: &Files<'_>, name: &str) -> bool {
    if files.is_dir("/var/lib/dpkg") {
        return name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    }
    let left = ["~", ",", ",v", ".cfsaved", ".rpmsave", ".rpmorig", ".rpmnew", ".swp", ".bak", ".orig"];
    !name.starts_with('.') && !left.iter().any(|ending| name.ends_with(ending))
}

fn table(files: &Files<'_>, path: &str, owner: Option<&str>) -> Vec<CronJob> {
    files.text(path).map(|text| parse(&text, path, owner)).unwrap_or_default()
}

/// The commands of a table; in one without an `owner` each line names its user.
pub(crate) fn parse(text: &str, path: &str, owner: Option<&str>) -> Vec<CronJob> {
    let lines = text.lines().zip(1_u32..).map(|(line, number)| (line.trim(), number));
    let jobs = lines.filter_map(|(line, number)| {
        if line.is_empty() || line.starts_with('#') || is_assignment(line) {
            return None;
        }
        // A dash in front (SUSE, cronie) keeps the start out of the log.
        let line = line.strip_prefix('-').unwrap_or(line);
        // What begins otherwise is no line of a table, which cron would refuse.
        if !line.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '*' | '~' | '@')) {
            return None;
        }
        let times = if line.starts_with('@') { 1 } else { 5 };
        let (schedule, rest) = words(line, times)?;
        let (user, command) = match owner {
            Some(owner) => (owner.to_owned(), rest),
            None => words(rest, 1)?,
        };
        (!command.is_empty()).then(|| CronJob {
            schedule,
            command: command.to_owned(),
            user,
            kind: "cron".to_owned(),
            source: path.to_owned(),
            line: Some(number),
        })
    });
    jobs.take(JOBS_MAX).collect()
}

/// The first `count` words with single spaces between them, and what follows them.
fn words(line: &str, count: usize) -> Option<(String, &str)> {
    let mut rest = line.trim_start();
    let mut taken = Vec::with_capacity(count);
    for _ in 0..count {
        let end = rest.find(char::is_whitespace)?;
        let (word, after) = rest.split_at_checked(end)?;
        taken.push(word);
        rest = after.trim_start();
    }
    Some((taken.join(" "), rest))
}

/// `NAME = value`.
fn is_assignment(line: &str) -> bool {
    let Some((name, _)) = line.split_once('=') else { return false };
    let name = name.trim_end().trim_matches(['"', '\'']);
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(is_letter) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// The programs of a folder that run-parts starts.
fn scripts(files: &Files<'_>, folder: &str, schedule: &str) -> Vec<CronJob> {
    let entries = files.entries(folder).into_iter().filter(|entry| is_read(files, &entry.name));
    let jobs = entries.filter_map(|entry| {
        let path = format!("{folder}/{}", entry.name);
        let metadata = files.stat(&path)?;
        let is_program = metadata.file_type == FileType::Regular && metadata.mode & 0o111 != 0;
        is_program.then(|| CronJob {
            schedule: schedule.to_owned(),
            command: path.clone(),
            user: "root".to_owned(),
            kind: "cron".to_owned(),
            source: path,
            line: None,
        })
    });
    jobs.take(JOBS_MAX).collect()
}

/// `period delay identifier command`; the period is days or `@monthly`.
fn anacrontab(text: &str) -> Vec<CronJob> {
    let lines = text.lines().zip(1_u32..).map(|(line, number)| (line.trim(), number));
    let jobs = lines.filter_map(|(line, number)| {
        if line.is_empty() || line.starts_with('#') || is_assignment(line) {
            return None;
        }
        let (period, rest) = words(line, 1)?;
        let (_, command) = words(rest, 2)?;
        let schedule = match period.as_str() {
            "1" => "@daily".to_owned(),
            "7" => "@weekly".to_owned(),
            days if days.bytes().all(|byte| byte.is_ascii_digit()) => format!("every {days} days"),
            named => named.to_owned(),
        };
        (!command.is_empty()).then(|| CronJob {
            schedule,
            command: command.to_owned(),
            user: "root".to_owned(),
            kind: "anacron".to_owned(),
            source: "/etc/anacrontab".to_owned(),
            line: Some(number),
        })
    });
    jobs.take(JOBS_MAX).collect()
}

/// A job of at: a letter for its queue, five hexadecimal digits for its number, eight for the minute since 1970 it is due.
/// Source: at's `at.c`, the format of its file names; the file begins with `# atrun uid=… gid=…`, its last line is what was typed.
fn at_job<'p>(files: &Files<'_>, accounts: impl Fn() -> &'p str, folder: &str, name: &str) -> Option<CronJob> {
    let digits = name.get(1..14).filter(|_| name.len() == 14)?;
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '=') {
        return None;
    }
    let minute = i64::from_str_radix(digits.get(5..)?, 16).ok()?;
    let source = format!("{folder}/{name}");
    let text = files.text(&source)?;
    let uid = text.lines().find_map(|line| line.strip_prefix("# atrun uid=")?.split_whitespace().next());
    let command = text.lines().map(str::trim).rfind(|line| !line.is_empty() && !line.starts_with('#'))?;
    Some(CronJob {
        schedule: time::rfc3339(minute.checked_mul(60)?)?,
        command: command.to_owned(),
        user: uid.map(|uid| user_of(accounts(), uid)).unwrap_or_default(),
        kind: "at".to_owned(),
        source,
        line: None,
    })
}

/// The name of a user in passwd(5).
fn user_of(accounts: &str, uid: &str) -> String {
    let mut users = accounts.lines().map(|line| line.split(':'));
    users
        .find_map(|mut fields| {
            let name = fields.next()?;
            (fields.nth(1)? == uid).then(|| name.to_owned())
        })
        .unwrap_or_else(|| uid.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::guest::linux::fixture::Fixture;

    #[test]
    fn everything_that_is_scheduled_is_told() {
        let fixture = Fixture::new();
        fixture.file("var/lib/dpkg/status", "");
        fixture.file("etc/passwd", "root:x:0:0::/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n");
        fixture.file(
            "etc/crontab",
            "SHELL=/bin/sh\n# m h\n17 *\t* * *\troot\tcd / && run-parts --report /etc/cron.hourly\n@reboot bob /bin/x  --a=b\n1 2 3\n",
        );
        fixture.file("etc/cron.d/a-b", "PATH = /x\n*/5 * * * * bob echo 50\\% | tee\n");
        fixture.file("etc/cron.d/old.dpkg-dist", "* * * * * root never\n");
        fixture.file("var/spool/cron/crontabs/bob", "-0 4 * * sun backup\n");
        fixture.file("etc/cron.daily/apt", "#!/bin/sh\n");
        fixture.file("etc/cron.daily/README", "x");
        let program = fixture.path().join("etc/cron.daily/apt");
        std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
        fixture.file(
            "etc/anacrontab",
            "START_HOURS_RANGE=3-22\n1\t5\tcron.daily\tnice run-parts /etc/cron.daily\n@monthly 45 m x\n",
        );
        fixture.file(
            "var/spool/cron/atjobs/a0000101c5f2a0",
            "#!/bin/sh\n# atrun uid=1000 gid=1000\numask 22\nshutdown -h now\n",
        );
        let tree = fixture.tree();
        let jobs = read(&Files::new(&tree));
        let told: Vec<_> =
            jobs.iter().map(|job| (job.user.as_str(), job.schedule.as_str(), job.command.as_str())).collect();
        assert_eq!(
            told,
            [
                ("root", "@daily", "nice run-parts /etc/cron.daily"),
                ("root", "@monthly", "x"),
                ("bob", "*/5 * * * *", "echo 50\\% | tee"),
                ("root", "@daily", "/etc/cron.daily/apt"),
                ("root", "17 * * * *", "cd / && run-parts --report /etc/cron.hourly"),
                ("bob", "@reboot", "/bin/x  --a=b"),
                ("bob", "2026-07-25T16:00:00Z", "shutdown -h now"),
                ("bob", "0 4 * * sun", "backup"),
            ]
        );
        assert_eq!(jobs.iter().filter_map(|job| job.line).collect::<Vec<_>>(), [2, 3, 2, 3, 4, 1]);
    }
}
