//! cloud-init: what it is set to, and what it did the last time. Source: the cloud-init documentation, "Boot stages",
//! "Configuration sources", "Data sources" and the layout of /var/lib/cloud.

use serde::Deserialize;

use crate::guest::report::{CloudInit, OperatingSystem, Package, Services};

use super::files::Files;
use super::time;

const CONFIG: &str = "/etc/cloud/cloud.cfg";
const CONFIG_FOLDER: &str = "/etc/cloud/cloud.cfg.d";
const SWITCHED_OFF: &str = "/etc/cloud/cloud-init.disabled";
/// A link to the folder of the instance that was set up last.
const INSTANCE: &str = "/var/lib/cloud/instance";
/// The service that looks for data: its first stage, by its older and its newer name.
const SERVICES: [&str; 4] =
    ["cloud-init-local.service", "cloud-init-main.service", "cloud-init.service", "cloud-init-local"];

/// Which data sources it looks for, and where that is said.
pub(crate) struct DatasourceList {
    pub(crate) names: Vec<String>,
    pub(crate) path: String,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// The list that is in force: of files that have one the last counts.
pub(crate) fn datasource_list(files: &Files<'_>) -> Option<DatasourceList> {
    let mut paths = vec![CONFIG.to_owned()];
    paths.extend(files.with_suffix(CONFIG_FOLDER, ".cfg"));
    let mut found = None;
    for path in paths {
        if let Some((names, line)) = files.text(&path).as_deref().and_then(list_of) {
            found = Some(DatasourceList { names, path, line });
        }
    }
    found
}

/// The list under `datasource_list`, in a line or in lines. Only that key is read: the rest of such a file is a document of any
/// shape, which may be large.
fn list_of(text: &str) -> Option<(Vec<String>, usize)> {
    let mut found = None;
    let mut lines = text.lines().zip(1..).peekable();
    while let Some((line, number)) = lines.next() {
        let Some(value) = line.strip_prefix("datasource_list:") else { continue };
        let mut block = format!("{value}\n");
        while let Some((next, _)) =
            lines.next_if(|(next, _)| next.is_empty() || next.starts_with([' ', '\t', '-', '#', ']']))
        {
            block.push_str(next);
            block.push('\n');
        }
        let names = block
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default())
            .flat_map(|line| line.split([',', '[', ']']))
            .map(|word| word.trim().trim_start_matches("- ").trim().trim_matches(['"', '\'']))
            .filter(|word| !word.is_empty() && *word != "-")
            .map(str::to_owned);
        found = Some((names.collect(), number));
    }
    found
}

/// What it wrote when it ended: `result.json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Ended {
    v1: EndedOnce,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct EndedOnce {
    datasource: Option<String>,
    errors: Vec<String>,
}

/// The facts; `None` where it is not installed and left nothing.
pub(super) fn inspect(
    files: &Files<'_>,
    system: &OperatingSystem,
    packages: Option<&[Package]>,
    services: Option<&Services>,
) -> Option<CloudInit> {
    let is_installed = files.first_existing(&[CONFIG, "/usr/bin/cloud-init"]).is_some();
    let instance_id = files.first_line("/var/lib/cloud/data/instance-id");
    if !is_installed && instance_id.is_none() {
        return None;
    }
    let (datasources, datasources_source) = datasource_list(files).map(|list| (list.names, list.path)).unzip();
    let finished = files.first_line(&format!("{INSTANCE}/boot-finished"));
    let (finished_at, wrote_version) = finished.as_deref().map(boot_finished).unwrap_or_default();
    let ended: Option<Ended> =
        files.bytes("/var/lib/cloud/data/result.json").and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let ended = ended.unwrap_or_default().v1;
    let disabled_by = disabled_by(files, system, services);
    let package = packages.into_iter().flatten().find(|one| one.name == "cloud-init" && one.state == "installed");
    Some(CloudInit {
        version: package.map(|package| package.full_version.clone()).or(wrote_version),
        enabled: is_installed && disabled_by.is_none(),
        disabled_by,
        datasources: datasources.unwrap_or_default(),
        datasources_source,
        datasource: datasource(files).or(ended.datasource),
        instance_id,
        finished_at,
        errors: ended.errors,
        has_user_data: files.stat(&format!("{INSTANCE}/user-data.txt")).is_some_and(|found| found.size > 0),
    })
}

