//! The hives of one installation, opened once, and keys with one rule for failures: what is absent is absent, what cannot be
//! read becomes a warning of the module that asked, and the module goes on.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::guest::linux::files::Files;
use crate::guest::registry::{Hive, Key, Value, ValueType};
use crate::read_at::Source;

/// What a value holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    Number(u64),
    /// Trimmed.
    Text(String),
    Texts(Vec<String>),
    Bytes(Vec<u8>),
}

/// A hive and what to call it in warnings.
pub(crate) struct NamedHive<'a> {
    files: &'a Files<'a>,
    path: String,
    hive: Hive,
}

impl<'a> NamedHive<'a> {
    /// The hive at `path` with the logs beside it; `None` where it is absent or cannot be read, which is a warning.
    pub(crate) fn open(files: &'a Files<'a>, path: &str) -> Option<Self> {
        let primary: Source = Arc::new(files.open(path)?);
        let logs = || {
            let both = [".LOG1", ".LOG2"].map(|suffix| files.open(&format!("{path}{suffix}")));
            // The third file is empty where there are the other two.
            let one = files.open(&format!("{path}.LOG"));
            both.into_iter().chain([one]).flatten().map(|log| Arc::new(log) as Source).collect()
        };
        match Hive::open(primary, logs, Arc::clone(files.tree().budget())) {
            Ok(hive) => {
                for warning in hive.warnings() {
                    files.warn(path, warning.clone());
                }
                Some(Self { files, path: path.to_owned(), hive })
            }
            Err(error) => {
                files.warn_error(path, &error);
                None
            }
        }
    }

    /// Where the hive lies in the guest.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The key at `path`, its names parted by `\`.
    pub(crate) fn key(&self, path: &str) -> Option<Node<'_>> {
        let node = Node { hive: self, path: path.to_owned(), key: self.or_warn("", self.hive.root().map(Some))? };
        let key = self.or_warn(path, node.key.descend(path))?;
        Some(Node { key, ..node })
    }

    /// The value `name` of the key at `path`. What cannot be read is an error, not absent: a judge may pass what nothing sets.
    pub(crate) fn look(&self, path: &str, name: &str) -> Result<Option<Data>> {
        let problems = self.hive.problem_count();
        let key = self.hive.key(path)?;
        let value = key.map(|key| key.value(name)).transpose()?.flatten();
        let Some(value) = value else {
            // It may be one of those that were met and could not be read.
            let is_whole = self.hive.problem_count() == problems;
            let why = "keys or values beside it cannot be read";
            return if is_whole { Ok(None) } else { Err(Error::corrupt("registry hive", 0, why)) };
        };
        Ok(Some(match value.kind() {
            ValueType::Number | ValueType::BigEndianNumber | ValueType::LongNumber => match value.number()? {
                Some(number) => Data::Number(number),
                None => Data::Bytes(value.bytes()?),
            },
            ValueType::Text | ValueType::ExpandText | ValueType::Link => {
                Data::Text(value.text()?.unwrap_or_default().trim().to_owned())
            }
            ValueType::Texts => Data::Texts(value.texts()?.unwrap_or_default()),
            _ => Data::Bytes(value.bytes()?),
        }))
    }

    /// Whether there is a key at `path`; an error where that cannot be known.
    pub(crate) fn has_key(&self, path: &str) -> Result<bool> {
        Ok(self.hive.key(path)?.is_some())
    }

    /// Tells what single keys and values could not be read.
    pub(crate) fn report_problems(&self) {
        for problem in self.hive.problems() {
            self.files.warn(&*self.path, problem);
        }
    }

    fn or_warn<T>(&self, what: &str, result: Result<Option<T>>) -> Option<T> {
        result.unwrap_or_else(|error| {
            self.files.warn_error(&format!("{}: {what}", self.path), &error);
            None
        })
    }
}

/// A key, with its path.
#[derive(Clone)]
pub(crate) struct Node<'a> {
    hive: &'a NamedHive<'a>,
    path: String,
    key: Key<'a>,
}

impl<'a> Node<'a> {
    /// Its last name as it is stored.
    pub(crate) fn name(&self) -> &str {
        self.key.name()
    }

    /// The path it was reached by, as Windows calls it: `SYSTEM\ControlSet001\Services\Dhcp`.
    pub(crate) fn path(&self) -> String {
        let hive = self.hive.path.rsplit('/').next().unwrap_or_default();
        format!("{hive}\\{}", self.path)
    }

    /// When it was last written, in seconds since 1970-01-01 UTC.
    pub(crate) fn written_at(&self) -> Option<i64> {
        self.key.written_at()
    }

