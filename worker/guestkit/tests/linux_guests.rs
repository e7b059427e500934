//! Linux guests of the corpus against what other tools say of them: dpkg-query, systemctl, sshd -T, find, cvtsudoers,
//! pwck, grpck, virt-inspector, and the tables of what was put into the synthetic guests.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what it found by failing; its helpers are outside of what the lints take for tests"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use guestkit::guest::report::{AccountProblem, GuestSystem, InspectReport, OperatingSystem, Package};
use guestkit::guest::{Event, InspectOptions};
use guestkit::image::Roots;
use guestkit::{Disk, ImageSpec, Limits};
use serde_json::Value;
use support::{corpus, has_tool, has_tools};

fn everything() -> InspectOptions {
    InspectOptions { deep_scan: true, databases: true, ..InspectOptions::default() }
}

fn inspect(image: &Path, options: &InspectOptions) -> InspectReport {
    let opener = Roots::anywhere();
    let disk = Disk::open(&[ImageSpec::recognised(image)], &opener, &Limits::default()).unwrap();
    disk.inspect(options, &mut ())
}

/// The only system on an image.
fn system(image: &Path) -> (GuestSystem, InspectReport) {
    let report = inspect(image, &everything());
    assert_eq!(report.systems.len(), 1, "{}: {:#?}", image.display(), report.warnings);
    (report.systems[0].clone(), report)
}

const PROFILES: [&str; 3] = ["base", "weak", "vm"];

fn profile(corpus: &Path, name: &str) -> (GuestSystem, InspectReport) {
    system(&corpus.join(format!("guests/profile-debian12-{name}.qcow2")))
}

/// What a tool said of a guest when the corpus was made; or, where GUESTKIT_GUEST_TREES names a folder with the guests' files
/// (`cargo xtask oracle --guests`), what the tool of this machine says of them now.
fn oracle(corpus: &Path, name: &str) -> String {
    let now = std::env::var_os("GUESTKIT_GUEST_TREES").and_then(|trees| ask_again(Path::new(&trees), name));
    now.unwrap_or_else(|| fs::read_to_string(corpus.join("profile/oracle").join(name)).unwrap())
}

