//! What every story needs: a fleet with a real disk, jobs written for it, and the commands a user would type.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use guestkit_processes::{Binaries, Fleet, until};
use serde_json::{Value, json};
use sha2::Digest as _;

/// Exit codes of `guestkit`.
pub(crate) const COMPLETED: i32 = 0;
pub(crate) const FAILED: i32 = 1;
pub(crate) const USAGE: i32 = 2;
pub(crate) const REFUSED: i32 = 3;
pub(crate) const UNREACHABLE: i32 = 4;

/// The repository's folder.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The small real guest that the repository carries.
pub(crate) fn small_guest() -> PathBuf {
    repository().join("tests/fixtures/debian12-small.qcow2")
}

pub(crate) fn binaries() -> Binaries {
    Binaries::beside_this_test().unwrap()
}

/// A coordinator and workers that may open images in the fleet's own folder `images`, which holds the small guest, and may
/// write into its folder `reports`.
pub(crate) struct House {
    pub(crate) fleet: Fleet,
}

impl House {
    pub(crate) fn new(workers: &[&str]) -> Self {
        Self::with_coordinator(&[], workers)
    }

    pub(crate) fn with_coordinator(coordinator_args: &[&str], workers: &[&str]) -> Self {
        Self::of(Fleet::start(&binaries(), coordinator_args).unwrap(), workers)
    }

    /// In a folder that was prepared.
    pub(crate) fn in_folder(folder: tempfile::TempDir, coordinator_args: &[&str], workers: &[&str]) -> Self {
        Self::of(Fleet::start_in(folder, &binaries(), coordinator_args).unwrap(), workers)
    }

    /// With several coordinators on one store.
    pub(crate) fn with_several(coordinators: usize, coordinator_args: &[&str], workers: &[&str]) -> Self {
        Self::of(Fleet::start_several(&binaries(), coordinators, coordinator_args).unwrap(), workers)
    }

    fn of(fleet: Fleet, workers: &[&str]) -> Self {
        let mut house = Self { fleet };
        fs::create_dir(house.images()).unwrap();
        fs::create_dir(house.reports()).unwrap();
        fs::copy(small_guest(), house.guest()).unwrap();
        for id in workers {
            house.start_worker(id);
        }
        house
    }

    pub(crate) fn start_worker(&mut self, id: &str) {
        let urls = self.fleet.urls();
        self.start_worker_at(&urls, id);
    }

    /// A worker that knows the coordinator by another address.
    pub(crate) fn start_worker_at(&mut self, coordinator: &str, id: &str) {
        let (images, reports) = (self.images(), self.reports());
        let args = ["--image-root", text(&images), "--output-root", text(&reports), "--slots", "2"];
        self.fleet.start_worker_at(coordinator, id, &args).unwrap();
    }

    /// What a worker has printed.
    pub(crate) fn worker_log(&mut self, id: &str) -> String {
        self.fleet.worker(id).unwrap().log()
    }

    /// Outcomes on a worker's disk that nobody has acknowledged.
    pub(crate) fn kept_outcomes(&self, id: &str) -> usize {
        let spool = self.fleet.folder().join(format!("workers/worker-{id}"));
        let names = fs::read_dir(spool).into_iter().flatten().flatten().map(|entry| entry.path());
        names.filter(|path| path.extension().is_some_and(|end| end == "outcome")).count()
    }

    /// Submits a document without waiting.
    pub(crate) fn submit(&self, document: &Value) -> Answer {
        let path = self.write("submitted.json", document);
        self.guestkit(&["submit", text(&path)])
    }

    /// Waits until a job is in a state.
    #[track_caller]
    pub(crate) fn wait_for_state(&self, job_id: &str, wanted: &str) -> Value {
        until(&format!("state {wanted} of {job_id}"), || {
            let job = self.job(job_id);
            Ok((job["state"] == wanted).then_some(job))
        })
        .unwrap()
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.fleet.folder().join("images")
    }

    pub(crate) fn reports(&self) -> PathBuf {
        self.fleet.folder().join("reports")
    }

    pub(crate) fn guest(&self) -> PathBuf {
        self.images().join("debian12-small.qcow2")
    }

    /// Runs `guestkit` with `args`.
    pub(crate) fn guestkit(&self, args: &[&str]) -> Answer {
        Answer::of(self.fleet.guestkit().args(args).output().unwrap())
    }

    /// Writes a document into the fleet's folder and returns its path.
    pub(crate) fn write(&self, name: &str, document: &Value) -> PathBuf {
        let path = self.fleet.folder().join(name);
        fs::write(&path, document.to_string()).unwrap();
        path
    }

    /// Submits a document and watches it to its end.
    pub(crate) fn submit_and_watch(&self, document: &Value) -> Answer {
        let path = self.write("job.json", document);
        self.guestkit(&["submit", "--watch", "-o", "json", text(&path)])
    }

    /// A job.
    pub(crate) fn job(&self, job_id: &str) -> Value {
        self.guestkit(&["get", "-o", "json", job_id]).expect_code(COMPLETED).json()
    }
}

/// What a command answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Answer {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// With `-o json`, standard output is one document and nothing else.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not one JSON document ({error}): {self:#?}"))
    }

    #[track_caller]
    pub(crate) fn expect_in_stderr(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not said: {self:#?}");
        }
        self
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) fn sha256_hex(path: &Path) -> String {
    use std::fmt::Write as _;
    let digest = sha2::Sha256::digest(fs::read(path).unwrap());
    digest.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// A count that is zero is not printed.
pub(crate) fn lost_attempts(job: &Value) -> u64 {
    job["lost_attempts"].as_u64().unwrap_or(0)
}

/// An echo that takes `seconds`.
pub(crate) fn echo(job_id: &str, seconds: f64) -> Value {
    json!({
        "version": "1.0",
        "job_id": job_id,
        "kind": "VMOperation",
        "operation": "system.echo",
        "payload": {"type": "system.echo.v1", "data": {"message": "hello", "duration_seconds": seconds}}
    })
}

/// An inspection of the image at `path`.
pub(crate) fn inspect(job_id: &str, path: &Path) -> Value {
    json!({
        "version": "1.0",
        "job_id": job_id,
        "kind": "VMOperation",
        "operation": "guestkit.inspect",
        "payload": {"type": "guestkit.inspect.v1", "data": {"image": {"path": path}}}
    })
}

/// One of the documents in `tests/jobs`, pointed at the image and the report folder of `house`.
pub(crate) fn example(name: &str, image: &Path, reports: &Path) -> Value {
    let file = repository().join("tests/jobs").join(name);
    let mut document: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let data = &mut document["payload"]["data"];
    if let Some(given) = data.get_mut("image") {
        given["path"] = json!(image);
        if given.get("checksum").is_some() {
            given["checksum"] = json!(format!("sha256:{}", sha256_hex(image)));
        }
        if given.get("size_bytes").is_some() {
            given["size_bytes"] = json!(fs::metadata(image).unwrap().len());
        }
    }
    if let Some(destination) = data.pointer_mut("/output/destination") {
        let name = Path::new(destination.as_str().unwrap()).file_name().unwrap().to_owned();
        *destination = json!(reports.join(name));
    }
    document
}
