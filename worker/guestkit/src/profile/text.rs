//! Texts that several programs write alike: a key, white space or an equals sign, a value; the last line that counts.

use crate::guest::linux::files::Files;

use super::facts::Fact;
use super::report::Evidence;

/// One assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) key: String,
    pub(crate) value: String,
}

impl Assignment {
    pub(crate) fn evidence(&self) -> Evidence {
        Evidence::explicit(&*self.path, &*self.key, &*self.value).at_line(self.line)
    }
}

/// The assignments of the file at `path`, in its order: `key value`, `key=value` or `key = value`; `#` begins a comment.
pub(crate) fn assignments(files: &Files<'_>, path: &str) -> Vec<Assignment> {
    let text = files.text(path).unwrap_or_default();
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let end = line.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(line.len());
        let Some((key, rest)) = line.split_at_checked(end) else { continue };
        if key.is_empty() {
            continue;
        }
        let value = rest.trim_start_matches(|c: char| c == '=' || c.is_whitespace()).trim().trim_matches('"');
        found.push(Assignment {
            path: path.to_owned(),
            line: number.saturating_add(1),
            key: key.to_owned(),
            value: value.to_owned(),
        });
    }
    found
}

/// The last assignment of `key` over `assignments`, with what it overrides; absent, it was looked for at `path`.
pub(crate) fn last(assignments: &[Assignment], key: &str, path: &str) -> Fact {
    let mut all: Vec<_> = assignments.iter().filter(|one| one.key.eq_ignore_ascii_case(key)).collect();
    let Some(winner) = all.pop() else { return Fact::absent(path, key) };
    let overridden = all.into_iter().rev().take(8).map(Assignment::evidence).collect();
    Fact::set(&*winner.value, Evidence { overridden, ..winner.evidence() })
}
