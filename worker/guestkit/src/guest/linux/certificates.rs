//! Certificates: those that services are set to use, and those that lie where certificates are kept. What a system trusts is not
//! among them, what its administrator added to that is.

use crate::filesystem::{FileType, Metadata};
use crate::guest::certificate::{self, Certificate};
use crate::guest::report;
use crate::guest::tree::WalkEntry;
use crate::read_at::{ReadAt as _, read_up_to};

use super::files::{Files, lossy};
use super::time;

/// Where services name their certificates: files, and the key in front.
const CONFIGS: [(&str, &str); 15] = [
    ("/etc/nginx/nginx.conf", "ssl_certificate"),
    ("/etc/nginx/conf.d/*.conf", "ssl_certificate"),
    ("/etc/nginx/sites-enabled/*", "ssl_certificate"),
    ("/etc/apache2/sites-enabled/*", "SSLCertificateFile"),
    ("/etc/apache2/vhosts.d/*.conf", "SSLCertificateFile"),
    ("/etc/httpd/conf/httpd.conf", "SSLCertificateFile"),
    ("/etc/httpd/conf.d/*.conf", "SSLCertificateFile"),
    ("/etc/postfix/main.cf", "smtpd_tls_cert_file"),
    ("/etc/dovecot/conf.d/10-ssl.conf", "ssl_cert"),
    ("/etc/postgresql/*/*/postgresql.conf", "ssl_cert_file"),
    ("/etc/mysql/my.cnf", "ssl-cert"),
    ("/etc/mysql/mariadb.conf.d/*.cnf", "ssl-cert"),
    ("/etc/my.cnf.d/*.cnf", "ssl-cert"),
    ("/etc/ldap/slapd.conf", "TLSCertificateFile"),
    ("/etc/vsftpd.conf", "rsa_cert_file"),
];
/// Where certificates are kept. Let's Encrypt's clients keep what they renew in one place.
const PLACES: [&str; 19] = [
    "/etc/letsencrypt/live/*/cert.pem",
    "/etc/ssl/*.pem",
    "/etc/ssl/*.crt",
    "/etc/ssl/private/*.pem",
    "/etc/ssl/private/*.crt",
    "/etc/pki/tls/certs/*.crt",
    "/etc/pki/tls/certs/*.pem",
    "/etc/pki/nginx/*.crt",
    "/etc/nginx/ssl/*",
    "/etc/nginx/certs/*",
    "/etc/apache2/ssl/*",
    "/etc/kubernetes/pki/*.crt",
    "/etc/kubernetes/pki/etcd/*.crt",
    "/var/lib/kubelet/pki/*.crt",
    "/var/lib/rancher/k3s/server/tls/*.crt",
    "/etc/swanctl/x509/*",
    "/etc/openvpn/*.crt",
    "/usr/local/share/ca-certificates/*.crt",
    "/etc/pki/ca-trust/source/anchors/*",
];
/// Links to what is trusted fill this folder; a file in it is somebody's own, but for the bundle.
const TRUSTED: &str = "/etc/ssl/certs";
/// Where the system keeps what it trusts.
const AUTHORITIES: [&[u8]; 8] = [
    b"/etc/ssl/certs/",
    b"/etc/pki/ca-trust/extracted/",
    b"/etc/ca-certificates/extracted/",
    b"/usr/share/ca-certificates/",
    b"/usr/share/pki/",
    b"/var/lib/ca-certificates/",
    b"/etc/pki/java/",
    b"/usr/lib/ssl/",
];
/// A file of one or of a chain; a bundle of authorities is larger.
const FILE_BYTES_MAX: u64 = 128 << 10;
/// Names that certificates go by.
const SUFFIXES: [&[u8]; 4] = [b".pem", b".crt", b".cer", b".der"];
/// Certificates of one guest outside of what it trusts.
const CERTIFICATES_MAX: usize = 10_000;

/// The certificates of one file, and the configuration that names it.
pub(crate) struct Found {
    pub(crate) path: String,
    pub(crate) used_by: Option<String>,
    /// Empty where the file holds none that is read here.
    pub(crate) chain: Vec<Certificate>,
}

/// Those that services use, in order of path.
pub(crate) fn of_services(files: &Files<'_>) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for (pattern, key) in CONFIGS {
        let configs = if pattern.contains('*') { files.glob(pattern) } else { vec![pattern.to_owned()] };
        for config in configs {
            for line in files.text(&config).unwrap_or_default().lines().map(str::trim) {
                let Some(path) = value_of(line, key).filter(|path| path.starts_with('/')) else { continue };
                if !found.iter().any(|known| known.path == path) && files.exists(path) {
                    let chain = chain(files, path);
                    found.push(Found { path: path.to_owned(), used_by: Some(config.clone()), chain });
                }
            }
        }
    }
    for path in files.glob("/etc/letsencrypt/live/*/cert.pem") {
        if !found.iter().any(|known| known.path == path) {
            found.push(Found { chain: chain(files, &path), path, used_by: None });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn value_of<'l>(line: &'l str, key: &str) -> Option<&'l str> {
    let rest = line.strip_prefix(key).filter(|rest| rest.starts_with([' ', '\t', '=']))?;
    Some(rest.trim_start_matches([' ', '\t', '=', '<']).trim_end_matches(';').trim().trim_matches(['"', '\'']))
}

