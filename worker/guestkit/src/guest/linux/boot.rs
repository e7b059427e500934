//! How the guest starts: kernels, the boot loader's choice among them, and its command line. Sources: the GRUB manual
//! ("Writing full configuration files directly"), the UAPI group's Boot Loader Specification (type 1), syslinux' extlinux.conf.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::guest::report::{Kernel, OperatingSystem};

use super::files::Files;
use super::pattern;

/// Where GRUB 2 keeps its configuration.
const GRUB_CONFIGS: [&str; 4] =
    ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/boot/efi/EFI/grub.cfg", "/boot/grub2/grub.conf"];
/// Where its environment block lies.
const GRUB_ENVIRONMENTS: [&str; 2] = ["/boot/grub/grubenv", "/boot/grub2/grubenv"];
/// Where boot loader entries lie.
const ENTRY_DIRECTORIES: [&str; 3] = ["/boot/loader/entries", "/boot/efi/loader/entries", "/efi/loader/entries"];
/// Kernels that one system keeps: distributions keep two or three, careless ones tens.
const KERNELS_MAX: usize = 500;

/// Fills in everything about starting.
pub(crate) fn inspect(files: &Files<'_>, system: &mut OperatingSystem) {
    system.kernels = kernels(files);
    let (loader, default) = boot_loader(files);
    system.boot_loader = loader.map(str::to_owned);
    if let Some(entry) = default {
        system.default_kernel = entry.version();
        system.kernel_command_line = (!entry.options.is_empty()).then_some(entry.options);
    }
    if system.default_kernel.is_none() {
        system.default_kernel = linked_kernel(files);
    }
    for kernel in &mut system.kernels {
        kernel.is_default = system.default_kernel.as_ref().map(|default| *default == kernel.version);
    }
    system.firmware = firmware(files).map(str::to_owned);
    system.init_system = init_system(files).map(str::to_owned);
}

/// What a boot loader starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Entry {
    /// The titles of the submenus above it and its own.
    path: Vec<String>,
    /// The position among its siblings, for each level.
    position: Vec<usize>,
    id: String,
    kernel: String,
    options: String,
    version: Option<String>,
}

impl Entry {
    fn version(&self) -> Option<String> {
        self.version.clone().or_else(|| version_of(&self.kernel))
    }
}

/// `/boot/vmlinuz-6.1.0-18-amd64` is of version `6.1.0-18-amd64`.
fn version_of(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?;
    let prefixes = ["vmlinuz-", "vmlinux-", "kernel-", "Image-", "bzImage-", "image-"];
    let version = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix))?;
    (!version.is_empty()).then(|| version.to_owned())
}

fn kernels(files: &Files<'_>) -> Vec<Kernel> {
    let mut found: BTreeMap<String, Kernel> = BTreeMap::new();
    let names = files.names("/boot");
    for name in &names {
        let Some(version) = version_of(name).filter(|version| !version.contains("rescue")) else { continue };
        if found.len() >= KERNELS_MAX {
            files.warn("/boot", format!("holds more than {KERNELS_MAX} kernels"));
            break;
        }
        let initrds = [
            format!("initrd.img-{version}"),
            format!("initramfs-{version}.img"),
            format!("initrd-{version}"),
            format!("initramfs-{version}"),
        ];
        let initrd = initrds.iter().find(|initrd| names.contains(initrd)).map(|initrd| format!("/boot/{initrd}"));
        let path = Some(format!("/boot/{name}"));
        found.insert(version.clone(), Kernel { version, path, initrd, ..Kernel::default() });
    }
    for directory in ["/usr/lib/modules", "/lib/modules"] {
        for version in files.names(directory) {
            if !version.starts_with(|c: char| c.is_ascii_digit()) || found.len() >= KERNELS_MAX {
                continue;
            }
            let path = format!("{directory}/{version}");
            let kernel = found.entry(version.clone()).or_insert_with(|| Kernel { version, ..Kernel::default() });
            // Distributions that keep the image with its modules (Fedora, Arch).
            if kernel.path.is_none() {
                kernel.path = Some(format!("{path}/vmlinuz")).filter(|image| files.exists(image));
            }
            kernel.modules.get_or_insert(path);
        }
    }
    let mut kernels: Vec<_> = found.into_values().collect();
    kernels.sort_by(|a, b| compare_versions(&b.version, &a.version));
    kernels
}

