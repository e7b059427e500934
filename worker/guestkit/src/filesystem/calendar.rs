//! Dates as MS-DOS, exFAT and ISO 9660 write them, into seconds since 1970.

use super::Timestamp;

/// A date and a time of day without a zone. A day that its month does not have counts on into the next one, as kernels do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Civil {
    pub(super) year: u16,
    /// From 1.
    pub(super) month: u8,
    /// From 1.
    pub(super) day: u8,
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
}

impl Civil {
    /// Seconds since 1970, the fields taken as UTC.
    pub(super) fn seconds(self) -> i64 {
        // Years are counted from March, so that the leap day is the last one.
        let month = i64::from(self.month.clamp(1, 12));
        let year = i64::from(self.year) - i64::from(month <= 2);
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(self.day.max(1)) - 1;
        let days =
            year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468;
        days * 86_400 + i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second)
    }
}

/// A date and a time of MS-DOS, as FAT directory entries keep them ("FAT: General Overview of On-Disk Format", Date and
/// Time Formats): two-second steps from 1980, taken as UTC because no zone is kept.
pub(super) fn of_dos(date: u16, time: u16) -> Timestamp {
    let field = |value: u16, shift: u32, bits: u32| {
        // At most seven bits.
        u8::try_from((value >> shift) & ((1 << bits) - 1)).unwrap_or(0)
    };
    let civil = Civil {
        year: 1980 + (date >> 9),
        month: field(date, 5, 4),
        day: field(date, 0, 5),
        hour: field(time, 11, 5),
        minute: field(time, 5, 6),
        second: field(time, 0, 5) * 2,
    };
    Timestamp { seconds: civil.seconds(), nanoseconds: 0 }
}

/// `time` with as many hundredths of a second more, below 200 of them.
pub(super) fn with_hundredths(time: Timestamp, hundredths: u8) -> Timestamp {
    let hundredths = u32::from(hundredths.min(199));
    Timestamp {
        seconds: time.seconds + i64::from(hundredths / 100),
        nanoseconds: time.nanoseconds + hundredths % 100 * 10_000_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_counted_as_date_counts_them() {
        // `date -u -d '…' +%s`.
        for (civil, seconds) in [
            ((1970, 1, 1, 0, 0, 0), 0),
            ((1980, 1, 1, 0, 0, 0), 315_532_800),
            ((2000, 2, 29, 12, 34, 56), 951_827_696),
            ((2024, 12, 31, 23, 59, 58), 1_735_689_598),
            ((2107, 12, 31, 23, 59, 58), 4_354_819_198),
            ((1900, 3, 1, 0, 0, 0), -2_203_891_200),
        ] {
            let (year, month, day, hour, minute, second) = civil;
            assert_eq!(Civil { year, month, day, hour, minute, second }.seconds(), seconds, "{civil:?}");
        }
        assert_eq!(of_dos(0, 0).seconds, 315_532_800, "an empty date is the first one");
        assert_eq!(of_dos((44 << 9) | (12 << 5) | 31, (23 << 11) | (59 << 5) | 29).seconds, 1_735_689_598);
        let half = with_hundredths(of_dos(0x21, 0), 150);
        assert_eq!((half.seconds, half.nanoseconds), (315_532_801, 500_000_000));
    }
}
