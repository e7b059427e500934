//! Standard output: one document, as JSON, YAML or tables. Everything else this program says goes to standard error.

use std::io::{ErrorKind, IsTerminal, Write};

use serde_json::Value;

use crate::args::{Color, Format, Global, OtherForm};
use crate::failure::Failure;
use crate::table::{Layout, Sheet};

/// How this command writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// What standard output is.
    pub(crate) format: Format,
    /// The form of other tools that a report is to have instead.
    pub(crate) form: Option<OtherForm>,
    /// Whether notes and progress are left out.
    pub(crate) quiet: bool,
    /// Whether standard error may be coloured.
    pub(crate) color_progress: bool,
    layout: Layout,
}

impl Output {
    /// From what was typed, the terminal and the environment.
    pub(crate) fn new(global: &Global) -> Self {
        // https://no-color.org: set, and not empty. It is the user's word for every program, so no flag overrides it.
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colored = |is_terminal: bool| match global.color {
            Color::Always => !unwanted,
            Color::Never => false,
            Color::Auto => is_terminal && !unwanted,
        };
        let layout =
            Layout { width: comfy_table::Table::new().width(), color: colored(std::io::stdout().is_terminal()) };
        Self {
            format: global.output.format(),
            form: global.output.form(),
            quiet: global.quiet,
            color_progress: colored(std::io::stderr().is_terminal()),
            layout,
        }
    }

    /// Whether standard output is for people and pipes, not a document.
    pub(crate) fn is_plain(&self) -> bool {
        self.format == Format::Table
    }

    /// Writes the document: `value` for programs, `sheet` for people.
    pub(crate) fn document(&self, value: impl FnOnce() -> Value, sheet: impl FnOnce() -> Sheet) -> Result<(), Failure> {
        match self.format {
            Format::Json => write(&json(&value())),
            Format::Yaml => write(&yaml(&value())?),
            Format::Table => write(&sheet().render(self.layout)),
        }
    }

    /// Writes one document of a sequence that is read while it grows: a line of JSON, a YAML document, a line of text.
    pub(crate) fn entry(&self, value: impl FnOnce() -> Value, line: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Json => write(&format!("{}\n", value())),
            Format::Yaml => write(&format!("---\n{}", yaml(&value())?)),
            Format::Table => write(&format!("{}\n", crate::table::plain(&line()))),
        }
    }

    /// Writes a list that comes in pages as one document.
    pub(crate) fn pages(&self) -> Pages {
        Pages { output: *self, written: 0 }
    }

    /// Says on standard error what could not be done, while the rest is.
    pub(crate) fn complain(&self, line: &str) {
        let _ = writeln!(std::io::stderr(), "guestkit: {}", crate::table::plain(line));
    }

    /// Says something to people on standard error.
    pub(crate) fn note(&self, line: &str) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "{}", crate::table::plain(line));
        }
    }
}

/// A list that is written as its pages come, so that a million jobs need no more memory than a page.
#[derive(Debug)]
pub(crate) struct Pages {
    output: Output,
    written: usize,
}

impl Pages {
    /// One page; `sheet` is told whether it is the first.
    pub(crate) fn page(&mut self, values: &[Value], sheet: impl FnOnce(bool) -> Sheet) -> Result<(), Failure> {
        let first = self.written == 0;
        self.written += values.len();
        match self.output.format {
            Format::Table if values.is_empty() => Ok(()),
            Format::Table => write(&sheet(first).render(self.output.layout)),
            Format::Yaml if values.is_empty() => Ok(()),
            Format::Yaml => write(&yaml(&Value::Array(values.to_vec()))?),
            Format::Json => {
                let mut text = String::new();
                for (index, value) in values.iter().enumerate() {
                    text.push_str(if first && index == 0 { "[\n" } else { ",\n" });
                    text.push_str(json(value).trim_end());
                }
                write(&text)
            }
        }
    }

