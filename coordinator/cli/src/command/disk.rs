//! `local filesystems|ls|cat|stat|find|readlink|checksum`: the engine's door for people who know libguestfs. Paths are the
//! guest's own and bytes: they go out as they are, save to a terminal's reader, who sees no byte that a terminal obeys.

mod filesystems;
mod listing;
mod tar;

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use guestkit::filesystem::{FileType, SharedFileSystem};
use guestkit::guest::{OpenFile, Unreadable, WalkNext};
use guestkit::image::Roots;
use guestkit::{Disk, Error, ImageSpec, Keys, Limits, PageBuffer, ReadAt as _, Secret, Tree};
use serde_json::{Value, json};
use sha2::{Sha224, Sha256, Sha384, Sha512};

use crate::args::{Algorithm, Files, LocalCat, LocalChecksum, LocalFind, LocalLs, LocalPaths, Opening, TypeLetter};
use crate::failure::{FAILED, Failure};
use crate::output::{Output, write};
use crate::table::Sheet;

pub(crate) use self::filesystems::filesystems;
use self::listing::Detail;

/// Bytes of a file that are read at once.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes of lines that are written at once.
const LINES_BYTES: usize = 64 << 10;
/// Bytes of one file that a document holds; the plain form has no such bound.
const DOCUMENT_BYTES_MAX: u64 = 64 << 20;

/// Lists directories.
pub(crate) fn ls(output: &Output, args: &LocalLs) -> Result<(), Failure> {
    let guest = Guest::open(output, &args.files)?;
    if args.tar {
        return tar::write(output, &guest.tree, &guest.paths);
    }
    let mut trouble = Trouble::new(output);
    let mut entries = Vec::new();
    for path in &guest.paths {
        if !guest.tree.is_dir(path).map_err(failed)? {
            trouble.tell(path, "no such directory");
            continue;
        }
        let first = entries.len();
        let unreadable = guest.tree.walk(path, |entry| {
            entries.push(listing::Entry::of_walk(entry, detail(output, args.long)));
            Ok(if args.recursive { WalkNext::Descend } else { WalkNext::Skip })
        });
        trouble.unreadable(unreadable.map_err(failed)?);
        entries[first..].sort_by(|one, other| one.path.cmp(&other.path));
    }
    listing::print(output, &entries, args.long, args.recursive)?;
    trouble.end()
}

/// Prints files.
pub(crate) fn cat(output: &Output, args: &LocalCat) -> Result<(), Failure> {
    let guest = Guest::open(output, &args.files)?;
    if args.tar {
        return tar::write(output, &guest.tree, &guest.paths);
    }
    let mut trouble = Trouble::new(output);
    let mut documents = Vec::new();
    for path in &guest.paths {
        let Some(file) = guest.open_file(path, &mut trouble) else { continue };
        if output.is_plain() {
            let mut out = io::stdout().lock();
            let copied = pieces(&file, |piece| out.write_all(piece));
            match copied.and_then(|()| out.flush().map_err(Stopped::Write)) {
                Ok(()) => {}
                Err(Stopped::Read(error)) => trouble.tell(path, &error.with_causes()),
                Err(Stopped::Write(source)) if source.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Err(Stopped::Write(source)) => return Err(Failure::Write { source }),
            }
            continue;
        }
        match guest.tree.read_file_within(path, DOCUMENT_BYTES_MAX.min(guest.tree.budget().limits().text_bytes)) {
            Ok(contents) => documents.push(contents_document(path, &contents.unwrap_or_default())),
            Err(error) => trouble.tell(path, &error.with_causes()),
        }
    }
    if !output.is_plain() {
        output.document(|| Value::Array(documents), Sheet::default)?;
    }
    trouble.end()
}

fn contents_document(path: &[u8], contents: &[u8]) -> Value {
    let (name, value) = match std::str::from_utf8(contents) {
        Ok(text) => ("text", text.to_owned()),
        Err(_) => ("base64", STANDARD.encode(contents)),
    };
    json!({ "path": lossy(path), "size": contents.len(), name: value })
}

/// Tells what is known about files.
pub(crate) fn stat(output: &Output, args: &LocalPaths) -> Result<(), Failure> {
    let guest = Guest::open(output, &args.files)?;
    let mut trouble = Trouble::new(output);
    let mut entries = Vec::new();
    for path in &guest.paths {
        match listing::Entry::of_path(&guest.tree, path) {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) => trouble.tell(path, "no such file or directory"),
            Err(error) => trouble.tell(path, &error.with_causes()),
        }
    }
    listing::print_stat(output, &entries)?;
    trouble.end()
}