/// Numbers as numbers, everything else as text.
pub(crate) fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (text_a, rest_a) = split_at_digit(a, false);
        let (text_b, rest_b) = split_at_digit(b, false);
        let (number_a, rest_a) = split_at_digit(rest_a, true);
        let (number_b, rest_b) = split_at_digit(rest_b, true);
        let (bare_a, bare_b) = (number_a.trim_start_matches('0'), number_b.trim_start_matches('0'));
        let ordering = text_a.cmp(text_b).then(bare_a.len().cmp(&bare_b.len())).then(bare_a.cmp(bare_b));
        if ordering != Ordering::Equal {
            return ordering;
        }
        if rest_a.is_empty() || rest_b.is_empty() {
            return rest_a.len().cmp(&rest_b.len());
        }
        (a, b) = (rest_a, rest_b);
    }
}

/// The leading part that is (or is not) digits.
fn split_at_digit(text: &str, digits: bool) -> (&str, &str) {
    let end = text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

fn boot_loader(files: &Files<'_>) -> (Option<&'static str>, Option<Entry>) {
    if let Some(config) = GRUB_CONFIGS.iter().find_map(|path| files.text(path)) {
        return (Some("grub2"), grub_default(files, &config));
    }
    for directory in ["/boot/efi/EFI/systemd", "/efi/EFI/systemd", "/boot/EFI/systemd"] {
        if files.is_dir(directory) {
            return (Some("systemd-boot"), systemd_boot_default(files));
        }
    }
    for path in ["/boot/grub/menu.lst", "/boot/grub/grub.conf"] {
        if let Some(text) = files.text(path) {
            return (Some("grub-legacy"), grub_legacy_default(&text));
        }
    }
    let extlinux =
        ["/boot/extlinux.conf", "/boot/extlinux/extlinux.conf", "/boot/syslinux/syslinux.cfg", "/extlinux.conf"];
    if let Some(text) = extlinux.iter().find_map(|path| files.text(path)) {
        return (Some("extlinux"), extlinux_default(&text));
    }
    let others = [("/etc/lilo.conf", "lilo"), ("/boot/u-boot", "u-boot"), ("/boot/boot.scr", "u-boot")];
    (others.iter().find(|(path, _)| files.exists(path)).map(|(_, name)| *name), None)
}

fn grub_default(files: &Files<'_>, config: &str) -> Option<Entry> {
    let environment: BTreeMap<String, String> = GRUB_ENVIRONMENTS
        .iter()
        .find_map(|path| files.text(path))
        .map(|text| {
            text.lines()
                .filter_map(|l| l.split_once('='))
                .map(|(k, v)| (k.into(), v.trim_end_matches('#').into()))
                .collect()
        })
        .unwrap_or_default();
    let mut wanted = config
        .lines()
        .filter_map(|line| line.trim().strip_prefix("set default="))
        .map(|value| value.trim_matches(['"', '\'']))
        .rfind(|value| !value.contains("next_entry"))
        .unwrap_or("0")
        .to_owned();
    if wanted.contains("saved_entry") {
        wanted = environment.get("saved_entry").cloned().unwrap_or_else(|| "0".to_owned());
    }
    if config.lines().any(|line| line.trim() == "blscfg") {
        let mut entries = loader_entries(files);
        // The newest entry is the first of the menu.
        entries.sort_by(|a, b| compare_versions(&b.id, &a.id));
        let by_position = wanted.parse().ok().and_then(|index: usize| entries.get(index).cloned());
        let by_id = || entries.iter().find(|entry| entry.id == wanted || entry.path.last() == Some(&wanted)).cloned();
        let mut entry = by_position.or_else(by_id).or_else(|| entries.first().cloned())?;
        let kernelopts = environment.get("kernelopts").map_or("", String::as_str);
        entry.options = entry.options.replace("$kernelopts", kernelopts).replace("$tuned_params", "").trim().to_owned();
        return Some(entry);
    }
    let entries = grub_entries(config);
    let steps: Vec<&str> = wanted.split('>').collect();
    let names_it = |entry: &&Entry| {
        entry.id == wanted
            || (steps.len() == entry.path.len()
                && steps
                    .iter()
                    .zip(entry.path.iter().zip(&entry.position))
                    .all(|(step, (title, position))| step == title || step.parse() == Ok(*position)))
    };
    entries.iter().find(names_it).or_else(|| entries.first()).cloned()
}

/// The menu entries that start a Linux.
fn grub_entries(config: &str) -> Vec<Entry> {
    /// Submenus inside submenus: nobody has more than two.
    const DEPTH_MAX: usize = 8;
    let mut entries = Vec::new();
    let (mut titles, mut counters): (Vec<String>, Vec<usize>) = (Vec::new(), vec![0]);
    // For each open brace: whether it opened a submenu or an entry.
    let mut braces: Vec<Option<bool>> = Vec::new();
    let mut pending: Option<(bool, String, String)> = None;
    let mut current: Option<Entry> = None;
    for line in config.lines() {
        let mut words = grub_words(line).into_iter().peekable();
        while let Some(word) = words.next() {
            match word.as_str() {
                "menuentry" | "submenu" => {
                    let title = words.next().unwrap_or_default();
                    pending = Some((word == "submenu", title, String::new()));
                }
                "--id" | "$menuentry_id_option" => {
                    if let (Some((_, _, id)), Some(value)) = (pending.as_mut(), words.next()) {
                        *id = value;
                    }
                }
                "{" => {
                    if braces.len() > 64 {
                        return entries;
                    }
                    let Some((is_submenu, title, id)) = pending.take() else {
                        braces.push(None);
                        continue;
                    };
                    braces.push(Some(is_submenu));
                    if is_submenu && titles.len() < DEPTH_MAX {
                        titles.push(title);
                        counters.push(0);
                    } else {
                        let mut path = titles.clone();
                        path.push(title);
                        current = Some(Entry { path, position: counters.clone(), id, ..Entry::default() });
                    }
                }
                "}" => match braces.pop().flatten() {
                    Some(true) if counters.len() > 1 => {
                        titles.pop();
                        counters.pop();
                        increment(&mut counters);
                    }
                    Some(_) => {
                        entries.extend(current.take().filter(|entry| !entry.kernel.is_empty()));
                        increment(&mut counters);
                    }
                    None => {}
                },
                "linux" | "linux16" | "linuxefi" => {
                    if let Some(entry) = current.as_mut() {
                        entry.kernel = words.next().unwrap_or_default();
                        let mut options = Vec::new();
                        while let Some(option) = words.next_if(|word| word != "}") {
                            options.push(option);
                        }
                        entry.options = options.join(" ");
                    }
                }
                _ => {}
            }
        }
        if entries.len() > KERNELS_MAX {
            break;
        }
    }
    entries
}

fn increment(counters: &mut [usize]) {
    if let Some(last) = counters.last_mut() {
        *last += 1;
    }
}

/// Words of a GRUB line: quotes taken off, a comment ends it.
fn grub_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut characters = line.chars().peekable();
    loop {
        while characters.next_if(|c| c.is_whitespace() || *c == ';').is_some() {}
        match characters.peek() {
            None | Some('#') => return words,
            Some('{' | '}') => words.extend(characters.next().map(String::from)),
            Some(_) => {
                let (mut word, mut quote) = (String::new(), None);
                while let Some(character) = characters.next_if(|c| quote.is_some() || !(c.is_whitespace() || *c == ';'))
                {
                    match (quote, character) {
                        (None, '"' | '\'') => quote = Some(character),
                        (Some(open), _) if open == character => quote = None,
                        _ => word.push(character),
                    }
                }
                words.push(word);
            }
        }
    }
}

