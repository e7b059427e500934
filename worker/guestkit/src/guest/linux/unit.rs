//! systemd unit files and their names. Source: systemd.unit(5), systemd.syntax(7).

/// The suffixes of units, as systemd.unit(5) lists them.
const KINDS: [&str; 11] =
    ["service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope"];

/// What a name says: `getty@tty1.service` is prefix `getty`, instance `tty1`, kind `service`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name<'a> {
    pub(crate) prefix: &'a str,
    /// `Some("")` for a template.
    pub(crate) instance: Option<&'a str>,
    pub(crate) kind: &'a str,
}

impl<'a> Name<'a> {
    /// A valid name of a unit file; `None` for anything else.
    pub(crate) fn parse(name: &'a str) -> Option<Self> {
        // UNIT_NAME_MAX of systemd: 255 and the terminator.
        if name.len() > 255 {
            return None;
        }
        let (stem, kind) = name.rsplit_once('.')?;
        if !KINDS.contains(&kind) || stem.is_empty() || !stem.bytes().all(is_valid_byte) {
            return None;
        }
        match stem.split_once('@') {
            Some(("", _)) => None,
            Some((prefix, instance)) => Some(Self { prefix, instance: Some(instance), kind }),
            None => Some(Self { prefix: stem, instance: None, kind }),
        }
    }

    pub(crate) fn is_template(&self) -> bool {
        self.instance == Some("")
    }

    /// The template of an instance: `getty@.service`.
    pub(crate) fn template(&self) -> Option<String> {
        let instance = self.instance?;
        (!instance.is_empty()).then(|| format!("{}@.{}", self.prefix, self.kind))
    }

    /// The name with an instance put in.
    pub(crate) fn with_instance(&self, instance: &str) -> String {
        format!("{}@{instance}.{}", self.prefix, self.kind)
    }
}

fn is_valid_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte)
}

/// The assignments of a unit file, in order.
#[derive(Debug, Default, Clone)]
pub(crate) struct UnitFile {
    assignments: Vec<Assignment>,
    blocks: usize,
}

#[derive(Debug, Clone)]
struct Assignment {
    section: String,
    /// Which of the sections it stands in, counted over all headers.
    block: usize,
    key: String,
    value: String,
}

impl UnitFile {
    /// Reads a unit file; lines that are none of section, comment and assignment are passed over, as systemd does.
    pub(crate) fn parse(text: &str) -> Self {
        let mut file = Self::default();
        file.merge(text);
        file
    }

    /// Reads a drop-in after what is there.
    pub(crate) fn merge(&mut self, text: &str) {
        let mut section = String::new();
        let mut continued = String::new();
        for line in text.lines() {
            let trimmed = line.trim();
            // A comment inside a continuation is passed over, without ending it.
            if trimmed.starts_with(['#', ';']) || (trimmed.is_empty() && continued.is_empty()) {
                continue;
            }
            if let Some(open) = trimmed.strip_suffix('\\') {
                continued.push_str(open);
                continued.push(' ');
                continue;
            }
            continued.push_str(trimmed);
            let whole = std::mem::take(&mut continued);
            if let Some(name) = whole.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.to_owned();
                self.blocks += 1;
            } else if let Some((key, value)) = whole.split_once('=') {
                self.assignments.push(Assignment {
                    section: section.clone(),
                    block: self.blocks,
                    key: key.trim().to_owned(),
                    value: value.trim().to_owned(),
                });
            }
        }
    }

    /// The values of `key`, in order; an empty assignment takes back those before it.
    pub(crate) fn values(&self, section: &str, key: &str) -> Vec<&str> {
        let mut values = Vec::new();
        for (_, value) in self.section(section).filter(|(known, _)| *known == key) {
            if value.is_empty() {
                values.clear();
            } else {
                values.push(value);
            }
        }
        values
    }

    /// The words of the values of `key`.
    pub(crate) fn words(&self, section: &str, key: &str) -> Vec<&str> {
        self.values(section, key).into_iter().flat_map(str::split_whitespace).collect()
    }

    /// The last value of `key`.
    pub(crate) fn last(&self, section: &str, key: &str) -> Option<&str> {
        self.values(section, key).into_iter().next_back()
    }

    /// Every assignment of a section, in order.
    pub(crate) fn section(&self, section: &str) -> impl Iterator<Item = (&str, &str)> {
        let found = self.assignments.iter().filter(move |assignment| assignment.section == section);
        found.map(|assignment| (assignment.key.as_str(), assignment.value.as_str()))
    }

    /// The sections of one name, each by itself.
    pub(crate) fn blocks(&self, section: &str) -> Vec<Vec<(&str, &str)>> {
        let mut blocks: Vec<(usize, Vec<(&str, &str)>)> = Vec::new();
        for assignment in self.assignments.iter().filter(|assignment| assignment.section == section) {
            let pair = (assignment.key.as_str(), assignment.value.as_str());
            match blocks.last_mut() {
                Some((block, pairs)) if *block == assignment.block => pairs.push(pair),
                _ => blocks.push((assignment.block, vec![pair])),
            }
        }
        blocks.into_iter().map(|(_, pairs)| pairs).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_systemd_does() {
        let template = Name::parse("getty@.service").unwrap();
        assert!(template.is_template());
        assert_eq!(Name::parse("getty@tty1.service").unwrap().template().as_deref(), Some("getty@.service"));
        assert_eq!(Name::parse("dev-disk-by\\x2dlabel-x.swap").unwrap().kind, "swap");
        for bad in ["README", "a.wants", ".service", "@x.service", "a b.service", "a.conf"] {
            assert_eq!(Name::parse(bad), None, "{bad}");
        }
        assert_eq!(Name::parse(&format!("{}.service", "x".repeat(300))), None);
    }

    #[test]
    fn files_are_read_with_continuations_comments_and_resets() {
        let text = "[Unit]\nDescription = a \\\n# inside\n b\n[Install]\nWantedBy=a.target\nWantedBy=\nWantedBy=b.target c.target\njunk\n";
        let mut file = UnitFile::parse(text);
        assert_eq!(file.last("Unit", "Description"), Some("a  b"));
        assert_eq!(file.words("Install", "WantedBy"), ["b.target", "c.target"]);
        file.merge("[Install]\nWantedBy=\n");
        assert!(file.words("Install", "WantedBy").is_empty());
    }

    #[test]
    fn hostile_files_end() {
        for text in ["[", "[]", "=", "\0", "[Unit", "a\\"] {
            UnitFile::parse(text);
        }
        UnitFile::parse(&"\\\n".repeat(100_000));
    }
}
