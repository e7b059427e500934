//! Runtimes of programming languages: by the package that brought them, or by what an installation by hand leaves.

use std::collections::HashSet;

use crate::guest::report::{LanguageRuntime, Package};

use super::files::Files;
use super::os_release;

/// Packages that hold an interpreter or a virtual machine itself: what stands before the version in their name, what after it,
/// and the language. The version may be absent.
const PACKAGES: [(&str, &str, &str); 38] = [
    ("python", "", "python"),
    ("pypy", "", "python"),
    ("platform-python", "", "python"),
    ("nodejs", "", "node"),
    ("ruby", "", "ruby"),
    ("openjdk-", "-jre-headless", "java"),
    ("openjdk-", "-jdk-headless", "java"),
    ("openjdk", "-jre-base", "java"),
    ("openjdk", "-jre-headless", "java"),
    ("java-", "-openjdk-headless", "java"),
    ("java-", "-openjdk", "java"),
    ("jre", "-openjdk-headless", "java"),
    ("jdk", "-openjdk", "java"),
    ("temurin-", "-jdk", "java"),
    ("temurin-", "-jre", "java"),
    ("java-", "-amazon-corretto", "java"),
    ("java-", "-amazon-corretto-jdk", "java"),
    ("java-", "-amazon-corretto-headless", "java"),
    ("msopenjdk-", "", "java"),
    ("jdk-", "", "java"),
    ("golang-", "-go", "go"),
    ("golang-bin", "", "go"),
    ("go", "", "go"),
    ("php", "-cli", "php"),
    ("php", "", "php"),
    ("perl", "", "perl"),
    ("perl-base", "", "perl"),
    ("perl-interpreter", "", "perl"),
    ("dotnet-runtime-", "", "dotnet"),
    ("dotnet", "-runtime", "dotnet"),
    ("mono-runtime", "", "dotnet"),
    ("mono-core", "", "dotnet"),
    ("rustc", "", "rust"),
    ("rust", "", "rust"),
    ("erlang-base", "", "erlang"),
    ("erlang-erts", "", "erlang"),
    ("lua", "", "lua"),
    ("r-base-core", "", "r"),
];

/// Folders of installations by hand whose last part is named by version, after the text given.
const FOLDERS: [(&str, &str, &str); 10] = [
    (".nvm/versions/node", "v", "node"),
    (".pyenv/versions", "", "python"),
    (".local/share/uv/python", "cpython-", "python"),
    (".rbenv/versions", "", "ruby"),
    (".rvm/rubies", "ruby-", "ruby"),
    (".rustup/toolchains", "", "rust"),
    (".sdkman/candidates/java", "", "java"),
    (".dotnet/shared/Microsoft.NETCore.App", "", "dotnet"),
    (".goenv/versions", "", "go"),
    (".phpenv/versions", "", "php"),
];

/// Runtimes of one guest.
const FOUND_MAX: usize = 10_000;

/// Those that are there, in order of language, then path.
pub(super) fn read(files: &Files<'_>, packages: &[Package]) -> Vec<LanguageRuntime> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for package in packages.iter().filter(|package| package.state == "installed" && is_of_system(package)) {
        let Some(language) = language_of(&package.name) else { continue };
        // A package that only stands for the default one, and parts of one runtime, have its version.
        if seen.insert((language, package.version.as_str())) {
            found.push(LanguageRuntime {
                language: language.to_owned(),
                version: package.version.clone(),
                package: Some(package.name.clone()),
                path: None,
            });
        }
    }
    let has = |language| seen.iter().any(|(known, _)| *known == language);
    by_hand(files, has("java"), has("dotnet"), &mut found);
    found.sort_by(|a, b| (&a.language, &a.path, &a.package).cmp(&(&b.language, &b.path, &b.package)));
    found.truncate(FOUND_MAX);
    found
}

/// Flatpaks and snaps bring runtimes of their own, which nothing else sees.
fn is_of_system(package: &Package) -> bool {
    !matches!(package.format.as_str(), "snap" | "flatpak")
}

fn language_of(name: &str) -> Option<&'static str> {
    let is_version = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let fits = |(before, after, _): &&(&str, &str, &'static str)| {
        let middle = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        middle.is_some_and(is_version)
    };
    PACKAGES.iter().find(fits).map(|(_, _, language)| *language)
}

