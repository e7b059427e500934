//! Whether a document is meant for this worker: the same demands that a coordinator places jobs by, asked where there is no
//! coordinator.

use std::collections::BTreeSet;
use std::sync::Arc;

use guestkit_domain::{Placement, WorkerProfile};

/// Why a document is not for this worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// It names other workers: it may lie until one of them comes.
    Elsewhere(String),
    /// It demands what this worker does not have.
    Lacking(String),
}

/// Checks every demand of `wanted` but the image's folder, which is for the image roots to judge.
///
/// # Errors
/// The first demand that is not met.
pub fn check(wanted: &Placement, worker: &WorkerProfile) -> Result<(), Unfit> {
    if let Some(named) = wanted.worker.as_ref().filter(|named| **named != worker.worker_id) {
        return Err(Unfit::Elsewhere(format!("it is for worker {named}, this is {}", worker.worker_id)));
    }
    if !wanted.pools.is_empty() && !wanted.pools.contains(&worker.pool) {
        let pools = join(&wanted.pools);
        return Err(Unfit::Elsewhere(format!("it is for the pools {pools}, this worker is in {}", worker.pool)));
    }
    let lacking = |what: String| Err(Unfit::Lacking(what));
    let missing = |wanted: &BTreeSet<Arc<str>>, held: &BTreeSet<Arc<str>>| {
        let missing: BTreeSet<_> = wanted.difference(held).cloned().collect();
        (!missing.is_empty()).then(|| join(&missing))
    };
    if let Some(missing) = missing(&wanted.capabilities, &worker.capabilities) {
        return lacking(format!("constraints.required_capabilities: this worker has no {missing}"));
    }
    if let Some(missing) = missing(&wanted.features, &worker.features) {
        return lacking(format!("constraints.required_features: this worker's machine has no {missing}"));
    }
    if let Some(minimum) =
        wanted.minimum_version.as_ref().filter(|minimum| worker.version.cmp_precedence(minimum).is_lt())
    {
        return lacking(format!(
            "constraints.minimum_worker_version: {minimum} is required, this worker is {}",
            worker.version
        ));
    }
    if wanted.privileged && !worker.privileged {
        return lacking("constraints.require_privileged: this worker does not run privileged".into());
    }
    for (label, excluded) in &wanted.anti_affinity {
        if let Some(value) = worker.labels.get(label).filter(|value| excluded.contains(*value)) {
            return lacking(format!("routing.anti_affinity: this worker has {label}={value}"));
        }
    }
    Ok(())
}

fn join(texts: &BTreeSet<Arc<str>>) -> String {
    texts.iter().map(|text| &**text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use guestkit_domain::{BootId, WorkerId};

    use super::*;

    fn set(texts: &[&str]) -> BTreeSet<Arc<str>> {
        texts.iter().map(|text| Arc::from(*text)).collect()
    }

    #[track_caller]
    fn check_unfit(wanted: Placement, expected: Option<&str>) {
        let worker = WorkerProfile {
            stream: 0,
            worker_id: WorkerId::new("w1").unwrap(),
            boot_id: BootId::new("b1").unwrap(),
            capabilities: set(&["system.echo", "disk.qcow2"]),
            features: set(&["gpu"]),
            version: "0.10.0+build.2".parse().unwrap(),
            pool: "default".into(),
            labels: [("zone".into(), "a".into())].into(),
            slots: 1,
            privileged: false,
            image_roots: Vec::new(),
        };
        let text = match check(&wanted, &worker) {
            Ok(()) => None,
            Err(Unfit::Elsewhere(text)) => Some(format!("elsewhere: {text}")),
            Err(Unfit::Lacking(text)) => Some(format!("lacking: {text}")),
        };
        match expected {
            None => assert_eq!(text, None),
            Some(expected) => assert!(text.as_ref().is_some_and(|text| text.contains(expected)), "{text:?}"),
        }
    }

    #[test]
    fn every_demand_is_obeyed() {
        let any = Placement::default;
        check_unfit(any(), None);
        check_unfit(Placement { capabilities: set(&["disk.qcow2"]), features: set(&["gpu"]), ..any() }, None);
        check_unfit(Placement { minimum_version: Some(semver::Version::new(0, 9, 9)), ..any() }, None);
        // What is built of it does not order versions; what comes before it does (Semantic Versioning 2.0.0, sections 10 and 11).
        for (minimum, expected) in
            [("0.10.0+build.9", None), ("0.10.0-rc.1", None), ("0.10.1-rc.1", Some("is required"))]
        {
            check_unfit(Placement { minimum_version: Some(minimum.parse().unwrap()), ..any() }, expected);
        }
        check_unfit(
            Placement { worker: Some(WorkerId::new("w2").unwrap()), ..any() },
            Some("elsewhere: it is for worker w2"),
        );
        check_unfit(Placement { pools: set(&["prod"]), ..any() }, Some("elsewhere: it is for the pools prod"));
        check_unfit(Placement { capabilities: set(&["fs.xfs"]), ..any() }, Some("has no fs.xfs"));
        check_unfit(Placement { features: set(&["tpu"]), ..any() }, Some("has no tpu"));
        check_unfit(
            Placement { minimum_version: Some(semver::Version::new(0, 11, 0)), ..any() },
            Some("0.11.0 is required"),
        );
        check_unfit(Placement { privileged: true, ..any() }, Some("privileged"));
        check_unfit(Placement { anti_affinity: [("zone".into(), set(&["a", "b"]))].into(), ..any() }, Some("zone=a"));
    }
}
