//! What systemd would start: the enablement of unit files on an offline root, as `systemctl --root=DIR list-unit-files`
//! tells it. Source: systemd.unit(5), "Unit File Load Path" and "[Install] Section Options"; systemctl(1), `is-enabled`;
//! systemd.preset(5).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::filesystem::FileType;
use crate::guest::report::Unit;

use super::files::Files;
use super::journal::LastBoot;
use super::pattern;
use super::unit::{Name, UnitFile};

/// What a directory of the search path is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The administrator's: a link here enables.
    Config,
    /// Gone at the next start: a link here enables until then.
    Runtime,
    /// Written by generators.
    Generated,
    /// Written for transient units.
    Transient,
    /// The distribution's.
    Vendor,
}

/// The search path of the system manager, first wins.
const SEARCH_PATH: [(&str, Role); 13] = [
    ("/etc/systemd/system.control", Role::Config),
    ("/run/systemd/system.control", Role::Runtime),
    ("/run/systemd/transient", Role::Transient),
    ("/run/systemd/generator.early", Role::Generated),
    ("/etc/systemd/system", Role::Config),
    ("/etc/systemd/system.attached", Role::Config),
    ("/run/systemd/system", Role::Runtime),
    ("/run/systemd/system.attached", Role::Runtime),
    ("/run/systemd/generator", Role::Generated),
    ("/usr/local/lib/systemd/system", Role::Vendor),
    ("/usr/lib/systemd/system", Role::Vendor),
    ("/lib/systemd/system", Role::Vendor),
    ("/run/systemd/generator.late", Role::Generated),
];
/// Where presets lie; a name in an earlier directory hides the same name in a later one.
const PRESET_PATH: [&str; 5] = [
    "/etc/systemd/system-preset",
    "/run/systemd/system-preset",
    "/usr/local/lib/systemd/system-preset",
    "/usr/lib/systemd/system-preset",
    "/lib/systemd/system-preset",
];
/// Preset lines taken in: every unit is matched against each; distributions have some hundreds.
const PRESETS_MAX: usize = 10_000;
/// Links that are followed from one unit name to the next: aliases of aliases do not go deeper in practice.
const ALIAS_DEPTH_MAX: usize = 16;

/// One directory of the search path, read once.
struct Directory {
    path: &'static str,
    role: Role,
    /// Unit files and links to them.
    units: BTreeMap<String, Option<String>>,
    /// Links of `.wants`, `.requires` and `.upholds`: the unit that pulls, the link's name, its target.
    pulls: Vec<(String, String, String)>,
    /// The directories of drop-ins, by full name.
    drop_ins: BTreeSet<String>,
}

/// All that is needed to judge a unit.
pub(crate) struct Manager<'a, 'b> {
    files: &'a Files<'b>,
    directories: Vec<Directory>,
    presets: Vec<Preset>,
    /// Links of the search path by name, by target's name and by template, so that no unit looks at all of them.
    links: HashMap<String, Vec<Link>>,
    pulled_by: HashMap<String, BTreeSet<String>>,
}

#[derive(Clone)]
struct Link {
    directory: usize,
    /// The name of the link.
    name: String,
    /// The last name of its target.
    target: String,
    /// It stands beside the units, not in a `.wants` directory.
    is_alias: bool,
}

impl Link {
    /// Beside the units, a link of the unit's name or to it; of those that pull, one of its name or of an instance of it.
    fn concerns(&self, name: &str) -> bool {
        let instance_of = || Name::parse(&self.name).and_then(|link| link.template());
        self.name == name
            || if self.is_alias { self.target == name } else { instance_of().is_some_and(|template| template == name) }
    }
}

struct Preset {
    action: &'static str,
    pattern: String,
}

/// What a name leads to.
enum Found {
    Masked { directory: usize },
    Unit { name: String, directory: Option<usize>, path: String, text: String },
    Missing,
}

