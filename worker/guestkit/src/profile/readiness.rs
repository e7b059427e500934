//! Whether a system is ready for a target: the migration checks, and what must be done about those that do not hold.

use super::checks::migration::{
    TARGETS, cloud_init_for, console_for, disk_layout_for, guest_agent_for, initramfs_drivers, kernel_drivers,
    vm_tools_for,
};
use super::guest::Guest;
use super::outcome::{Outcome, Status};
use super::report::{Readiness, RequiredChange};
use super::rule::{Rule, Severity};

/// The targets that matter.
pub(crate) fn targets(asked: Option<&str>) -> Vec<&'static str> {
    TARGETS.into_iter().filter(|target| asked.is_none_or(|asked| asked == *target)).collect()
}

/// The readiness for each target, of rules and what they came to.
pub(crate) fn of<'r>(
    guest: &Guest<'_>,
    judged: impl Iterator<Item = (&'r Rule, &'r Outcome)> + Clone,
) -> Vec<Readiness> {
    targets(guest.options.target.as_deref())
        .into_iter()
        .map(|target| for_target(guest, target, judged.clone()))
        .collect()
}

fn for_target<'r>(guest: &Guest<'_>, target: &str, judged: impl Iterator<Item = (&'r Rule, &'r Outcome)>) -> Readiness {
    let mut readiness = Readiness { target: target.to_owned(), system: guest.root.name(), ..Readiness::default() };
    for (rule, outcome) in judged {
        let Some(migration) = &rule.migration else { continue };
        if !migration.targets.is_empty() && !migration.targets.iter().any(|known| known == target) {
            continue;
        }
        // What depends on the target is judged for it.
        let own = match rule.id.as_str() {
            "mig.initramfs-virtio" => Some(initramfs_drivers(guest, target)),
            "mig.kernel-virtio" => Some(kernel_drivers(guest, target)),
            "mig.console" => Some(console_for(guest, target)),
            "mig.disk-layout" => Some(disk_layout_for(guest, target)),
            "mig.vm-tools" => Some(vm_tools_for(guest, target)),
            "mig.guest-agent" => Some(guest_agent_for(guest, target)),
            "mig.cloud-init-datasource" => Some(cloud_init_for(guest, target)),
            _ => None,
        };
        let outcome = own.as_ref().filter(|_| outcome.status != Status::NotApplicable).unwrap_or(outcome);
        let told = format!("{}: {}", rule.id, outcome.reason);
        match (outcome.status, migration.how.as_str()) {
            (Status::Fail, "blocker") => readiness.blockers.push(told),
            (Status::Unknown | Status::Error, "blocker") => readiness.unknowns.push(told),
            // What a tool could mend but nobody could look at may still keep the system from starting.
            (Status::Unknown | Status::Error, how) if how != "information" && rule.severity >= Severity::High => {
                readiness.unknowns.push(told);
            }
            (Status::Fail | Status::Warn, how @ ("automatic" | "manual-before" | "manual-after")) => {
                readiness.required_changes.push(RequiredChange {
                    id: rule.id.clone(),
                    title: rule.remediation.clone(),
                    how: how.to_owned(),
                    subjects: outcome.subjects.iter().take(20).cloned().collect(),
                });
            }
            (Status::Warn, "blocker") => readiness.required_changes.push(RequiredChange {
                id: rule.id.clone(),
                title: rule.remediation.clone(),
                how: "manual-before".to_owned(),
                subjects: outcome.subjects.iter().take(20).cloned().collect(),
            }),
            _ => {}
        }
    }
    // First what people do before, then what a tool does, then what is left for afterwards.
    let order = |how: &str| ["manual-before", "automatic", "manual-after"].iter().position(|known| *known == how);
    readiness.required_changes.sort_by_key(|change| order(&change.how));
    readiness.state =
        match (readiness.blockers.is_empty(), readiness.unknowns.is_empty(), readiness.required_changes.is_empty()) {
            (false, ..) => "not-ready",
            (true, false, _) => "unknown",
            (true, true, false) => "ready-with-changes",
            (true, true, true) => "ready",
        }
        .to_owned();
    readiness
}
