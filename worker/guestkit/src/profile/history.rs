//! How busy a system was, as sysstat's `sadc` recorded it. Sources: sysstat's `sa.h` ("Format of system activity data files") and
//! `rd_stats.h` (the structures of activities), versions 11.7.1 to 12.7, whose format is 0x2175; sar(1) for what is a percentage
//! of what.

use crate::bytes::{le_u16, le_u32, le_u64, slice};

const MAGIC: u16 = 0xd596;
const FORMAT: u16 = 0x2175;
/// The structure in front of the header.
const PREFIX_BYTES: usize = 76;
/// Numbers of 64, of `long` and of 32 bits in the header and in the head of a record: what they are made of.
const HEADER_TYPES: [u32; 3] = [1, 1, 12];
const RECORD_TYPES: [u32; 3] = [2, 0, 1];
/// Activities of one file: sysstat knows some forty.
const ACTIVITIES_MAX: u32 = 256;
/// Bytes of a comment.
const COMMENT_BYTES: usize = 64;

const CPU: u32 = 1;
const SWAPPING: u32 = 4;
const MEMORY: u32 = 7;

/// What was between one record and the one before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Interval {
    /// Of the time of all processors, in percent.
    pub(crate) idle: f64,
    pub(crate) waiting: f64,
    /// Of the memory at its end, in percent; absent where it was not recorded.
    pub(crate) memory: Option<f64>,
    /// Pages swapped in and out a second; absent where it was not recorded.
    pub(crate) swapped: Option<f64>,
}

/// One activity of a file.
struct Activity {
    id: u32,
    /// How many items there are, where the records do not say it.
    items: u32,
    /// Sub-items of each.
    sub_items: u32,
    is_counted: bool,
    bytes: u32,
    types: [u32; 3],
}

/// What one record holds of the activities that matter.
#[derive(Default, Clone)]
struct Sample {
    /// How long the machine had run, in hundredths of a second.
    at: u64,
    /// User, nice, system, idle, waiting, stolen, hardware and software interrupts, of all processors together.
    cpu: Vec<u64>,
    processors: u32,
    memory: Option<f64>,
    swapped: Option<u64>,
}

/// The intervals of a file; why it cannot be read, where it is none of this format or is broken from its beginning. What follows a
/// record that is cut off is not there.
pub(crate) fn intervals(bytes: &[u8]) -> Result<Vec<Interval>, &'static str> {
    if le_u16(bytes, 0) != Some(MAGIC) {
        return Err("it is no file of sadc, or of a machine whose bytes go the other way");
    }
    if le_u16(bytes, 2) != Some(FORMAT) {
        return Err("it is of another format than 0x2175, which sysstat 11.7.1 and later write");
    }
    let number = |at: usize| le_u32(bytes, at);
    let three = |at: usize| Some([number(at)?, number(at.checked_add(4)?)?, number(at.checked_add(8)?)?]);
    let header = PREFIX_BYTES;
    if three(16) != Some(HEADER_TYPES) || three(header + 40) != Some(RECORD_TYPES) {
        return Err("its header is made in another way");
    }
    if bytes.get(header + 66) != Some(&8) {
        return Err("it is of a machine of 32 bits");
    }
    let broken = "its header is broken";
    let (count, bytes_of) = (number(header + 20).ok_or(broken)?, number(header + 52).ok_or(broken)?);
    let record_bytes = number(header + 56).and_then(|size| usize::try_from(size).ok()).ok_or(broken)?;
    if count > ACTIVITIES_MAX || !(36..=1_024).contains(&bytes_of) || !(24..=512).contains(&record_bytes) {
        return Err(broken);
    }
    let mut reader = Reader { bytes, at: header };
    reader.take(number(8)).ok_or(broken)?;
    let mut activities = Vec::new();
    for _ in 0..count {
        let entry = reader.take(Some(bytes_of)).ok_or(broken)?;
        activities.push(activity(entry).ok_or(broken)?);
    }
    Ok(records(&mut reader, &activities, record_bytes))
}

fn activity(entry: &[u8]) -> Option<Activity> {
    Some(Activity {
        id: le_u32(entry, 0)?,
        items: le_u32(entry, 8)?,
        sub_items: le_u32(entry, 12)?,
        is_counted: le_u32(entry, 16)? != 0,
        bytes: le_u32(entry, 20)?,
        types: [le_u32(entry, 24)?, le_u32(entry, 28)?, le_u32(entry, 32)?],
    })
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    fn take(&mut self, count: Option<u32>) -> Option<&'b [u8]> {
        let count = usize::try_from(count?).ok()?;
        let found = slice(self.bytes, self.at, count)?;
        self.at = self.at.checked_add(count)?;
        Some(found)
    }
}

fn records(reader: &mut Reader<'_>, activities: &[Activity], record_bytes: usize) -> Vec<Interval> {
    let mut found = Vec::new();
    let mut before: Option<Sample> = None;
    while let Some(head) = reader.take(u32::try_from(record_bytes).ok()) {
        // Nothing that sysstat has released writes structures besides those of activities.
        let has_more = le_u32(head, 16) != Some(0);
        let read = match head.get(20).filter(|_| !has_more) {
            Some(1 | 3) => {
                let Some(sample) = sample(reader, activities, le_u64(head, 0).unwrap_or_default()) else { break };
                found.extend(before.as_ref().and_then(|before| interval(before, &sample)));
                before = Some(sample);
                Some(())
            }
            // A start: counters begin again. Behind it stands how many processors there are.
            Some(2) => {
                before = None;
                reader.take(Some(4)).map(|_| ())
            }
            Some(4) => reader.take(u32::try_from(COMMENT_BYTES).ok()).map(|_| ()),
            _ => None,
        };
        if read.is_none() {
            break;
        }
    }
    found
}

