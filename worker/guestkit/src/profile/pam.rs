//! Stacks of PAM as a program meets them: includes followed, in order. Source: pam.conf(5); Debian's `@include`.

use crate::guest::linux::files::Files;

use super::report::Evidence;
use super::text::{Assignment, assignments};

/// Includes inside includes (PAM_SUBSTACK_MAX_LEVEL of Linux-PAM is 16).
const DEPTH_MAX: usize = 16;
/// Lines of one stack: honest ones have tens.
const LINES_MAX: usize = 2_000;

/// A line of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) path: String,
    pub(crate) line: usize,
    /// `auth`, `account`, `password`, `session`.
    pub(crate) kind: String,
    /// `required`, `requisite`, `sufficient`, `optional`, or what stands in brackets.
    pub(crate) control: String,
    /// `pam_unix`.
    pub(crate) module: String,
    pub(crate) arguments: Vec<String>,
}

impl Line {
    /// The value of an argument `name=value`.
    pub(crate) fn argument(&self, name: &str) -> Option<&str> {
        self.arguments.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    pub(crate) fn has(&self, word: &str) -> bool {
        self.arguments.iter().any(|argument| argument == word)
    }

    pub(crate) fn evidence(&self) -> Evidence {
        let words = format!("{} {}", self.control, self.arguments.join(" "));
        let key = format!("{} {}", self.kind, self.module);
        Evidence::explicit(&*self.path, key, words.trim_end()).at_line(self.line)
    }

    /// Whether a failure of it keeps people out.
    pub(crate) fn is_required(&self) -> bool {
        matches!(self.control.as_str(), "required" | "requisite")
            || self.control.contains("default=die")
            || self.control.contains("default=bad")
    }
}

/// The services of the guest, by their files.
pub(crate) fn services(files: &Files<'_>) -> Vec<String> {
    let mut names = files.names("/etc/pam.d");
    for name in files.names("/usr/lib/pam.d") {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.retain(|name| !name.contains('~') && !name.contains(".dpkg-") && !name.contains(".rpm"));
    names
}

/// The stack of one kind of one service; `None` where the service has no file.
pub(crate) fn stack(files: &Files<'_>, service: &str, kind: &str) -> Option<Vec<Line>> {
    let mut lines = Vec::new();
    read(files, service, kind, 0, &mut lines).then_some(lines)
}

/// The stack that passwords of people are checked, or changed, by: the common one of the distribution.
pub(crate) fn common(files: &Files<'_>, kind: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let names: &[&str] = match kind {
        "password" => &["passwd", "common-password", "system-auth", "password-auth"],
        _ => &["login", "sshd", "common-auth", "system-auth", "password-auth"],
    };
    for name in names {
        for line in stack(files, name, kind).unwrap_or_default() {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines
}

/// Every line of `kind` of every service.
pub(crate) fn everywhere(files: &Files<'_>, kind: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for service in services(files) {
        for line in stack(files, &service, kind).unwrap_or_default() {
            if lines.len() < LINES_MAX && !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines
}

fn read(files: &Files<'_>, service: &str, kind: &str, depth: usize, into: &mut Vec<Line>) -> bool {
    let name = service.rsplit('/').next().unwrap_or(service);
    let Some(path) =
        files.first_existing(&[&format!("/etc/pam.d/{name}"), &format!("/usr/lib/pam.d/{name}")]).map(str::to_owned)
    else {
        return false;
    };
    if depth > DEPTH_MAX {
        return true;
    }
    let text = files.text(&path).unwrap_or_default();
    // A line that ends in a backslash goes on.
    let mut pending = String::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(begin) = line.strip_suffix('\\') {
            pending.push_str(begin);
            pending.push(' ');
            continue;
        }
        let whole = format!("{pending}{line}");
        pending.clear();
        if into.len() >= LINES_MAX {
            return true;
        }
        take(files, &path, number.saturating_add(1), whole.trim(), kind, depth, into);
    }
    true
}

fn take(files: &Files<'_>, path: &str, number: usize, line: &str, kind: &str, depth: usize, into: &mut Vec<Line>) {
    if let Some(target) = line.strip_prefix("@include") {
        read(files, target.trim(), kind, depth.saturating_add(1), into);
        return;
    }
    let Some((of, rest)) = line.split_once(char::is_whitespace) else { return };
    if !of.trim_start_matches('-').eq_ignore_ascii_case(kind) {
        return;
    }
    let rest = rest.trim_start();
    let (control, rest) = match rest.strip_prefix('[') {
        Some(inner) => inner.split_once(']').unwrap_or((inner, "")),
        None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
    };
    let mut words = rest.split_whitespace();
    let Some(module) = words.next() else { return };
    if matches!(control, "include" | "substack") {
        read(files, module, kind, depth.saturating_add(1), into);
        return;
    }
    let module = module.rsplit('/').next().unwrap_or(module);
    into.push(Line {
        path: path.to_owned(),
        line: number,
        kind: kind.to_owned(),
        control: control.to_owned(),
        module: module.strip_suffix(".so").unwrap_or(module).to_owned(),
        arguments: words.map(str::to_owned).collect(),
    });
}

/// The configuration of a module: its file in `/etc/security`, then the drop-ins by name; later lines win.
pub(crate) fn configuration(files: &Files<'_>, name: &str) -> Vec<Assignment> {
    let main = format!("/etc/security/{name}.conf");
    let vendor = format!("/usr/lib/security/{name}.conf");
    let first = if files.exists(&main) { main } else { vendor };
    let mut all = assignments(files, &first);
    for path in files.with_suffix(&format!("/etc/security/{name}.conf.d"), ".conf") {
        all.extend(assignments(files, &path));
    }
    all
}