impl<'a, 'b> Manager<'a, 'b> {
    /// Reads the search path; `None` where the guest has no systemd units.
    pub(crate) fn read(files: &'a Files<'b>) -> Option<Self> {
        let mut directories = Vec::new();
        let mut seen = BTreeSet::new();
        for (path, role) in SEARCH_PATH {
            // On a merged /usr, /lib is /usr/lib: one directory counts once.
            match files.tree().canonicalize(path) {
                Ok(Some(real)) if seen.insert(real.clone()) => directories.push(read_directory(files, path, role)),
                Ok(_) => {}
                Err(error) => files.warn_error(path, &error),
            }
        }
        if directories.iter().all(|directory| directory.units.is_empty()) {
            return None;
        }
        let (links, pulled_by) = index_links(&directories);
        Some(Self { files, directories, presets: read_presets(files), links, pulled_by })
    }

    /// Whether a unit of this name has a file or is masked.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.directories.iter().any(|directory| directory.units.contains_key(name))
    }

    /// The target that default.target leads to.
    pub(crate) fn default_target(&self) -> Option<String> {
        match self.find("default.target") {
            Found::Unit { name, .. } => Some(name),
            Found::Masked { .. } | Found::Missing => None,
        }
    }

    /// Every unit file, in order of name, and how `boot` left the units.
    pub(crate) fn units(&self, boot: Option<&LastBoot>) -> Vec<Unit> {
        let names: BTreeSet<&String> = self.directories.iter().flat_map(|directory| directory.units.keys()).collect();
        names.into_iter().filter_map(|name| self.unit(name, boot)).collect()
    }

    fn unit(&self, name: &str, boot: Option<&LastBoot>) -> Option<Unit> {
        let parsed = Name::parse(name)?;
        let directory = self.directories.iter().find(|directory| directory.units.contains_key(name))?;
        let mut unit = Unit {
            name: name.to_owned(),
            kind: parsed.kind.to_owned(),
            manager: "systemd".to_owned(),
            path: format!("{}/{name}", directory.path),
            wanted_by: self.pulled_by.get(name).into_iter().flatten().cloned().collect(),
            ..Unit::default()
        };
        match self.find(name) {
            Found::Missing => {
                unit.state = "bad".to_owned();
                unit.preset = Some(self.preset(name).to_owned());
            }
            Found::Masked { directory } => {
                let is_runtime = self
                    .directories
                    .get(directory)
                    .is_some_and(|directory| directory.role != Role::Config && directory.role != Role::Vendor);
                unit.state = if is_runtime { "masked-runtime" } else { "masked" }.to_owned();
                unit.preset = Some(self.preset(name).to_owned());
            }
            Found::Unit { name: real, directory, path, text } => {
                let mut file = UnitFile::parse(&text);
                let drop_ins = self.drop_ins(&real, &parsed);
                for drop_in in &drop_ins {
                    file.merge(&self.files.text(drop_in).unwrap_or_default());
                }
                describe(&mut unit, &file);
                unit.active_state = boot
                    .and_then(|boot| boot.units.get(name))
                    .map(|state| state.name_for(leaves_nothing_running(&file)).to_owned());
                unit.drop_ins = drop_ins;
                let is_instance = parsed.instance.is_some_and(|instance| !instance.is_empty());
                if !is_valid(if is_instance { name } else { &real }, &file) {
                    unit.state = "bad".to_owned();
                    unit.preset = Some(self.preset(name).to_owned());
                } else if real != name && !is_instance {
                    unit.state = "alias".to_owned();
                    unit.alias_of = Some(real);
                } else {
                    let instance = self.instance_state(name, &real, &file);
                    unit.state = instance.unwrap_or_else(|| self.state(&real, directory, &path, &file)).to_owned();
                    if !matches!(unit.state.as_str(), "static" | "generated" | "transient") {
                        unit.preset = Some(self.preset(name).to_owned());
                    }
                }
            }
        }
        Some(unit)
    }

    /// Follows `name` through links to the file that stands for it.
    fn find(&self, name: &str) -> Found {
        let mut name = name.to_owned();
        for _ in 0..ALIAS_DEPTH_MAX {
            let Some((index, directory)) =
                self.directories.iter().enumerate().find(|(_, directory)| directory.units.contains_key(&name))
            else {
                // An instance is read from its template.
                match Name::parse(&name).and_then(|parsed| parsed.template()) {
                    Some(template) => {
                        name = template;
                        continue;
                    }
                    None => return Found::Missing,
                }
            };
            let path = format!("{}/{name}", directory.path);
            let Some(target) = directory.units.get(&name).cloned().flatten() else {
                return self.load(name, Some(index), path);
            };
            let target = absolute(directory.path, &target);
            let last = target.rsplit('/').next().unwrap_or_default().to_owned();
            if target == "/dev/null" {
                return Found::Masked { directory: index };
            }
            let is_inside = self.directory_of(&target).is_some();
            if !is_inside {
                // Linked from elsewhere on the disk, perhaps through /etc/alternatives to a unit of another name.
                match self.leads_to(&name, &target) {
                    Some(other) => {
                        name = other;
                        continue;
                    }
                    None => return self.load(name, Some(index), target),
                }
            }
            if last == name || !may_stand_for(&name, &last) {
                // A link to its own name, or to what it cannot be an alias of: systemctl refuses to judge it.
                return Found::Missing;
            }
            if Name::parse(&name).and_then(|parsed| parsed.template()).is_some_and(|template| template == last) {
                // An instance is read from the very file that its link names.
                return self.load(last, self.directory_of(&target), target);
            }
            name = last;
        }
        Found::Missing
    }

    /// The other unit that links of the same name outside the search path end at.
    fn leads_to(&self, name: &str, target: &str) -> Option<String> {
        let mut path = target.to_owned();
        for _ in 0..ALIAS_DEPTH_MAX {
            let (directory, last) = path.rsplit_once('/')?;
            if last != name {
                return Some(last).filter(|last| path != target && Name::parse(last).is_some()).map(str::to_owned);
            }
            let link = self.files.stat_link(&path).filter(|metadata| metadata.file_type == FileType::Symlink);
            path = absolute(directory, &link.and_then(|_| self.files.link(&path))?);
        }
        None
    }

    fn load(&self, name: String, directory: Option<usize>, path: String) -> Found {
        match self.files.text(&path) {
            Some(text) if text.is_empty() => Found::Masked { directory: directory.unwrap_or_default() },
            Some(text) => Found::Unit { name, directory, path, text },
            None if self.files.link(&path).is_some_and(|target| target == "/dev/null") => {
                Found::Masked { directory: directory.unwrap_or_default() }
            }
            None => Found::Missing,
        }
    }

    fn directory_of(&self, path: &str) -> Option<usize> {
        let (above, _) = path.rsplit_once('/')?;
        let position = |wanted: &str| self.directories.iter().position(|directory| directory.path == wanted);
        // Links written before /usr was merged name /lib.
        let merged = || above.starts_with("/lib/").then(|| position(&format!("/usr{above}"))).flatten();
        let split = || position(above.strip_prefix("/usr").filter(|rest| rest.starts_with("/lib/"))?);
        position(above).or_else(merged).or_else(split)
    }

    /// What `systemctl is-enabled` says of a unit that has a file.
    fn state(&self, name: &str, directory: Option<usize>, path: &str, file: &UnitFile) -> &'static str {
        match directory.and_then(|index| self.directories.get(index)).map(|directory| directory.role) {
            Some(Role::Generated) => return "generated",
            Some(Role::Transient) => return "transient",
            _ => {}
        }
        if let Some(state) = self.linked(name, path, Some(&install_names(name, file))) {
            return state;
        }
        // Known under a name that its own file does not ask for.
        if self.linked(name, path, None).is_some() {
            return "indirect";
        }
        if has_rules(name, file) {
            "disabled"
        } else if !file.words("Install", "Also").is_empty() {
            "indirect"
        } else {
            "static"
        }
    }

    /// An instance that stands beside the units: what counts is a link named as the instance of the template it leads to.
    fn instance_state(&self, name: &str, real: &str, file: &UnitFile) -> Option<&'static str> {
        let instance = Name::parse(name)?.instance.filter(|instance| !instance.is_empty())?;
        let wanted = Name::parse(real).filter(Name::is_template)?.with_instance(instance);
        let links = self.links.get(&wanted).into_iter().flatten().filter(|link| link.name == wanted);
        let roles: Vec<_> = links.filter_map(|link| Some(self.directories.get(link.directory)?.role)).collect();
        Some(if roles.contains(&Role::Config) {
            "enabled"
        } else if roles.iter().any(|role| *role != Role::Vendor) {
            "enabled-runtime"
        } else if roles.is_empty() && has_rules(real, file) {
            "disabled"
        } else {
            "static"
        })
    }

    /// The state that links to the unit give, best first, those of other names than `known` left out; links of the unit's own
    /// name beside the units say `linked` where they stand above its file.
    fn linked(&self, name: &str, path: &str, known: Option<&BTreeSet<String>>) -> Option<&'static str> {
        let own = self.directory_of(path).unwrap_or(usize::MAX);
        let (mut runtime, mut vendor, mut same_config, mut same_runtime) = (false, false, false, false);
        for link in self.links.get(name).into_iter().flatten().filter(|link| link.concerns(name)) {
            let role = self.directories.get(link.directory).map(|directory| directory.role);
            if link.is_alias && link.name == name {
                if link.directory < own {
                    same_config |= role == Some(Role::Config);
                    same_runtime |= role == Some(Role::Runtime);
                }
                continue;
            }
            if known.is_some_and(|known| !known.contains(&link.name)) {
                continue;
            }
            match role {
                Some(Role::Config) => return Some("enabled"),
                Some(Role::Runtime | Role::Generated | Role::Transient) => runtime = true,
                Some(Role::Vendor) | None => vendor = true,
            }
        }
        // An instance that the distribution links to is there for good; another unit is only named so.
        let is_instance = Name::parse(name).is_some_and(|parsed| parsed.instance.is_some_and(|it| !it.is_empty()));
        match (runtime, vendor && is_instance, same_config, same_runtime) {
            (true, ..) => Some("enabled-runtime"),
            (false, true, ..) => Some("static"),
            (false, false, true, _) => Some("linked"),
            (false, false, false, true) => Some("linked-runtime"),
            (false, false, false, false) => None,
        }
    }

    /// The first preset that names the unit decides; without one it is enabled.
    fn preset(&self, name: &str) -> &'static str {
        let found = self.presets.iter().find(|preset| pattern::matches(&preset.pattern, name));
        found.map_or("enabled", |preset| preset.action)
    }

    /// Drop-ins of the unit, its template and its kind, in the order they apply: by file name, first directory wins.
    fn drop_ins(&self, name: &str, parsed: &Name<'_>) -> Vec<String> {
        let mut owners = vec![format!("{}.d", parsed.kind)];
        let template = Name::parse(name).and_then(|parsed| parsed.template());
        owners.extend(template.map(|template| format!("{template}.d")));
        // `a-b-c.service` also takes `a-.service.d` and `a-b-.service.d`.
        let dashes = name.match_indices('-').map(|(at, _)| at);
        owners.extend(dashes.filter_map(|at| Some(format!("{}.{}.d", name.get(..=at)?, parsed.kind))));
        owners.push(format!("{name}.d"));
        let mut by_name: BTreeMap<String, String> = BTreeMap::new();
        for owner in owners {
            for directory in self.directories.iter().filter(|directory| directory.drop_ins.contains(&owner)) {
                for path in self.files.with_suffix(&format!("{}/{owner}", directory.path), ".conf") {
                    let file_name = path.rsplit('/').next().unwrap_or_default().to_owned();
                    by_name.entry(file_name).or_insert(path);
                }
            }
        }
        by_name.into_values().collect()
    }
}

