//! Failures: the code alone says whether another attempt makes sense, whatever the peer wrote into the two flags.

use guestkit_domain::{ErrorCode, Failure};

use crate::status::shortened;
use crate::v1;

/// Bytes kept of a failure's message: it is logged, stored and shown in lists.
const MESSAGE_BYTES_MAX: usize = 4096;

/// The failure as the wire has it, with the phase it happened in and what the code promises.
#[must_use]
pub fn to_wire(failure: &Failure, phase: &str, details: Option<prost_types::Struct>) -> v1::JobError {
    v1::JobError {
        code: failure.code.as_str().to_owned(),
        message: failure.message.to_string(),
        phase: phase.to_owned(),
        details,
        recoverable: failure.code.recoverable(),
        retry_recommended: failure.code.retry_recommended(),
    }
}

/// The failure a worker reported. A code that is not known here (a newer worker's) counts as `INTERNAL` and is named.
#[must_use]
pub fn from_wire(error: &v1::JobError) -> Failure {
    let message = shortened(&error.message, MESSAGE_BYTES_MAX);
    match error.code.parse() {
        Ok(code) => Failure { code, message: message.into() },
        Err(_) => {
            let code = shortened(&error.code, 64);
            Failure { code: ErrorCode::Internal, message: format!("{message} (unknown error code {code:?})").into() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back_with_its_own_flags() {
        for &code in ErrorCode::ALL {
            let failure = Failure { code, message: "it broke".into() };
            let mut wire = to_wire(&failure, "inspection", None);
            assert_eq!((wire.recoverable, wire.retry_recommended), (code.recoverable(), code.retry_recommended()));
            wire.retry_recommended = !wire.retry_recommended;
            assert_eq!(from_wire(&wire), failure);
        }
    }

    #[test]
    fn an_unknown_code_is_internal_and_named() {
        let failure = from_wire(&v1::JobError { code: "MOON_PHASE".into(), ..Default::default() });
        assert_eq!(failure.code, ErrorCode::Internal);
        assert!(failure.message.contains("MOON_PHASE"));
    }
}
