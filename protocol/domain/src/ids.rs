//! Names and numbers. A value of these types has been checked: the texts may become file names, log fields and SQL parameters.

use std::fmt;
use std::sync::Arc;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The length is outside the bounds.
    #[error("must be {min} to {max} bytes long, is {actual}")]
    Length {
        /// Fewest bytes.
        min: usize,
        /// Most bytes.
        max: usize,
        /// Bytes met.
        actual: usize,
    },
    /// A character that is not allowed.
    #[error("may only contain {allowed}, not {found:?}")]
    Character {
        /// What is allowed.
        allowed: &'static str,
        /// What was met.
        found: char,
    },
    /// The first character would hide a file or be taken for an option.
    #[error("must not start with {found:?}")]
    Start {
        /// What was met.
        found: char,
    },
}

/// What is wrong with a text is told by its characters first: of `../../x` the length is the least.
fn check(text: &str, min: usize, max: usize) -> Result<(), IdError> {
    if let Some(found) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-".contains(*c))) {
        return Err(IdError::Character { allowed: "A-Z a-z 0-9 . _ -", found });
    }
    if !(min..=max).contains(&text.len()) {
        return Err(IdError::Length { min, max, actual: text.len() });
    }
    match text.chars().next() {
        Some('.') => Err(IdError::Start { found: '.' }),
        _ => Ok(()),
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $min:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text`.
            ///
            /// # Errors
            /// When the length or a character is not allowed.
            pub fn new(text: &str) -> Result<Self, IdError> {
                check(text, $min, $max)?;
                Ok(Self(text.into()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// A job's name: 8 to 128 bytes of `[A-Za-z0-9._-]`, not starting with a dot, because it becomes a file name.
    JobId, 8, 128
);
text_id!(
    /// The name a worker keeps across restarts: 1 to 128 bytes of `[A-Za-z0-9._-]`, not starting with a dot.
    WorkerId, 1, 128
);
text_id!(
    /// One start of a worker's process: 1 to 64 bytes of `[A-Za-z0-9._-]`.
    BootId, 1, 64
);

/// A group of jobs that shares the fleet fairly with others: 1 to 63 bytes of `[a-z0-9-]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// Checks `text`.
    ///
    /// # Errors
    /// When the length or a character is not allowed.
    pub fn new(text: &str) -> Result<Self, IdError> {
        if text.is_empty() || text.len() > 63 {
            return Err(IdError::Length { min: 1, max: 63, actual: text.len() });
        }
        match text.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')) {
            Some(found) => Err(IdError::Character { allowed: "a-z 0-9 -", found }),
            None => Ok(Self(text.into())),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self("default".into())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one attempt of one job; strictly increasing over the life of a store, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeaseId(pub u64);

/// One stream of a worker; meaningful only within one process of the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub u64);

/// Position of a change in the store's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_job_id(text: &str, expected: Result<(), &str>) {
        let found = JobId::new(text).map(|id| assert_eq!(id.as_str(), text)).map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(str::to_owned), "{text:?}");
    }

    #[test]
    fn a_job_id_can_be_a_file_name() {
        check_job_id("job-0001", Ok(()));
        check_job_id("A.b_c-9z", Ok(()));
        check_job_id(&"x".repeat(128), Ok(()));
        check_job_id("", Err("must be 8 to 128 bytes long, is 0"));
        check_job_id("job-001", Err("must be 8 to 128 bytes long, is 7"));
        check_job_id(&"x".repeat(129), Err("must be 8 to 128 bytes long, is 129"));
        check_job_id("../../x", Err("may only contain A-Z a-z 0-9 . _ -, not '/'"));
        check_job_id("job 0001", Err("may only contain A-Z a-z 0-9 . _ -, not ' '"));
        check_job_id("job-000é", Err("may only contain A-Z a-z 0-9 . _ -, not 'é'"));
        check_job_id("job-0001\0", Err("may only contain A-Z a-z 0-9 . _ -, not '\\0'"));
        check_job_id("........", Err("must not start with '.'"));
    }

    #[test]
    fn a_namespace_is_lower_case() {
        assert_eq!(Namespace::new("team-a1").map(|namespace| namespace.to_string()), Ok("team-a1".to_owned()));
        assert_eq!(Namespace::default().as_str(), "default");
        for bad in ["", "Team", "a_b", "a.b", &"x".repeat(64)] {
            assert!(Namespace::new(bad).is_err(), "{bad:?}");
        }
    }
}