/// Lists everything below directories, in the order it lies on disk.
pub(crate) fn find(output: &Output, args: &LocalFind) -> Result<(), Failure> {
    let guest = Guest::open(output, &args.files)?;
    let mut trouble = Trouble::new(output);
    let mut pages = output.pages();
    let mut lines = Lines::new();
    for path in &guest.paths {
        if !guest.tree.is_dir(path).map_err(failed)? {
            trouble.tell(path, "no such directory");
            continue;
        }
        let mut stopped = None;
        let unreadable = guest.tree.walk(path, |entry| {
            if args.types.is_empty() || args.types.iter().any(|letter| is_of_type(*letter, entry.file_type)) {
                let told = match detail(output, args.long) {
                    Detail::Name => lines.line(entry.path),
                    Detail::Line => lines.line(&listing::Entry::of_walk(entry, Detail::Line).line(entry.path)),
                    Detail::All => {
                        pages.page(&[listing::Entry::of_walk(entry, Detail::All).document()], |_| Sheet::default())
                    }
                };
                if let Err(failure) = told {
                    stopped = Some(failure);
                    return Ok(WalkNext::Stop);
                }
            }
            Ok(WalkNext::Descend)
        });
        if let Some(failure) = stopped {
            return Err(failure);
        }
        trouble.unreadable(unreadable.map_err(failed)?);
    }
    lines.end()?;
    if !output.is_plain() {
        pages.end()?;
    }
    trouble.end()
}

/// How much a listing tells of each file.
fn detail(output: &Output, long: bool) -> Detail {
    match (output.is_plain(), long) {
        (false, _) => Detail::All,
        (true, true) => Detail::Line,
        (true, false) => Detail::Name,
    }
}

const fn is_of_type(letter: TypeLetter, file_type: FileType) -> bool {
    matches!(
        (letter, file_type),
        (TypeLetter::F, FileType::Regular)
            | (TypeLetter::D, FileType::Directory)
            | (TypeLetter::L, FileType::Symlink)
            | (TypeLetter::B, FileType::BlockDevice)
            | (TypeLetter::C, FileType::CharacterDevice)
            | (TypeLetter::P, FileType::Fifo)
            | (TypeLetter::S, FileType::Socket)
    )
}

/// Prints targets of links.
pub(crate) fn readlink(output: &Output, args: &LocalPaths) -> Result<(), Failure> {
    let guest = Guest::open(output, &args.files)?;
    let mut trouble = Trouble::new(output);
    let mut documents = Vec::new();
    for path in &guest.paths {
        match guest.tree.read_link(path) {
            Ok(Some(target)) if output.is_plain() => write_line(&target)?,
            Ok(Some(target)) => documents.push(json!({ "path": lossy(path), "target": lossy(&target) })),
            Ok(None) => trouble.tell(path, "no such symbolic link"),
            Err(error) => trouble.tell(path, &error.with_causes()),
        }
    }
    if !output.is_plain() {
        output.document(|| Value::Array(documents), Sheet::default)?;
    }
    trouble.end()
}

/// Prints checksums, as sha256sum(1) does.
pub(crate) fn checksum(output: &Output, args: &LocalChecksum) -> Result<(), Failure> {
    let guest = Guest::open(output, &args.files)?;
    let mut trouble = Trouble::new(output);
    let mut documents = Vec::new();
    for path in &guest.paths {
        let Some(file) = guest.open_file(path, &mut trouble) else { continue };
        match checksum_of(&file, args.algorithm) {
            Ok(sum) if output.is_plain() => write_line(&[sum.as_bytes(), b"  ", path].concat())?,
            Ok(sum) => documents.push(json!({ "path": lossy(path), "size": file.len(), "checksum": sum })),
            Err(error) => trouble.tell(path, &error.with_causes()),
        }
    }
    if !output.is_plain() {
        output.document(|| Value::Array(documents), Sheet::default)?;
    }
    trouble.end()
}

fn checksum_of(file: &OpenFile, algorithm: Algorithm) -> Result<String, Error> {
    fn digest<D: sha2::Digest>(file: &OpenFile) -> Result<String, Error> {
        let mut hash = D::new();
        let hashed = pieces(file, |piece| {
            hash.update(piece);
            Ok(())
        });
        match hashed {
            Err(Stopped::Read(error)) => Err(error),
            Ok(()) | Err(Stopped::Write(_)) => Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
        }
    }
    match algorithm {
        Algorithm::Sha224 => digest::<Sha224>(file),
        Algorithm::Sha256 => digest::<Sha256>(file),
        Algorithm::Sha384 => digest::<Sha384>(file),
        Algorithm::Sha512 => digest::<Sha512>(file),
    }
}

