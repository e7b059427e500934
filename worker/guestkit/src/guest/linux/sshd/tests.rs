//! Held against what `sshd -T` printed.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::guest::linux::fixture::{Fixture, tree_of};

fn debian() -> Vec<Package> {
    let package = Package {
        name: "openssh-server".to_owned(),
        state: "installed".to_owned(),
        full_version: "1:9.2p1-2+deb12u10".to_owned(),
        ..Package::default()
    };
    vec![package]
}

/// `sshd -T` of OpenSSH 9.2p1-2+deb12u10 printed `sshd-T.txt` for each tree: what is told here must be there, and
/// everything that a tree changes must be told.
#[test]
fn settings_agree_with_sshd_on_its_own_configuration_trees() {
    let Some(corpus) = std::env::var_os("GUESTKIT_CORPUS") else {
        assert!(std::env::var_os("CI").is_none(), "GUESTKIT_CORPUS must be set");
        println!("corpus not present");
        return;
    };
    let cases = Path::new(&corpus).join("profile/sshd-cases");
    let default = std::fs::read_to_string(cases.join("01-default/sshd-T.txt")).unwrap();
    let default: BTreeSet<_> = default.lines().collect();
    let mut checked = 0;
    for case in std::fs::read_dir(cases).unwrap() {
        let case = case.unwrap().path();
        let truth = std::fs::read_to_string(case.join("sshd-T.txt")).unwrap_or_default();
        let refused = std::fs::read_to_string(case.join("sshd-T.err")).unwrap().contains("rc=255");
        let tree = tree_of(&case);
        let found = inspect(&Files::new(&tree), &debian()).unwrap();
        assert_eq!(!found.errors.is_empty(), refused, "{}: {:?}", case.display(), found.errors);
        if refused {
            continue;
        }
        let truth: BTreeSet<_> = truth.lines().collect();
        let told: BTreeSet<_> =
            found.settings.iter().map(|setting| format!("{} {}", setting.key, setting.value)).collect();
        for line in &told {
            assert!(truth.contains(line.as_str()), "{}: sshd does not say {line:?}", case.display());
        }
        for line in truth.difference(&default) {
            assert!(told.contains(*line), "{}: {line:?} is missing", case.display());
        }
        checked += 1;
    }
    assert!(checked > 15);
}

#[test]
fn odd_spellings_are_read_as_sshd_reads_them() {
    let fixture = Fixture::new();
    fixture.file("etc/ssh/sshd_config", "PORT=2222\nPort 22 # both\nListenAddress ::1\nListenAddress 10.0.0.1:5\nLoginGraceTime 1m30s\nPermitRootLogin no\nPermitRootLogin yes\n");
    let tree = fixture.tree();
    let found = inspect(&Files::new(&tree), &[]).unwrap();
    let values =
        |key: &str| found.settings.iter().filter(|s| s.key == key).map(|s| s.value.as_str()).collect::<Vec<_>>();
    assert_eq!(values("port"), ["2222", "22"]);
    assert_eq!(values("listenaddress"), ["[::1]:2222", "[::1]:22", "10.0.0.1:5"]);
    assert_eq!(values("logingracetime"), ["90"]);
    assert_eq!(values("permitrootlogin"), ["no"]);
    assert!(values("ciphers").is_empty(), "an unknown build's lists are not told");
}

/// As `sshd -T` of 9.2p1-2+deb12u10 printed for these lines, or refused them.
#[test]
fn arguments_are_judged_as_sshd_does() {
    let cases = [
        ("IPQoS 0x10", Some("ipqos lowdelay lowdelay")),
        ("IPQoS AF21 cs1", Some("ipqos af21 cs1")),
        ("PermitListen 8080 localhost:9", Some("permitlisten *:8080 localhost:9")),
        ("SetEnv X=1\nSetEnv Y=2", Some("setenv X=1")),
        ("RekeyLimit default 1h", Some("rekeylimit 0 3600")),
        ("RekeyLimit none", None),
        ("PubkeyAuthOptions touch-required,verify-required", None),
        ("PasswordAuthentication no yes", None),
    ];
    for (text, expected) in cases {
        let fixture = Fixture::new();
        fixture.file("etc/ssh/sshd_config", text);
        let tree = fixture.tree();
        let found = inspect(&Files::new(&tree), &debian()).unwrap();
        let key = expected.unwrap_or_default().split(' ').next().unwrap_or_default();
        let told: Vec<_> = found.settings.iter().filter(|setting| setting.key == key).collect();
        let told: Vec<_> = told.iter().map(|setting| format!("{key} {}", setting.value)).collect();
        assert_eq!(told.first().map(String::as_str), expected, "{text}: {:?}", found.errors);
        assert!(told.len() <= 1 && found.errors.is_empty() == expected.is_some(), "{text}: {told:?}");
    }
}

/// As `sshd -T` of 8.4p1-5+deb11u3 and of 10.0p1-7+deb13u4 printed for these lines.
#[test]
fn lists_are_derived_from_those_of_the_build() {
    let fixture = Fixture::new();
    fixture.file(
        "etc/ssh/sshd_config",
        "Ciphers +aes128-cbc\nMACs -*sha1*\nIPQoS lowdelay throughput\nKexAlgorithms ^diffie-hellman-group14-sha256\n",
    );
    let tree = fixture.tree();
    let tell = |version: &str, key: &str| {
        let mut packages = debian();
        packages[0].full_version = version.to_owned();
        let found = inspect(&Files::new(&tree), &packages).unwrap();
        found.settings.into_iter().find(|setting| setting.key == key).map(|setting| setting.value)
    };
    let macs = "umac-64-etm@openssh.com,umac-128-etm@openssh.com,hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,umac-64@openssh.com,umac-128@openssh.com,hmac-sha2-256,hmac-sha2-512";
    let cases = [
        (
            "1:8.4p1-5+deb11u3",
            "ciphers",
            "chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr,aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-cbc",
        ),
        ("1:8.4p1-5+deb11u3", "ipqos", "lowdelay throughput"),
        ("1:8.4p1-5+deb11u3", "macs", macs),
        (
            "1:10.0p1-7+deb13u4",
            "ciphers",
            "chacha20-poly1305@openssh.com,aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr,aes128-cbc",
        ),
        ("1:10.0p1-7+deb13u4", "ipqos", "none none"),
        ("1:10.0p1-7+deb13u4", "macs", macs),
        (
            "1:10.0p1-7+deb13u4",
            "kexalgorithms",
            "diffie-hellman-group14-sha256,mlkem768x25519-sha256,sntrup761x25519-sha512,sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521",
        ),
    ];
    for (version, key, expected) in cases {
        assert_eq!(tell(version, key).as_deref(), Some(expected), "{version} {key}");
    }
}

#[test]
fn hostile_configurations_end() {
    let fixture = Fixture::new();
    fixture.file(
        "etc/ssh/sshd_config",
        "Include /etc/ssh/sshd_config\n= = =\n\"\nMatch\nPort 99999\nClientAliveInterval 99999999999999999999d\n",
    );
    let tree = fixture.tree();
    assert!(!inspect(&Files::new(&tree), &[]).unwrap().errors.is_empty());
}
