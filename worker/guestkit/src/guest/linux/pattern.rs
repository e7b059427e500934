//! Shell patterns as fnmatch(3) reads them with FNM_NOESCAPE: `*`, `?`, `[…]`. Linear in the text for each `*`, so that no
//! pattern can hang.

/// Whether `text` as a whole matches `pattern`.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut at_pattern, mut at_text) = (0_usize, 0_usize);
    // Where to go on after the last `*`: the pattern behind it, and the text it has taken so far.
    let mut retry: Option<(usize, usize)> = None;
    while let Some(character) = text.get(at_text) {
        if pattern.get(at_pattern) == Some(&'*') {
            at_pattern += 1;
            retry = Some((at_pattern, at_text));
        } else if let Some(width) = matches_one(&pattern, at_pattern, *character) {
            at_pattern += width;
            at_text += 1;
        } else if let Some((after, taken)) = retry {
            at_pattern = after;
            at_text = taken + 1;
            retry = Some((after, taken + 1));
        } else {
            return false;
        }
    }
    pattern.get(at_pattern..).is_some_and(|rest| rest.iter().all(|character| *character == '*'))
}

/// How many characters of the pattern one character of text uses up, or `None` where it does not match.
fn matches_one(pattern: &[char], at: usize, character: char) -> Option<usize> {
    match pattern.get(at)? {
        '?' => Some(1),
        '[' => match bracket(pattern, at, character) {
            Some((true, width)) => Some(width),
            Some((false, _)) => None,
            None => (character == '[').then_some(1),
        },
        literal => (*literal == character).then_some(1),
    }
}

/// Whether a bracket expression that starts at `at` holds `character`, and its width; `None` where it is not closed.
fn bracket(pattern: &[char], at: usize, character: char) -> Option<(bool, usize)> {
    let mut next = at + 1;
    let negated = matches!(pattern.get(next), Some('!' | '^'));
    next += usize::from(negated);
    let first = next;
    let mut found = false;
    loop {
        let low = *pattern.get(next)?;
        if low == ']' && next != first {
            return Some((found != negated, next + 1 - at));
        }
        match (pattern.get(next + 1), pattern.get(next + 2)) {
            (Some('-'), Some(high)) if *high != ']' => {
                found |= (low..=*high).contains(&character);
                next += 3;
            }
            _ => {
                found |= low == character;
                next += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_fnmatch_does() {
        let cases = [
            ("*", "", true),
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf~", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[", "[", true),
            ("systemd-journal-*.*", "systemd-journal-remote.service", true),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxbxx", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern, text), expected, "{pattern} against {text:?}");
        }
    }

    #[test]
    fn a_hostile_pattern_ends() {
        let pattern = "*a".repeat(500);
        assert!(!matches(&pattern, &"a".repeat(400)));
    }
}
