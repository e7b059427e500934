//! `local filesystems|ls|cat|stat|find|readlink|checksum` beside the tools whose answers they must give: a tree of this machine
//! is put into an ext4 by mke2fs, and what comes out of the image is compared with what `find`, `stat`, `sha256sum` and `tar`
//! say of the tree, and with `blkid`, `sfdisk` and `qemu-img` of the image.
#![allow(clippy::unwrap_used)] // Helpers of tests may panic as tests do.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Whether the outside tool `name` is there; continuous integration must have it.
fn has_tool(name: &str) -> bool {
    let paths = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let found = std::env::split_paths(&paths).any(|folder| folder.join(name).exists());
    assert!(found || std::env::var_os("CI").is_none(), "{name} must be there in continuous integration");
    found
}

fn tool(name: &str, args: &[&str]) -> Vec<u8> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(name).args(args).env("PATH", path).env("LC_ALL", "C").output().unwrap();
    assert!(output.status.success(), "{name} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn guestkit(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_guestkit")).args(args).stdin(Stdio::null()).output().unwrap()
}

/// What a command that succeeds prints.
#[track_caller]
fn printed(args: &[&str]) -> Vec<u8> {
    let output = guestkit(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[track_caller]
fn document(args: &[&str]) -> Value {
    serde_json::from_slice(&printed(&[args, &["-o", "json"]].concat())).unwrap()
}

/// Checks that a command fails with `code` and says `what`.
#[track_caller]
fn fails(args: &[&str], code: i32, what: &str) {
    let output = guestkit(args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    assert!(said.contains(what), "{args:?}: {what:?} is not in\n{said}");
}

/// A tree of all that a file system holds and every user may make, and an ext4 of it.
struct Made {
    home: TempDir,
    tree: PathBuf,
    image: String,
}

impl Made {
    fn new() -> Option<Self> {
        if !["mke2fs", "blkid", "tar", "qemu-img", "sfdisk"].into_iter().all(has_tool) {
            return None;
        }
        let home = tempfile::tempdir().unwrap();
        let tree = home.path().join("tree");
        fs::create_dir_all(tree.join("etc/deep/deeper")).unwrap();
        fs::create_dir_all(tree.join("bin")).unwrap();
        fs::write(tree.join("etc/hostname"), "web1\n").unwrap();
        fs::write(tree.join("etc/os-release"), "ID=debian\nVERSION_ID=\"12\"\n").unwrap();
        fs::write(tree.join("etc/deep/name with space"), "spaced").unwrap();
        fs::write(tree.join("etc/deep/deeper/large"), vec![7; 3 << 20]).unwrap();
        fs::hard_link(tree.join("etc/deep/deeper/large"), tree.join("etc/deep/second name")).unwrap();
        fs::write(tree.join("bin/su"), [0x7f, b'E', 0, 0xff]).unwrap();
        fs::set_permissions(tree.join("bin/su"), fs::Permissions::from_mode(0o4755)).unwrap();
        symlink("/etc/hostname", tree.join("etc/absolute")).unwrap();
        symlink("deep/../absolute", tree.join("etc/two")).unwrap();
        tool("mkfifo", &[tree.join("etc/pipe").to_str().unwrap()]);
        let image = home.path().join("disk.raw").to_str().unwrap().to_owned();
        tool("mke2fs", &["-q", "-F", "-t", "ext4", "-L", "data", "-d", tree.to_str().unwrap(), &image, "32M"]);
        Some(Self { home, tree, image })
    }

    fn path(&self, name: &str) -> String {
        self.home.path().join(name).to_str().unwrap().to_owned()
    }
}

#[test]
fn names_are_those_that_went_in() {
    let Some(made) = Made::new() else { return };
    let tree = made.tree.to_str().unwrap();
    let expected = tool("sh", &["-c", "cd \"$1/etc\" && ls -1A | LC_ALL=C sort", "sh", tree]);
    assert_eq!(printed(&["local", "ls", &made.image, "/etc"]), expected);
    for (args, test) in [
        (vec!["local", "ls", "-R", &made.image, "/etc"], "-mindepth 1"),
        (vec!["local", "find", &made.image, "/etc", "--type", "f,p"], "-type f -o -type p"),
        (vec!["local", "find", &made.image, "/etc", "--type", "d"], "-mindepth 1 -type d"),
        (vec!["local", "find", &made.image, "/etc", "--type", "l"], "-type l"),
    ] {
        let script =
            format!("cd \"$1\" && find /etc/../$(pwd)/etc {test} | sed \"s|/etc/../$(pwd)||\" | LC_ALL=C sort");
        let expected = tool("sh", &["-c", &script, "sh", tree]);
        let mut lines: Vec<Vec<u8>> = printed(&args).split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.retain(|line| !line.is_empty());
        lines.sort();
        let expected: Vec<Vec<u8>> =
            expected.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect();
        assert_eq!(lines, expected, "{args:?}");
    }
}

#[test]
fn contents_checksums_and_targets_are_those_that_went_in() {
    let Some(made) = Made::new() else { return };
    let image = made.image.as_str();
    assert_eq!(printed(&["local", "cat", image, "/etc/two", "/bin/su"]), b"web1\n\x7fE\0\xff", "links are followed");
    let large = printed(&["local", "cat", image, "/etc/deep/second name"]);
    assert_eq!(large, fs::read(made.tree.join("etc/deep/deeper/large")).unwrap());
    let large = made.tree.join("etc/deep/deeper/large");
    for algorithm in ["sha224", "sha256", "sha384", "sha512"] {
        let expected = tool(&format!("{algorithm}sum"), &[large.to_str().unwrap()]);
        let expected = String::from_utf8(expected).unwrap().split_whitespace().next().unwrap().to_owned();
        let args = ["local", "checksum", "--algorithm", algorithm, image, "/etc/deep/deeper/large"];
        assert_eq!(printed(&args), format!("{expected}  /etc/deep/deeper/large\n").into_bytes());
    }
    assert_eq!(
        printed(&["local", "readlink", image, "/etc/absolute", "/etc/two"]),
        b"/etc/hostname\ndeep/../absolute\n"
    );
    assert_eq!(
        document(&["local", "cat", image, "/etc/hostname", "/bin/su"]),
        json!([{ "path": "/etc/hostname", "size": 5, "text": "web1\n" }, { "path": "/bin/su", "size": 4, "base64": "f0UA/w==" }])
    );
}

#[test]
fn what_stat_tells_is_what_the_host_tells_of_the_tree() {
    let Some(made) = Made::new() else { return };
    let paths = ["etc", "etc/hostname", "etc/two", "etc/pipe", "bin/su", "etc/deep/second name"];
    let guest_paths = paths.map(|path| format!("/{path}"));
    let mut args = vec!["local", "stat", made.image.as_str()];
    args.extend(guest_paths.iter().map(String::as_str));
    let told = document(&args);
    for (path, told) in paths.into_iter().zip(told.as_array().unwrap()) {
        let host = fs::symlink_metadata(made.tree.join(path)).unwrap();
        assert_eq!(told["mode"], format!("{:04o}", host.mode() & 0o7777), "{path}");
        assert_eq!((&told["uid"], &told["gid"]), (&host.uid().into(), &host.gid().into()), "{path}");
        if !host.is_dir() {
            assert_eq!((&told["size"], &told["links"]), (&host.size().into(), &host.nlink().into()), "{path}");
        }
        let modified = told["modified"].as_str().unwrap();
        let expected = tool("date", &["-u", "-d", &format!("@{}", host.mtime()), "+%Y-%m-%dT%H:%M:%S"]);
        assert!(modified.starts_with(String::from_utf8(expected).unwrap().trim()), "{path}: {modified}");
    }
    let types: Vec<&str> = told.as_array().unwrap().iter().map(|one| one["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["directory", "file", "symlink", "fifo", "file", "file"]);
}

#[test]
fn an_archive_extracts_to_the_tree_that_went_in() {
    let Some(made) = Made::new() else { return };
    let archive = printed(&["local", "cat", "--tar", &made.image, "/etc", "/bin"]);
    let file = made.path("out.tar");
    fs::write(&file, archive).unwrap();
    let out = made.path("out");
    fs::create_dir(&out).unwrap();
    tool("tar", &["-xpf", &file, "-C", &out]);
    fs::remove_file(made.tree.join("etc/pipe")).unwrap();
    assert!(fs::symlink_metadata(Path::new(&out).join("etc/pipe")).is_ok(), "the pipe, which diff would wait for");
    fs::remove_file(Path::new(&out).join("etc/pipe")).unwrap();
    for folder in ["etc", "bin"] {
        let (went_in, came_out) = (made.tree.join(folder), Path::new(&out).join(folder));
        tool("diff", &["-r", "--no-dereference", went_in.to_str().unwrap(), came_out.to_str().unwrap()]);
    }
    let at = |name: &str| fs::metadata(Path::new(&out).join(name)).unwrap();
    assert_eq!(at("etc/deep/second name").ino(), at("etc/deep/deeper/large").ino(), "two names of one file");
    assert_eq!(at("bin/su").mode() & 0o7777, 0o4755);
    assert_eq!(at("etc/hostname").mtime(), fs::metadata(made.tree.join("etc/hostname")).unwrap().mtime());
}

#[test]
fn file_systems_partitions_and_disks_are_named_as_by_blkid_sfdisk_and_qemu_img() {
    let Some(made) = Made::new() else { return };
    let disk = made.path("whole.raw");
    fs::write(&disk, vec![0; 48 << 20]).unwrap();
    let table = "label: gpt\nstart=2048, size=65536, name=\"root\", bootable\nstart=67584, size=8192, type=swap\n";
    let mut sfdisk = Command::new("/sbin/sfdisk").args(["-q", &disk]).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut sfdisk.stdin.take().unwrap(), table.as_bytes()).unwrap();
    assert!(sfdisk.wait().unwrap().success());
    tool(
        "dd",
        &["status=none", "conv=notrunc", "bs=1M", "seek=1", &format!("if={}", made.image), &format!("of={disk}")],
    );
    let qcow2 = made.path("whole.qcow2");
    tool("qemu-img", &["convert", "-q", "-f", "raw", "-O", "qcow2", &disk, &qcow2]);

    let told = document(&["local", "filesystems", "--all", &qcow2]);
    let drive = &told["disks"][0];
    let info: Value = serde_json::from_slice(&tool("qemu-img", &["info", "--output=json", &qcow2])).unwrap();
    assert_eq!(drive["format"], info["format"]);
    assert_eq!(drive["virtual_size_bytes"], info["virtual-size"]);
    assert_eq!(drive["cluster_size_bytes"], info["cluster-size"]);
    assert_eq!(drive["allocated_bytes"], info["actual-size"]);

    let sfdisk: Value = serde_json::from_slice(&tool("sfdisk", &["-J", &disk])).unwrap();
    let sfdisk = &sfdisk["partitiontable"];
    let table = &drive["partition_table"];
    assert_eq!(table["type"], sfdisk["label"]);
    assert_eq!(table["uuid"].as_str().unwrap().to_uppercase(), sfdisk["id"].as_str().unwrap());
    let partitions = table["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 2);
    for (told, expected) in partitions.iter().zip(sfdisk["partitions"].as_array().unwrap()) {
        assert_eq!(told["start_bytes"], expected["start"].as_u64().unwrap() * 512);
        assert_eq!(told["size_bytes"], expected["size"].as_u64().unwrap() * 512);
        assert_eq!(told["type"], expected["type"]);
        assert_eq!(told["uuid"].as_str().unwrap().to_uppercase(), expected["uuid"].as_str().unwrap());
    }

    let blkid = String::from_utf8(tool("blkid", &["-p", "-o", "export", &made.image])).unwrap();
    let field = |name: &str| blkid.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap();
    let first = &told["filesystems"][0];
    assert_eq!(first["device"], "/dev/sda1");
    assert_eq!((first["type"].as_str(), first["label"].as_str()), (Some(field("TYPE")), Some("data")));
    assert_eq!(first["uuid"].as_str(), Some(field("UUID")));
    assert_eq!((&first["readable"], &first["partition_label"]), (&json!(true), &json!("root")));

    assert_eq!(printed(&["local", "filesystems", &qcow2]), b"/dev/sda1\n");
    // Each as often as it is something that is listed, as by virt-filesystems.
    let all = b"/dev/sda1\n/dev/sda2\n/dev/sda1\n/dev/sda2\n/dev/sda\n";
    assert_eq!(printed(&["local", "filesystems", "--all", "-a", &qcow2]), all);
    assert_eq!(printed(&["local", "filesystems", "--parts", &qcow2]), b"/dev/sda1\n/dev/sda2\n");
    assert_eq!(printed(&["local", "filesystems", "--blkdevs", &qcow2]), b"/dev/sda\n");
    assert_eq!(printed(&["local", "filesystems", "--lvs", "--vgs", "--pvs", &qcow2]), b"");
    let (uuid, root, swap) = (field("UUID"), &partitions[0]["uuid"], &partitions[1]["uuid"]);
    let sheet = format!(
        "Name,Type,VFS,Label,MBR,Size,Parent,UUID\n\
         /dev/sda1,filesystem,ext4,data,,32M,,{uuid}\n\
         /dev/sda2,filesystem,unknown,,,4.0M,,\n\
         /dev/sda1,partition,,root,,32M,/dev/sda,{}\n\
         /dev/sda2,partition,,,,4.0M,/dev/sda,{}\n\
         /dev/sda,device,gpt,,,48M,,{}\n",
        root.as_str().unwrap(),
        swap.as_str().unwrap(),
        table["uuid"].as_str().unwrap()
    );
    let args = ["local", "filesystems", "--long", "--all", "--uuid", "-h", "--csv", &qcow2];
    assert_eq!(String::from_utf8(printed(&args)).unwrap(), sheet);
    let long = String::from_utf8(printed(&["local", "filesystems", "--long", &qcow2])).unwrap();
    let rows: Vec<Vec<&str>> = long.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["Name", "Type", "VFS", "Label", "Size", "UUID"]);
    assert_eq!(rows[1], ["/dev/sda1", "filesystem", "ext4", "data", "33554432", uuid]);
    fails(&["local", "filesystems", "--csv", "-o", "json", &qcow2], 2, "a document already");
}

#[test]
fn what_is_mounted_is_chosen() {
    let Some(made) = Made::new() else { return };
    let image = made.image.as_str();
    assert_eq!(printed(&["local", "cat", "-i", image, "/etc/hostname"]), b"web1\n");
    assert_eq!(printed(&["local", "cat", "-a", image, "-m", "/dev/sda", "/etc/hostname"]), b"web1\n");
    let second = made.path("second.raw");
    tool("mke2fs", &["-q", "-F", "-t", "ext2", "-d", made.tree.join("bin").to_str().unwrap(), &second, "4M"]);
    let both = ["local", "ls", "-a", image, "-a", &second, "-m", "/dev/sdb:/etc/deep", "-m", "/dev/sda", "/etc/deep"];
    assert_eq!(printed(&both), b"lost+found\nsu\n", "the second disk hides what lies there");
    fails(&["local", "ls", image, "-m", "/dev/sdz", "/"], 2, "there is no device /dev/sdz; those there are: /dev/sda");
    fails(&["local", "ls", image, "-m", "/dev/sda:/mnt", "/"], 2, "nothing is mounted on /");
    fails(&["local", "ls", "-i", &second, "/"], 1, "there is no operating system");
    assert_eq!(printed(&["local", "ls", &second, "/"]), b"lost+found\nsu\n", "without a system, its only file system");
}

#[test]
fn what_cannot_be_had_is_told_and_the_rest_is_done() {
    let Some(made) = Made::new() else { return };
    let image = made.image.as_str();
    let output = guestkit(&["local", "cat", image, "/etc/nothing", "/etc/hostname", "/etc/pipe"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), b"web1\n".as_slice()));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("/etc/nothing: no such file") && said.contains("/etc/pipe: no such file"), "{said}");
    fails(&["local", "ls", image, "/etc/hostname"], 1, "no such directory");
    fails(&["local", "readlink", image, "/etc/hostname"], 1, "no such symbolic link");
    fails(&["local", "ls", image], 2, "name a path inside the guest");
    fails(&["local", "ls", "/nowhere.qcow2", "/"], 1, "does not exist");
    fails(&["local", "ls", image, "/", "--key", "all:secret"], 2, "expected ID:key:PASSPHRASE or ID:file:PATH");
    assert!(
        !String::from_utf8(guestkit(&["local", "ls", image, "/", "--key", "all:x:secret"]).stderr)
            .unwrap()
            .contains("secret")
    );
}

#[test]
fn every_limit_has_a_flag() {
    let Some(made) = Made::new() else { return };
    let image = made.image.as_str();
    let top = made.path("top.qcow2");
    // Small clusters make a long table.
    tool("qemu-img", &["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "-F", "raw", "-b", image, &top]);
    for (limit, args) in [
        ("bytes_read=70000", ["local", "find", image, "/etc"]),
        ("allocation_bytes=100", ["local", "find", &top, "/etc"]),
        ("directory_depth=1", ["local", "find", image, "/etc"]),
        ("entries=3", ["local", "find", image, "/etc"]),
        ("chain_length=1", ["local", "find", &top, "/etc"]),
        ("symlink_depth=1", ["local", "cat", image, "/etc/two"]),
        ("time_seconds=0", ["local", "find", image, "/etc"]),
    ] {
        assert!(guestkit(&args).status.success(), "{args:?}");
        let name = limit.split('=').next().unwrap();
        fails(&[&args[..], &["--limit", limit]].concat(), 1, &format!("limit reached: {name}"));
    }
    let as_document = ["local", "cat", image, "/etc/hostname", "-o", "json"];
    fails(&[&as_document[..], &["--limit", "text_bytes=2"]].concat(), 1, "limit reached: text_bytes");
    fails(
        &["local", "ls", image, "/", "--limit", "speed=1"],
        2,
        "there is no limit speed; those there are: bytes_read",
    );
}