/// Boot loader entries of type 1.
fn loader_entries(files: &Files<'_>) -> Vec<Entry> {
    let paths = ENTRY_DIRECTORIES.iter().flat_map(|directory| files.with_suffix(directory, ".conf"));
    let entry = |path: String| {
        let text = files.text(&path)?;
        let value = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.trim().split_once(char::is_whitespace));
            lines.find(|(name, _)| *name == key).map(|(_, value)| value.trim().to_owned())
        };
        let id = path.rsplit('/').next()?.strip_suffix(".conf")?.to_owned();
        Some(Entry {
            path: value("title").into_iter().collect(),
            id,
            kernel: value("linux")?,
            options: value("options").unwrap_or_default(),
            version: value("version"),
            ..Entry::default()
        })
    };
    paths.filter_map(entry).take(KERNELS_MAX).collect()
}

fn systemd_boot_default(files: &Files<'_>) -> Option<Entry> {
    let mut entries = loader_entries(files);
    entries.sort_by(|a, b| compare_versions(&b.id, &a.id));
    let configs = ["/boot/loader/loader.conf", "/boot/efi/loader/loader.conf", "/efi/loader/loader.conf"];
    let config = configs.iter().find_map(|path| files.text(path)).unwrap_or_default();
    let wanted = config.lines().find_map(|line| line.trim().strip_prefix("default ")).map(str::trim);
    let named = |wanted: &str| {
        entries.iter().find(|entry| {
            pattern::matches(wanted, &entry.id) || pattern::matches(wanted, &format!("{}.conf", entry.id))
        })
    };
    wanted.and_then(named).or_else(|| entries.first()).cloned()
}

