//! Documents: those that lie in files, and the one that `inspect` builds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use guestkit_protocol::document::{self, DOCUMENT_BYTES_MAX};
use guestkit_protocol::v1;
use serde_json::{Map, Value, json};

use crate::args::{InspectJob, InspectWhat, Module, word};
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
    job: Option<&InspectJob>,
) -> Result<Named, Failure> {
    let absolute = |image: &PathBuf| absolute("the image's path", image);
    let images = images.iter().map(absolute).collect::<Result<Vec<_>, _>>()?;
    let Some((image, further)) = images.split_first() else { return Err(Failure::usage("no image is named")) };
    let keys = key_files.iter().map(|key| match key.split_once(':') {
        Some((volume, file)) if !volume.is_empty() => Ok(json!({ "volume": volume, "file": file })),
        _ => Err(Failure::usage(format!("--key-file: expected ID:FILE, is {key:?}"))),
    });
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let mut value = json!({
        "version": "1.0",
        "kind": "VMOperation",
        "operation": "guestkit.inspect",
        "payload": { "type": "guestkit.inspect.v1", "data": payload(image, further, &keys, what)? },
    });
    if let (Value::Object(members), Some(job)) = (&mut value, job) {
        members.extend(around(job));
    }
    parse(format!("the inspection of {image}"), value.to_string().as_bytes())
}

fn payload(image: &str, further: &[String], keys: &[Value], what: &InspectWhat) -> Result<Value, Failure> {
    let image = members([
        ("path", Some(json!(image))),
        ("paths", (!further.is_empty()).then(|| json!(further))),
        ("keys", (!keys.is_empty()).then(|| json!(keys))),
        ("format", what.format.map(|format| json!(word(format)))),
        ("checksum", what.checksum.as_ref().map(|checksum| json!(checksum))),
    ]);
    let output = match &what.output_destination {
        None => None,
        Some(path) => Some(members([
            ("destination", Some(json!(destination(path)?))),
            ("format", what.output_format.map(|format| json!(word(format)))),
            ("compression", what.output_compression.map(|method| json!(word(method)))),
        ])),
    };
    Ok(members([("image", Some(image)), ("options", Some(options(what))), ("output", output)]))
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

fn around(job: &InspectJob) -> Map<String, Value> {
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
