//! XML 1.0 with elements, attributes and text: as libxml2's writer indents it.

/// A document that is being written.
#[derive(Debug)]
pub(super) struct Writer {
    text: String,
    depth: usize,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self { text: "<?xml version=\"1.0\"?>\n".to_owned(), depth: 0 }
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    fn indent(&mut self) {
        self.text.extend(std::iter::repeat_n("  ", self.depth));
    }

    /// An element with what `inside` writes; one that stays empty is closed at once.
    pub(super) fn element<'t>(
        &mut self,
        name: &str,
        attributes: impl IntoIterator<Item = (&'t str, &'t str)>,
        inside: impl FnOnce(&mut Self),
    ) {
        self.indent();
        self.open(name, attributes);
        let start = self.text.len();
        self.text.push_str(">\n");
        let opened = self.text.len();
        self.depth += 1;
        inside(self);
        self.depth -= 1;
        if self.text.len() == opened {
            self.text.truncate(start);
            self.text.push_str("/>\n");
        } else {
            self.indent();
            self.close(name);
        }
    }

    /// An element that holds `value`.
    pub(super) fn text<'t>(
        &mut self,
        name: &str,
        attributes: impl IntoIterator<Item = (&'t str, &'t str)>,
        value: &str,
    ) {
        self.indent();
        self.open(name, attributes);
        self.text.push('>');
        escape(value, &mut self.text);
        self.close(name);
    }

    /// The same, where there is something to hold.
    pub(super) fn some(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.text(name, None, value);
        }
    }

    fn open<'t>(&mut self, name: &str, attributes: impl IntoIterator<Item = (&'t str, &'t str)>) {
        self.text.push('<');
        self.text.push_str(name);
        for (name, value) in attributes {
            self.text.push(' ');
            self.text.push_str(name);
            self.text.push_str("=\"");
            let mut escaped = String::new();
            escape(value, &mut escaped);
            // A reader would take these for spaces.
            self.text.push_str(&escaped.replace('\n', "&#10;").replace('\t', "&#9;"));
            self.text.push('"');
        }
    }

    fn close(&mut self, name: &str) {
        self.text.push_str("</");
        self.text.push_str(name);
        self.text.push_str(">\n");
    }
}

/// Markup becomes references; what XML 1.0 (section 2.2, "Char") does not allow in any way is left out.
pub(super) fn escape(value: &str, to: &mut String) {
    for character in value.chars() {
        match character {
            '&' => to.push_str("&amp;"),
            '<' => to.push_str("&lt;"),
            '>' => to.push_str("&gt;"),
            '"' => to.push_str("&quot;"),
            '\r' => to.push_str("&#13;"),
            '\t' | '\n' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'.. => to.push(character),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_written_is_well_formed() {
        let mut writer = Writer::new();
        writer.element("a", None, |writer| {
            writer.text("b", Some(("dev", "x\"<\n\u{1}")), "]]> & \u{0}\u{b}\u{ffff}\u{1f600}\r");
            writer.element("c", None, |_| {});
            writer.some("d", Some(""));
        });
        let expected = "<?xml version=\"1.0\"?>\n<a>\n  <b dev=\"x&quot;&lt;&#10;\">]]&gt; &amp; \u{1f600}&#13;</b>\n  <c/>\n</a>\n";
        assert_eq!(writer.finish(), expected);
    }
}
