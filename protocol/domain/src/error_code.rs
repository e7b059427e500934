//! Why a job did not complete: a closed set, each code with one fixed meaning.

use std::fmt;
use std::str::FromStr;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, recoverable: $recoverable:literal, retry: $retry:literal;)*) => {
        /// Why a job did not complete.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as documents and logs write it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether the same document can succeed without being changed.
            #[must_use]
            pub fn recoverable(self) -> bool {
                match self { $(Self::$name => $recoverable,)* }
            }

            /// Whether another attempt by itself makes sense.
            #[must_use]
            pub fn retry_recommended(self) -> bool {
                match self { $(Self::$name => $retry,)* }
            }
        }
    };
}

error_codes! {
    /// The document asks for something that makes no sense to the handler.
    ValidationError = "VALIDATION_ERROR", recoverable: false, retry: false;
    /// No handler for the operation.
    UnsupportedOperation = "UNSUPPORTED_OPERATION", recoverable: false, retry: false;
    /// There is no such image on the worker.
    ImageNotFound = "IMAGE_NOT_FOUND", recoverable: true, retry: false;
    /// Outside the worker's roots, or no permission.
    ImageAccessDenied = "IMAGE_ACCESS_DENIED", recoverable: true, retry: false;
    /// The file is not the one the document names. Never retried.
    ImageChecksumMismatch = "IMAGE_CHECKSUM_MISMATCH", recoverable: false, retry: false;
    /// A structure contradicts its specification.
    ImageCorrupt = "IMAGE_CORRUPT", recoverable: false, retry: false;
    /// Sound, but nothing here reads it.
    ImageUnsupported = "IMAGE_UNSUPPORTED", recoverable: false, retry: false;
    /// Encrypted, and no key was given.
    ImageEncrypted = "IMAGE_ENCRYPTED", recoverable: false, retry: false;
    /// No operating system on the disk.
    NoOperatingSystem = "NO_OPERATING_SYSTEM", recoverable: false, retry: false;
    /// The report has a critical finding, and the document wants that to be a failure. The report is there.
    CriticalFindings = "CRITICAL_FINDINGS", recoverable: false, retry: false;
    /// A limit was met; the answer would not have been whole.
    LimitExceeded = "LIMIT_EXCEEDED", recoverable: true, retry: false;
    /// An attempt ran out of its time.
    Timeout = "TIMEOUT", recoverable: true, retry: true;
    /// The job ran out of its deadline.
    DeadlineExceeded = "DEADLINE_EXCEEDED", recoverable: true, retry: false;
    /// A person asked for it.
    Cancelled = "CANCELLED", recoverable: true, retry: false;
    /// Every worker that took it was lost.
    WorkerLost = "WORKER_LOST", recoverable: true, retry: false;
    /// The attempt's process ended without an answer.
    HandlerCrashed = "HANDLER_CRASHED", recoverable: true, retry: true;
    /// The report could not be written.
    OutputFailed = "OUTPUT_FAILED", recoverable: true, retry: true;
    /// A fault of ours, or of the machine.
    Internal = "INTERNAL", recoverable: true, retry: true;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not one of the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an error code")]
pub struct UnknownErrorCode;

impl FromStr for ErrorCode {
    type Err = UnknownErrorCode;

    fn from_str(text: &str) -> Result<Self, UnknownErrorCode> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text).ok_or(UnknownErrorCode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back() {
        for &code in ErrorCode::ALL {
            assert_eq!(code.as_str().parse(), Ok(code));
        }
        assert_eq!("internal".parse::<ErrorCode>(), Err(UnknownErrorCode));
    }

    #[test]
    fn what_is_retried_can_succeed_unchanged() {
        for &code in ErrorCode::ALL {
            assert!(code.recoverable() || !code.retry_recommended(), "{code}");
        }
        assert!(!ErrorCode::ImageChecksumMismatch.retry_recommended());
    }
}