/// The names under which links enable a unit: its own, its aliases, its default instance.
fn install_names(name: &str, file: &UnitFile) -> BTreeSet<String> {
    let mut names = BTreeSet::from([name.to_owned()]);
    let Some(parsed) = Name::parse(name) else { return names };
    names.extend(aliases(name, file).into_iter().map(|word| expand(name, &parsed, word)));
    if parsed.is_template() {
        let default = file.last("Install", "DefaultInstance");
        names.extend(default.map(|instance| parsed.with_instance(instance)));
    }
    names
}

/// Whether systemctl takes a unit's `[Install]` section: what is named in `Also` must be names of units.
fn is_valid(name: &str, file: &UnitFile) -> bool {
    let Some(mut parsed) = Name::parse(name) else { return false };
    let is_template = parsed.is_template();
    file.section("Install").all(|(key, value)| match key {
        // What stands behind it is named of this instance.
        "DefaultInstance" if is_template => {
            parsed.instance = Some(value);
            true
        }
        "Also" => value.split_whitespace().map(|word| expand(name, &parsed, word)).all(|other| {
            // Specifiers of the machine that runs are not known here.
            other.contains('%') || Name::parse(&other).is_some()
        }),
        _ => true,
    })
}

/// A word with the specifiers that concern names. Source: systemd.unit(5), "Specifiers".
fn expand(name: &str, parsed: &Name<'_>, word: &str) -> String {
    word.replace("%n", name).replace("%p", parsed.prefix).replace("%i", parsed.instance.unwrap_or_default())
}

