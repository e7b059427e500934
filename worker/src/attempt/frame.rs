//! What a keeper and its attempt's process say to one another over the process's pipes: frames of one kind byte, four
//! length bytes (little endian) and a body. Every length has a cap, because the process reads hostile bytes and what it
//! says is judged like a peer's word.

use std::io::{self, Read, Write};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Keeper → process: the order as JSON.
    Order = 1,
    /// Keeper → process: the encoded job document.
    Document = 2,
    /// Process → keeper: the sandbox's level as text.
    Sandbox = 3,
    /// Process → keeper: an encoded `Progress`.
    Progress = 4,
    /// Process → keeper: encoded `Metrics` until now.
    Metrics = 5,
    /// Process → keeper, last: an encoded `JobResult` without what the keeper fills in.
    Done = 6,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Order, Self::Document, Self::Sandbox, Self::Progress, Self::Metrics, Self::Done]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }

    /// The longest body.
    fn bytes_max(self) -> usize {
        match self {
            // A document is at most 1 MiB as JSON and smaller as protobuf; the order is a handful of paths.
            Self::Order | Self::Document => 4 << 20,
            Self::Sandbox | Self::Metrics => 1 << 10,
            Self::Progress => 64 << 10,
            // A deep scan of millions of files; a report above this is not a report.
            Self::Done => 256 << 20,
        }
    }
}

fn check(header: [u8; 5]) -> io::Result<(Kind, usize)> {
    let [kind, length @ ..] = header;
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let kind = Kind::from_byte(kind).ok_or_else(|| invalid(format!("frame of unknown kind {kind}")))?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > kind.bytes_max() {
        return Err(invalid(format!("{kind:?} frame of {length} bytes, at most {}", kind.bytes_max())));
    }
    Ok((kind, length))
}

fn header(kind: Kind, body: &[u8]) -> io::Result<[u8; 5]> {
    let too_long = || io::Error::new(io::ErrorKind::InvalidInput, format!("{kind:?} of {} bytes", body.len()));
    if body.len() > kind.bytes_max() {
        return Err(too_long());
    }
    let [a, b, c, d] = u32::try_from(body.len()).map_err(|_| too_long())?.to_le_bytes();
    Ok([kind as u8, a, b, c, d])
}

/// Writes one frame and flushes it.
///
/// # Errors
/// A body above its kind's cap, or the pipe's error.
pub(super) fn write(to: &mut impl Write, kind: Kind, body: &[u8]) -> io::Result<()> {
    to.write_all(&header(kind, body)?)?;
    to.write_all(body)?;
    to.flush()
}

/// One frame as bytes.
///
/// # Errors
/// A body above its kind's cap.
pub(super) fn encode(kind: Kind, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = header(kind, body)?.to_vec();
    bytes.extend_from_slice(body);
    Ok(bytes)
}

/// Reads one frame.
///
/// # Errors
/// An unknown kind, a length above its cap, or the pipe's error.
pub(super) fn read(from: &mut impl Read) -> io::Result<(Kind, Vec<u8>)> {
    let mut header = [0; 5];
    from.read_exact(&mut header)?;
    let (kind, length) = check(header)?;
    let mut body = Vec::new();
    // Grows as bytes arrive, not as a length promises.
    let got = from.take(length as u64).read_to_end(&mut body)?;
    if got == length { Ok((kind, body)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Reads one frame; `None` at the end of the pipe.
///
/// # Errors
/// An unknown kind, a length above its cap, a frame cut short, or the pipe's error.
pub(super) async fn read_async(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(Kind, Vec<u8>)>> {
    let mut header = [0; 5];
    match from.read_exact(&mut header).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let (kind, length) = check(header)?;
    let mut body = Vec::new();
    let got = from.take(length as u64).read_to_end(&mut body).await?;
    if got == length { Ok(Some((kind, body))) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nonsense_is_refused() {
        let bytes = encode(Kind::Progress, b"half way").unwrap();
        assert_eq!(read(&mut bytes.as_slice()).unwrap(), (Kind::Progress, b"half way".to_vec()));
        for nonsense in [&[9_u8, 0, 0, 0, 0][..], &[5, 255, 255, 255, 255], &[4, 9, 0, 0, 0, 1], &[4]] {
            assert!(read(&mut &*nonsense).is_err(), "{nonsense:?}");
        }
        assert!(encode(Kind::Metrics, &[0; 2000]).is_err());
    }
}
