//! Configurations that nobody wrote, right and wrong ones, beside what the programs that they are for make of them: `sshd -T` of
//! Debian 12's OpenSSH, `visudo -c` and `cvtsudoers` of sudo, and `systemctl --root list-unit-files`. GUESTKIT_CASES asks for more of them than usual.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what it found by failing; its helpers are outside of what the lints take for tests"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output};

use guestkit::guest::InspectOptions;
use guestkit::guest::report::{InspectReport, SudoRule, Unit};
use guestkit::image::Roots;
use guestkit::{Disk, ImageSpec, Limits};
use serde_json::Value;
use support::{Noise, has_tools, run};

fn cases() -> u64 {
    std::env::var("GUESTKIT_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}

/// A Debian 12 that has nothing but this file.
fn inspect(folder: &Path, path: &str, text: &str) -> InspectReport {
    let tree = folder.join("tree");
    let file = tree.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, text).unwrap();
    let report = inspect_tree(folder, &tree);
    fs::remove_file(file).unwrap();
    report
}

/// A Debian 12 that has nothing but what is in a folder.
fn inspect_tree(folder: &Path, tree: &Path) -> InspectReport {
    let image = folder.join("disk.raw");
    let status: String = [("openssh-server", "1:9.2p1-2+deb12u10"), ("sudo", "1.9.13p3-1+deb12u1")]
        .map(|(name, version)| {
            format!("Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n\n")
        })
        .concat();
    for (path, text) in [
        ("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nNAME=\"Debian GNU/Linux\"\n"),
        ("etc/debian_version", "12.9\n"),
        ("etc/fstab", ""),
        ("bin/sh", ""),
        ("var/lib/dpkg/status", &status),
    ] {
        let file = tree.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let _ = fs::remove_file(&image);
    let (from, to) = (tree.to_str().unwrap(), image.to_str().unwrap());
    run("mke2fs", &["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d", from, to, "4M"]);
    let disk = Disk::open(&[ImageSpec::recognised(&image)], &Roots::anywhere(), &Limits::default()).unwrap();
    let report = disk.inspect(&InspectOptions::default(), &mut ());
    assert_eq!(report.systems.len(), 1, "{:?}", report.warnings);
    report
}

/// One of what stands apart by `|`.
fn one_of(noise: &mut Noise, texts: &'static str) -> &'static str {
    let all: Vec<_> = texts.split('|').collect();
    all[noise.below(all.len())]
}

/// Keywords of one kind, and what may stand behind them. Keys and addresses are this machine's business.
const SSHD: [(&str, &str); 30] = [
    (
        "AllowAgentForwarding|DisableForwarding|ExposeAuthInfo|GSSAPIAuthentication|HostbasedAuthentication|KbdInteractiveAuthentication|\
         ChallengeResponseAuthentication|KerberosAuthentication|PasswordAuthentication|PermitEmptyPasswords|PermitTTY|PubkeyAuthentication|\
         StrictModes|TCPKeepAlive|KeepAlive|UseDNS|UsePAM|X11Forwarding|DSAAuthentication|SkeyAuthentication|DebianBanner|PrintMotd",
        "yes|no|Yes|NO|yes|no|\"yes\"|true|maybe|",
    ),
    ("Port", "22|2222|0|65536|22 23"),
    ("AddressFamily", "any|inet|inet6|ipv4"),
    ("MaxStartups", "10|10:30:60|5:100:5|10:30|0|10:0:20|20:30:10|a:b:c|1:2:3:4"),
    ("PersourceMaxStartups", "none|5|-1"),
    ("PerSourceNetBlockSize", "24|24:64|33|24:129|none"),
    ("PermitRootLogin", "yes|no|prohibit-password|Without-Password|forced-commands-only|maybe"),
    ("LoginGraceTime|ClientAliveInterval|UnusedConnectionTimeout", "0|30|1m|1h30m|2w|none|-1|1x||1M|10 20|08|1m30"),
    ("MaxAuthTries|MaxSessions|ClientAliveCountMax|X11DisplayOffset", "0|3|-1|0x10|010|99999999999|abc|5 6|"),
    ("LogLevel", "INFO|VERBOSE|debug|DEBUG1|quiet|bogus"),
    ("SyslogFacility", "AUTH|AUTHPRIV|auth|LOCAL7|bogus"),
    ("Banner|TrustedUserCAKeys|RevokedKeys|PidFile|ChrootDirectory", "none|/etc/x|\"/etc/a b\"|/etc/x y|None"),
    ("AllowUsers|DenyUsers", "a b|root@10.0.0.0/8|bob@10.0.0.1/8|!root|\"x y\"|a,b"),
    ("AllowGroups|DenyGroups", "ssh wheel|sudo"),
    ("AcceptEnv", "LANG LC_*|FOO|A=B"),
    ("SetEnv", "A=1|A=1 B=2|A=\"x y\"|A|A=1 A=2"),
    ("AuthorizedKeysFile", ".ssh/authorized_keys|/etc/keys/%u|none|a b"),
    ("AuthorizedKeysCommand", "/usr/bin/x %u|none|relative|\"/usr/bin/x\""),
    (
        "AuthenticationMethods",
        "any|publickey|publickey,password|password publickey|any publickey|bogus|keyboard-interactive:pam",
    ),
    ("AllowTcpForwarding|AllowStreamLocalForwarding", "yes|no|all|local|remote|x"),
    ("GatewayPorts|Compression|PermitTunnel|IgnoreRhosts", "yes|no|clientspecified|delayed|ethernet|shosts-only"),
    ("PermitUserEnvironment", "yes|no|LANG,LC_*"),
    ("Subsystem", "sftp internal-sftp|sftp /x -l INFO|foo /bin/foo  \"a b\" c|sftp"),
    ("ForceCommand|VersionAddendum", "internal-sftp|/bin/x \"a  b\" # no|none"),
    ("IPQoS", "af21|lowdelay throughput|ef cs1|none|0x20 8|bogus|1 2 3"),
    ("RekeyLimit", "1G|default none|512M 1h|1k|8|1T|1G none"),
    ("PermitOpen|PermitListen", "any|none|host:22|*:80 a:*|8080|a:b|a:1 any"),
    ("Ciphers|MACs", "aes128-ctr|+aes128-cbc|-*cbc|hmac-sha2-256|^hmac-sha1|-hmac-*|*|+*sha1*"),
    (
        "HostKeyAlgorithms|PubkeyAcceptedAlgorithms|CASignatureAlgorithms",
        "ssh-rsa|+ssh-rsa|-ecdsa*|^ssh-ed25519,*cert*|bogus",
    ),
    ("Protocol|UseLogin|RSAAuthentication|KerberosGetAFSToken|RefuseConnection|Bogus", "2|yes"),
];

fn sshd_line(noise: &mut Noise) -> String {
    let (keywords, values) = SSHD[noise.below(SSHD.len())];
    let (keyword, value) = (one_of(noise, keywords), one_of(noise, values));
    let keyword = if noise.below(5) == 0 { keyword.to_uppercase() } else { keyword.to_owned() };
    let (separator, end) = (one_of(noise, " | | |=| = |\t"), one_of(noise, "||||| # c|  |\r"));
    format!("{keyword}{separator}{value}{end}\n")
}

fn sshd_configuration(noise: &mut Noise) -> String {
    let mut text: String = (0..=noise.below(4)).map(|_| sshd_line(noise)).collect();
    if noise.below(6) == 0 {
        text += one_of(
            noise,
            "Match all\n|Match User bob\n|Match Address 10.0.0.0/8\n|match Group=sudo\n|Match\n|Match User\n|Match all User x\n|\
             Match Address 10.0.0.1/8\n",
        );
        text += &sshd_line(noise);
    }
    text
}

#[test]
fn random_ssh_configurations_agree() {
    if !has_tools(&["mke2fs", "ssh-keygen", "dpkg-query"]) || !Path::new("/usr/sbin/sshd").exists() {
        println!("sshd is not installed");
        return;
    }
    let version = Command::new("dpkg-query").args(["-W", "-f", "${Version}", "openssh-server"]).output().unwrap();
    let is_known = String::from_utf8_lossy(&version.stdout).contains("9.2p1-2+deb12");
    // It starts only where this folder is, which the service makes.
    if !is_known || fs::create_dir_all("/run/sshd").is_err() {
        println!("this is no OpenSSH of Debian 12, or nobody who may ask it");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (key, file) = (folder.path().join("key"), folder.path().join("config"));
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", key.to_str().unwrap()]);
    let mut refused = 0;
    for case in 0..cases() {
        let text = sshd_configuration(&mut Noise::new(case));
        fs::write(&file, &text).unwrap();
        let truth = Command::new("/usr/sbin/sshd").arg("-T").arg("-f").arg(&file).arg("-h").arg(&key).output().unwrap();
        let report = inspect(folder.path(), "etc/ssh/sshd_config", &text);
        let told = report.systems[0].security.as_ref().and_then(|security| security.ssh.as_ref()).unwrap();
        let complaint = String::from_utf8_lossy(&truth.stderr);
        assert_eq!(told.errors.is_empty(), truth.status.success(), "{case}: {text:?}: {:?} / {complaint}", told.errors);
        if !truth.status.success() {
            refused += 1;
            continue;
        }
        let is_asked = |line: &&str| !line.starts_with("hostkey ");
        let printed = String::from_utf8_lossy(&truth.stdout);
        let printed: BTreeSet<_> = printed.lines().filter(is_asked).collect();
        let told: Vec<_> = told.settings.iter().map(|setting| format!("{} {}", setting.key, setting.value)).collect();
        let told: BTreeSet<_> = told.iter().map(String::as_str).filter(is_asked).collect();
        let differing: Vec<_> = told.symmetric_difference(&printed).collect();
        assert!(differing.is_empty(), "{case}: {text:?}: {differing:?}");
    }
    assert!(refused > 0 && refused < cases(), "{refused} of {} refused: both must be among them", cases());
}

const USERS: &str = "bob|root|%sudo|#1000|%#27|ALL|ADMINS|!bob|+net|\"a b\"|al\\ x|u@d|%:grp|1bob|ALICE|%\"a b\"|bob:";
const HOSTS: &str = "ALL|ALL|HOSTS|foo|10.0.0.0/8|!foo|+ng|fe80::1|2001:db8::/32|web*|foo.bar";
const COMMANDS: &str = "ALL|ALL|/bin/ls -l|/bin/ls \"\"|/usr/bin/*|!/bin/su|SH|!SH|/usr/bin/|sudoedit /etc/x|/bin/a\\,b|/bin/a\\:b|\
                        ^/usr/bin/a[0-9]+$|/bin/x --a\\=b|list|relative|/x #c|sha224:zz /bin/y|ALL ALL";
const TAGS: &str = "|||NOPASSWD:|NOPASSWD: |PASSWD:SETENV: |NOEXEC:|MAIL:|NOFOLLOW:|nopasswd:|NOPASSWD :";
const OPTIONS: &str = "|||||||TIMEOUT=5m |CWD=/tmp |CWD=x |ROLE=r TYPE=t |TIMEOUT=x ";
const RUN_AS: &str = "|||(ALL)|(ALL:ALL)|(root)|(bob,root)|(:grp)|( ALL : ALL )|(!root)|(#0)|(ALL";
const DEFAULTS: &str = "env_reset|!authenticate|use_pty|logfile=/var/log/s|timestamp_timeout=5|timestamp_timeout=x|passwd_tries=3|\
                        passwd_tries=-2|env_keep += \"A B\"|secure_path=\"/a:/b\"|umask=0022|umask=99|bogus|lecture=always|lecture=bad|\
                        use_pty=1|rootpw, !requiretty|badpass_message=\"x \\\" y\"|syslog=auth|syslog=zz|mailto=|editor=vi|closefrom=3";

fn several(noise: &mut Noise, texts: &'static str) -> String {
    let all: Vec<_> = (0..=noise.below(2)).map(|_| one_of(noise, texts)).collect();
    all.join(one_of(noise, ", |,| , "))
}

fn sudoers_line(noise: &mut Noise) -> String {
    match noise.below(6) {
        0 => {
            let scope = one_of(
                noise,
                "Defaults|Defaults|Defaults:bob|Defaults@foo|Defaults>root|Defaults!/bin/ls|Defaults :bob",
            );
            format!("{scope} {}\n", one_of(noise, DEFAULTS))
        }
        1 => {
            let kind = one_of(noise, "User_Alias|Host_Alias|Cmnd_Alias|Cmd_Alias|Runas_Alias");
            let members = match kind {
                "Host_Alias" => HOSTS,
                "User_Alias" | "Runas_Alias" => USERS,
                _ => COMMANDS,
            };
            format!("{kind} {} = {}\n", one_of(noise, "A1|B_2|lower|_X|1A"), several(noise, members))
        }
        _ => {
            let (users, hosts) = (several(noise, USERS), several(noise, HOSTS));
            let mut line = format!("{users} {hosts} = ");
            for part in 0..=noise.below(3) {
                line += if part > 0 { ", " } else { "" };
                line += &[RUN_AS, OPTIONS, TAGS, COMMANDS].map(|texts| one_of(noise, texts)).concat();
            }
            line + one_of(noise, "\n|\n|\n| : foo = /bin/x\n|, \n| \\\n")
        }
    }
}

/// Users, hosts, whom a command runs as, and the command of each rule, in the words of both.
fn rules(told: &[SudoRule]) -> Vec<String> {
    let shown = |rule: &SudoRule| {
        let lists = [&rule.users, &rule.hosts, &rule.run_as_users, &rule.run_as_groups].map(|list| list.join(","));
        let asks = !rule.tags.iter().any(|tag| tag == "NOPASSWD");
        format!("{}|{}|{asks}", lists.join("|"), rule.command)
    };
    told.iter().map(shown).collect()
}

/// `None` where it prints what is no JSON: 1.9.13 forgets commas between options.
fn rules_of_cvtsudoers(output: &Output) -> Option<Vec<String>> {
    let name = |member: &Value| {
        let negation = if member["negated"] == Value::Bool(true) { "!" } else { "" };
        let known = [
            ("username", ""),
            ("usergroup", "%"),
            ("userid", "#"),
            ("usergid", "%#"),
            ("netgroup", "+"),
            ("nonunixgroup", "%:"),
            ("useralias", ""),
            ("runasalias", ""),
            ("hostname", ""),
            ("networkaddr", ""),
            ("hostalias", ""),
            ("command", ""),
            ("cmndalias", ""),
        ];
        let found = known.iter().find_map(|(key, sign)| {
            Some(format!("{sign}{}", member.get(key)?.as_str().map_or_else(|| member[key].to_string(), str::to_owned)))
        });
        format!("{negation}{}", found.unwrap_or_else(|| member.to_string()))
    };
    let none = Vec::new();
    let list = |value: &Value| value.as_array().unwrap_or(&none).iter().map(name).collect::<Vec<_>>();
    let document: Value = serde_json::from_slice(&output.stdout).ok()?;
    let mut found = Vec::new();
    for spec in document["User_Specs"].as_array().unwrap_or(&none) {
        for commands in spec["Cmnd_Specs"].as_array().unwrap_or(&none) {
            // Of groups it shows that they are; the list tells.
            let groups: Vec<_> =
                list(&commands["runasgroups"]).iter().map(|group| group.trim_start_matches('%').to_owned()).collect();
            let lists = [list(&spec["User_List"]), list(&spec["Host_List"]), list(&commands["runasusers"]), groups];
            let lists = lists.map(|list| list.join(",")).join("|");
            let options = commands["Options"].as_array().unwrap_or(&none);
            let asks = !options.iter().any(|option| option["authenticate"] == Value::Bool(false));
            found.extend(list(&commands["Commands"]).iter().map(|command| format!("{lists}|{command}|{asks}")));
        }
    }
    Some(found)
}

#[test]
fn random_sudoers_agree() {
    if !has_tools(&["mke2fs"]) || !Path::new("/usr/sbin/visudo").exists() {
        println!("sudo is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sudoers");
    let (mut refused, mut compared) = (0, 0);
    for case in 0..cases() {
        let line = sudoers_line(&mut Noise::new(case));
        let text =
            format!("User_Alias ADMINS = a, %w\nHost_Alias HOSTS = h1, h2\nCmnd_Alias SH = /bin/sh, /bin/bash\n{line}");
        fs::write(&file, &text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o440)).unwrap();
        let truth = Command::new("/usr/sbin/visudo").arg("-c").arg("-f").arg(&file).output().unwrap();
        let report = inspect(folder.path(), "etc/sudoers", &text);
        let complaints: Vec<_> = report.warnings.iter().filter(|warning| warning.what.contains("sudoers")).collect();
        let said = String::from_utf8_lossy(&truth.stderr);
        assert_eq!(complaints.is_empty(), truth.status.success(), "{case}: {line:?}: {complaints:?} / {said}");
        fs::remove_file(&file).unwrap();
        if !truth.status.success() {
            refused += 1;
            continue;
        }
        fs::write(&file, &text).unwrap();
        let truth = Command::new("cvtsudoers").args(["-f", "json", "-i", "sudoers"]).arg(&file).output().unwrap();
        let users = report.systems[0].users.as_ref().unwrap();
        let Some(mut expected) = rules_of_cvtsudoers(&truth) else { continue };
        let mut told = rules(&users.sudo_rules);
        compared += 1;
        told.sort();
        expected.sort();
        assert_eq!(told, expected, "{case}: {line:?}");
    }
    assert!(
        refused > 0 && compared > 0,
        "{refused} refused, {compared} compared of {}: both must be among them",
        cases()
    );
}

const UNITS: &str = "a.service|b.service|c.service|d@.service|e.socket|f.timer|g.target|h-i.service|n@m.service";
const VENDOR: &str = "usr/lib/systemd/system";
const LOCAL: &str = "etc/systemd/system";

/// Links go from one folder of units to the other; a link that is there already stays.
fn link(tree: &Path, target: &str, path: &str) {
    let path = tree.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    if fs::symlink_metadata(&path).is_err() {
        symlink(target, path).unwrap();
    }
}

fn install_section(noise: &mut Noise) -> String {
    let mut section = String::from(one_of(noise, "[Install]\n|[Install]\n|[Install]\n|"));
    for _ in 0..noise.below(3) {
        section += one_of(
            noise,
            "WantedBy=multi-user.target\n|RequiredBy=g.target\n|Alias=x.service\n|Alias=y.socket z.service\n|Also=b.service\n|Also=e.socket\n|\
             DefaultInstance=tty1\n|WantedBy=\n|WantedBy=a.service \\\n c.service\n|Alias=\n|Also=%i.service\n|WantedBy=d@q.service\n",
        );
    }
    section
}

/// Unit files, what they are masked, enabled and named by, and presets; also what nobody would write.
fn unit_tree(noise: &mut Noise, tree: &Path) {
    let write = |path: &str, text: &str| {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if fs::symlink_metadata(&path).is_err() {
            fs::write(path, text).unwrap();
        }
    };
    write("usr/lib/systemd/systemd", "");
    for target in ["multi-user.target", "sockets.target"] {
        write(&format!("{VENDOR}/{target}"), "[Unit]\nDescription=x\n");
    }
    write(
        &format!("{}/90-a.preset", one_of(noise, "usr/lib/systemd/system-preset|etc/systemd/system-preset")),
        one_of(
            noise,
            "enable a.service\ndisable *\n|disable a*\nenable *.socket\n|enable d@.service x y\ndisable *\n|# none\n",
        ),
    );
    for _ in 0..=noise.below(5) {
        let (name, folder) = (one_of(noise, UNITS), [VENDOR, VENDOR, LOCAL][noise.below(3)]);
        let text = format!("[Unit]\nDescription=x\n{}", install_section(noise));
        match noise.below(12) {
            0 => link(tree, "/dev/null", &format!("{folder}/{name}")),
            1 => write(&format!("{folder}/{name}"), ""),
            2 => {
                write(&format!("opt/{name}"), &text);
                link(tree, &format!("/opt/{name}"), &format!("{LOCAL}/{name}"));
            }
            _ => write(&format!("{folder}/{name}"), &text),
        }
        if noise.below(5) == 0 {
            write(&format!("{LOCAL}/{name}.d/10-x.conf"), &install_section(noise));
        }
        let place = one_of(noise, "multi-user.target.wants|g.target.requires|a.service.wants|sockets.target.wants|");
        if !place.is_empty() {
            let named = name.replace("@.", one_of(noise, "@1.|@tty1.|@."));
            let target = match noise.below(4) {
                0 => format!("../{name}"),
                1 => format!("/nowhere/{name}"),
                _ => format!("/{VENDOR}/{name}"),
            };
            link(tree, &target, &format!("{}/{place}/{named}", [LOCAL, LOCAL, VENDOR][noise.below(3)]));
        }
        if noise.below(4) == 0 {
            let alias = one_of(noise, "x.service|z.service|y.socket|d@1.service|w@.service");
            let target = [name.to_owned(), format!("/{VENDOR}/{name}"), format!("../../../{VENDOR}/{name}")];
            link(tree, &target[noise.below(3)], &format!("{}/{alias}", [LOCAL, VENDOR][noise.below(2)]));
        }
    }
}

/// The links and the texts of a tree's units.
fn shown(tree: &Path) -> String {
    let script = "find . -path '*systemd*' -type l -printf '  %P -> %l\\n'; find opt */systemd */*/systemd -type f 2>/dev/null | \
                  while read f; do echo \"  $f: $(grep -v -e Unit -e Description $f | tr '\\n' ';')\"; done";
    let output = Command::new("sh").args(["-c", script]).current_dir(tree).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn random_units_agree() {
    if !has_tools(&["mke2fs", "systemctl"]) {
        println!("systemctl is not installed");
        return;
    }
    let version = Command::new("systemctl").arg("--version").output().unwrap();
    if !String::from_utf8_lossy(&version.stdout).starts_with("systemd 252") {
        println!("this is no systemd of Debian 12");
        return;
    }
    let (mut states, mut differing) = (BTreeSet::new(), Vec::new());
    for case in 0..cases() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        unit_tree(&mut Noise::new(case), &tree);
        let report = inspect_tree(folder.path(), &tree);
        let root = format!("--root={}", tree.display());
        let truth = Command::new("systemctl").args([&root, "list-unit-files", "--output=json"]).output().unwrap();
        let truth: Value = serde_json::from_slice(&truth.stdout).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let state = |unit: &Value| (text(&unit["state"]), text(&unit["preset"]));
        let truth = truth.as_array().unwrap().iter().map(|unit| (text(&unit["unit_file"]), state(unit)));
        let truth: BTreeMap<_, _> = truth.collect();
        let units = &report.systems[0].services.as_ref().unwrap().units;
        let state = |unit: &Unit| (unit.state.clone(), unit.preset.clone().unwrap_or_default());
        let told: BTreeMap<_, _> = units.iter().map(|unit| (unit.name.clone(), state(unit))).collect();
        states.extend(truth.values().map(|(state, _)| state.clone()));
        let of = |all: &BTreeMap<String, (String, String)>, other: &BTreeMap<_, _>| {
            let differing = all.iter().filter(|(name, state)| other.get(*name) != Some(*state));
            differing.map(|(name, (state, preset))| format!("{name} {state} {preset}")).collect::<Vec<_>>().join(", ")
        };
        if told != truth {
            let (ours, theirs) = (of(&told, &truth), of(&truth, &told));
            differing.push(format!("{case}: ours {ours}; systemctl's {theirs}\n{}", shown(&tree)));
        }
    }
    assert!(differing.is_empty(), "{} of {} differ:\n{}", differing.len(), cases(), differing.join("\n"));
    let expected = ["enabled", "disabled", "static", "masked", "alias", "indirect", "linked"];
    assert!(expected.iter().all(|state| states.contains(*state)), "{states:?}");
}