/// Why a file was not taken to its end.
enum Stopped {
    Read(Error),
    Write(io::Error),
}

/// Gives a file's contents piece by piece.
fn pieces(file: &OpenFile, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), Stopped> {
    let mut buffer = PageBuffer::new(PIECE_BYTES);
    let mut at = 0;
    while at < file.len() {
        let piece = buffer.first(file.len() - at);
        file.read_exact_at(piece, at).map_err(Stopped::Read)?;
        take(piece).map_err(Stopped::Write)?;
        at += piece.len() as u64;
    }
    Ok(())
}

/// A guest whose files are asked for, and which.
struct Guest {
    tree: Tree,
    paths: Vec<Vec<u8>>,
}

impl Guest {
    fn open(output: &Output, files: &Files) -> Result<Self, Failure> {
        let named = usize::from(files.add.is_empty());
        let (image, paths) = files.names.split_at(named.min(files.names.len()));
        if paths.is_empty() {
            return Err(Failure::usage("name a path inside the guest after the image"));
        }
        let images: Vec<PathBuf> = image.iter().map(PathBuf::from).chain(files.add.iter().cloned()).collect();
        let disk = open(&images, &files.opening)?;
        let tree = if files.mount.is_empty() {
            inspected(output, &disk, files.inspector)?
        } else {
            mounted(&disk, &files.mount)?
        };
        Ok(Self { tree, paths: paths.iter().map(|path| path.as_bytes().to_vec()).collect() })
    }

    fn open_file(&self, path: &[u8], trouble: &mut Trouble) -> Option<OpenFile> {
        match self.tree.open(path) {
            Ok(Some(file)) => return Some(file),
            Ok(None) => trouble.tell(path, "no such file"),
            Err(error) => trouble.tell(path, &error.with_causes()),
        }
        None
    }
}

/// Opens the disks of one machine.
fn open(images: &[PathBuf], opening: &Opening) -> Result<Disk, Failure> {
    let mut limits = Limits::default();
    for (name, value) in &opening.limits {
        let value = value.parse().map_err(|_| Failure::usage(format!("--limit {name}: {value:?} is no number")))?;
        limits.set(name, value).map_err(|why| Failure::usage(format!("--limit: {why}")))?;
    }
    let specs: Vec<ImageSpec> = images.iter().map(ImageSpec::recognised).collect();
    Disk::open_with_keys(&specs, &Roots::anywhere(), &keys(&opening.keys)?, &limits).map_err(failed)
}

/// Keys in libguestfs's notation.
pub(crate) fn keys(selectors: &[String]) -> Result<Keys, Failure> {
    let mut keys = Keys::none();
    for selector in selectors {
        let mut parts = selector.splitn(3, ':');
        let (id, kind, value) = match (parts.next(), parts.next(), parts.next()) {
            (Some(id), Some(kind), Some(value)) if !id.is_empty() => (id, kind, value),
            // The selector may hold a passphrase, so it is not repeated.
            _ => return Err(Failure::usage("--key: expected ID:key:PASSPHRASE or ID:file:PATH")),
        };
        match kind {
            "key" => keys.add(id, Secret::new(value.as_bytes().to_vec())),
            "file" => {
                let contents = fs::read(value).map_err(|error| Failure::usage(format!("--key: {value}: {error}")))?;
                keys.add_file(id, contents);
            }
            other => {
                return Err(Failure::usage(format!("--key: {other} is no kind of key; those there are: key, file")));
            }
        }
    }
    Ok(keys)
}

