//! Documents: those that lie in files, and those that `inspect` and `profile` build.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use guestkit::profile::waivers;
use guestkit_protocol::document::{self, DOCUMENT_BYTES_MAX};
use guestkit_protocol::v1;
use serde_json::{Map, Value, json};

use crate::args::{Compression, InspectWhat, JobArgs, Module, ProfileName, ProfileWhat, Stated, word};
use crate::failure::Failure;

/// A document and what people call it.
#[derive(Debug)]
pub(crate) struct Named {
    /// The file's name, or what stands for it.
    pub(crate) name: String,
    /// The document.
    pub(crate) document: v1::JobDocument,
}

/// The bytes of a document; `-` is standard input. At most one byte more than a document may have is read, which is enough
/// for the refusal to say so.
pub(crate) fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let name = name_of(file);
    let unreadable = |error: std::io::Error| Failure::usage(format!("cannot read {name}: {error}"));
    let most = DOCUMENT_BYTES_MAX as u64 + 1;
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(most).read_to_end(&mut bytes).map_err(unreadable)?;
        return Ok(bytes);
    }
    if file.is_dir() {
        return Err(Failure::usage(format!(
            "cannot read {name}: it is a directory; name the job documents in it, such as {name}/*.json"
        )));
    }
    File::open(file).and_then(|file| file.take(most).read_to_end(&mut bytes)).map_err(unreadable)?;
    Ok(bytes)
}

/// What people call a file.
pub(crate) fn name_of(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}

/// Reads one document.
pub(crate) fn load(file: &Path) -> Result<Named, Failure> {
    let name = name_of(file);
    parse(name, &read(file)?)
}

/// Reads the document that `bytes` are.
pub(crate) fn parse(name: String, bytes: &[u8]) -> Result<Named, Failure> {
    match document::parse(bytes) {
        Ok(document) => Ok(Named { name, document }),
        Err(refusal) => Err(Failure::refused(name, refusal)),
    }
}

/// The document that asks for an inspection of a machine with these disks.
pub(crate) fn inspection(
    images: &[PathBuf],
    key_files: &[String],
    what: &InspectWhat,
    job: Option<&JobArgs>,
) -> Result<Named, Failure> {
    let data = members([
        ("image", Some(image(images, key_files, &what.stated)?)),
        ("options", Some(options(what))),
        ("output", output(what.output_destination.as_deref(), what.output_format.map(word), what.output_compression)?),
    ]);
    asked("guestkit.inspect", "inspection", images, data, job)
}

/// The document that asks for a profile of a machine with these disks.
pub(crate) fn profile(
    images: &[PathBuf],
    key_files: &[String],
    what: &ProfileWhat,
    job: Option<&JobArgs>,
) -> Result<Named, Failure> {
    let mut profiles = what.profiles.clone();
    if profiles.contains(&ProfileName::All) {
        let all = ProfileName::value_variants().iter().filter(|profile| **profile != ProfileName::All);
        profiles = all.copied().collect();
    }
    let data = members([
        ("image", Some(image(images, key_files, &what.stated)?)),
        ("profiles", words(&profiles)),
        ("options", Some(profile_options(what)?)),
        ("output", output(what.output_destination.as_deref(), what.output_format.map(word), what.output_compression)?),
    ]);
    asked("guestkit.profile", "profile", images, data, job)
}

fn asked(
    operation: &str,
    people_say: &str,
    images: &[PathBuf],
    data: Value,
    job: Option<&JobArgs>,
) -> Result<Named, Failure> {
    let mut value = json!({
        "version": "1.0",
        "kind": "VMOperation",
        "operation": operation,
        "payload": { "type": format!("{operation}.v1"), "data": data },
    });
    if let (Value::Object(members), Some(job)) = (&mut value, job) {
        members.extend(around(job));
    }
    let image = images.first().map(|image| image.display().to_string()).unwrap_or_default();
    parse(format!("the {people_say} of {image}"), value.to_string().as_bytes())
}