/// Runs the tool whose words `name` holds (`pwck-weak.txt`) over the guest's files; `None` where it is not installed, or can
/// only be asked of a running system. Tools that know no root of their own see the guest's /etc in the place of this machine's.
fn ask_again(trees: &Path, name: &str) -> Option<String> {
    let (kind, guest) = name.split_once('.')?.0.rsplit_once('-')?;
    let tree = trees.join(guest);
    let tree = tree.to_str()?;
    let of_its_etc = format!("mount --bind {tree}/etc /etc && ");
    let found = format!("find {tree} -xdev -type f -perm /6000 -printf '%m %U:%G /%P\\n'");
    let (tool, command) = match kind {
        "pwck" => ("pwck", format!("pwck -r -R {tree}")),
        "grpck" => ("grpck", format!("grpck -r -R {tree}")),
        "sysctl-cat" => ("systemd-analyze", format!("systemd-analyze cat-config --no-pager --root={tree} sysctl.d")),
        "unitfiles" => ("systemctl", format!("systemctl --root={tree} list-unit-files --no-pager --no-legend")),
        "dpkg" => (
            "dpkg-query",
            format!(
                "dpkg-query --admindir={tree}/var/lib/dpkg -W -f '${{Package}}\\t${{Version}}\\t${{db:Status-Status}}\\n'"
            ),
        ),
        "suid-sgid" => ("find", found),
        "sudoers" => ("visudo", of_its_etc + "visudo -c; cvtsudoers -f json /etc/sudoers"),
        "sshd-T" => ("sshd", of_its_etc + "mkdir -p /run/sshd && $(command -v sshd) -T"),
        _ => return None,
    };
    if !has_tools(&[tool, "unshare"]) {
        return None;
    }
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &command]).output().unwrap();
    println!("{tool} was asked again of {guest}");
    // pwck and grpck end with 2 where they find something.
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(!said.is_empty(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    Some(said)
}

/// `dpkg-query -W`: name, version, status.
#[test]
fn packages_agree_with_dpkg_query() {
    let Some(corpus) = corpus() else { return };
    for name in PROFILES {
        let (system, _) = profile(&corpus, name);
        let packages = system.packages.unwrap();
        let told: BTreeSet<String> = packages
            .packages
            .iter()
            .map(|package| format!("{}\t{}\t{}", package.name, package.full_version, package.state))
            .collect();
        let truth = oracle(&corpus, &format!("dpkg-{name}.tsv"));
        let truth: BTreeSet<String> = truth.lines().map(str::to_owned).collect();
        assert_eq!(told, truth, "{name}");
        assert_eq!(packages.count, Some(truth.len() as u64));
        assert_eq!(packages.manager.as_deref(), Some("dpkg"));
        assert_eq!(packages.top_packages.len(), 10);
        assert!(packages.packages.iter().all(|package| package.installed_at.is_some()), "{name}");
    }
}

/// `systemctl --root list-unit-files`: state and preset of every unit.
#[test]
fn unit_files_agree_with_systemctl() {
    let Some(corpus) = corpus() else { return };
    for name in PROFILES {
        let (system, _) = profile(&corpus, name);
        let units = system.services.unwrap().units;
        let systemd = units.iter().filter(|unit| unit.manager == "systemd");
        let told: BTreeSet<String> = systemd
            .map(|unit| format!("{} {} {}", unit.name, unit.state, unit.preset.as_deref().unwrap_or("-")))
            .collect();
        let truth = oracle(&corpus, &format!("unitfiles-{name}.txt"));
        let truth: BTreeSet<String> =
            truth.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let missing: Vec<_> = truth.difference(&told).collect();
        let surplus: Vec<_> = told.difference(&truth).collect();
        assert!(missing.is_empty() && surplus.is_empty(), "{name}: systemctl says {missing:#?}, told {surplus:#?}");
    }
}

/// `sshd -T`: every setting that is told is one that sshd has.
#[test]
fn ssh_settings_agree_with_sshd() {
    let Some(corpus) = corpus() else { return };
    for name in PROFILES {
        let (system, _) = profile(&corpus, name);
        let ssh = system.security.unwrap().ssh.unwrap();
        let truth = oracle(&corpus, &format!("sshd-T-{name}.txt"));
        let truth: BTreeSet<&str> = truth.lines().collect();
        assert!(ssh.settings.len() > 70, "{name}: {} settings", ssh.settings.len());
        for setting in &ssh.settings {
            let line = format!("{} {}", setting.key, setting.value);
            assert!(truth.contains(line.as_str()), "{name}: sshd does not say {line:?} ({})", setting.source);
        }
        assert_eq!(ssh.enabled, Some(true));
        assert_eq!(ssh.version.as_deref(), Some("1:9.2p1-2+deb12u10"));
    }
}

/// `find -perm`: mode, owner and path.
#[test]
fn the_walk_agrees_with_find() {
    let Some(corpus) = corpus() else { return };
    let show = |facts: &[guestkit::guest::report::FileFact]| {
        facts
            .iter()
            .map(|fact| format!("{} {}:{} {}", fact.mode, fact.uid, fact.gid, fact.path))
            .collect::<BTreeSet<_>>()
    };
    let truth = |name: &str| oracle(&corpus, name).lines().map(str::to_owned).collect::<BTreeSet<_>>();
    for name in PROFILES {
        let (system, report) = profile(&corpus, name);
        let scan = system.deep_scan.unwrap_or_else(|| panic!("{:#?}", report.warnings));
        assert_eq!(show(&scan.setuid_files), truth(&format!("suid-sgid-{name}.txt")), "{name}");
        if name == "weak" {
            assert_eq!(show(&scan.world_writable_files), truth("ww-files-weak.txt"));
            assert_eq!(show(&scan.world_writable_directories), truth("ww-dirs-nosticky-weak.txt"));
            assert_eq!(show(&scan.unowned_files), truth("unowned-weak.txt"));
        }
    }
}

/// `cvtsudoers -f json` after the lines of visudo.
#[test]
fn sudo_rules_agree_with_cvtsudoers() {
    let Some(corpus) = corpus() else { return };
    for name in PROFILES {
        let (system, _) = profile(&corpus, name);
        let users = system.users.unwrap();
        let text = oracle(&corpus, &format!("sudoers-{name}.txt"));
        let truth: Value = serde_json::from_str(&text[text.find("\n{").unwrap()..]).unwrap();
        let mut expected = Vec::new();
        for spec in truth["User_Specs"].as_array().unwrap() {
            let names = |list: &Value| -> String {
                let list = list.as_array().cloned().unwrap_or_default();
                let one = |entry: &Value| {
                    let (kind, name) = entry.as_object().unwrap().iter().next().unwrap();
                    let name = name.as_str().unwrap();
                    if kind == "usergroup" && name != "ALL" { format!("%{name}") } else { name.to_owned() }
                };
                list.iter().map(one).collect::<Vec<_>>().join(",")
            };
            for commands in spec["Cmnd_Specs"].as_array().unwrap() {
                let options = commands["Options"].as_array().cloned().unwrap_or_default();
                let is_free = options.iter().any(|option| option["authenticate"] == Value::Bool(false));
                for command in commands["Commands"].as_array().unwrap() {
                    expected.push(format!(
                        "{} {} ({}:{}) {} {}",
                        names(&spec["User_List"]),
                        names(&spec["Host_List"]),
                        names(&commands["runasusers"]),
                        names(&commands["runasgroups"]),
                        if is_free { "NOPASSWD" } else { "" },
                        command["command"].as_str().unwrap()
                    ));
                }
            }
        }
        let told: Vec<String> = users
            .sudo_rules
            .iter()
            .map(|rule| {
                let join = |list: &[String]| list.join(",");
                let free = if rule.tags.iter().any(|tag| tag == "NOPASSWD") { "NOPASSWD" } else { "" };
                format!(
                    "{} {} ({}:{}) {free} {}",
                    join(&rule.users),
                    join(&rule.hosts),
                    join(&rule.run_as_users),
                    join(&rule.run_as_groups),
                    rule.command
                )
            })
            .collect();
        assert_eq!(told, expected, "{name}");
        let defaults = truth["Defaults"].as_array().unwrap().len();
        assert_eq!(users.sudo_defaults.len(), defaults, "{name}: {:?}", users.sudo_defaults);
    }
}

/// pwck and grpck: missing homes, missing groups, entries without their shadow.
#[test]
fn account_problems_agree_with_pwck_and_grpck() {
    let Some(corpus) = corpus() else { return };
    for name in PROFILES {
        let (system, _) = profile(&corpus, name);
        let problems = system.users.unwrap().problems;
        let told = |file: &str, subject: &str, problem: &str| {
            problems.iter().any(|found| found.file == file && found.subject == subject && found.problem == problem)
        };
        let mut named = BTreeSet::new();
        for line in oracle(&corpus, &format!("pwck-{name}.txt")).lines() {
            let Some(rest) = line.strip_prefix("user '") else { continue };
            let (user, rest) = rest.split_once('\'').unwrap();
            let problem = if rest.contains("no group") { "missing-group" } else { "missing-home" };
            assert!(told("/etc/passwd", user, problem), "{name}: pwck says {line:?}");
            named.insert((user.to_owned(), problem));
        }
        // pwck ran while some daemons' directories in /run still stood; it does not look for repeated ids.
        let surplus = problems.iter().filter(|found| {
            found.file == "/etc/passwd"
                && found.problem != "duplicate-id"
                && !found.detail.starts_with("/run/")
                && !named.contains(&(found.subject.clone(), found.problem.as_str()))
        });
        assert_eq!(surplus.collect::<Vec<_>>(), Vec::<&AccountProblem>::new(), "{name}");
        if name == "weak" {
            for line in oracle(&corpus, "grpck-weak.txt").lines() {
                if let Some(group) = line.strip_prefix("add group '") {
                    assert!(told("/etc/gshadow", group.split('\'').next().unwrap(), "missing-entry"), "{line:?}");
                }
            }
            assert!(told("/etc/shadow", "legacy", "missing-entry"));
            assert!(told("/etc/gshadow", "shadow", "missing-user"));
        }
    }
}

/// `systemd-analyze cat-config sysctl.d`: the last value of each key.
#[test]
fn kernel_settings_agree_with_systemd_analyze() {
    let Some(corpus) = corpus() else { return };
    for name in PROFILES {
        let (system, _) = profile(&corpus, name);
        let mut truth = BTreeMap::new();
        for line in oracle(&corpus, &format!("sysctl-cat-{name}.txt")).lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some((key, value)) = line.split_once('=') {
                truth.insert(key.trim().trim_start_matches('-').replace('/', "."), value.trim().to_owned());
            }
        }
        let told: BTreeMap<_, _> =
            system.security.unwrap().sysctls.into_iter().map(|setting| (setting.key, setting.value)).collect();
        for (key, value) in &truth {
            assert_eq!(told.get(key), Some(value), "{name}: {key}");
        }
    }
}

