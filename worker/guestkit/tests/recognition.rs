//! What superblocks show; the truth is blkid: util-linux's own expected outputs, and its words on the kernel's images.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what it found by failing; its helpers are outside of what the lints take for tests"
)]

mod support;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use guestkit::filesystem::{Probe, probe};
use support::{corpus, has_tool, unpacked};

/// Identifiers that blkid makes by hashing or prints with control characters in them; type and label are compared.
const UUID_NOT_COMPARED: [&str; 1] = ["ddf-raid"];

/// blkid's udev form: `\x20` stands for a byte, and white space in a label is an underscore.
fn expected(path: &Path) -> HashMap<String, String> {
    let text = std::fs::read_to_string(path).unwrap();
    let pair = |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    text.lines().filter_map(pair).collect()
}

#[test]
fn devices_are_named_as_by_blkid() {
    let Some(corpus) = corpus() else { return };
    if !has_tool("xz") {
        return;
    }
    let folder = corpus.join("volume-ids");
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(folder.join("expected")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_prefix("low-probe-") else { continue };
        let truth = expected(&folder.join("expected").join(&file));
        let image: Arc<Vec<u8>> = Arc::new(unpacked(&folder.join(format!("{name}.img.xz"))));
        let found = probe(&*image).unwrap();
        let said = |key: &str| truth.get(key).map(|text| text.replace('_', " "));
        let (kind, label, uuid) = split(found);
        let mut differ = kind.as_ref() != truth.get("ID_FS_TYPE");
        differ |= label.map(|text| text.replace('_', " ")) != said("ID_FS_LABEL");
        differ |= !UUID_NOT_COMPARED.contains(&name) && uuid.as_ref() != truth.get("ID_FS_UUID");
        if differ {
            wrong.push(format!("{name}: {:?}, blkid says {truth:?}", probe(&*image).unwrap()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn split(found: Option<Probe>) -> (Option<String>, Option<String>, Option<String>) {
    found.map_or((None, None, None), |found| (Some(found.kind.to_owned()), found.label, found.uuid))
}

/// The column `blkid_type` of `truth/check.tsv`; it is empty where blkid of that version names nothing.
#[test]
fn images_of_every_file_system_are_named() {
    let Some(corpus) = corpus() else { return };
    let folder = corpus.join("fs-matrix");
    let mut wrong = Vec::new();
    for line in std::fs::read_to_string(folder.join("truth/check.tsv")).unwrap().lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let packed = std::fs::read(folder.join(fields[0])).unwrap();
        let mut image = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(packed.as_slice()), &mut image).unwrap();
        // The table was made with `blkid -o export`, which escapes spaces.
        let text = |field: &str| Some(field.replace("\\ ", " ")).filter(|text| !text.is_empty());
        let found = split(probe(&image).unwrap());
        let family = fields[0].split('_').next().unwrap();
        let agrees = match fields[3] {
            "" => found.0.as_deref().is_none_or(|kind| kind == family),
            kind => found == (text(kind), text(fields[4]), text(fields[5])),
        };
        if !agrees {
            wrong.push(format!("{}: {found:?}, blkid says {:?}", fields[0], &fields[3..6]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