/// The guest's own namespace; without an operating system, the one file system there is.
fn inspected(output: &Output, disk: &Disk, must_be_system: bool) -> Result<Tree, Failure> {
    let (roots, warnings) = disk.roots();
    for warning in &warnings {
        output.note(&format!("{}: {}: {}", warning.r#where, warning.what, warning.why));
    }
    let mut roots = roots.into_iter();
    match (roots.next(), roots.next()) {
        (Some(root), None) => return Ok(root.tree),
        (Some(one), Some(other)) => {
            let message = format!(
                "there are several operating systems, on {} and {}; mount one with --mount",
                one.device, other.device
            );
            return Err(Failure::usage(message));
        }
        (None, _) => {}
    }
    let mut file_systems: Vec<(&str, SharedFileSystem)> = Vec::new();
    for device in disk.devices() {
        if let Ok(file_system) = disk.mount(device) {
            file_systems.push((&device.name, file_system));
        }
    }
    match file_systems.as_slice() {
        [(_, only)] if !must_be_system => Ok(Tree::new(only.clone(), disk.budget().clone())),
        [] => Err(Failure::Work { message: why_unreadable(disk) }),
        several => {
            let names: Vec<&str> = several.iter().map(|(name, _)| *name).collect();
            let message = format!("there is no operating system; mount one of {} with --mount", names.join(", "));
            Err(Failure::Work { message })
        }
    }
}

fn why_unreadable(disk: &Disk) -> String {
    let errors: Vec<String> = disk
        .devices()
        .iter()
        .filter_map(|device| Some(format!("{}: {}", device.name, disk.mount(device).err()?.with_causes())))
        .collect();
    if errors.is_empty() { "there is no file system".to_owned() } else { errors.join("; ") }
}

/// What `--mount` asks for: shorter mount points first, as they hold the longer ones.
fn mounted(disk: &Disk, specs: &[String]) -> Result<Tree, Failure> {
    let mut wanted: Vec<(&str, &str, &str)> = Vec::new();
    for spec in specs {
        let mut parts = spec.splitn(3, ':');
        let device = parts.next().unwrap_or_default();
        let at = parts.next().filter(|at| !at.is_empty()).unwrap_or("/");
        wanted.push((device, at, parts.next().unwrap_or_default()));
    }
    wanted.sort_by_key(|(_, at, _)| at.split('/').filter(|name| !name.is_empty()).count());
    let mut tree: Option<Tree> = None;
    for (name, at, options) in wanted {
        let device = disk.device(name).ok_or_else(|| {
            let names: Vec<&str> = disk.devices().iter().map(|device| device.name.as_str()).collect();
            Failure::usage(format!("--mount: there is no device {name}; those there are: {}", names.join(", ")))
        })?;
        let file_system = disk.mount(device).map_err(failed)?;
        let start = match options.split(',').find_map(|option| option.strip_prefix("subvol=")) {
            None => file_system.root(),
            Some(path) => {
                let path = path.trim_matches('/').as_bytes();
                let subvolumes = file_system.subvolumes().map_err(failed)?;
                let found = subvolumes.iter().find(|subvolume| subvolume.path == path);
                found.map(|subvolume| subvolume.root).ok_or_else(|| {
                    Failure::usage(format!("--mount: {name} has no subvolume {}", OsStr::from_bytes(path).display()))
                })?
            }
        };
        match &mut tree {
            None if at.trim_matches('/').is_empty() => {
                tree = Some(Tree::with_root(file_system, start, disk.budget().clone()));
            }
            None => return Err(Failure::usage("--mount: nothing is mounted on /, which holds the other mount points")),
            Some(tree) => {
                if !tree.mount_directory(at, file_system, start).map_err(failed)? {
                    return Err(Failure::usage(format!("--mount: {at} is no directory")));
                }
            }
        }
    }
    tree.ok_or_else(|| Failure::usage("--mount: nothing is mounted"))
}

/// Paths that could not be taken: each is told, the others are done, and the command fails at its end.
struct Trouble<'a> {
    output: &'a Output,
    count: usize,
}

impl<'a> Trouble<'a> {
    const fn new(output: &'a Output) -> Self {
        Self { output, count: 0 }
    }

    fn tell(&mut self, path: &[u8], why: &str) {
        self.count += 1;
        self.output.complain(&format!("{}: {why}", lossy(path)));
    }

    fn unreadable(&mut self, unreadable: Vec<Unreadable>) {
        for Unreadable { path, error } in unreadable {
            self.tell(&path, &error.with_causes());
        }
    }

    fn end(self) -> Result<(), Failure> {
        if self.count == 0 { Ok(()) } else { Err(Failure::Several { code: FAILED }) }
    }
}

fn failed(error: Error) -> Failure {
    Failure::Work { message: error.with_causes() }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A line of bytes that may be no text, at once.
fn write_line(bytes: &[u8]) -> Result<(), Failure> {
    let mut lines = Lines::new();
    lines.line(bytes)?;
    lines.end()
}

/// Lines of bytes that may be no text: to a pipe as they are, many by one write.
struct Lines {
    out: BufWriter<StdoutLock<'static>>,
    is_terminal: bool,
}

impl Lines {
    fn new() -> Self {
        let out = io::stdout().lock();
        let is_terminal = out.is_terminal();
        Self { out: BufWriter::with_capacity(LINES_BYTES, out), is_terminal }
    }

    fn line(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.is_terminal {
            return write(&format!("{}\n", crate::table::plain(&lossy(bytes))));
        }
        wrote(self.out.write_all(bytes).and_then(|()| self.out.write_all(b"\n")))
    }

    fn end(mut self) -> Result<(), Failure> {
        wrote(self.out.flush())
    }
}

/// A reader that has gone away wanted no more: that is no failure.
fn wrote(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Write { source }),
        _ => Ok(()),
    }
}
