//! The apk database: `/lib/apk/db/installed`, one-letter fields, stanzas apart by empty lines. Source: apk(5), "Installed
//! database" of the Alpine package keeper's documentation.

use crate::guest::report::Package;

/// The packages of an installed database.
pub(crate) fn packages<'a>(text: &'a str, distribution: Option<&'a str>) -> impl Iterator<Item = Package> + 'a {
    text.split("\n\n").filter_map(move |stanza| package(stanza, distribution))
}

/// What apk itself would stop at: stanzas without a name or a version, and a file that ends within a line.
pub(crate) fn flaw(text: &str) -> Option<String> {
    if !text.is_empty() && !text.ends_with('\n') {
        return Some("ends in the middle of a line; packages behind it are missing".to_owned());
    }
    let has = |stanza: &str, key: &str| {
        stanza.lines().take_while(|line| !line.starts_with("F:")).any(|line| line.starts_with(key))
    };
    let stanzas = text.split("\n\n").filter(|stanza| !stanza.trim().is_empty());
    let wrong = stanzas.filter(|stanza| !has(stanza, "P:") || !has(stanza, "V:")).count();
    (wrong > 0).then(|| format!("{wrong} entries have no name or no version"))
}

fn package(stanza: &str, distribution: Option<&str>) -> Option<Package> {
    // The files of a package follow its own fields, and repeat letters: the first of each is the package's.
    let field = |letter: char| {
        let found = stanza.lines().take_while(|line| !line.starts_with("F:")).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.len() == 1 && key.starts_with(letter)).then(|| value.trim())
        });
        found.filter(|value| !value.is_empty()).map(str::to_owned)
    };
    let name = field('P')?;
    let full_version = field('V').unwrap_or_default();
    let (version, release) = split_version(&full_version);
    let arch = field('A');
    let qualifiers = [("arch", arch.as_deref())];
    let purl = distribution.map(|distribution| {
        super::purl::purl(
            "apk",
            &distribution.to_ascii_lowercase(),
            &name.to_ascii_lowercase(),
            &full_version,
            &qualifiers,
        )
    });
    Some(Package {
        format: "apk".to_owned(),
        state: "installed".to_owned(),
        version: version.to_owned(),
        release: release.map(str::to_owned),
        arch,
        source: field('o'),
        license: field('L'),
        vendor: field('m'),
        url: field('U'),
        summary: field('T'),
        installed_size_bytes: field('I').and_then(|size| size.parse().ok()),
        // `t` is the time of the build, not of the installation, which nothing keeps.
        installed_at: None,
        purl,
        name,
        full_version,
        ..Package::default()
    })
}

/// `1.2.3-r4` is version `1.2.3`, release `r4`.
fn split_version(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once("-r") {
        Some((version, release)) if release.bytes().all(|byte| byte.is_ascii_digit()) && !release.is_empty() => {
            (version, text.get(version.len().saturating_add(1)..))
        }
        _ => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_become_packages() {
        let text = "C:Q1x=\nP:musl\nV:1.1.22-r3\nA:x86_64\nS:1\nI:614400\nT:the musl c library\nU:https://musl\nL:MIT\no:musl\nm:A <a@b>\n\
                    F:lib\nR:x\nP:not-a-name\n\nP:b\nV:2\n\nX:nothing\n";
        let found: Vec<_> = packages(text, Some("alpine")).collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].version.as_str(), found[0].release.as_deref()), ("1.1.22", Some("r3")));
        assert_eq!(found[0].installed_size_bytes, Some(614_400));
        assert_eq!(found[0].purl.as_deref(), Some("pkg:apk/alpine/musl@1.1.22-r3?arch=x86_64"));
        assert_eq!((found[1].version.as_str(), found[1].release.as_deref()), ("2", None));
    }
}
