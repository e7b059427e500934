//! What a reader of a database went on after: how many pieces could not be read, and what the first of them said.

use crate::error::{Error, Result};

/// Pieces that one database may lose before the rest of it is believed: a whole one has none, and a file of zeros has only
/// such.
const PIECES_MAX: u64 = 10_000;

/// Pieces of one database that could not be read; the others were.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    /// How many.
    pub(crate) count: u64,
    /// What was met first.
    pub(crate) first: Option<Error>,
}

impl Damage {
    /// Keeps `error` and goes on, unless going on is pointless.
    ///
    /// # Errors
    /// `error` itself, where a budget of the whole disk is used up or nearly everything is damaged.
    pub(crate) fn note(&mut self, error: Error) -> Result<()> {
        if error.is_budget_exhausted() || self.count >= PIECES_MAX {
            return Err(error);
        }
        self.count = self.count.saturating_add(1);
        self.first.get_or_insert(error);
        Ok(())
    }

    /// The value of `result`, or `None` with its error noted.
    ///
    /// # Errors
    /// As [`Damage::note`].
    pub(crate) fn keep<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) => self.note(error).map(|()| None),
        }
    }
}