    /// The key at `path` below this one.
    pub(crate) fn key(&self, path: &str) -> Option<Node<'a>> {
        let full = format!("{}\\{path}", self.path);
        let key = self.hive.or_warn(&full, self.key.descend(path))?;
        Some(Node { hive: self.hive, path: full, key })
    }

    /// The keys below this one.
    pub(crate) fn keys(&self) -> Vec<Node<'a>> {
        let keys = self.hive.or_warn(&self.path, self.key.subkeys().map(Some)).unwrap_or_default();
        let node = |key: Key<'a>| Node { hive: self.hive, path: format!("{}\\{}", self.path, key.name()), key };
        keys.into_iter().map(node).collect()
    }

    /// Its values.
    pub(crate) fn values(&self) -> Vec<Value<'a>> {
        self.hive.or_warn(&self.path, self.key.values().map(Some)).unwrap_or_default()
    }

    fn value(&self, name: &str) -> Option<Value<'a>> {
        self.hive.or_warn(&self.path, self.key.value(name))
    }

    fn read<T>(&self, name: &str, read: impl FnOnce(&Value<'a>) -> Result<Option<T>>) -> Option<T> {
        let value = self.value(name)?;
        self.hive.or_warn(&format!("{}\\{name}", self.path), read(&value))
    }

    /// A text, trimmed; `None` also where it is empty. Numbers are no texts.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let text = self.read(name, Value::text)?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// A number; a text of digits counts, because programs write either.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.read(name, |value| match value.kind() {
            ValueType::Text => Ok(value.text()?.and_then(|text| text.trim().parse().ok())),
            _ => value.number(),
        })
    }

    /// Whether a number is there and not zero.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        self.number(name).map(|number| number != 0)
    }

    /// The bytes of a value, whatever its type.
    pub(crate) fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        self.read(name, |value| value.bytes().map(Some))
    }

    /// The texts of a value that has several, or the one of a value that has one; empty ones are left out.
    pub(crate) fn texts(&self, name: &str) -> Vec<String> {
        let texts = self.read(name, |value| match value.kind() {
            ValueType::Text | ValueType::ExpandText => Ok(value.text()?.map(|text| vec![text])),
            _ => value.texts(),
        });
        let texts = texts.unwrap_or_default().into_iter();
        texts.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect()
    }

    /// A text or the data of a value that was just listed.
    pub(crate) fn text_of(&self, value: &Value<'a>) -> Option<String> {
        self.hive.or_warn(&format!("{}\\{}", self.path, value.name()), value.text())
    }

    /// The bytes of a value that was just listed.
    pub(crate) fn bytes_of(&self, value: &Value<'a>) -> Option<Vec<u8>> {
        self.hive.or_warn(&format!("{}\\{}", self.path, value.name()), value.bytes().map(Some))
    }
}

/// The hives of a machine. Each is opened when it is first asked for.
pub(crate) struct Hives<'a> {
    files: &'a Files<'a>,
    folder: String,
    software: std::cell::OnceCell<Option<NamedHive<'a>>>,
    system: std::cell::OnceCell<Option<NamedHive<'a>>>,
    sam: std::cell::OnceCell<Option<NamedHive<'a>>>,
    security: std::cell::OnceCell<Option<NamedHive<'a>>>,
}

impl<'a> Hives<'a> {
    pub(crate) fn new(files: &'a Files<'a>, system_root: &str) -> Self {
        Self {
            files,
            folder: format!("{system_root}/System32/config"),
            software: std::cell::OnceCell::new(),
            system: std::cell::OnceCell::new(),
            sam: std::cell::OnceCell::new(),
            security: std::cell::OnceCell::new(),
        }
    }

    fn open(&self, name: &str) -> Option<NamedHive<'a>> {
        let path = format!("{}/{name}", self.folder);
        let hive = NamedHive::open(self.files, &path);
        if hive.is_none() && !self.files.exists(&path) {
            self.files.warn(path, "the hive does not exist");
        }
        hive
    }

    pub(crate) fn software(&self) -> Option<&NamedHive<'a>> {
        self.software.get_or_init(|| self.open("SOFTWARE")).as_ref()
    }

    pub(crate) fn system(&self) -> Option<&NamedHive<'a>> {
        self.system.get_or_init(|| self.open("SYSTEM")).as_ref()
    }

    pub(crate) fn sam(&self) -> Option<&NamedHive<'a>> {
        self.sam.get_or_init(|| self.open("SAM")).as_ref()
    }

    pub(crate) fn security(&self) -> Option<&NamedHive<'a>> {
        self.security.get_or_init(|| self.open("SECURITY")).as_ref()
    }

    /// The key at `path` of the machine's software.
    pub(crate) fn software_key(&self, path: &str) -> Option<Node<'_>> {
        self.software()?.key(path)
    }

    /// The control set that starts: `Select\Current`, as virt-inspector takes it.
    pub(crate) fn control_set(&self) -> Option<String> {
        let number = self.system()?.key("Select")?.number("Current")?;
        Some(format!("ControlSet{number:03}"))
    }

    /// The key at `path` of the current control set.
    pub(crate) fn control_key(&self, path: &str) -> Option<Node<'_>> {
        self.system()?.key(&format!("{}\\{path}", self.control_set()?))
    }

    /// Tells what single keys and values could not be read.
    pub(crate) fn report_problems(&self) {
        let opened = [&self.software, &self.system, &self.sam, &self.security];
        opened.into_iter().filter_map(|hive| hive.get()?.as_ref()).for_each(NamedHive::report_problems);
    }
}