/// Whether enabling the unit would make a link.
fn has_rules(name: &str, file: &UnitFile) -> bool {
    let is_pulled = ["WantedBy", "RequiredBy", "UpheldBy"].iter().any(|key| !file.words("Install", key).is_empty());
    is_pulled || !aliases(name, file).is_empty()
}

/// The names that a unit asks for besides its own, of the kinds that may have others. Source: systemd.unit(5), "Alias=".
fn aliases<'f>(name: &str, file: &'f UnitFile) -> Vec<&'f str> {
    let kinds = ["service", "socket", "target", "device", "timer", "path"];
    let may_have = Name::parse(name).is_some_and(|parsed| kinds.contains(&parsed.kind));
    if may_have { file.words("Install", "Alias") } else { Vec::new() }
}

/// Whether a link of one name may lead to a unit of another: both are of one kind, and both templates, or instances of one name, or
/// neither; an instance may stand for a template. Source: systemd.unit(5), "Description", on aliases.
fn may_stand_for(link: &str, unit: &str) -> bool {
    let (Some(link), Some(unit)) = (Name::parse(link), Name::parse(unit)) else { return false };
    let is_same = link.instance == unit.instance;
    link.kind == unit.kind && (is_same || (link.instance.is_some() && unit.is_template()))
}

