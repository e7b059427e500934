//! Text for people: blocks of pairs, grids and lines, laid out for a terminal or a pipe.
//!
//! Everything shown may come from a guest's disk or a peer's message. [`plain`] takes out what a terminal would obey instead
//! of showing, and every text passes through it on its way into a block.

pub(crate) mod fleet;
pub(crate) mod job;
pub(crate) mod profile;
pub(crate) mod report;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use guestkit_protocol::convert::from_struct;
use serde_json::Value;

/// How the text is laid out.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Layout {
    /// Columns of the terminal; without it nothing is wrapped, so that a pipe gets one line per row.
    pub(crate) width: Option<u16>,
    /// Whether colours may be used.
    pub(crate) color: bool,
}

/// What a text says by its colour; the words say it as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// As hoped for.
    Good,
    /// Under way, or to be looked at.
    Notice,
    /// Not as hoped for.
    Bad,
    /// Less important.
    Faint,
}

/// A text that may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Text {
    text: String,
    tone: Tone,
    right: bool,
}

impl Text {
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self { text: plain(text.as_ref()).into_owned(), tone: Tone::Plain, right: false }
    }

    pub(crate) fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }

    /// A number: set to the right in its column.
    pub(crate) fn number(number: impl ToString) -> Self {
        Self { right: true, ..Self::new(number.to_string()) }
    }

    fn cell(&self) -> Cell {
        let cell = Cell::new(if self.text.is_empty() { "-" } else { &self.text });
        let cell = if self.right { cell.set_alignment(CellAlignment::Right) } else { cell };
        match self.tone {
            Tone::Plain => cell,
            Tone::Good => cell.fg(Color::Green),
            Tone::Notice => cell.fg(Color::Yellow),
            Tone::Bad => cell.fg(Color::Red),
            Tone::Faint => cell.add_attribute(Attribute::Dim),
        }
    }
}

impl<T: AsRef<str>> From<T> for Text {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

/// Blocks, one under the other.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    blocks: Vec<Block>,
}