/// What no package brought. Where packages brought a Java or a .NET, the folders that they share are theirs.
fn by_hand(files: &Files<'_>, has_java: bool, has_dotnet: bool, found: &mut Vec<LanguageRuntime>) {
    let mut add = |language: &str, version: &str, path: String| {
        found.push(LanguageRuntime {
            language: language.to_owned(),
            version: version.to_owned(),
            package: None,
            path: Some(path),
        });
    };
    for home in files.homes() {
        // Most homes have none of them: one look at the home instead of one for each.
        let names: HashSet<String> = files.names(&home).into_iter().collect();
        for (folder, prefix, language) in FOLDERS {
            if folder.split('/').next().is_none_or(|first| !names.contains(first)) {
                continue;
            }
            for name in files.names(&format!("{home}/{folder}")) {
                let Some(version) = name.strip_prefix(prefix).filter(|version| has_digit(version)) else { continue };
                add(language, version, format!("{home}/{folder}/{name}"));
            }
        }
    }
    let mut java = vec!["/opt/*/release", "/usr/java/*/release", "/usr/local/*/release"];
    if !has_java {
        java.push("/usr/lib/jvm/*/release");
    }
    for path in java.into_iter().flat_map(|pattern| files.glob(pattern)) {
        let version = files.text(&path).and_then(|text| os_release::value_of(&text, "JAVA_VERSION"));
        if let Some(version) = version {
            add("java", &version, path.trim_end_matches("/release").to_owned());
        }
    }
    if let Some(line) = files.first_line("/usr/local/go/VERSION") {
        add("go", line.trim_start_matches("go"), "/usr/local/go".to_owned());
    }
    if let Some(text) = files.text("/usr/local/include/node/node_version.h") {
        let number = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix("#define ")?.strip_prefix(name)?.split_whitespace().next())
        };
        let parts =
            ["NODE_MAJOR_VERSION", "NODE_MINOR_VERSION", "NODE_PATCH_VERSION"].map(|name| number(name).unwrap_or("0"));
        add("node", &parts.join("."), "/usr/local/bin/node".to_owned());
    }
    for path in files.glob("/usr/local/lib/python[23].*") {
        let version = path.rsplit("python").next().unwrap_or_default().to_owned();
        // The folder of modules that are installed beside the system's own has no interpreter to it.
        let program = format!("/usr/local/bin/python{version}");
        if files.exists(&program) {
            add("python", &version, program);
        }
    }
    for path in files.glob("/opt/*/conda-meta/python-[23]*.json") {
        let version = path.rsplit("/python-").next().and_then(|rest| rest.split('-').next()).unwrap_or_default();
        add("python", version, path.split("/conda-meta").next().unwrap_or_default().to_owned());
    }
    for pattern in ["/usr/share/dotnet", "/usr/lib/dotnet", "/usr/lib64/dotnet", "/opt/dotnet"] {
        let folder = format!("{pattern}/shared/Microsoft.NETCore.App");
        for version in files.names(&folder).into_iter().filter(|version| !has_dotnet && has_digit(version)) {
            add("dotnet", &version, format!("{folder}/{version}"));
        }
    }
}

fn has_digit(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::linux::fixture::Fixture;

    #[test]
    fn packages_that_hold_a_runtime_are_told_from_those_that_use_one() {
        let known = [
            ("python3.11", Some("python")),
            ("python3", Some("python")),
            ("python3-minimal", None),
            ("python3-requests", None),
            ("openjdk-17-jre-headless", Some("java")),
            ("java-1.8.0-openjdk-headless", Some("java")),
            ("golang-1.19-go", Some("go")),
            ("google-chrome", None),
            ("php8.2-cli", Some("php")),
            ("php8.2-curl", None),
            ("dotnet-runtime-8.0", Some("dotnet")),
            ("nodejs", Some("node")),
            ("ruby3.1", Some("ruby")),
            ("ruby-did-you-mean", None),
            ("perl-base", Some("perl")),
            ("lua5.4", Some("lua")),
        ];
        for (name, language) in known {
            assert_eq!(language_of(name), language, "{name}");
        }
    }

    #[test]
    fn installations_by_hand_are_told() {
        let fixture = Fixture::new();
        fixture.file("opt/jdk-21/release", "IMPLEMENTOR=\"x\"\nJAVA_VERSION=\"21.0.1\"\n");
        fixture.file("usr/local/go/VERSION", "go1.21.5\ntime 2023-11-29T21:21:46Z\n");
        fixture.file(
            "usr/local/include/node/node_version.h",
            "#define NODE_MAJOR_VERSION 20\n#define NODE_MINOR_VERSION 10\n#define NODE_PATCH_VERSION 0\n",
        );
        fixture.directory("home/bob/.nvm/versions/node/v18.19.0");
        fixture.directory("root/.rustup/toolchains/1.75.0-x86_64-unknown-linux-gnu");
        fixture.directory("usr/local/lib/python3.11/dist-packages");
        fixture.directory("usr/local/lib/python3.12");
        fixture.file("usr/local/bin/python3.12", "");
        let package = |name: &str, version: &str| Package {
            name: name.to_owned(),
            state: "installed".to_owned(),
            version: version.to_owned(),
            ..Package::default()
        };
        let tree = fixture.tree();
        let packages = [package("perl", "5.36.0"), package("perl-base", "5.36.0"), package("python3.11", "3.11.2")];
        let found = read(&Files::new(&tree), &packages);
        let told: Vec<_> = found.iter().map(|one| format!("{} {}", one.language, one.version)).collect();
        assert_eq!(
            told,
            [
                "go 1.21.5",
                "java 21.0.1",
                "node 18.19.0",
                "node 20.10.0",
                "perl 5.36.0",
                "python 3.11.2",
                "python 3.12",
                "rust 1.75.0-x86_64-unknown-linux-gnu",
            ]
        );
    }
}