/// The target of a link, from the root.
fn absolute(directory: &str, target: &str) -> String {
    if target.starts_with('/') {
        return normalise(target);
    }
    normalise(&format!("{directory}/{target}"))
}

/// Resolves `.` and `..` by name.
fn normalise(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn read_directory(files: &Files<'_>, path: &'static str, role: Role) -> Directory {
    let mut directory = Directory { path, role, units: BTreeMap::new(), pulls: Vec::new(), drop_ins: BTreeSet::new() };
    for entry in files.entries(path) {
        let below = format!("{path}/{}", entry.name);
        let file_type = entry.file_type.or_else(|| files.stat_link(&below).map(|metadata| metadata.file_type));
        match file_type {
            Some(FileType::Directory) if entry.name.ends_with(".d") => {
                directory.drop_ins.insert(entry.name);
            }
            Some(FileType::Directory) => {
                let suffixes = [".wants", ".requires", ".upholds"];
                if let Some(owner) = suffixes.iter().find_map(|suffix| entry.name.strip_suffix(suffix)) {
                    let names = files.names(&below).into_iter();
                    let links = names.filter_map(|name| Some((files.link(&format!("{below}/{name}"))?, name)));
                    directory.pulls.extend(links.map(|(target, name)| (owner.to_owned(), name, target)));
                }
            }
            Some(FileType::Regular) if Name::parse(&entry.name).is_some() => {
                directory.units.insert(entry.name, None);
            }
            Some(FileType::Symlink) if Name::parse(&entry.name).is_some() => {
                let target = files.link(&below);
                directory.units.insert(entry.name, target);
            }
            _ => {}
        }
    }
    directory
}

fn index_links(directories: &[Directory]) -> (HashMap<String, Vec<Link>>, HashMap<String, BTreeSet<String>>) {
    let mut links: HashMap<String, Vec<Link>> = HashMap::new();
    let mut pulled_by: HashMap<String, BTreeSet<String>> = HashMap::new();
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    for (index, directory) in directories.iter().enumerate() {
        let aliases = directory.units.iter().filter_map(|(name, target)| Some((None, name, target.as_ref()?)));
        let pulls = directory.pulls.iter().map(|(owner, name, target)| (Some(owner), name, target));
        for (owner, name, target) in aliases.chain(pulls) {
            let link = Link { directory: index, name: name.clone(), target: last(target), is_alias: owner.is_none() };
            let template = Name::parse(name).and_then(|parsed| parsed.template()).filter(|_| !link.is_alias);
            for other in BTreeSet::from([Some(link.target.clone()), template]).into_iter().flatten() {
                if other != link.name {
                    links.entry(other).or_default().push(link.clone());
                }
            }
            if let Some(owner) = owner {
                pulled_by.entry(name.clone()).or_default().insert(owner.clone());
                pulled_by.entry(link.target.clone()).or_default().insert(owner.clone());
            }
            links.entry(name.clone()).or_default().push(link);
        }
    }
    (links, pulled_by)
}

/// Reads presets: files in order of their names, of each name the first directory's.
fn read_presets(files: &Files<'_>) -> Vec<Preset> {
    let mut by_name: BTreeMap<String, String> = BTreeMap::new();
    for directory in PRESET_PATH {
        for path in files.with_suffix(directory, ".preset") {
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            by_name.entry(name).or_insert(path);
        }
    }
    let texts = by_name.values().filter_map(|path| files.text(path));
    let mut presets: Vec<_> = texts.flat_map(|text| parse_presets(&text)).take(PRESETS_MAX + 1).collect();
    if presets.len() > PRESETS_MAX {
        files.warn("presets", format!("presets past the first {PRESETS_MAX} are left out"));
        presets.truncate(PRESETS_MAX);
    }
    presets
}

fn parse_presets(text: &str) -> Vec<Preset> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let action = match words.next()? {
                "enable" => "enabled",
                "disable" => "disabled",
                "ignore" => "ignored",
                _ => return None,
            };
            Some(Preset { action, pattern: words.next()?.to_owned() })
        })
        .collect()
}

