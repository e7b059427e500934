use super::*;
use crate::limits::Limits;

/// A cell that is put into a hive by hand: where it lies, and its data.
type Cell<'a> = (u32, &'a [u8]);

/// A hive of one bin (or more, 4096 bytes each) with these cells, its root at 0x20.
fn hive(bins: u32, cells: &[Cell<'_>]) -> Vec<u8> {
    let bins_bytes = bins * 4096;
    let mut bytes = vec![0; 4096 + bins_bytes as usize];
    let put = |bytes: &mut [u8], at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(&mut bytes, 0, b"regf\x01\0\0\0\x01\0\0\0");
    for (at, number) in [(20, 1), (24, 5), (32, 1), (36, 0x20), (40, bins_bytes), (44, 1)] {
        put(&mut bytes, at, &u32::to_le_bytes(number));
    }
    put(&mut bytes, 4096, b"hbin");
    put(&mut bytes, 4096 + 8, &bins_bytes.to_le_bytes());
    for (offset, data) in cells {
        let size = -i32::try_from((data.len() + 4).next_multiple_of(8)).unwrap();
        put(&mut bytes, 4096 + *offset as usize, &size.to_le_bytes());
        put(&mut bytes, 4100 + *offset as usize, data);
    }
    seal(&mut bytes);
    bytes
}

fn seal(bytes: &mut [u8]) {
    let sum = bytes[..508].as_chunks::<4>().0.iter().fold(0, |sum, word| sum ^ u32::from_le_bytes(*word));
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
}

/// A key node with a list of keys and a list of values.
fn key(name: &str, subkeys: (u32, u32), values: (u32, u32)) -> Vec<u8> {
    let mut node = vec![0; KEY_NODE_BYTES];
    node[..4].copy_from_slice(b"nk\x20\0");
    for (at, number) in [(20, subkeys.0), (28, subkeys.1), (36, values.0), (40, values.1), (48, u32::MAX)] {
        node[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }
    node[72] = u8::try_from(name.len()).unwrap();
    node.extend_from_slice(name.as_bytes());
    node
}

fn list(signature: &[u8; 2], entries: &[u32]) -> Vec<u8> {
    let mut list = signature.to_vec();
    list.extend(u16::try_from(entries.len()).unwrap().to_le_bytes());
    let width = if matches!(signature, b"lf" | b"lh") { 8 } else { 4 };
    for entry in entries {
        list.extend(entry.to_le_bytes());
        list.resize(list.len() + width - 4, 0);
    }
    list
}

fn open(bytes: Vec<u8>) -> Result<Hive> {
    Hive::open(Arc::new(bytes), Vec::new, Budget::new(&Limits::default()))
}

#[test]
fn a_hive_made_by_hand_is_read() {
    let value = [b"vk\x01\0\x04\0\0\x80\x2a\0\0\0\x04\0\0\0\x01\0\0\0".as_slice(), b"n"].concat();
    let bytes = hive(
        1,
        &[
            (0x20, &key("root", (2, 0x100), (1, 0x180))),
            (0x100, &list(b"ri", &[0x120, 0x140])),
            (0x120, &list(b"li", &[0x200])),
            (0x140, &list(b"lh", &[0x300])),
            (0x180, &0x1a0_u32.to_le_bytes()),
            (0x1a0, &value),
            (0x200, &key("Alpha", (0, u32::MAX), (0, u32::MAX))),
            (0x300, &key("Beta", (0, u32::MAX), (0, u32::MAX))),
        ],
    );
    let hive = open(bytes).unwrap();
    let root = hive.root().unwrap();
    let names: Vec<_> = root.subkeys().unwrap().iter().map(|key| key.name().to_owned()).collect();
    assert_eq!(names, ["Alpha", "Beta"]);
    assert!(root.subkey("ALPHA").unwrap().is_some());
    assert!(root.subkey("beta").unwrap().is_some(), "found in spite of a wrong hash");
    assert!(root.subkey("gamma").unwrap().is_none());
    assert_eq!(root.value("N").unwrap().unwrap().number().unwrap(), Some(42));
    assert!(hive.problems().is_empty());
}

#[test]
fn a_key_below_itself_ends_at_the_depth_that_windows_allows() {
    let bytes = hive(1, &[(0x20, &key("k", (1, 0x100), (0, 0))), (0x100, &list(b"lf", &[0x20]))]);
    let hive = open(bytes).unwrap();
    let mut key = hive.root().unwrap();
    let met = loop {
        match key.subkey("k") {
            Ok(below) => key = below.unwrap(),
            Err(error) => break error,
        }
    };
    assert!(matches!(met, Error::LimitReached { which: Limit::DirectoryDepth, value: 512 }), "{met}");
}

#[test]
fn lists_that_lie_are_refused() {
    let cases: [(&str, Vec<u8>, &str); 5] = [
        ("a list in itself", list(b"ri", &[0x100]), "holds itself"),
        ("one list twice", list(b"ri", &[0x180, 0x180]), "holds itself"),
        ("more entries than bytes", b"lf\xff\xff".to_vec(), "do not fit"),
        ("no list", b"nk\x01\0".to_vec(), "none of li, lf, lh and ri"),
        ("a list outside of the hive", list(b"ri", &[0xffff_fff0]), "leave the 4096"),
    ];
    for (what, cell, expected) in cases {
        let bytes = hive(1, &[(0x20, &key("k", (1, 0x100), (0, 0))), (0x100, &cell), (0x180, &list(b"li", &[0x20]))]);
        let hive = open(bytes).unwrap();
        let met = hive.root().unwrap().subkeys().unwrap_err().to_string();
        assert!(met.contains(expected), "{what}: {met}");
    }
}

#[test]
fn what_cannot_be_read_is_noted_and_the_rest_is_told() {
    let bytes = hive(
        1,
        &[
            (0x20, &key("root", (3, 0x100), (0, 0))),
            (0x100, &list(b"li", &[0x200, 0x210, 0x300])),
            (0x200, &key("Alpha", (0, u32::MAX), (0, u32::MAX))),
            (0x300, b"xx"),
        ],
    );
    let hive = open(bytes).unwrap();
    assert_eq!(hive.root().unwrap().subkeys().unwrap().len(), 1);
    let problems = hive.problems();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[1].contains("it has no signature nk"), "{problems:?}");
}

#[test]
fn what_is_no_hive_is_told_apart_from_what_is_not_supported() {
    assert!(matches!(open(vec![0; 100]), Err(Error::Corrupt { .. })));
    assert!(matches!(open(vec![0; 8192]), Err(Error::Corrupt { .. })));
    let mut bytes = hive(1, &[(0x20, &key("root", (0, u32::MAX), (0, u32::MAX)))]);
    bytes[24] = 9;
    assert!(matches!(open(bytes.clone()), Err(Error::Corrupt { .. })), "its checksum differs");
    seal(&mut bytes);
    assert!(matches!(open(bytes), Err(Error::Unsupported { .. })));
}

/// The hash of entries as .NET's tests have it would need its own seed; these are of a log that Windows wrote, where the
/// first 32 bytes of an entry are hashed.
#[test]
fn entries_are_hashed_as_windows_does() {
    // winreg-kb's NTUSER.DAT.LOG, first entry.
    let entry = [
        0x48_u8, 0x76, 0x4c, 0x45, 0x00, 0x2e, 0, 0, 0, 0, 0, 0, 0x83, 0, 0, 0, 0, 0, 7, 0, 2, 0, 0, 0, 0x1d, 0xd9,
        0xb1, 0x6d, 0xb8, 0x92, 0xae, 0x9e,
    ];
    assert_eq!(marvin::hash(&entry).to_le_bytes(), [0x64, 0xe2, 0x17, 0x30, 0xe4, 0xc2, 0x1d, 0xb4]);
}