fn image(images: &[PathBuf], key_files: &[String], stated: &Stated) -> Result<Value, Failure> {
    let absolute = |image: &PathBuf| absolute("the image's path", image);
    let images = images.iter().map(absolute).collect::<Result<Vec<_>, _>>()?;
    let Some((image, further)) = images.split_first() else { return Err(Failure::usage("no image is named")) };
    let keys = key_files.iter().map(|key| match key.split_once(':') {
        Some((volume, file)) if !volume.is_empty() => Ok(json!({ "volume": volume, "file": file })),
        _ => Err(Failure::usage(format!("--key-file: expected ID:FILE, is {key:?}"))),
    });
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    Ok(members([
        ("path", Some(json!(image))),
        ("paths", (!further.is_empty()).then(|| json!(further))),
        ("keys", (!keys.is_empty()).then(|| json!(keys))),
        ("format", stated.format.map(|format| json!(word(format)))),
        ("checksum", stated.checksum.as_ref().map(|checksum| json!(checksum))),
    ]))
}

fn output(
    to: Option<&Path>,
    format: Option<String>,
    compression: Option<Compression>,
) -> Result<Option<Value>, Failure> {
    let Some(to) = to else { return Ok(None) };
    Ok(Some(members([
        ("destination", Some(json!(destination(to)?))),
        ("format", format.map(|format| json!(format))),
        ("compression", compression.map(|method| json!(word(method)))),
    ])))
}

/// Bytes of a file of waivers: a document takes no more.
const WAIVERS_BYTES_MAX: u64 = DOCUMENT_BYTES_MAX as u64;

/// Only what differs from the defaults of the payload.
fn profile_options(what: &ProfileWhat) -> Result<Value, Failure> {
    let mut accepted = Vec::new();
    for file in &what.waivers {
        let name = name_of(file);
        let text = read_text(file, WAIVERS_BYTES_MAX)?;
        let read = waivers::read(&text).map_err(|why| Failure::usage(format!("waivers in {name}: {why}")))?;
        accepted.extend(read);
    }
    let given = |flag: bool, value: bool| flag.then_some(json!(value));
    Ok(members([
        ("severity_threshold", what.severity_threshold.map(|severity| json!(word(severity)))),
        ("fail_on_critical", given(what.fail_on_critical, true)),
        ("include_remediation", given(what.no_remediation, false)),
        ("standards", words(&what.standards)),
        ("waivers", (!accepted.is_empty()).then(|| json!(accepted))),
        ("target", what.target.map(|target| json!(word(target)))),
        ("reference_time", what.reference_time.as_ref().map(|time| json!(time))),
        ("semantics", what.semantics.map(|semantics| json!(word(semantics)))),
        ("all", given(what.all, true)),
    ]))
}

/// The words of what was chosen, each once; nothing where nothing was.
fn words<T: ValueEnum + PartialEq>(chosen: &[T]) -> Option<Value> {
    let mut words: Vec<String> = Vec::new();
    for word in chosen.iter().map(|chosen| word(chosen.clone())) {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    (!words.is_empty()).then(|| json!(words))
}

/// A text of at most so many bytes; `-` is standard input.
pub(crate) fn read_text(file: &Path, bytes_max: u64) -> Result<String, Failure> {
    let name = name_of(file);
    let unreadable = |error: std::io::Error| Failure::usage(format!("cannot read {name}: {error}"));
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(bytes_max + 1).read_to_string(&mut text).map_err(unreadable)?;
    } else {
        let opened = File::open(file).map_err(unreadable)?;
        opened.take(bytes_max + 1).read_to_string(&mut text).map_err(unreadable)?;
    }
    if text.len() as u64 > bytes_max {
        return Err(Failure::usage(format!("cannot use {name}: it has more than {bytes_max} bytes")));
    }
    Ok(text)
}

/// Only what differs from the defaults of the payload: they are stated once, in the contract.
fn options(what: &InspectWhat) -> Value {
    let chosen = |module: Module, left_out: bool| match (what.include.is_empty(), left_out) {
        (true, false) => None,
        (true, true) => Some(json!(false)),
        (false, _) => Some(json!(what.include.contains(&module))),
    };
    let databases = what.databases || what.include.contains(&Module::Databases);
    members([
        ("deep_scan", what.deep_scan.then_some(json!(true))),
        ("include_packages", chosen(Module::Packages, what.no_packages)),
        ("include_services", chosen(Module::Services, what.no_services)),
        ("include_users", chosen(Module::Users, what.no_users)),
        ("include_network", chosen(Module::Network, what.no_network)),
        ("include_security", chosen(Module::Security, what.no_security)),
        ("include_storage", chosen(Module::Storage, what.no_storage)),
        ("include_databases", databases.then_some(json!(true))),
    ])
}

