//! A page of HTML that can be mailed: no script, no font and no picture from elsewhere. What is written into it is text and
//! nothing else; a policy in the page forbids the rest.

use std::fmt::Write as _;

use super::xml::escape;

const HEAD: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";

const STYLE: &str = "<style>\n\
:root { color-scheme: light dark; }\n\
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }\n\
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #8886; }\n\
h3 { margin-bottom: .3rem; } .faint { opacity: .7; }\n\
table { border-collapse: collapse; width: 100%; } \n\
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8883; vertical-align: top; overflow-wrap: anywhere; }\n\
th { font-weight: 600; white-space: nowrap; } td.number { text-align: right; white-space: nowrap; }\n\
summary { cursor: pointer; padding: .3rem 0; font-weight: 600; }\n\
.warnings td { background: #fc02; }\n\
</style>\n";

/// A page that is being written.
pub(super) struct Page {
    text: String,
}

impl Page {
    /// A page up to its heading, with what is said faintly below it.
    pub(super) fn new(title: &str, below: &str) -> Self {
        let mut page = Self { text: HEAD.to_owned() };
        page.tag("title", title);
        page.raw(STYLE);
        page.raw("</head>\n<body>\n");
        page.tag("h1", title);
        page.raw("<p class=\"faint\">");
        page.escaped(below);
        page.raw("</p>\n");
        page
    }

    pub(super) fn finish(mut self) -> String {
        self.raw("</body>\n</html>\n");
        self.text
    }

    pub(super) fn raw(&mut self, markup: &'static str) {
        self.text.push_str(markup);
    }

    pub(super) fn escaped(&mut self, text: &str) {
        escape(text, &mut self.text);
    }

    pub(super) fn tag(&mut self, name: &'static str, text: &str) {
        let _ = write!(self.text, "<{name}>");
        self.escaped(text);
        let _ = writeln!(self.text, "</{name}>");
    }

    /// Rows of a name and a value, those without a value left out.
    pub(super) fn pairs(&mut self, pairs: &[(&str, Option<String>)]) {
        self.raw("<table>\n");
        for (name, value) in pairs {
            let Some(value) = value.as_ref().filter(|value| !value.is_empty()) else { continue };
            self.raw("<tr><th>");
            self.escaped(name);
            self.raw("</th><td>");
            self.escaped(value);
            self.raw("</td></tr>\n");
        }
        self.raw("</table>\n");
    }

    pub(super) fn grid(&mut self, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
        self.raw("<table>\n<tr>");
        for name in header {
            self.raw("<th>");
            self.escaped(name);
            self.raw("</th>");
        }
        self.raw("</tr>\n");
        for row in rows {
            self.raw("<tr>");
            for cell in row {
                self.raw("<td>");
                self.escaped(&cell);
                self.raw("</td>");
            }
            self.raw("</tr>\n");
        }
        self.raw("</table>\n");
    }

    /// A grid that is unfolded by a click.
    pub(super) fn folded(&mut self, title: &str, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
        self.raw("<details>");
        self.tag("summary", title);
        self.grid(header, rows);
        self.raw("</details>\n");
    }
}
