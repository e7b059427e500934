//! rsyslog's configuration as one list of statements, includes in their place. Source: rsyslog.conf(5) and rsyslog's
//! documentation of RainerScript.

use std::collections::BTreeMap;

use super::guest::Guest;
use super::report::Evidence;

/// Statements that are kept, and files that are included: distributions have tens.
const STATEMENTS_MAX: usize = 20_000;
const FILES_MAX: usize = 500;

const MAIN: &str = "/etc/rsyslog.conf";

/// One statement, on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) text: String,
    path: String,
    line: usize,
}

impl Statement {
    pub(crate) fn evidence(&self, key: &str, value: &str) -> Evidence {
        Evidence::explicit(&*self.path, key, value).at_line(self.line)
    }

    /// `$FileCreateMode 0640`: the value of a directive of the old form, its name without regard to case.
    pub(crate) fn directive(&self, name: &str) -> Option<&str> {
        let rest = self.text.strip_prefix('$')?;
        let (known, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        known.eq_ignore_ascii_case(name).then_some(value.trim())
    }

    /// The parameters of `object(key="value" …)`, keys in lower case, wherever it stands in the statement.
    pub(crate) fn object(&self, name: &str) -> Option<BTreeMap<String, String>> {
        let lower = self.text.to_ascii_lowercase();
        let mut from = 0_usize;
        loop {
            let at = from.saturating_add(lower.get(from..)?.find(name)?);
            let end = at.saturating_add(name.len());
            let before = lower.get(..at)?.chars().next_back();
            let is_word = before.is_none_or(|character| !character.is_ascii_alphanumeric() && character != '_');
            let rest = self.text.get(end..)?.trim_start();
            if let Some(inner) = rest.strip_prefix('(').filter(|_| is_word) {
                return Some(parameters(inner));
            }
            from = end;
        }
    }

    /// The file that a selector or an action writes to.
    pub(crate) fn file(&self) -> Option<String> {
        if let Some(action) = self.object("action") {
            let is_file = action.get("type").is_some_and(|kind| kind.eq_ignore_ascii_case("omfile"));
            return is_file.then(|| action.get("file").or(action.get("dynafile")).cloned().unwrap_or_default());
        }
        let target = self.target()?;
        let path = target.trim_start_matches('-');
        (path.starts_with('/') || path.starts_with('?')).then(|| path.split(';').next().unwrap_or(path).to_owned())
    }

    /// What follows the selector of a line of the old form.
    pub(crate) fn target(&self) -> Option<&str> {
        if self.text.starts_with(['$', '&']) && !self.text.starts_with('&') {
            return None;
        }
        let (selector, target) = self.text.split_once(char::is_whitespace)?;
        (selector == "&" || selector.contains('.') || selector.starts_with(':')).then(|| {
            // `:property, compare, "value" target`.
            let target = if selector.starts_with(':') { target.rsplit('"').next().unwrap_or(target) } else { target };
            target.trim()
        })
    }
}

/// `key="value" key2=["a","b"])…` up to its parenthesis.
fn parameters(inner: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let (mut key, mut value) = (String::new(), String::new());
    let (mut in_value, mut quoted) = (false, false);
    for character in inner.chars() {
        match character {
            '"' => quoted = !quoted,
            ')' if !quoted => break,
            '=' if !quoted && !in_value => in_value = true,
            character if character.is_whitespace() && !quoted => {
                if in_value && !value.is_empty() {
                    found.insert(std::mem::take(&mut key).to_ascii_lowercase(), std::mem::take(&mut value));
                    in_value = false;
                }
            }
            character if in_value => value.push(character),
            character => key.push(character),
        }
    }
    if in_value {
        found.insert(key.to_ascii_lowercase(), value);
    }
    found
}

/// The statements in the order in which they apply; `None` where there is no configuration.
pub(crate) fn read(guest: &Guest<'_>) -> Option<Vec<Statement>> {
    let text = guest.files.text(MAIN)?;
    let mut statements = Vec::new();
    let mut files = 1_usize;
    include(guest, MAIN, &text, 0, &mut files, &mut statements);
    Some(statements)
}

fn include(
    guest: &Guest<'_>,
    path: &str,
    text: &str,
    depth: usize,
    files: &mut usize,
    statements: &mut Vec<Statement>,
) {
    for statement in split(text, path) {
        let pattern = match statement.object("include") {
            Some(include) => include.get("file").cloned(),
            None => statement.directive("IncludeConfig").map(str::to_owned),
        };
        let Some(pattern) = pattern else {
            if statements.len() < STATEMENTS_MAX {
                statements.push(statement);
            }
            continue;
        };
        // A directory stands for everything in it.
        let pattern = if pattern.ends_with('/') { format!("{pattern}*") } else { pattern };
        for path in guest.files.glob(&pattern) {
            *files = files.saturating_add(1);
            if depth >= 8 || *files > FILES_MAX {
                return;
            }
            if let Some(text) = guest.files.text(&path) {
                include(guest, &path, &text, depth.saturating_add(1), files, statements);
            }
        }
    }
}

/// Statements of a text: a line, or as many as it takes to close what it opens.
fn split(text: &str, path: &str) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut open = String::new();
    let mut start = 0_usize;
    for (number, line) in text.lines().enumerate() {
        let line = without_comment(line);
        let line = line.trim();
        if open.is_empty() {
            start = number.saturating_add(1);
        }
        if line.is_empty() {
            continue;
        }
        let (line, is_continued) = line.strip_suffix('\\').map_or((line, false), |line| (line, true));
        open.push_str(line);
        let depth = |open: char, close: char, text: &str| text.matches(open).count() > text.matches(close).count();
        if is_continued || depth('(', ')', &open) {
            open.push(' ');
            // What never closes is no statement.
            if open.len() < 64 << 10 {
                continue;
            }
        }
        let text = std::mem::take(&mut open);
        statements.push(Statement { text, path: path.to_owned(), line: start });
    }
    if !open.is_empty() {
        statements.push(Statement { text: open, path: path.to_owned(), line: start });
    }
    statements
}

/// A line up to `#`, where it does not stand in quotes.
fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    for (at, character) in line.char_indices() {
        match character {
            '"' => quoted = !quoted,
            '#' if !quoted => return line.get(..at).unwrap_or_default(),
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_lines_and_objects() {
        let text = "# c\n$FileCreateMode 0640\nmodule(load=\"imtcp\") # x\ninput(type=\"imtcp\"\n  port=\"514\"\n)\n\
                    *.* action(type=\"omfwd\" target=\"a\")\nauth.* -/var/log/a;T\n:msg, contains, \"x\" /var/log/b\n& stop\n";
        let statements = split(text, "/f");
        assert_eq!(statements.len(), 7);
        assert_eq!(statements[0].directive("filecreatemode"), Some("0640"));
        assert_eq!(statements[2].line, 4);
        assert_eq!(statements[2].object("input").unwrap()["port"], "514");
        assert_eq!(statements[3].object("action").unwrap()["target"], "a");
        assert_eq!(statements[4].file().as_deref(), Some("/var/log/a"));
        assert_eq!(statements[5].file().as_deref(), Some("/var/log/b"));
        assert_eq!(statements[6].target(), Some("stop"));
        split("((((\n\\\n", "/f");
    }
}