fn around(job: &JobArgs) -> Map<String, Value> {
    let labels: BTreeMap<&str, &str> = job.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let text = |text: &Option<String>| text.as_ref().map(|text| json!(text));
    let number = |number: Option<i32>| number.map(|number| json!(number));
    let metadata = members([
        ("name", text(&job.name)),
        ("namespace", text(&job.namespace)),
        ("labels", (!labels.is_empty()).then(|| json!(labels))),
    ]);
    let execution = members([
        ("idempotency_key", text(&job.idempotency_key)),
        ("priority", number(job.priority)),
        ("timeout_seconds", number(job.timeout)),
        ("max_attempts", number(job.max_attempts)),
    ]);
    let routing = members([("worker_id", text(&job.worker)), ("worker_pool", text(&job.pool))]);
    let around = [("metadata", metadata), ("execution", execution), ("routing", routing)];
    let mut around: Map<String, Value> = around
        .into_iter()
        .filter(|(_, value)| value.as_object().is_some_and(|members| !members.is_empty()))
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    around.extend(text(&job.job_id).map(|id| ("job_id".to_owned(), id)));
    around
}

fn members<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect::<Map<_, _>>().into()
}

/// A path made absolute against the current folder; links stay as they are, for the worker judges them.
fn absolute(what: &str, path: &Path) -> Result<String, Failure> {
    let absolute = std::path::absolute(path).map_err(|error| Failure::usage(format!("cannot use {what}: {error}")))?;
    utf8(what, absolute)
}

fn destination(path: &Path) -> Result<String, Failure> {
    let what = "the report's destination";
    let is_folder = path.to_str().is_some_and(|path| path.ends_with('/'));
    let mut text = absolute(what, path)?;
    // The slash at the end is what makes it a folder.
    if is_folder && !text.ends_with('/') {
        text.push('/');
    }
    Ok(text)
}