    /// Whether nothing was written yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.written == 0
    }

    /// The end of the list.
    pub(crate) fn end(self) -> Result<(), Failure> {
        match (self.output.format, self.written) {
            (Format::Json | Format::Yaml, 0) => write("[]\n"),
            (Format::Json, _) => write("\n]\n"),
            (Format::Yaml | Format::Table, _) => Ok(()),
        }
    }
}

/// Writes to standard output. A reader that has gone away wanted no more: that is no failure.
pub(crate) fn write(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(source) if source.kind() != ErrorKind::BrokenPipe => Err(Failure::Write { source }),
        _ => Ok(()),
    }
}

/// Indented JSON with a line feed at its end.
pub(crate) fn json(value: &Value) -> String {
    format!("{value:#}\n")
}

/// YAML that every reader takes back as the same value, YAML 1.1 readers included: texts that look like something else
/// (`no`, `1.0`, `2026-01-31`) are quoted, and texts of several lines are escaped instead of folded.
pub(crate) fn yaml(value: &Value) -> Result<String, Failure> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let mut text = serde_saphyr::to_string_with_options(value, options).map_err(|error| Failure::Work {
        message: format!("cannot write this document as YAML: {error}; use -o json"),
    })?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_comes_back_as_it_was() {
        let texts = [
            "no",
            "yes",
            "on",
            "off",
            "y",
            "n",
            "Null",
            "null",
            "~",
            "",
            " ",
            "1.0",
            "0x1f",
            "0o17",
            "017",
            "1e3",
            "1_000",
            "12:30",
            "12:30:45",
            ".5",
            ".inf",
            "-.INF",
            ".nan",
            "2026-01-31",
            "2026-01-31T08:15:00Z",
            "true",
            "False",
            "- a",
            "a: b",
            "a #b",
            "#a",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "'a'",
            "\"a\"",
            "{a}",
            "[a]",
            "a\nb",
            "a\nb\n",
            "\na",
            "a\n\n",
            "  a",
            "a  ",
            "a\tb",
            "\t",
            "a\r\nb",
            "\u{1b}[31m",
            "\u{9b}x",
            "\u{85}",
            "\u{2028}",
            "\u{feff}a",
            "\u{0}",
            "žluťoučký",
            "---",
            "...",
            "--- a",
            "?",
            "? a",
            "|",
            ">",
            "-",
            "=",
            "<<",
            "\u{1f600}",
            ":",
            "a:",
            "0",
            "-1",
            "+1",
            "0b1",
            "0o8",
            "1__0",
            "Infinity",
            "NaN",
        ];
        for text in texts {
            let value = json!({ "key": text, text: [text, [text]], "list": [{ "deep": text }] });
            let written = yaml(&value).unwrap();
            let read: Value =
                serde_saphyr::from_str(&written).unwrap_or_else(|error| panic!("{text:?}: {error}\n{written}"));
            assert_eq!(read, value, "{text:?} was written as\n{written}");
        }
    }

    #[test]
    fn yaml_keeps_types() {
        let value = json!({
            "zero": 0, "big": u64::MAX, "low": i64::MIN, "part": 0.1, "whole": 1.0, "yes": true, "none": null, "list": [], "map": {},
            "nested": [[], {}, [[]], { "a": [] }],
        });
        let written = yaml(&value).unwrap();
        assert_eq!(serde_saphyr::from_str::<Value>(&written).unwrap(), value, "{written}");
    }

    #[test]
    fn what_looks_like_something_else_is_quoted() {
        let written = yaml(&json!({ "a": "no", "b": "1.0", "c": "web1", "d": "two\nlines" })).unwrap();
        let lines: Vec<&str> = written.lines().collect();
        assert_eq!(lines.len(), 4, "{written}");
        assert!(lines[0] == "a: \"no\"" || lines[0] == "a: 'no'", "{written}");
        assert!(lines[1] == "b: \"1.0\"" || lines[1] == "b: '1.0'", "{written}");
        assert_eq!(lines[2], "c: web1");
        assert_eq!(lines[3], "d: \"two\\nlines\"");
    }

    #[test]
    fn json_is_indented() {
        assert_eq!(json(&json!({ "a": [1] })), "{\n  \"a\": [\n    1\n  ]\n}\n");
    }
}
