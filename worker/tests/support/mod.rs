//! A worker as people start it: the real binary on real folders.
// Not every story uses every helper; and what a helper cannot do ends the story.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_debug_implementations)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// The folders of one story; gone when it ends.
pub struct Folders {
    home: tempfile::TempDir,
}

impl Folders {
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        for folder in ["jobs", "results", "images", "out"] {
            fs::create_dir(home.path().join(folder)).unwrap();
        }
        Self { home }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Lays a job file down at once, as `mv` from the same disk does.
    pub fn drop_job(&self, file: &str, document: &Value) {
        let aside = self.path(&format!("aside-{file}"));
        fs::write(&aside, document.to_string()).unwrap();
        fs::rename(aside, self.path("jobs").join(file)).unwrap();
    }

    pub fn result_path(&self, job_id: &str) -> PathBuf {
        self.path("results").join(format!("{job_id}-result.json"))
    }

    pub fn result(&self, job_id: &str) -> Value {
        let path = self.result_path(job_id);
        wait_for(&format!("{}", path.display()), || path.exists());
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    /// The reason beside a refused or failed file.
    pub fn reason(&self, file: &str) -> String {
        let path = self.path("jobs/failed").join(format!("{file}.reason.txt"));
        wait_for(&format!("{}", path.display()), || path.exists());
        fs::read_to_string(path).unwrap()
    }

    pub fn count(&self, folder: &str) -> usize {
        let visible = |entry: &fs::DirEntry| !entry.file_name().as_encoded_bytes().starts_with(b".");
        fs::read_dir(self.path(folder)).map_or(0, |entries| entries.flatten().filter(visible).count())
    }

    pub fn worker(&self, id: &str, more: &[&str]) -> Worker {
        let log = self.path(&format!("{id}.log"));
        let child = Command::new(env!("CARGO_BIN_EXE_guestkit-worker"))
            .args(["--worker-id", id, "--jobs-dir", "jobs", "--results-dir", "results"])
            .args(more)
            .env_remove("RUST_LOG")
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Worker { child, log }
    }
}

/// A running worker; ended when the story ends.
pub struct Worker {
    pub child: Child,
    log: PathBuf,
}

impl Worker {
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub fn wait_for_log(&self, text: &str) {
        wait_for(&format!("{text:?} in {}", self.log.display()), || self.log().contains(text));
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Processes of this worker's attempts. The one that is kept ready for the next attempt is not in its sandbox yet, which
    /// nobody enters without giving up new privileges (proc(5), NoNewPrivs).
    pub fn attempts(&self) -> Vec<u32> {
        let parent = self.child.id().to_string();
        let value = |status: &str, name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
        };
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| {
                let status = fs::read_to_string(entry.path().join("status")).ok()?;
                let ours = value(&status, "PPid:")? == parent && value(&status, "NoNewPrivs:")? == "1";
                ours.then(|| entry.file_name().to_str()?.parse().ok())?
            })
            .collect()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}

/// Waits for a level, not for a time.
#[track_caller]
pub fn wait_for(what: &str, mut reached: impl FnMut() -> bool) {
    let started = Instant::now();
    while !reached() {
        assert!(started.elapsed() < Duration::from_secs(60), "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn is_alive(pid: u32) -> bool {
    // A process that is dead and not yet reaped still has its folder.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

pub fn echo(job_id: &str, data: &Value) -> Value {
    json!({
        "version": "1.0", "job_id": job_id, "kind": "VMOperation", "operation": "system.echo",
        "payload": { "type": "system.echo.v1", "data": data },
    })
}

pub fn inspect(job_id: &str, image: &Path, more: &Value) -> Value {
    let mut data = json!({ "image": { "path": image } });
    merge(&mut data, more);
    json!({
        "version": "1.0", "job_id": job_id, "kind": "VMOperation", "operation": "guestkit.inspect",
        "payload": { "type": "guestkit.inspect.v1", "data": data },
    })
}

/// Lays `more` over `base`.
pub fn merge(base: &mut Value, more: &Value) {
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (name, value) in more {
                merge(base.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (base, more) => *base = more.clone(),
    }
}

pub fn with(mut document: Value, more: &Value) -> Value {
    merge(&mut document, more);
    document
}