fn grub_legacy_default(text: &str) -> Option<Entry> {
    let mut default = 0_usize;
    let mut entries: Vec<Entry> = Vec::new();
    for line in text.lines().map(str::trim) {
        let Some((word, rest)) = line.split_once(|c: char| c.is_whitespace() || c == '=') else { continue };
        match word {
            "default" => default = rest.trim_start_matches(['=', ' ']).trim().parse().unwrap_or(0),
            "title" if entries.len() < KERNELS_MAX => entries.push(Entry::default()),
            "kernel" => {
                if let Some(entry) = entries.last_mut() {
                    let (kernel, options) = rest.trim().split_once(char::is_whitespace).unwrap_or((rest, ""));
                    kernel.clone_into(&mut entry.kernel);
                    options.trim().clone_into(&mut entry.options);
                }
            }
            _ => {}
        }
    }
    entries.into_iter().nth(default)
}

fn extlinux_default(text: &str) -> Option<Entry> {
    let mut default = None;
    let mut entries: Vec<Entry> = Vec::new();
    for line in text.lines().map(str::trim) {
        let Some((word, rest)) = line.split_once(char::is_whitespace) else { continue };
        let rest = rest.trim();
        match word.to_ascii_lowercase().as_str() {
            "default" => default = Some(rest.to_owned()),
            "label" if entries.len() < KERNELS_MAX => entries.push(Entry { id: rest.to_owned(), ..Entry::default() }),
            "kernel" | "linux" => {
                if let Some(entry) = entries.last_mut() {
                    rest.clone_into(&mut entry.kernel);
                }
            }
            "append" => {
                if let Some(entry) = entries.last_mut() {
                    rest.clone_into(&mut entry.options);
                }
            }
            _ => {}
        }
    }
    entries.iter().find(|entry| Some(&entry.id) == default.as_ref()).or_else(|| entries.first()).cloned()
}

/// The kernel that a link in / or /boot leads to.
fn linked_kernel(files: &Files<'_>) -> Option<String> {
    ["/vmlinuz", "/boot/vmlinuz", "/boot/vmlinux"].iter().find_map(|path| version_of(&files.link(path)?))
}