/// The facts of the module.
pub(super) fn read(files: &Files<'_>) -> Vec<report::Certificate> {
    let mut found = of_services(files);
    let mut paths: Vec<String> = PLACES.iter().flat_map(|pattern| files.glob(pattern)).collect();
    let own = files.entries(TRUSTED).into_iter().filter(|entry| entry.file_type == Some(FileType::Regular));
    paths.extend(own.map(|entry| format!("{TRUSTED}/{}", entry.name)));
    for path in paths {
        let is_small = files.stat(&path).is_some_and(|metadata| metadata.size <= FILE_BYTES_MAX);
        if is_small && !found.iter().any(|known| known.path == path) {
            found.push(Found { chain: chain(files, &path), path, used_by: None });
        }
    }
    let mut all: Vec<_> = found.into_iter().flat_map(facts).collect();
    if all.len() > CERTIFICATES_MAX {
        files.warn("certificates", format!("there are more than {CERTIFICATES_MAX}; the rest is left out"));
        all.truncate(CERTIFICATES_MAX);
    }
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all
}

fn chain(files: &Files<'_>, path: &str) -> Vec<Certificate> {
    files.bytes(path).map(parse).unwrap_or_default()
}

fn parse(bytes: Vec<u8>) -> Vec<Certificate> {
    if bytes.first() == Some(&0x30) {
        return certificate::from_der(&bytes).into_iter().collect();
    }
    certificate::from_pem(&lossy(bytes))
}

/// As the report has them.
pub(crate) fn facts(found: Found) -> impl Iterator<Item = report::Certificate> {
    let Found { path, used_by, chain } = found;
    chain.into_iter().filter_map(move |certificate| {
        Some(report::Certificate {
            path: path.clone(),
            used_by: used_by.clone(),
            subject: certificate.subject,
            issuer: certificate.issuer,
            serial: certificate.serial,
            not_before: time::rfc3339(certificate.not_before)?,
            not_after: time::rfc3339(certificate.not_after)?,
            key_type: certificate.key,
            key_bits: certificate.key_bits,
            dns_names: certificate.dns_names,
            is_authority: certificate.is_authority,
            is_self_signed: certificate.is_self_signed,
            is_weakly_signed: certificate.is_weakly_signed,
            sha256: certificate.fingerprint,
        })
    })
}

/// The certificates of a file that a walk met; none of what the system trusts.
pub(super) fn of_entry(entry: &WalkEntry<'_>, metadata: &Metadata) -> crate::Result<Vec<report::Certificate>> {
    let name = entry.name();
    let is_candidate = entry.file_type == FileType::Regular
        && (1..=FILE_BYTES_MAX).contains(&metadata.size)
        && SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
        && !AUTHORITIES.iter().any(|folder| entry.path.starts_with(folder) && !is_own(entry.path));
    if !is_candidate {
        return Ok(Vec::new());
    }
    let Some(file) = entry.open()? else { return Ok(Vec::new()) };
    let length = usize::try_from(file.len().min(FILE_BYTES_MAX)).unwrap_or_default();
    let chain = parse(read_up_to(&file, 0, length)?);
    Ok(facts(Found { path: String::from_utf8_lossy(entry.path).into_owned(), used_by: None, chain }).collect())
}

/// A file among the links of what is trusted, but for the bundle.
fn is_own(path: &[u8]) -> bool {
    path.strip_prefix(b"/etc/ssl/certs/").is_some_and(|name| name != b"ca-certificates.crt")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::guest::linux::fixture::Fixture;

    #[test]
    fn certificates_of_services_and_places_are_told_once() {
        let fixture = Fixture::new();
        fixture.directory("etc/nginx/ssl");
        let file = fixture.path().join("etc/nginx/ssl/www.pem");
        let made = Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=www.example.org", "-days", "30"])
            .args(["-keyout", "/dev/null", "-out"])
            .arg(&file)
            .output();
        if !made.is_ok_and(|made| made.status.success()) {
            return;
        }
        fixture.file(
            "etc/nginx/conf.d/a.conf",
            "server {\n  ssl_certificate \"/etc/nginx/ssl/www.pem\";\n  ssl_certificate_key /x;\n}\n",
        );
        let own = std::fs::read(&file).unwrap();
        fixture.file("etc/ssl/certs/ssl-cert-snakeoil.pem", &own);
        fixture.file("etc/ssl/certs/ca-certificates.crt", own.repeat(200));
        fixture.file("usr/share/ca-certificates/a.crt", &own);
        fixture.file("srv/app/tls.crt", &own);
        fixture.file("srv/app/notes.pem", "nothing of the kind");
        let tree = fixture.tree();
        let files = Files::new(&tree);
        let found = read(&files);
        let told: Vec<_> = found.iter().map(|one| (one.path.as_str(), one.used_by.as_deref())).collect();
        assert_eq!(
            told,
            [
                ("/etc/nginx/ssl/www.pem", Some("/etc/nginx/conf.d/a.conf")),
                ("/etc/ssl/certs/ssl-cert-snakeoil.pem", None)
            ]
        );
        assert_eq!(found[0].subject, "CN=www.example.org");
        let scan =
            crate::guest::linux::deep_scan::inspect(&files, crate::guest::linux::deep_scan::Rights::Modes).unwrap();
        let walked: Vec<_> = scan.certificates.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(walked, ["/etc/nginx/ssl/www.pem", "/etc/ssl/certs/ssl-cert-snakeoil.pem", "/srv/app/tls.crt"]);
    }
}