fn sample(reader: &mut Reader<'_>, activities: &[Activity], at: u64) -> Option<Sample> {
    let mut found = Sample { at, ..Sample::default() };
    for activity in activities {
        let items = if activity.is_counted { le_u32(reader.take(Some(4))?, 0)? } else { activity.items };
        let bytes = items.checked_mul(activity.sub_items)?.checked_mul(activity.bytes)?;
        let values = reader.take(Some(bytes))?;
        let value = |index: usize| le_u64(values, index.checked_mul(8)?);
        match (activity.id, activity.types) {
            (CPU, [10, 0, 0]) if items > 0 => {
                // The first item is what the kernel says of all processors; like sar, the sum of the others is taken, where
                // there are any.
                let size = usize::try_from(activity.bytes).ok()?;
                let one = |item: &[u8]| (0..8_usize).map(|field| le_u64(item, field.checked_mul(8)?)).collect();
                let each: Option<Vec<Vec<u64>>> = values.chunks(size.max(1)).map(one).collect();
                let each = each?;
                let counted = each.get(usize::from(items > 1)..).unwrap_or_default();
                found.cpu = (0..8)
                    .map(|field| {
                        counted.iter().filter_map(|item| item.get(field)).fold(0, |sum: u64, n| sum.saturating_add(*n))
                    })
                    .collect();
                found.processors = items;
            }
            (SWAPPING, [0, 2, 0]) => found.swapped = value(0)?.checked_add(value(1)?),
            (MEMORY, [numbers, 0, 0]) if numbers > 12 => {
                // Free, buffers, cached, total and slab, in KiB.
                let free = [0, 1, 2, 12].iter().filter_map(|index| value(*index)).fold(0, u64::saturating_add);
                let total = value(3)?;
                found.memory = (total > 0).then(|| percent(total.saturating_sub(free), total));
            }
            _ => {}
        }
    }
    Some(found)
}

/// What was between two samples; nothing where processors came or went, or a counter began again. Those of idle and waiting time
/// may go back a little (proc(5)).
fn interval(before: &Sample, after: &Sample) -> Option<Interval> {
    let pairs = before.cpu.iter().zip(&after.cpu).enumerate();
    let spent: Option<Vec<u64>> = pairs
        .map(|(field, (before, after))| match field {
            3 | 4 => Some(after.saturating_sub(*before)),
            _ => after.checked_sub(*before),
        })
        .collect();
    let spent = spent.filter(|spent| spent.len() == 8 && before.processors == after.processors)?;
    let total = spent.iter().fold(0, |sum: u64, value| sum.saturating_add(*value));
    let hundredths = after.at.checked_sub(before.at).filter(|hundredths| *hundredths > 0)?;
    let pages = before.swapped.zip(after.swapped).and_then(|(before, after)| after.checked_sub(before));
    (total > 0).then(|| Interval {
        idle: percent(*spent.get(3).unwrap_or(&0), total),
        waiting: percent(*spent.get(4).unwrap_or(&0), total),
        memory: after.memory,
        swapped: pages.map(|pages| pages as f64 * 100.0 / hundredths as f64),
    })
}

fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole as f64
}

/// The value that 95 of a hundred do not exceed.
pub(crate) fn percentile_95(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let place = values.len().checked_mul(95)?.div_ceil(100).checked_sub(1)?;
    values.get(place).copied()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_95th_percentile_is_the_nearest_rank() {
        assert_eq!(percentile_95((1..=100).map(f64::from)), Some(95.0));
        assert_eq!(percentile_95((1..=20).map(f64::from)), Some(19.0));
        assert_eq!(percentile_95([7.0].into_iter()), Some(7.0));
        assert_eq!(percentile_95(std::iter::empty()), None);
    }

    /// By `sadf -j` of what `sadc` writes here and now, where sysstat is installed.
    #[test]
    fn intervals_agree_with_sadf() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sa01");
        let written = Command::new("/usr/lib/sysstat/sadc").args(["-S", "ALL", "1", "4"]).arg(&file).status();
        if !written.is_ok_and(|status| status.success()) {
            return;
        }
        let bytes = std::fs::read(&file).unwrap();
        let told = intervals(&bytes).unwrap();
        let truth = Command::new("sadf").arg("-j").arg(&file).args(["--", "-u", "-r", "-W"]).output().unwrap();
        let truth: Value = serde_json::from_slice(&truth.stdout).unwrap();
        let truth = truth["sysstat"]["hosts"][0]["statistics"].as_array().unwrap();
        assert_eq!((told.len(), truth.len()), (3, 3));
        for (ours, theirs) in told.iter().zip(truth) {
            let cpu = &theirs["cpu-load"][0];
            let values = [
                (ours.idle, &cpu["idle"]),
                (ours.waiting, &cpu["iowait"]),
                (ours.memory.unwrap(), &theirs["memory"]["memused-percent"]),
            ];
            let swapped = ["pswpin", "pswpout"].iter().filter_map(|key| theirs["swap-pages"][key].as_f64());
            assert!((ours.swapped.unwrap() - swapped.sum::<f64>()).abs() < 1.0);
            for (ours, theirs) in values {
                // A processor whose counter goes back by a tick is half a percent of such a short time.
                assert!((ours - theirs.as_f64().unwrap()).abs() < 2.0, "{ours} is not {theirs}");
            }
        }
        // Whatever is broken of it, it comes back.
        for at in 0..bytes.len().min(3_000) {
            for value in [0, 0x7f, 0xff] {
                let mut broken = bytes.clone();
                broken[at] = value;
                let _ = intervals(&broken);
            }
            assert!(intervals(&bytes[..at]).map_or(0, |found| found.len()) <= told.len());
        }
    }
}
