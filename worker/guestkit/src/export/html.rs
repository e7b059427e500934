//! The report of an inspection as one page of HTML.

use crate::guest::report::{GuestSystem, InspectReport};

use super::page::Page;
use super::{file_name, system_name};

/// `report` as a page.
pub(super) fn render(report: &InspectReport, created_at: &str) -> String {
    let title = format!("Inspection of {}", file_name(&report.image_path));
    let mut page = Page::new(&title, &format!("{created_at}, guestkit {}", report.summary.engine_version));
    image(&mut page, report);
    for system in &report.systems {
        guest(&mut page, system);
    }
    if report.systems.is_empty() {
        page.tag("h2", "No operating system was found");
    }
    warnings(&mut page, report);
    page.finish()
}

/// Bytes in the unit that reads best.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["TiB", "GiB", "MiB", "KiB"];
    for (power, unit) in (1..=4).rev().zip(UNITS) {
        let one = 1_u64 << (10 * power);
        if bytes >= one {
            return format!("{:.1} {unit}", bytes as f64 / one as f64);
        }
    }
    format!("{bytes} bytes")
}

fn optional(value: &Option<String>) -> String {
    value.clone().unwrap_or_default()
}

fn image(page: &mut Page, report: &InspectReport) {
    let image = &report.image;
    page.tag("h2", "Image");
    page.pairs(&[
        ("Path", Some(report.image_path.clone())),
        ("Format", Some(image.format.clone())),
        ("Size", Some(format!("{}, file {}", size(image.virtual_size_bytes), size(image.file_size_bytes)))),
        ("SHA-256", image.sha256.clone()),
        (
            "Partitions",
            report.partition_table.as_ref().map(|table| format!("{} ({})", table.partitions.len(), table.r#type)),
        ),
    ]);
    page.tag("h3", "File systems");
    let rows = report.filesystems.iter().map(|found| {
        vec![
            found.device.clone(),
            optional(&found.r#type),
            optional(&found.label),
            optional(&found.uuid),
            found.size_bytes.map(size).unwrap_or_default(),
            found.used_bytes.map(size).unwrap_or_default(),
        ]
    });
    page.grid(&["Device", "Type", "Label", "UUID", "Size", "Used"], rows);
}

fn guest(page: &mut Page, system: &GuestSystem) {
    let os = &system.operating_system;
    page.tag("h2", &system_name(system));
    page.pairs(&[
        ("Root", Some(system.root.clone())),
        ("Distribution", os.distribution.clone()),
        ("Version", os.version.clone()),
        ("Architecture", os.arch.clone()),
        ("Host name", os.fqdn.clone().or_else(|| os.hostname.clone())),
        ("Kernel", os.default_kernel.clone().or_else(|| os.kernels.first().map(|kernel| kernel.version.clone()))),
        ("Init system", os.init_system.clone()),
        ("Time zone", os.timezone.clone()),
        ("Installed", os.installed_at.clone()),
        ("Last start", os.last_boot_at.clone()),
        ("Support ends", os.support_end.clone()),
    ]);
    let mounts = system
        .mountpoints
        .iter()
        .map(|mount| vec![mount.path.clone(), mount.device.clone(), optional(&mount.subvolume)]);
    page.folded(&format!("Mounts ({})", system.mountpoints.len()), &["Path", "Device", "Subvolume"], mounts);
    if !system.snapshots.is_empty() {
        let rows = system.snapshots.iter().map(|snapshot| {
            vec![snapshot.path.clone(), optional(&snapshot.created_at), optional(&snapshot.description)]
        });
        page.folded(&format!("Snapshots ({})", system.snapshots.len()), &["Path", "Made", "For"], rows);
    }
    modules(page, system);
}

fn modules(page: &mut Page, system: &GuestSystem) {
    if let Some(packages) = &system.packages {
        let count = packages.count.map_or_else(|| "number unknown".to_owned(), |count| count.to_string());
        let rows = packages.packages.iter().map(|package| {
            vec![
                package.name.clone(),
                package.full_version.clone(),
                optional(&package.arch),
                package.state.clone(),
                optional(&package.summary),
            ]
        });
        page.folded(&format!("Packages ({count})"), &["Name", "Version", "Architecture", "State", "Summary"], rows);
    }
    if let Some(services) = &system.services {
        let rows = services.units.iter().map(|unit| {
            vec![unit.name.clone(), unit.state.clone(), optional(&unit.preset), optional(&unit.description)]
        });
        let title = format!("Services ({}, {} enabled)", services.count, services.enabled.len());
        page.folded(&title, &["Unit", "State", "Preset", "Description"], rows);
        if !services.cron_jobs.is_empty() {
            let rows = services.cron_jobs.iter();
            let rows =
                rows.map(|job| vec![job.schedule.clone(), job.user.clone(), job.command.clone(), job.source.clone()]);
            let title = format!("Scheduled commands ({})", services.cron_jobs.len());
            page.folded(&title, &["When", "As", "Command", "File"], rows);
        }
    }
    surroundings(page, system);
    if let Some(users) = &system.users {
        let rows = users.users.iter().map(|user| {
            vec![
                user.name.clone(),
                user.uid.to_string(),
                user.home.clone(),
                user.shell.clone(),
                user.password_state.clone(),
                user.groups.join(", "),
            ]
        });
        page.folded(&format!("Users ({})", users.count), &["Name", "UID", "Home", "Shell", "Password", "Groups"], rows);
    }
    if let Some(storage) = &system.storage {
        let rows = storage.mounts.iter().map(|mount| {
            vec![
                mount.path.clone(),
                mount.r#type.clone(),
                size(mount.size_bytes),
                size(mount.used_bytes),
                format!("{} %", mount.used_percent),
            ]
        });
        page.folded(&format!("Storage ({})", storage.mounts.len()), &["Path", "Type", "Size", "Used", "Full"], rows);
    }
    if let Some(security) = &system.security {
        let state = |known: Option<bool>| known.map(|known| if known { "enabled" } else { "disabled" }.to_owned());
        page.tag("h3", "Security");
        page.pairs(&[
            ("SELinux", security.selinux.as_ref().and_then(|selinux| selinux.mode.clone())),
            ("AppArmor", state(security.apparmor.as_ref().map(|apparmor| apparmor.enabled))),
            ("SSH server", security.ssh.as_ref().and_then(|ssh| state(ssh.enabled))),
            ("Kernel command line", security.kernel_command_line.clone()),
        ]);
        if !security.certificates.is_empty() {
            let rows = security.certificates.iter().map(|one| {
                vec![
                    one.path.clone(),
                    one.subject.clone(),
                    one.issuer.clone(),
                    one.not_before.clone(),
                    one.not_after.clone(),
                ]
            });
            let title = format!("Certificates ({})", security.certificates.len());
            page.folded(&title, &["File", "Subject", "Issuer", "From", "Until"], rows);
        }
    }
}

/// What the place a system runs in brought it, and what runs in it.
fn surroundings(page: &mut Page, system: &GuestSystem) {
    if !system.guest_agents.is_empty() {
        let state = |enabled: Option<bool>| enabled.map_or("", |enabled| if enabled { "enabled" } else { "disabled" });
        let rows = system.guest_agents.iter().map(|agent| {
            vec![agent.name.clone(), agent.platform.clone(), optional(&agent.version), state(agent.enabled).to_owned()]
        });
        let title = format!("Guest agents ({})", system.guest_agents.len());
        page.folded(&title, &["Name", "Platform", "Version", "Service"], rows);
    }
    if let Some(cloud) = &system.cloud_init {
        page.tag("h3", "cloud-init");
        page.pairs(&[
            ("State", Some(if cloud.enabled { "enabled" } else { "switched off" }.to_owned())),
            ("Switched off by", cloud.disabled_by.clone()),
            ("Version", cloud.version.clone()),
            ("Data source", cloud.datasource.clone()),
            ("Instance", cloud.instance_id.clone()),
            ("Finished", cloud.finished_at.clone()),
        ]);
    }
    if let Some(containers) = &system.containers {
        let rows = containers
            .runtimes
            .iter()
            .map(|runtime| vec![runtime.name.clone(), optional(&runtime.version), optional(&runtime.data_directory)]);
        let title = format!("Container runtimes ({})", containers.runtimes.len());
        page.folded(&title, &["Name", "Version", "Data"], rows);
        let rows = containers.images.iter().map(|image| {
            let id = image.id.as_ref().or(image.digest.as_ref());
            vec![
                image.names.join(", "),
                id.cloned().unwrap_or_default(),
                optional(&image.created_at),
                image.storage.clone(),
            ]
        });
        let title = format!("Container images ({})", containers.images.len());
        page.folded(&title, &["Names", "Sum", "Made", "Storage"], rows);
        let rows = containers.containers.iter().map(|one| {
            let name = one.name.clone().unwrap_or_else(|| one.id.clone());
            vec![name, optional(&one.image), optional(&one.state), optional(&one.restart_policy), one.storage.clone()]
        });
        let title = format!("Containers ({})", containers.containers.len());
        page.folded(&title, &["Name", "Image", "State", "Restart", "Storage"], rows);
    }
    if !system.language_runtimes.is_empty() {
        let rows = system.language_runtimes.iter().map(|runtime| {
            let source = runtime.package.as_ref().or(runtime.path.as_ref()).cloned().unwrap_or_default();
            vec![runtime.language.clone(), runtime.version.clone(), source]
        });
        let title = format!("Language runtimes ({})", system.language_runtimes.len());
        page.folded(&title, &["Language", "Version", "From"], rows);
    }
}

fn warnings(page: &mut Page, report: &InspectReport) {
    if report.warnings.is_empty() {
        return;
    }
    page.tag("h2", "What could not be read");
    page.raw("<div class=\"warnings\">\n");
    let rows = report.warnings.iter();
    let rows = rows.map(|warning| vec![warning.r#where.clone(), warning.what.clone(), warning.why.clone()]);
    page.grid(&["Where", "What", "Why"], rows);
    page.raw("</div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_cannot_put_markup_into_the_page() {
        let mut report = InspectReport { image_path: "/x/<b>.raw".to_owned(), ..InspectReport::default() };
        let mut system = GuestSystem::default();
        system.operating_system.product_name = Some("<script>alert(1)</script>".to_owned());
        system.operating_system.hostname = Some("\"><img src=x onerror=y>".to_owned());
        report.systems.push(system);
        let page = render(&report, "2026-01-31T00:00:00Z");
        assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
        assert!(page.contains("&lt;script&gt;"), "{page}");
        assert_eq!((size(1023), size(1536)), ("1023 bytes".to_owned(), "1.5 KiB".to_owned()));
    }
}
