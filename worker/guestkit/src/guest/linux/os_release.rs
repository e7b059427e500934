//! os-release(5): `KEY=value` lines in the shell's quoting, without expansion.

/// The assignments of a shell-like file, in order: os-release, /etc/default/*, /etc/selinux/config, locale.conf.
pub(crate) fn assignments(text: &str) -> impl Iterator<Item = (&str, String)> {
    text.lines().filter_map(|line| {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        if line.starts_with('#') {
            return None;
        }
        let (key, value) = line.split_once('=')?;
        let key = key.trim_end();
        let is_name = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        is_name.then(|| (key, unquote(value.trim_start())))
    })
}

/// The last value that `key` is given.
pub(crate) fn value_of(text: &str, key: &str) -> Option<String> {
    assignments(text).filter(|(name, _)| *name == key).last().map(|(_, value)| value)
}

/// A shell word: quotes taken off, backslashes resolved; an unquoted word ends at white space or a comment.
pub(crate) fn unquote(word: &str) -> String {
    let mut value = String::new();
    let mut characters = word.chars();
    let mut quote = None;
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (None | Some('"'), '\\') => value.extend(characters.next()),
            (None, _) if character.is_whitespace() => break,
            _ => value.push(character),
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_unquoted_as_the_shell_does() {
        let text = "# ID=no\nNAME=\"Debian GNU/Linux\"\nID=debian\nX='a \"b\"'\nY=\"a \\\"b\\\" \\$c\"\nbad line\n ID = x\nZ=a b # c\n";
        assert_eq!(value_of(text, "NAME").as_deref(), Some("Debian GNU/Linux"));
        assert_eq!(value_of(text, "X").as_deref(), Some("a \"b\""));
        assert_eq!(value_of(text, "Y").as_deref(), Some("a \"b\" $c"));
        assert_eq!(value_of(text, "Z").as_deref(), Some("a"));
        assert_eq!(value_of(text, "ABSENT"), None);
    }

    #[test]
    fn hostile_text_ends() {
        assert_eq!(assignments("=\n\0=\0\n=x").count(), 0);
        assert_eq!(value_of("A=\"unterminated", "A").as_deref(), Some("unterminated"));
        assert_eq!(value_of("A=x\\", "A").as_deref(), Some("x"));
        assert_eq!(value_of(&format!("A={}", "y".repeat(1 << 20)), "A").map(|v| v.len()), Some(1 << 20));
    }
}