/// A program that does its work and ends: once it has started, it is over. Source: systemd.service(5).
fn leaves_nothing_running(file: &UnitFile) -> bool {
    let is_yes = |value: &str| matches!(value, "1" | "yes" | "y" | "true" | "t" | "on");
    file.last("Service", "Type") == Some("oneshot") && !file.last("Service", "RemainAfterExit").is_some_and(is_yes)
}

/// What of a unit file people look for.
fn describe(unit: &mut Unit, file: &UnitFile) {
    unit.description = file.last("Unit", "Description").map(str::to_owned);
    unit.exec_start = file.values("Service", "ExecStart").first().map(|command| (*command).to_owned());
    unit.user = file.last("Service", "User").map(str::to_owned);
    let (section, prefix) = match unit.kind.as_str() {
        "timer" => ("Timer", "On"),
        "socket" => ("Socket", "Listen"),
        _ => return,
    };
    let triggers = file.section(section).filter(|(key, value)| key.starts_with(prefix) && !value.is_empty());
    unit.triggers = triggers.map(|(key, value)| format!("{key}={value}")).collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::linux::fixture::Fixture;

    /// `systemctl --root list-unit-files` of systemd 247 says so of Debian's iptables.service.
    #[test]
    fn a_link_through_alternatives_is_an_alias() {
        let fixture = Fixture::new();
        fixture.file("usr/lib/systemd/system/real.service", "[Install]\nWantedBy=a.target\n");
        fixture.link("usr/lib/systemd/system/other.service", "/etc/alternatives/other.service");
        fixture.link("etc/alternatives/other.service", "/lib/systemd/system/real.service");
        fixture.link("usr/lib/systemd/system/loop.service", "/etc/alternatives/loop.service");
        fixture.link("etc/alternatives/loop.service", "../alternatives/loop.service");
        fixture.link("lib", "usr/lib");
        let tree = fixture.tree();
        let files = Files::new(&tree);
        let units = Manager::read(&files).unwrap().units(None);
        let shown: Vec<_> =
            units.iter().map(|unit| (unit.name.as_str(), unit.state.as_str(), unit.alias_of.as_deref())).collect();
        assert_eq!(
            shown,
            [
                ("loop.service", "bad", None),
                ("other.service", "alias", Some("real.service")),
                ("real.service", "disabled", None),
            ]
        );
    }

    /// States and presets as `systemctl --root list-unit-files` of systemd 252 printed them for this very tree.
    #[test]
    fn states_follow_links_install_sections_and_masks() {
        let fixture = Fixture::new();
        let vendor = "usr/lib/systemd/system";
        fixture.file(&format!("{vendor}/multi-user.target"), "[Unit]\n");
        fixture.file(
            &format!("{vendor}/wanted.service"),
            "[Service]\nExecStart=/bin/a b\nUser=u\n[Install]\nWantedBy=multi-user.target\n",
        );
        fixture.file(&format!("{vendor}/off.service"), "[Install]\nWantedBy=multi-user.target\n");
        fixture.file(&format!("{vendor}/plain.service"), "[Service]\n");
        fixture.file(&format!("{vendor}/also.service"), "[Install]\nAlso=off.service\n");
        fixture.file(&format!("{vendor}/t@.service"), "[Install]\nWantedBy=x.target\nDefaultInstance=one\n");
        fixture.file(&format!("{vendor}/off.timer"), "[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n");
        fixture.file(&format!("{vendor}/a.preset-not-a-unit"), "");
        fixture.file("usr/lib/systemd/system-preset/90-x.preset", "disable off.*\nenable *\n");
        fixture.link(
            "etc/systemd/system/multi-user.target.wants/wanted.service",
            "/usr/lib/systemd/system/wanted.service",
        );
        fixture.link("etc/systemd/system/x.target.wants/t@one.service", "/usr/lib/systemd/system/t@.service");
        fixture.link("etc/systemd/system/gone.service", "/dev/null");
        fixture.file("etc/systemd/system/empty.service", "");
        fixture.link("etc/systemd/system/other.service", "/usr/lib/systemd/system/plain.service");
        fixture.link("etc/systemd/system/dangling.service", "/usr/lib/systemd/system/absent.service");
        fixture.link("etc/systemd/system/loop.service", "loop2.service");
        fixture.link("etc/systemd/system/loop2.service", "loop.service");
        fixture.file("opt/linked.service", "[Service]\n");
        fixture.link("etc/systemd/system/linked.service", "/opt/linked.service");
        fixture.link(
            "run/systemd/system/multi-user.target.wants/plain2.service",
            "/usr/lib/systemd/system/plain2.service",
        );
        fixture.file(&format!("{vendor}/plain2.service"), "[Service]\n");
        fixture.link("etc/systemd/system/same.service", "/usr/lib/systemd/system/same.service");
        fixture.file(&format!("{vendor}/same.service"), "[Service]\n");
        fixture.file(&format!("{vendor}/i@.service"), "[Install]\nWantedBy=a.target\n");
        fixture.link("etc/systemd/system/a.target.wants/i@x.service", "/usr/lib/systemd/system/i@.service");
        fixture.file(&format!("{vendor}/j@.service"), "[Install]\nWantedBy=a.target\n");
        fixture.link("etc/systemd/system/j@1.service", "/usr/lib/systemd/system/j@.service");
        fixture.link("etc/systemd/system/other@1.service", "/usr/lib/systemd/system/j@.service");
        fixture.file(&format!("{vendor}/k.service"), "[Install]\nWantedBy=a.target\n");
        fixture.link("etc/systemd/system/a.target.wants/zz.service", "../k.service");
        fixture.link("run/systemd/system/off2.service", "/dev/null");
        fixture.file("usr/local/lib/systemd/system/local.service", "[Install]\nWantedBy=a.target\n");
        fixture
            .link("etc/systemd/system/a.target.requires/local.service", "/usr/local/lib/systemd/system/local.service");
        fixture.file(&format!("{vendor}/dropped.service"), "[Service]\n");
        fixture.file("etc/systemd/system/dropped.service.d/x.conf", "[Install]\nWantedBy=a.target\n");
        fixture.file("run/systemd/generator/made.service", "[Service]\n");
        fixture.file("run/systemd/transient/brief.service", "[Service]\n");
        fixture.file("etc/systemd/system/wanted.service.d/10-x.conf", "[Service]\nUser=other\n");
        let tree = fixture.tree();
        let files = Files::new(&tree);
        let manager = Manager::read(&files).unwrap();
        let units: BTreeMap<_, _> = manager.units(None).into_iter().map(|unit| (unit.name.clone(), unit)).collect();
        let cases = [
            ("wanted.service", "enabled", Some("enabled")),
            ("off.service", "disabled", Some("disabled")),
            ("off.timer", "disabled", Some("disabled")),
            ("plain.service", "indirect", Some("enabled")),
            ("also.service", "indirect", Some("enabled")),
            ("t@.service", "enabled", Some("enabled")),
            ("gone.service", "masked", Some("enabled")),
            ("empty.service", "masked", Some("enabled")),
            ("other.service", "alias", None),
            ("dangling.service", "bad", Some("enabled")),
            ("loop.service", "bad", Some("enabled")),
            ("linked.service", "linked", Some("enabled")),
            ("plain2.service", "enabled-runtime", Some("enabled")),
            ("multi-user.target", "static", None),
            ("same.service", "bad", Some("enabled")),
            ("i@.service", "indirect", Some("enabled")),
            ("j@.service", "indirect", Some("enabled")),
            ("j@1.service", "enabled", Some("enabled")),
            ("other@1.service", "enabled", Some("enabled")),
            ("k.service", "disabled", Some("enabled")),
            ("off2.service", "masked-runtime", Some("enabled")),
            ("local.service", "enabled", Some("enabled")),
            ("dropped.service", "disabled", Some("enabled")),
            ("made.service", "generated", None),
            ("brief.service", "transient", None),
        ];
        for (name, state, preset) in cases {
            let unit = &units[name];
            assert_eq!((unit.state.as_str(), unit.preset.as_deref()), (state, preset), "{name}");
        }
        assert_eq!(units.len(), cases.len() + 1, "nothing else is a unit");
        assert_eq!(units["wanted.service"].user.as_deref(), Some("other"));
        assert_eq!(units["wanted.service"].wanted_by, ["multi-user.target"]);
        assert_eq!(units["off.timer"].triggers, ["OnCalendar=daily"]);
    }
}
