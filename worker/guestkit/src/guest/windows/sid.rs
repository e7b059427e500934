//! Security identifiers. Source: [MS-DTYP], section 2.4.2.

use std::fmt;

use crate::bytes::{array, le_u32};

/// Sub-authorities that an identifier may have.
const SUB_AUTHORITIES_MAX: u8 = 15;

/// A security identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sid {
    authority: u64,
    sub_authorities: Vec<u32>,
}

impl Sid {
    /// The identifier that `bytes` begin with; `None` where they begin with none.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let [revision, count, authority @ ..] = array::<8>(bytes, 0)?;
        if revision != 1 || count == 0 || count > SUB_AUTHORITIES_MAX {
            return None;
        }
        let authority = authority.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let sub_authorities =
            (0..usize::from(count)).map(|index| le_u32(bytes, 8 + 4 * index)).collect::<Option<_>>()?;
        Some(Self { authority, sub_authorities })
    }

    /// Bytes of its binary form.
    pub(crate) fn length(&self) -> usize {
        8 + 4 * self.sub_authorities.len()
    }

    /// The identifier of an account or group of this domain.
    pub(crate) fn with(&self, relative: u32) -> Self {
        let mut sid = self.clone();
        sid.sub_authorities.push(relative);
        sid
    }

    /// The domain it is of, and its number there.
    pub(crate) fn split(&self) -> Option<(Self, u32)> {
        let (last, above) = self.sub_authorities.split_last()?;
        Some((Self { authority: self.authority, sub_authorities: above.to_vec() }, *last))
    }

    /// The name of an identifier that every Windows knows.
    pub(crate) fn well_known(&self) -> Option<&'static str> {
        Some(match (self.authority, self.sub_authorities.as_slice()) {
            (1, [0]) => "Everyone",
            (5, [2]) => "NT AUTHORITY\\NETWORK",
            (5, [4]) => "NT AUTHORITY\\INTERACTIVE",
            (5, [6]) => "NT AUTHORITY\\SERVICE",
            (5, [7]) => "NT AUTHORITY\\ANONYMOUS LOGON",
            (5, [9]) => "NT AUTHORITY\\ENTERPRISE DOMAIN CONTROLLERS",
            (5, [11]) => "NT AUTHORITY\\Authenticated Users",
            (5, [17]) => "NT AUTHORITY\\IUSR",
            (5, [18]) => "NT AUTHORITY\\SYSTEM",
            (5, [19]) => "NT AUTHORITY\\LOCAL SERVICE",
            (5, [20]) => "NT AUTHORITY\\NETWORK SERVICE",
            _ => return None,
        })
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S-1-{}", self.authority)?;
        self.sub_authorities.iter().try_for_each(|part| write!(f, "-{part}"))
    }
}

#[cfg(test)]
mod tests {
    use super::Sid;

    #[test]
    fn identifiers_are_written_as_windows_does() {
        let bytes = [1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0];
        let sid = Sid::parse(&bytes).unwrap();
        assert_eq!((sid.to_string().as_str(), sid.length()), ("S-1-5-32-544", 16));
        assert_eq!(sid.split().unwrap().1, 544);
        assert_eq!(Sid::parse(&bytes[..12]), None);
        assert_eq!(Sid::parse(&[0; 16]), None);
        assert_eq!(
            Sid::parse(&[1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0]).unwrap().well_known(),
            Some("NT AUTHORITY\\SYSTEM")
        );
    }
}