fn utf8(what: &str, path: PathBuf) -> Result<String, Failure> {
    path.into_os_string().into_string().map_err(|path| {
        Failure::usage(format!("cannot use {what} {}: job documents are UTF-8 and it is not", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn built(flags: &[&str]) -> v1::JobDocument {
        let cli = Cli::parse_from(["guestkit", "inspect", "/vms/web1.qcow2"].iter().chain(flags));
        let Command::Inspect(inspect) = cli.command else { panic!("not an inspection") };
        inspection(&inspect.images, &inspect.key_files, &inspect.what, Some(&inspect.job)).unwrap().document
    }

    fn data(document: &v1::JobDocument) -> Value {
        document::to_json(document)["payload"]["data"].clone()
    }

    #[test]
    fn an_image_alone_is_a_document() {
        let document = built(&[]);
        assert_eq!(document.operation, "guestkit.inspect");
        assert_eq!(data(&document), json!({ "image": { "path": "/vms/web1.qcow2" }, "options": {} }));
        assert_eq!(document.metadata, None);
        assert_eq!(document.execution, None);
    }

    #[test]
    fn every_flag_reaches_the_document() {
        let sum = "0".repeat(64);
        let document = built(&[
            "--deep-scan",
            "--databases",
            "--no-users",
            "--checksum",
            &sum,
            "--format",
            "qcow2",
            "--output-destination",
            "/reports/",
            "--output-format",
            "yaml",
            "--output-compression",
            "zstd",
            "--job-id",
            "job-00000001",
            "--idempotency-key",
            "k",
            "--name",
            "n",
            "-n",
            "team-a",
            "-l",
            "tier=web",
            "--priority",
            "9",
            "--timeout",
            "60",
            "--max-attempts",
            "3",
            "--worker",
            "w1",
            "--pool",
            "p",
        ]);
        assert_eq!(
            data(&document),
            json!({
                "image": { "path": "/vms/web1.qcow2", "format": "qcow2", "checksum": sum },
                "options": { "deep_scan": true, "include_users": false, "include_databases": true },
                "output": { "destination": "/reports/", "format": "yaml", "compression": "zstd" },
            })
        );
        let whole = document::to_json(&document);
        assert_eq!(whole["metadata"], json!({ "name": "n", "namespace": "team-a", "labels": { "tier": "web" } }));
        assert_eq!(
            whole["execution"],
            json!({ "idempotency_key": "k", "priority": 9, "timeout_seconds": 60, "max_attempts": 3 })
        );
        assert_eq!(whole["routing"], json!({ "worker_id": "w1", "worker_pool": "p" }));
        assert_eq!(whole["job_id"], "job-00000001");
    }

    #[test]
    fn further_disks_and_keys_are_named_in_the_document() {
        let document = built(&["/vms/web2.vmdk", "--key-file", "all:fleet.key"]);
        let image = &data(&document)["image"];
        assert_eq!(image["paths"], json!(["/vms/web2.vmdk"]));
        assert_eq!(image["keys"], json!([{ "volume": "all", "file": "fleet.key" }]));
    }

    fn profiled(flags: &[&str]) -> Result<Named, Failure> {
        let cli = Cli::parse_from(["guestkit", "profile", "/vms/web1.qcow2"].iter().chain(flags));
        let Command::Profile(asked) = cli.command else { panic!("not a profile") };
        let submit = asked.submit;
        profile(&submit.images, &submit.key_files, &submit.what, Some(&submit.job))
    }

    #[test]
    fn every_flag_of_a_profile_reaches_the_document() {
        let document = profiled(&[]).unwrap().document;
        assert_eq!(document.operation, "guestkit.profile");
        assert_eq!(data(&document), json!({ "image": { "path": "/vms/web1.qcow2" }, "options": {} }));

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("waivers.yaml");
        let waiver =
            "- id: a.b\n  scope: {path: /srv/*}\n  justification: why\n  approver: who\n  expires: 2027-01-31\n";
        std::fs::write(&file, waiver).unwrap();
        let flags = "--profile all --standard cis,pci --standard nist --standard cis --semantics explicit --target kvm \
            --reference-time 2026-01-31T08:00:00Z --all --severity-threshold high --no-remediation --fail-on-critical \
            --output-destination /reports/ --output-format sarif -n team-a --waivers";
        let flags: Vec<&str> = flags.split_whitespace().chain(file.to_str()).collect();
        let document = profiled(&flags).unwrap().document;
        let profiles = ["security", "compliance", "hardening", "performance", "migration"];
        let waiver = json!({
            "id": "a.b", "scope": { "path": "/srv/*" }, "justification": "why", "approver": "who", "expires": "2027-01-31",
        });
        assert_eq!(
            data(&document),
            json!({
                "image": { "path": "/vms/web1.qcow2" },
                "profiles": profiles,
                "options": {
                    "severity_threshold": "high", "fail_on_critical": true, "include_remediation": false,
                    "standards": ["cis", "pci-dss", "nist-800-53"], "waivers": [waiver], "target": "kvm",
                    "reference_time": "2026-01-31T08:00:00Z", "semantics": "explicit", "all": true,
                },
                "output": { "destination": "/reports/", "format": "sarif" },
            })
        );
        std::fs::write(&file, "- id: a.b\n").unwrap();
        assert!(profiled(&flags).unwrap_err().to_string().contains("waivers.yaml"));
    }

    #[test]
    fn chosen_modules_stand_alone() {
        let options = data(&built(&["--include", "packages,databases"]))["options"].clone();
        assert_eq!(options["include_packages"], true);
        assert_eq!(options["include_databases"], true);
        for module in ["services", "users", "network", "security", "storage"] {
            assert_eq!(options[format!("include_{module}")], false, "{module}");
        }
    }

    #[test]
    fn a_relative_path_is_made_absolute() {
        let path = absolute("it", Path::new("web1.qcow2")).unwrap();
        assert_eq!(Path::new(&path), std::env::current_dir().unwrap().join("web1.qcow2"));
    }
}