fn disabled_by(files: &Files<'_>, system: &OperatingSystem, services: Option<&Services>) -> Option<String> {
    if files.exists(SWITCHED_OFF) {
        return Some(SWITCHED_OFF.to_owned());
    }
    let line = system.kernel_command_line.as_deref().unwrap_or_default();
    let said = line.split_whitespace().rev().find_map(|word| word.strip_prefix("cloud-init="));
    if said == Some("disabled") {
        return Some("kernel command line".to_owned());
    }
    let units = services.into_iter().flat_map(|services| &services.units);
    let masked =
        units.filter(|unit| SERVICES.contains(&unit.name.as_str())).find(|unit| unit.state.starts_with("masked"));
    masked.map(|unit| unit.path.clone())
}

/// `DataSourceNoCloud: DataSourceNoCloud [seed=/dev/sr0]`: the class, and how it calls itself.
fn datasource(files: &Files<'_>) -> Option<String> {
    let paths = [format!("{INSTANCE}/datasource"), "/var/lib/cloud/data/previous-datasource".to_owned()];
    let line = paths.iter().find_map(|path| files.first_line(path))?;
    Some(line.split_once(": ").map_or(line.as_str(), |(_, name)| name).to_owned())
}

/// `23.44 - Thu, 04 Jan 2024 09:12:13 +0000 - v. 23.4.1-0ubuntu1`: seconds since start, time, version.
fn boot_finished(line: &str) -> (Option<String>, Option<String>) {
    let mut parts = line.split(" - ").skip(1);
    let at = parts.next().map(str::trim).map(|text| {
        let time = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text);
        time.ok().and_then(|time| time::rfc3339(time.as_second())).unwrap_or_else(|| text.to_owned())
    });
    let version = parts.next().and_then(|text| text.trim().strip_prefix("v. ")).map(str::to_owned);
    (at, version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::linux::fixture::Fixture;

    fn found(files: &[(&str, &str)], command_line: &str) -> Option<CloudInit> {
        let fixture = Fixture::new();
        for (path, text) in files {
            fixture.file(path, text);
        }
        let tree = fixture.tree();
        let system =
            OperatingSystem { kernel_command_line: Some(command_line.to_owned()), ..OperatingSystem::default() };
        inspect(&Files::new(&tree), &system, None, None)
    }

    /// The texts are those that the documentation shows.
    #[test]
    fn what_it_did_is_told() {
        let told = found(
            &[
                ("etc/cloud/cloud.cfg", "users:\n - default\ndatasource_list: [ NoCloud, Ec2 ]\n"),
                (
                    "etc/cloud/cloud.cfg.d/90_dpkg.cfg",
                    "# by dpkg\ndatasource_list:\n  - ConfigDrive\n  - 'None' # last\nx: y\n",
                ),
                ("var/lib/cloud/data/instance-id", "iid-local01\n"),
                ("var/lib/cloud/instance/datasource", "DataSourceNoCloud: DataSourceNoCloud [seed=/dev/sr0]\n"),
                (
                    "var/lib/cloud/instance/boot-finished",
                    "23.44 - Thu, 04 Jan 2024 09:12:13 +0000 - v. 23.4.1-0ubuntu1\n",
                ),
                ("var/lib/cloud/instance/user-data.txt", "#cloud-config\n"),
                ("var/lib/cloud/data/result.json", "{\"v1\": {\"datasource\": \"x\", \"errors\": [\"it failed\"]}}"),
            ],
            "ro quiet",
        )
        .unwrap();
        assert_eq!(told.datasources, ["ConfigDrive", "None"]);
        assert_eq!(told.datasources_source.as_deref(), Some("/etc/cloud/cloud.cfg.d/90_dpkg.cfg"));
        assert_eq!(told.datasource.as_deref(), Some("DataSourceNoCloud [seed=/dev/sr0]"));
        assert_eq!(told.instance_id.as_deref(), Some("iid-local01"));
        assert_eq!(told.finished_at.as_deref(), Some("2024-01-04T09:12:13Z"));
        assert_eq!(told.version.as_deref(), Some("23.4.1-0ubuntu1"));
        assert_eq!(told.errors, ["it failed"]);
        assert!(told.enabled && told.has_user_data);
    }

    #[test]
    fn what_switches_it_off_is_told() {
        let config = ("etc/cloud/cloud.cfg", "");
        assert_eq!(found(&[("etc/passwd", "")], ""), None);
        let off = found(&[config], "cloud-init=enabled cloud-init=disabled").unwrap();
        assert_eq!((off.enabled, off.disabled_by.as_deref()), (false, Some("kernel command line")));
        let off = found(&[config, ("etc/cloud/cloud-init.disabled", "")], "").unwrap();
        assert_eq!((off.enabled, off.disabled_by.as_deref()), (false, Some(SWITCHED_OFF)));
        assert!(found(&[config], "").unwrap().enabled);
    }
}