/// What the disk is laid out to start from, by the boot files that lie on it.
fn firmware(files: &Files<'_>) -> Option<&'static str> {
    let has_uefi = ["/boot/efi/EFI", "/efi/EFI", "/boot/EFI", "/boot/grub/x86_64-efi", "/boot/grub/arm64-efi"];
    let has_bios =
        ["/boot/grub/i386-pc", "/boot/grub2/i386-pc", "/boot/grub/stage2", "/boot/extlinux.conf", "/boot/ldlinux.sys"];
    let uefi = files.first_existing(&has_uefi).is_some();
    let bios = files.first_existing(&has_bios).is_some();
    match (bios, uefi) {
        (true, true) => Some("bios+uefi"),
        (true, false) => Some("bios"),
        (false, true) => Some("uefi"),
        // The boot loader's own modules tell which one was installed, where it left none in /boot.
        (false, false) => {
            let pc = files.exists("/usr/lib/grub/i386-pc");
            let efi = files.first_existing(&["/usr/lib/grub/x86_64-efi", "/usr/lib/grub/arm64-efi"]).is_some();
            match (pc, efi) {
                (true, false) => Some("bios"),
                (false, true) => Some("uefi"),
                _ => None,
            }
        }
    }
}

fn init_system(files: &Files<'_>) -> Option<&'static str> {
    let target = ["/sbin/init", "/usr/sbin/init", "/init"].iter().find_map(|path| files.link(path)).unwrap_or_default();
    let name = target.rsplit('/').next().unwrap_or_default();
    let has_openrc = files.first_existing(&["/sbin/openrc", "/usr/sbin/openrc", "/sbin/openrc-init"]).is_some();
    match name {
        "systemd" => return Some("systemd"),
        "openrc-init" => return Some("openrc"),
        "upstart" => return Some("upstart"),
        "runit-init" => return Some("runit"),
        "s6-linux-init" => return Some("s6"),
        _ => {}
    }
    if has_openrc {
        return Some("openrc");
    }
    if name == "busybox" {
        return Some("busybox");
    }
    if files.first_existing(&["/usr/lib/systemd/systemd", "/lib/systemd/systemd"]).is_some() {
        return Some("systemd");
    }
    if files.exists("/etc/init/rc-sysinit.conf") || files.exists("/etc/init/rcS.conf") {
        return Some("upstart");
    }
    (files.exists("/etc/inittab") && files.exists("/sbin/init")).then_some("sysvinit")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::linux::fixture::Fixture;

    #[test]
    fn versions_compare_by_number() {
        let mut versions = vec!["6.1.0-9-amd64", "6.1.0-18-amd64", "5.10.0-28-amd64", "6.1.0-18-cloud-amd64"];
        versions.sort_by(|a, b| compare_versions(b, a));
        assert_eq!(versions, ["6.1.0-18-cloud-amd64", "6.1.0-18-amd64", "6.1.0-9-amd64", "5.10.0-28-amd64"]);
    }

    #[test]
    fn grub_entries_are_found_in_submenus_by_title_id_and_position() {
        let config = "set default=\"${next_entry}\"\nset default=\"1>0\"\nfunction x {\n echo {\n}\n}\n\
                      menuentry 'A' --class x $menuentry_id_option 'id-a' {\n linux /vmlinuz-1 root=/dev/a ro quiet\n}\n\
                      submenu 'More' --id m {\n menuentry \"B\" { linux /boot/vmlinuz-2 ro }\n menuentry 'C' {\n linuxefi /vmlinuz-3\n}\n}\n";
        let fixture = Fixture::new();
        let tree = fixture.tree();
        let found = grub_default(&Files::new(&tree), config).unwrap();
        assert_eq!((found.version().as_deref(), found.options.as_str()), (Some("2"), "ro"));
        let entries = grub_entries(config);
        assert_eq!(entries.len(), 3);
        assert_eq!(entries[0].id, "id-a");
        assert_eq!(entries[2].position, [1, 1]);
    }

    #[test]
    fn boot_loader_entries_take_their_options_from_the_environment() {
        let fixture = Fixture::new();
        fixture.file("boot/grub2/grub.cfg", "set default=\"${saved_entry}\"\nblscfg\n");
        fixture.file(
            "boot/grub2/grubenv",
            "# GRUB Environment Block\nsaved_entry=m-5.14\nkernelopts=root=/dev/x ro\n####",
        );
        fixture.file(
            "boot/loader/entries/m-5.14.conf",
            "title T\nversion 5.14\nlinux /vmlinuz-5.14\noptions $kernelopts $tuned_params\n",
        );
        fixture.file("boot/loader/entries/m-6.0.conf", "title U\nlinux /vmlinuz-6.0\n");
        fixture.file("boot/vmlinuz-5.14", "");
        fixture.file("boot/vmlinuz-6.0", "");
        fixture.file("boot/initramfs-6.0.img", "");
        let tree = fixture.tree();
        let mut system = OperatingSystem::default();
        inspect(&Files::new(&tree), &mut system);
        assert_eq!(system.boot_loader.as_deref(), Some("grub2"));
        assert_eq!(system.default_kernel.as_deref(), Some("5.14"));
        assert_eq!(system.kernel_command_line.as_deref(), Some("root=/dev/x ro"));
        assert_eq!(system.kernels[0].version, "6.0");
        assert_eq!(system.kernels[0].initrd.as_deref(), Some("/boot/initramfs-6.0.img"));
        assert_eq!(system.kernels[1].is_default, Some(true));
    }

    #[test]
    fn hostile_menus_end() {
        for text in ["menuentry", "menuentry {", "}", "linux", "'", "submenu x {"] {
            grub_entries(text);
        }
        grub_entries(&"submenu x {\n".repeat(10_000));
        grub_entries(&"menuentry x {\nlinux /a\n}\n".repeat(10_000));
    }
}
