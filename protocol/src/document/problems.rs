//! Every problem of one document, bounded.

use crate::status::{FieldProblem, problem, shortened};

use super::path::Path;

/// Problems kept of one document. Nobody reads more, and a hostile document of 1 MiB can hold a hundred thousand.
const PROBLEMS_MAX: usize = 100;

/// Bytes kept of a path: 64 steps of honest names fit.
const PATH_BYTES_MAX: usize = 512;

/// Bytes kept of a description, which may quote the document.
const DESCRIPTION_BYTES_MAX: usize = 512;

/// Collects problems, one per field: a field that is wrong in one way is not reported again in another.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<FieldProblem>);

impl Problems {
    pub(super) fn add(&mut self, path: &Path<'_>, description: impl AsRef<str>) {
        if self.is_full() {
            return;
        }
        let field = shortened(&path.to_string(), PATH_BYTES_MAX);
        if self.0.iter().any(|known| covers(&known.field, &field)) {
            return;
        }
        self.0.push(problem(&field, shortened(description.as_ref(), DESCRIPTION_BYTES_MAX)));
    }

    pub(super) fn add_at(&mut self, field: &str, description: impl AsRef<str>) {
        self.add(&Path::ROOT.member(field), description);
    }

    /// Whether more problems would not be kept: then describing them is not worth the time.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= PROBLEMS_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_vec(self) -> Vec<FieldProblem> {
        self.0
    }
}

/// Whether a problem at `known` already says what is wrong at `field`: the same place or one above it.
fn covers(known: &str, field: &str) -> bool {
    match field.strip_prefix(known) {
        Some(rest) => known.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_problem_per_field() {
        let mut problems = Problems::default();
        problems.add_at("payload", "must be an object");
        problems.add_at("payload.type", "required");
        problems.add_at("payloads", "unknown field");
        let fields: Vec<_> = problems.into_vec().into_iter().map(|p| p.field).collect();
        assert_eq!(fields, ["payload", "payloads"]);
    }
}