#[derive(Debug)]
enum Block {
    Pairs(Vec<(&'static str, Text)>),
    Grid { title: Option<String>, header: Vec<&'static str>, rows: Vec<Vec<Text>> },
    Lines { title: String, lines: Vec<String> },
}

impl Sheet {
    /// Names with their values; does nothing when there are none.
    pub(crate) fn pairs(mut self, pairs: Pairs) -> Self {
        if !pairs.0.is_empty() {
            self.blocks.push(Block::Pairs(pairs.0));
        }
        self
    }

    /// A table with a heading above it; does nothing when it has no rows.
    pub(crate) fn titled_grid(mut self, title: &str, header: &[&'static str], rows: Vec<Vec<Text>>) -> Self {
        if !rows.is_empty() {
            self.blocks.push(Block::Grid { title: Some(plain(title).into_owned()), header: header.to_vec(), rows });
        }
        self
    }

    /// A table. An empty header is left out.
    pub(crate) fn grid(mut self, header: &[&'static str], rows: Vec<Vec<Text>>) -> Self {
        self.blocks.push(Block::Grid { title: None, header: header.to_vec(), rows });
        self
    }

    /// Lines under a heading; does nothing when there are none.
    pub(crate) fn lines(mut self, title: &str, lines: Vec<String>) -> Self {
        if !lines.is_empty() {
            let lines = lines.iter().map(|line| plain(line).into_owned()).collect();
            self.blocks.push(Block::Lines { title: plain(title).into_owned(), lines });
        }
        self
    }

    /// The whole as text, with a blank line between blocks.
    pub(crate) fn render(&self, layout: Layout) -> String {
        let blocks: Vec<String> = self.blocks.iter().map(|block| block.render(layout)).collect();
        blocks.join("\n")
    }
}

impl Block {
    fn render(&self, layout: Layout) -> String {
        let mut text = String::new();
        match self {
            Self::Pairs(pairs) => {
                let rows = pairs
                    .iter()
                    .map(|(name, value)| vec![Cell::new(name).add_attribute(Attribute::Bold), value.cell()]);
                lay_out(&mut text, layout, &[], rows.collect());
            }
            Self::Grid { title, header, rows } => {
                if let Some(title) = title {
                    heading(&mut text, layout, title);
                }
                lay_out(
                    &mut text,
                    layout,
                    header,
                    rows.iter().map(|row| row.iter().map(Text::cell).collect()).collect(),
                );
            }
            Self::Lines { title, lines } => {
                heading(&mut text, layout, title);
                for line in lines {
                    let _ = writeln!(text, "  {line}");
                }
            }
        }
        text
    }
}

fn heading(text: &mut String, layout: Layout, title: &str) {
    let mut cell = Cell::new(title);
    if layout.color {
        cell = cell.add_attribute(Attribute::Bold);
    }
    lay_out(text, layout, &[], vec![vec![cell]]);
}

fn lay_out(text: &mut String, layout: Layout, header: &[&'static str], rows: Vec<Vec<Cell>>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).force_no_tty();
    if layout.color {
        table.enforce_styling();
    }
    if let Some(width) = layout.width {
        table.set_width(width).set_content_arrangement(ContentArrangement::Dynamic);
    }
    if !header.is_empty() {
        table.set_header(header.iter().map(|name| Cell::new(name).add_attribute(Attribute::Bold)));
    }
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for line in table.lines() {
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

/// Names with their values, in the order they are put in.
#[derive(Debug, Default)]
pub(crate) struct Pairs(Vec<(&'static str, Text)>);

impl Pairs {
    /// A value; an empty one is left out, for "not known" is not shown as a value.
    pub(crate) fn put(mut self, name: &'static str, value: impl Into<Text>) -> Self {
        let value = value.into();
        if !value.text.is_empty() {
            self.0.push((name, value));
        }
        self
    }
}

/// `text` with every character that a terminal would obey, or that reorders what is seen, replaced by its escape.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => shown.push(' '),
            c if obeyed(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Names with commas; those beyond `most` are counted instead.
pub(crate) fn names<T: AsRef<str>>(names: &[T], most: usize) -> String {
    let shown: Vec<&str> = names.iter().take(most).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(shown.len()) {
        0 => shown.join(", "),
        hidden => format!("{}, … and {hidden} more", shown.join(", ")),
    }
}

/// Labels in a line, in the order of their keys.
pub(crate) fn labels(labels: &HashMap<String, String>) -> String {
    let sorted: BTreeMap<&String, &String> = labels.iter().collect();
    sorted.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
}

/// Free members in a line, in the order of their names: texts as they are, everything else as JSON.
pub(crate) fn members(data: &prost_types::Struct) -> String {
    let Value::Object(members) = from_struct(data) else { return String::new() };
    let shown = members.iter().map(|(name, value)| match value {
        Value::String(text) => format!("{name}: {text}"),
        other => format!("{name}: {other}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Bytes with a binary unit, three digits: `2.00 GiB`, `312 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = count as f64;
    let mut unit = 0;
    // 999.5 would print as 1000 with no digit after the point: go on to the next unit instead.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// Seconds for people: `0.42 s`, `12.3 s`, `3m 05s`, `2h 04m`, `3d 4h`.
pub(crate) fn seconds(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return String::new();
    }
    if seconds < 9.995 {
        return format!("{seconds:.2} s");
    }
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        0..3600 => format!("{}m {:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h {:02}m", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d {}h", whole / 86_400, whole % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_commanded() {
        let check = |given: &str, shown: &str| assert_eq!(plain(given), shown);
        check("web1", "web1");
        check("\u{1b}[2J", "\\u{1b}[2J");
        check("a\u{9b}31m", "a\\u{9b}31m");
        check("a\nb\tc", "a b c");
        check("gpj.\u{202e}exe", "gpj.\\u{202e}exe");
        check("žluťoučký", "žluťoučký");
    }

    #[test]
    fn bytes_have_three_digits() {
        let check = |count, shown: &str| assert_eq!(bytes(count), shown);
        check(0, "0 B");
        check(999, "999 B");
        check(1000, "0.98 KiB");
        check(1024, "1.00 KiB");
        check(2 << 30, "2.00 GiB");
        check(312 << 20, "312 MiB");
        check(1023 << 20, "1.00 GiB");
        check(u64::MAX, "16.0 EiB");
    }

    #[test]
    fn durations_are_short() {
        let check = |given, shown: &str| assert_eq!(seconds(given), shown);
        check(0.0421, "0.04 s");
        check(12.34, "12.3 s");
        check(185.0, "3m 05s");
        check(7440.0, "2h 04m");
        check(273_600.0, "3d 4h");
        check(f64::NAN, "");
        check(-1.0, "");
    }

    #[test]
    fn long_lists_are_counted() {
        assert_eq!(names(&["a", "b", "c"], 3), "a, b, c");
        assert_eq!(names(&["a", "b", "c"], 2), "a, b, … and 1 more");
        assert_eq!(names::<&str>(&[], 2), "");
    }

    #[test]
    fn pairs_leave_out_what_is_not_known_and_grids_mark_it() {
        let sheet = Sheet::default()
            .pairs(Pairs::default().put("Host", "web1").put("Kernel", ""))
            .grid(&["NAME", "SIZE"], vec![vec!["a".into(), Text::number(5)], vec!["b".into(), "".into()]]);
        assert_eq!(sheet.render(Layout::default()), "Host  web1\n\nNAME  SIZE\na        5\nb     -\n");
    }

    #[test]
    fn a_narrow_terminal_wraps_values_under_themselves() {
        let sheet = Sheet::default().pairs(Pairs::default().put("Enabled", "alpha, beta, gamma, delta"));
        let shown = sheet.render(Layout { width: Some(24), color: false });
        assert!(shown.lines().count() > 1, "{shown}");
        assert!(shown.lines().all(|line| line.len() <= 24), "{shown}");
    }
}
