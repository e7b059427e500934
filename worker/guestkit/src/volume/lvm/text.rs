//! LVM2's text form of metadata: `name = value` and `name { … }`, to any depth. Source: lvm.conf(5) and vgcfgbackup(8).

use crate::error::{Error, Result};

/// Sections below one another; volume groups have four.
const DEPTH_MAX: usize = 16;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Number(i64),
    Text(String),
    List(Vec<Value>),
}

impl Value {
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }
}

/// A section, in the order of the text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Section {
    values: Vec<(String, Value)>,
    sections: Vec<(String, Section)>,
}

impl Section {
    /// The sections within it.
    pub(crate) fn sections(&self) -> impl Iterator<Item = (&str, &Self)> {
        self.sections.iter().map(|(name, section)| (name.as_str(), section))
    }

    /// The sections within it, for keeps.
    pub(crate) fn into_sections(self) -> impl Iterator<Item = (String, Self)> {
        self.sections.into_iter()
    }

    pub(crate) fn section(&self, name: &str) -> Option<&Self> {
        self.sections().find(|(found, _)| *found == name).map(|(_, section)| section)
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.values.iter().find(|(found, _)| found == name).map(|(_, value)| value)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.value(name)?.text()
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.value(name)?.number()
    }

    /// A list; a single value is a list of one.
    pub(crate) fn list(&self, name: &str) -> &[Value] {
        match self.value(name) {
            Some(Value::List(values)) => values,
            Some(value) => std::slice::from_ref(value),
            None => &[],
        }
    }

    /// The texts of a list.
    pub(crate) fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        self.list(name).iter().filter_map(Value::text)
    }
}

/// Parses the text up to its end or its first zero byte.
///
/// # Errors
/// [`Error::Corrupt`] with the offset of what does not follow the grammar.
pub(crate) fn parse(text: &[u8]) -> Result<Section> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut parser = Parser { text, at: 0 };
    let section = parser.section(0)?;
    Ok(section)
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Parser<'a> {
    fn wrong<T>(&self, reason: &str) -> Result<T> {
        Err(Error::corrupt("LVM2 metadata text", self.at as u64, reason))
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// The next byte that is neither white space nor of a comment.
    fn next_token(&mut self) -> Option<u8> {
        loop {
            match self.peek()? {
                b'#' => {
                    let rest = self.text.get(self.at..)?;
                    self.at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
                }
                byte if byte.is_ascii_whitespace() => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| !wanted(*byte)).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    fn section(&mut self, depth: usize) -> Result<Section> {
        if depth > DEPTH_MAX {
            return self.wrong("sections lie too deep");
        }
        let mut section = Section::default();
        loop {
            let name = match self.next_token() {
                None if depth == 0 => return Ok(section),
                Some(b'}') if depth > 0 => {
                    self.at += 1;
                    return Ok(section);
                }
                None => return self.wrong("a section has no end"),
                Some(b'"') => self.string()?,
                Some(_) => {
                    let is_name =
                        |byte: u8| byte.is_ascii_alphanumeric() || b"_-.+:@/*!".contains(&byte) || byte >= 0x80;
                    String::from_utf8_lossy(self.take_while(is_name)).into_owned()
                }
            };
            if name.is_empty() {
                return self.wrong("a name is expected");
            }
            match self.next_token() {
                Some(b'{') => {
                    self.at += 1;
                    let within = self.section(depth + 1)?;
                    section.sections.push((name, within));
                }
                Some(b'=') => {
                    self.at += 1;
                    let value = self.value(true)?;
                    section.values.push((name, value));
                }
                _ => return self.wrong("`=` or `{` is expected"),
            }
        }
    }

    fn value(&mut self, lists: bool) -> Result<Value> {
        match self.next_token() {
            Some(b'"') => Ok(Value::Text(self.string()?)),
            Some(b'[') if lists => {
                self.at += 1;
                let mut values = Vec::new();
                loop {
                    match self.next_token() {
                        Some(b']') => {
                            self.at += 1;
                            return Ok(Value::List(values));
                        }
                        Some(b',') => self.at += 1,
                        Some(_) => values.push(self.value(false)?),
                        None => return self.wrong("a list has no end"),
                    }
                }
            }
            Some(b'+' | b'-' | b'0'..=b'9') => {
                let digits = self.take_while(|byte| byte.is_ascii_digit() || b"+-.".contains(&byte));
                // No number of a volume group has a fraction; those of a configuration are cut.
                let whole = digits.split(|byte| *byte == b'.').next().unwrap_or_default();
                match std::str::from_utf8(whole).ok().and_then(|digits| digits.parse().ok()) {
                    Some(number) => Ok(Value::Number(number)),
                    None => self.wrong("a number is expected"),
                }
            }
            _ => self.wrong("a value is expected"),
        }
    }

    fn string(&mut self) -> Result<String> {
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(String::from_utf8_lossy(&bytes).into_owned());
                }
                Some(b'\\') => {
                    self.at += 1;
                    bytes.extend(self.peek());
                }
                Some(byte) => bytes.push(byte),
                None => return self.wrong("a string has no end"),
            }
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_group_is_parsed() {
        let text = b"# Generated\nvg {\n id = \"a\\\"b\"\n seqno = 3\n flags = []\n pv0 {\n  stripes = [\n\"pv0\", 12 # x\n]\n }\n}\n\
            contents = \"Text\"\n\0garbage{";
        let root = parse(text).unwrap();
        let group = root.section("vg").unwrap();
        assert_eq!((group.text("id"), group.number("seqno")), (Some("a\"b"), Some(3)));
        assert_eq!(group.list("flags"), []);
        assert_eq!(group.section("pv0").unwrap().list("stripes"), [Value::Text("pv0".into()), Value::Number(12)]);
        assert_eq!(root.text("contents"), Some("Text"));
    }

    #[test]
    fn hostile_text_ends_in_an_error() {
        for text in
            ["a", "a {", "a = ", "a = [", "a = [[1]]", "a = \"", "= 1", "}", "a = 99999999999999999999", "a = x"]
        {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse("a{".repeat(100_000).as_bytes()).is_err());
    }
}