/// A hash of a password never leaves the engine.
#[test]
fn reports_hold_no_password_hash() {
    let Some(corpus) = corpus() else { return };
    for name in PROFILES {
        let (system, report) = profile(&corpus, name);
        let text = serde_json::to_string(&report).unwrap();
        for prefix in ["$y$", "$6$", "$1$", "$5$"] {
            assert!(!text.contains(prefix), "{name}: {prefix}");
        }
        assert_eq!(system.operating_system.product_name.as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
        assert_eq!(system.operating_system.version.as_deref(), Some("12"));
        assert_eq!(system.operating_system.osinfo.as_deref(), Some("debian12"));
        assert_eq!(system.operating_system.init_system.as_deref(), Some("systemd"));
        assert_eq!(system.operating_system.arch.as_deref(), Some("x86_64"));
    }
}

/// What was put into the synthetic guests: `distros/truth/truth.json`.
#[test]
fn thirteen_distributions_are_told_for_what_they_are() {
    let Some(corpus) = corpus() else { return };
    let truth: Value =
        serde_json::from_str(&fs::read_to_string(corpus.join("distros/truth/truth.json")).unwrap()).unwrap();
    for (name, expected) in truth.as_object().unwrap() {
        let (system, report) = system(&corpus.join(format!("distros/{name}.qcow2")));
        let told = &system.operating_system;
        let same = |told: &Option<String>, key: &str| {
            assert_eq!(told.as_deref(), expected[key].as_str(), "{name}: {key}");
        };
        same(&told.distribution, "os_id");
        same(&told.version, "version_id");
        same(&told.product_name, "pretty_name");
        same(&told.hostname, "hostname");
        same(&told.arch, "arch");
        same(&told.package_format, "package_format");
        let packages = system.packages.unwrap();
        if expected["package_format"] == "deb" {
            check_packages(name, &packages.packages, expected["packages"].as_array().unwrap());
        } else {
            let mut told: Vec<String> = packages.packages.iter().map(epoch_version_release).collect();
            let truth = expected["packages"].as_array().unwrap().iter().map(|package| {
                let field = |key: &str| package[key].as_str().filter(|value| *value != "(none)");
                let epoch = field("epoch").map(|epoch| format!("{epoch}:")).unwrap_or_default();
                let (name, version, release) = (field("name"), field("version"), field("release"));
                format!("{} {epoch}{}-{}", name.unwrap(), version.unwrap(), release.unwrap())
            });
            let mut truth: Vec<String> = truth.collect();
            told.sort();
            truth.sort();
            assert_eq!(told, truth, "{name}");
            assert_eq!(packages.count, Some(truth.len() as u64), "{name}");
            assert_eq!(packages.manager.as_deref(), expected["package_format"].as_str(), "{name}");
            assert!(packages.packages.iter().all(|package| package.purl.is_some()), "{name}");
            let complaints: Vec<_> = report.warnings.iter().filter(|warning| warning.r#where == "packages").collect();
            assert!(complaints.is_empty(), "{name}: {complaints:#?}");
        }
    }
}

fn epoch_version_release(package: &Package) -> String {
    let epoch = package.epoch.map(|epoch| format!("{epoch}:")).unwrap_or_default();
    format!("{} {epoch}{}-{}", package.name, package.version, package.release.as_deref().unwrap_or_default())
}

/// virt-inspector 1.48 on rpm and pacman guests: every field of each application.
#[test]
fn applications_agree_with_virt_inspector() {
    let Some(corpus) = corpus() else { return };
    let guests = [
        ("distros/centos7.qcow2", "distros/truth/centos7.virt-inspector.xml"),
        ("distros/almalinux9.qcow2", "distros/truth/almalinux9.virt-inspector.xml"),
        ("distros/manjaro.qcow2", "distros/truth/manjaro.virt-inspector.xml"),
        ("phony/fedora.qcow2", "phony/truth/fedora.virt-inspector.xml"),
        ("phony/archlinux.qcow2", "phony/truth/archlinux.virt-inspector.xml"),
    ];
    for (image, truth) in guests {
        let xml = fs::read_to_string(corpus.join(truth)).unwrap();
        let (system, report) = system(&corpus.join(image));
        let packages = system.packages.unwrap();
        let mut told: Vec<String> = packages
            .packages
            .iter()
            .map(|found| {
                // virt-inspector takes pacman's description for one, and has no summary there.
                let is_pacman = found.format == "pacman";
                let description = if is_pacman { &found.summary } else { &found.description };
                let summary = if is_pacman { &None } else { &found.summary };
                let fields = [&found.arch, &found.url, summary, description];
                let fields = fields.map(|field| field.clone().unwrap_or_default());
                format!("{} {fields:?}", epoch_version_release(found))
            })
            .collect();
        let mut truth: Vec<String> = elements(&xml, "application")
            .into_iter()
            .map(|application| {
                // What a header lacks is `(none)` in virt-inspector's words.
                let text =
                    |name: &str| unescaped(element(application, name).filter(|text| *text != "(none)").unwrap_or(""));
                let epoch = element(application, "epoch").map(|epoch| format!("{epoch}:")).unwrap_or_default();
                let fields = [text("arch"), text("url"), text("summary"), text("description")];
                let version = format!("{} {epoch}{}-{}", text("name"), text("version"), text("release"));
                format!("{version} {fields:?}")
            })
            .collect();
        told.sort();
        truth.sort();
        assert_eq!(told, truth, "{image}: {:#?}", report.warnings);
        println!("{image}: {} applications agree", truth.len());
    }
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'").replace("&amp;", "&")
}

fn check_packages(guest: &str, told: &[Package], expected: &[Value]) {
    for package in expected {
        let name = package["name"].as_str().unwrap();
        let found = told.iter().find(|found| found.name == name).unwrap_or_else(|| panic!("{guest}: no {name}"));
        assert_eq!(Some(found.state.as_str()), package["status"].as_str(), "{guest}: {name}");
        if let Some(version) = package["epoch"].as_str() {
            assert_eq!(found.epoch.unwrap_or(0).to_string(), version, "{guest}: {name}");
            assert_eq!(
                Some(found.release.as_deref().unwrap_or_default()),
                package["release"].as_str(),
                "{guest}: {name}"
            );
            assert_eq!(found.arch.as_deref(), package["arch"].as_str(), "{guest}: {name}");
        }
        if let Some(source) = package["source"].as_str() {
            assert_eq!(found.source.as_deref(), Some(source), "{guest}: {name}");
        }
    }
    assert_eq!(told.len(), expected.len(), "{guest}");
}

/// Elements of virt-inspector's XML that hold one text.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let rest = xml.split_once(&format!("<{name}>"))?.1;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

/// virt-inspector 1.48, where it knows the distribution and is not known to be wrong.
#[test]
fn versions_agree_with_virt_inspector() {
    let Some(corpus) = corpus() else { return };
    let check = |name: &str, xml: &str, told: &OperatingSystem, keys: &[&str]| {
        for key in keys {
            let said = match *key {
                "major_version" => told.version_major.unwrap_or(0).to_string(),
                "minor_version" => told.version_minor.unwrap_or(0).to_string(),
                "package_management" => told.package_management.clone().unwrap_or_default(),
                "arch" => told.arch.clone().unwrap_or_default(),
                _ => told.hostname.clone().unwrap_or_default(),
            };
            assert_eq!(Some(said.as_str()), element(xml, key), "{name}: {key}");
        }
    };
    let all = ["arch", "major_version", "minor_version", "package_management", "hostname"];
    // Beyond these it calls AlmaLinux "redhat-based", Fedora's tool yum, and knows neither neon, Amazon nor Photon.
    for name in ["centos7", "distroless12", "kali2024", "ol9", "raspbian12", "rocky9", "sles15sp6", "manjaro"] {
        let xml = fs::read_to_string(corpus.join(format!("distros/truth/{name}.noapps.virt-inspector.xml"))).unwrap();
        let (system, _) = system(&corpus.join(format!("distros/{name}.qcow2")));
        check(name, &xml, &system.operating_system, &all);
    }
}

/// The texts of every element of that name.
fn elements<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(&open).skip(1).filter_map(|rest| Some(rest.split_once(&close)?.0)).collect()
}

/// virt-inspector 1.48 on a disk with logical partitions and a /var of its own: mounts, file systems, applications.
#[test]
fn a_separate_var_is_followed() {
    let Some(corpus) = corpus() else { return };
    let (system, report) = system(&corpus.join("guests/mbr-logical.raw"));
    let xml = fs::read_to_string(corpus.join("stacks/truth/mbr-logical.virt-inspector.xml")).unwrap();
    assert_eq!(Some(system.root.as_str()), element(&xml, "root"));
    let truth: BTreeSet<String> = xml
        .split("<mountpoint dev=\"")
        .skip(1)
        .map(|rest| rest.split_once("</mountpoint>").unwrap().0.replace("\">", " "))
        .collect();
    let told: BTreeSet<String> =
        system.mountpoints.iter().map(|mount| format!("{} {}", mount.device, mount.path)).collect();
    assert_eq!(told, truth);
    for filesystem in xml.split("<filesystem dev=\"").skip(1) {
        let (device, rest) = filesystem.split_once('"').unwrap();
        let rest = rest.split("</filesystem>").next().unwrap();
        let found = report.filesystems.iter().find(|found| found.device == device);
        let found = found.unwrap_or_else(|| panic!("no {device}"));
        assert_eq!(found.r#type.as_deref(), element(rest, "type"), "{device}");
        assert_eq!(found.label.as_deref(), element(rest, "label"), "{device}");
        assert_eq!(found.uuid.as_deref(), element(rest, "uuid"), "{device}");
    }
    // Version and release are compared as one: virt-inspector splits at the first hyphen, deb-version(7) at the last.
    let show = |name: &str, epoch: &str, version: &str, release: &str, arch: &str| {
        let hyphen = if release.is_empty() { "" } else { "-" };
        format!("{name} {epoch}:{version}{hyphen}{release} {arch}")
    };
    let mut told = BTreeSet::new();
    for found in &system.packages.unwrap().packages {
        let epoch = found.epoch.unwrap_or(0).to_string();
        let release = found.release.as_deref().unwrap_or_default();
        told.insert(show(&found.name, &epoch, &found.version, release, found.arch.as_deref().unwrap_or_default()));
    }
    let mut truth = BTreeSet::new();
    for found in elements(&xml, "application") {
        let text = |name: &str| element(found, name).unwrap_or_default();
        let epoch = element(found, "epoch").unwrap_or("0");
        truth.insert(show(text("name"), epoch, text("version"), text("release"), text("arch")));
    }
    assert_eq!(told, truth);
}

/// virt-inspector 1.48 on libguestfs's own Arch Linux guest.
#[test]
fn an_arch_linux_without_a_version_is_known() {
    let Some(corpus) = corpus() else { return };
    let (system, _) = system(&corpus.join("phony/archlinux.qcow2"));
    let xml = fs::read_to_string(corpus.join("phony/truth/archlinux.virt-inspector.xml")).unwrap();
    let told = system.operating_system;
    assert_eq!(told.osinfo.as_deref(), element(&xml, "osinfo"));
    assert_eq!(told.hostname.as_deref(), element(&xml, "hostname"));
    assert_eq!(told.package_format.as_deref(), element(&xml, "package_format"));
    assert_eq!(told.arch.as_deref(), element(&xml, "arch"));
    assert_eq!(told.version, None);
}

/// trivy's golden list for the Alpine 3.10 container, made into a disk by mkfs.ext4.
#[test]
fn alpine_packages_agree_with_the_golden_list() {
    let Some(corpus) = corpus() else { return };
    if !has_tool("mkfs.ext4") || !has_tool("tar") {
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
    let (outer, root) = (work.path().join("outer"), work.path().join("root"));
    fs::create_dir_all(&outer).unwrap();
    fs::create_dir_all(&root).unwrap();
    run(Command::new("tar").arg("-xzf").arg(corpus.join("guest-images/alpine-310.tar.gz")).arg("-C").arg(&outer));
    let manifest: Value = serde_json::from_str(&fs::read_to_string(outer.join("manifest.json")).unwrap()).unwrap();
    let layer = outer.join(manifest[0]["Layers"][0].as_str().unwrap());
    run(Command::new("tar").arg("-xf").arg(layer).arg("-C").arg(&root).arg("--exclude=dev/*"));
    let image = work.path().join("alpine.raw");
    run(Command::new("mkfs.ext4").args(["-q", "-d"]).arg(&root).arg(&image).arg("32M"));
    let (system, report) = system(&image);
    let packages = system.packages.unwrap();
    let golden: Value =
        serde_json::from_str(&fs::read_to_string(corpus.join("guest-images/alpine-310.json.golden")).unwrap()).unwrap();
    let golden = golden.as_array().unwrap();
    // The list was taken from an earlier 3.10 image: its database had these in older versions.
    let updated = ["busybox", "libcrypto1.1", "libssl1.1", "ssl_client"];
    for expected in golden {
        let name = expected["Name"].as_str().unwrap();
        let found = packages.packages.iter().find(|found| found.name == name).unwrap_or_else(|| panic!("no {name}"));
        let is_same = Some(found.full_version.as_str()) == expected["Version"].as_str();
        assert_eq!(is_same, !updated.contains(&name), "{name} {}", found.full_version);
        assert_eq!(found.arch.as_deref(), expected["Arch"].as_str(), "{name}");
        assert_eq!(found.source.as_deref(), expected["SrcName"].as_str(), "{name}");
        assert_eq!(found.vendor.as_deref(), expected["Maintainer"].as_str(), "{name}");
    }
    assert_eq!(packages.count, Some(golden.len() as u64));
    assert_eq!(packages.manager.as_deref(), Some("apk"));
    let told = system.operating_system;
    assert_eq!(told.distribution.as_deref(), Some("alpine"));
    assert_eq!(told.osinfo.as_deref(), Some("alpinelinux3.10"));
    assert_eq!(told.arch.as_deref(), Some("x86_64"), "{:#?}", report.warnings);
    assert_eq!(told.package_management.as_deref(), Some("apk"));
}

/// One system's broken database loses neither the rest of that system nor the report.
#[test]
fn a_broken_package_database_loses_nothing_else() {
    if !has_tool("mkfs.ext4") {
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let root = work.path().join("root");
    for directory in ["etc", "usr/bin", "var/lib/dpkg"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join("etc/os-release"), "ID=debian\nVERSION_ID=12\n").unwrap();
    fs::write(root.join("etc/hostname"), "still-here\n").unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    fs::write(root.join("var/lib/dpkg/status"), vec![0xff; 100_000]).unwrap();
    let image = work.path().join("broken.raw");
    let made = Command::new("mkfs.ext4").args(["-q", "-d"]).arg(&root).arg(&image).arg("8M").status();
    assert!(made.unwrap().success());
    let (system, report) = system(&image);
    assert_eq!(system.operating_system.hostname.as_deref(), Some("still-here"));
    assert_eq!(system.users.unwrap().count, 1);
    assert_eq!(system.packages.unwrap().count, None);
    assert!(report.warnings.iter().any(|w| w.r#where == "packages" && w.what == "/var/lib/dpkg/status"));
}

/// Modules that are not asked for are absent, and each that is asked for is announced once, in order.
/// A guest that lies: what its kernel would wait for, run around in or choke on, made by the kernel's own tools.
#[test]
fn a_guest_that_lies_harms_nothing_and_its_rest_is_told() {
    if !has_tool("mkfs.ext4") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    for directory in ["bin", "usr", "etc/ssh", "var/lib/dpkg", "proc", "lib"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let text = |path: &str, text: &str| fs::write(root.join(path), text).unwrap();
    text("etc/os-release", "ID=debian\nVERSION_ID=12\nPRETTY_NAME=\"Deb\u{1b}[31mian 12\"\n");
    text("etc/passwd", "root:x:0:0:ro\u{1b}]0;owned\u{7}ot:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n");
    // It mounts itself, and a file.
    text("etc/fstab", "/dev/sda / ext4 defaults 0 0\n/dev/sda /usr ext4 defaults 0 0\n/etc/fstab /x none bind 0 0\n");
    text("var/lib/dpkg/status", &"Package: p\nStatus: install ok installed\nVersion: 1\n\n".repeat(3_000_000));
    for (link, target) in [("etc/one", "two"), ("etc/two", "one"), ("etc/shadow", "one"), ("lib/etc", "../etc/../lib")]
    {
        std::os::unix::fs::symlink(target, root.join(link)).unwrap();
    }
    fs::File::create(root.join("etc/group")).unwrap().set_len(50 << 20).unwrap();
    assert!(Command::new("mkfifo").arg(root.join("etc/ssh/sshd_config")).status().unwrap().success());
    let image = folder.path().join("lies.raw");
    fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
    assert!(Command::new("mkfs.ext4").args(["-q", "-d"]).args([&root, &image]).status().unwrap().success());

    let started = std::time::Instant::now();
    let (system, report) = system(&image);
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    assert_eq!(system.operating_system.distribution.as_deref(), Some("debian"));
    assert_eq!(system.users.unwrap().count, 2);
    assert_eq!(system.packages.unwrap().count, None, "a list that is too long is unknown, not shorter");
    for (file, why) in [
        ("/etc/ssh/sshd_config", "it is a named pipe, not a file"),
        ("/etc/shadow", "limit reached: symlink_depth"),
        ("/etc/group", "limit reached: text_bytes"),
        ("/var/lib/dpkg/status", "limit reached: text_bytes"),
    ] {
        let is_told = report.warnings.iter().any(|warning| warning.what == file && warning.why.contains(why));
        assert!(is_told, "{file}: {:#?}", report.warnings);
    }
}

#[test]
fn options_and_progress_are_obeyed() {
    let Some(corpus) = corpus() else { return };
    let opener = Roots::anywhere();
    let image = ImageSpec::recognised(corpus.join("distros/kali2024.qcow2"));
    let disk = Disk::open(&[image], &opener, &Limits::default()).unwrap();
    let options = InspectOptions { users: false, network: false, storage: false, ..InspectOptions::default() };
    let mut phases = Vec::new();
    let report = disk.inspect(&options, &mut |event: &Event| {
        assert!(event.done <= event.total);
        phases.push(event.phase);
    });
    assert_eq!(phases, ["inspection", "operating_system", "packages", "services", "security", "analysis"]);
    let system = &report.systems[0];
    assert!(system.users.is_none() && system.network.is_none() && system.storage.is_none());
    assert!(system.databases.is_none() && system.deep_scan.is_none() && system.security.is_some());
    let json = serde_json::to_value(&report).unwrap();
    assert!(json["systems"][0].get("users").is_none());
    assert_eq!(json["systems"][0]["packages"]["count"], 3);
}
