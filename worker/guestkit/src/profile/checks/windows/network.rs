//! What others on the network reach, and how it is protected.

use crate::profile::evaluate::Asked;
use crate::profile::guest::Guest;
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::registry;
use crate::profile::release::{Release, build, release};
use crate::profile::report::Evidence;
use crate::profile::rule::Severity;

use super::{Holds, Setting, hive_path, key, known, number, service, settings, start_of, value};

/// The firewall's profiles: name, policy key, local key. Source: [MS-FASP], [MS-GPFAS].
const PROFILES: [(&str, &str, &str); 3] = [
    ("domain", "DomainProfile", "DomainProfile"),
    ("private", "PrivateProfile", "StandardProfile"),
    ("public", "PublicProfile", "PublicProfile"),
];
const FIREWALL: &str = "Services\\SharedAccess\\Parameters\\FirewallPolicy";
const FIREWALL_POLICY: &str = "Policies\\Microsoft\\WindowsFirewall";
const TERMINAL: &str = "Control\\Terminal Server";
const TERMINAL_POLICY: &str = "Policies\\Microsoft\\Windows NT\\Terminal Services";
/// Rules that are looked at: a server has some hundreds.
const RULES_MAX: usize = 20_000;

/// A setting of each of the firewall's profiles that this Windows has; Windows XP and Server 2003 have no public one.
fn of_profiles(release: &Release, name: &str, below: &str, default: i64, holds: Holds) -> Vec<Setting> {
    let count = if release.build >= build::VISTA { 3 } else { 2 };
    let setting = |(profile, policy, local): &(&str, &str, &str)| {
        let places =
            format!("software:{FIREWALL_POLICY}\\{policy}{below}:{name}|system:{FIREWALL}\\{local}{below}:{name}");
        Setting::new(format!("{name} of the {profile} profile"), places, Some(default), holds)
    };
    PROFILES.iter().take(count).map(setting).collect()
}

/// The firewall's service.
fn firewall_service(release: &Release) -> Setting {
    let name = if release.build >= build::VISTA { "mpssvc" } else { "SharedAccess" };
    Setting::new(format!("Start of the service {name}"), format!("system:Services\\{name}:Start"), None, Holds::Is(2))
}

/// The firewall runs and filters in every profile.
pub(in crate::profile) fn firewall(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    let mut wanted = of_profiles(&release, "EnableFirewall", "", 1, Holds::Is(1));
    wanted.push(firewall_service(&release));
    settings(guest, asked, &wanted, "the firewall is on in every profile")
}

/// What no rule names is not let in.
pub(in crate::profile) fn firewall_inbound(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    let wanted = of_profiles(&release, "DefaultInboundAction", "", 1, Holds::Is(1));
    settings(guest, asked, &wanted, "what no rule names is not let in")
}

/// What the firewall drops is logged, and the log holds a while.
pub(in crate::profile) fn firewall_logging(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    let mut wanted = of_profiles(&release, "LogDroppedPackets", "\\Logging", 0, Holds::Is(1));
    wanted.extend(of_profiles(&release, "LogFileSize", "\\Logging", 4_096, Holds::AtLeast(16_384)));
    settings(guest, asked, &wanted, "what the firewall drops is logged")
}

/// A rule of the firewall: `v2.31|Action=Allow|Active=TRUE|Dir=In|Protocol=6|LPort=3389|…`. Source: [MS-GPFAS], section 2.2.2.
struct Rule<'r> {
    fields: Vec<(&'r str, &'r str)>,
}

impl<'r> Rule<'r> {
    fn parse(text: &'r str) -> Self {
        Self { fields: text.split('|').filter_map(|field| field.split_once('=')).collect() }
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &'r str> {
        self.fields.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.all(name).any(|known| known.eq_ignore_ascii_case(value))
    }

    /// Whether it lets in what comes from anywhere.
    fn is_open(&self) -> bool {
        let has = |name: &str| self.all(name).any(|value| !value.is_empty() && value != "*");
        self.is("Action", "Allow")
            && self.is("Active", "TRUE")
            && self.is("Dir", "In")
            && !["RA4", "RA6", "RA42", "RA62", "RMauth", "RUAuth"].into_iter().any(has)
            && !self.all("Security").any(|value| value.starts_with("Authenticate"))
    }

    /// Whether it lets any program in on any port: no program, service, package or port is named.
    fn is_for_everything(&self) -> bool {
        const NAMED: [&str; 7] = ["App", "Svc", "LPort", "LPort2_10", "LPort2_20", "AppPkgId", "IFType"];
        let is_port_protocol = self.all("Protocol").all(|number| matches!(number, "6" | "17" | "256" | "*"));
        is_port_protocol && !NAMED.into_iter().any(|name| self.all(name).any(|value| value != "*" && value != "System"))
    }

    /// Whether it holds in the public profile: those that name no profile hold in all.
    fn is_public(&self) -> bool {
        self.all("Profile").next().is_none() || self.is("Profile", "Public")
    }

    /// The first of `ports` that it opens for TCP.
    fn port<'p>(&self, ports: &'p [(u16, &'p str)]) -> Option<&'p (u16, &'p str)> {
        if !self.all("Protocol").all(|number| matches!(number, "6" | "256" | "*")) {
            return None;
        }
        let single = |port: u16| self.all("LPort").any(|value| value.parse() == Ok(port));
        let in_range = |port: u16| {
            self.all("LPort2_10").chain(self.all("LPort2_20")).any(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let ends = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
                ends.is_some_and(|(first, last)| (first..=last).contains(&port))
            })
        };
        ports.iter().find(|(port, _)| single(*port) || in_range(*port))
    }
}

/// The rules that are in force: what the policy has and, unless it forbids that, the machine's own.
fn rules(guest: &Guest<'_>) -> Result<Vec<(String, String, Evidence)>, Outcome> {
    let mut rules = Vec::new();
    for (hive, path) in [("software", FIREWALL_POLICY), ("system", FIREWALL)] {
        let (hive, path) = registry::hive(guest, hive, &format!("{path}\\FirewallRules"))?;
        let Some(key) = hive.key(&path) else { continue };
        for value in key.values().iter().take(RULES_MAX) {
            let Some(text) = key.text_of(value) else { continue };
            let evidence = Evidence::explicit(hive.path(), format!("{path}\\{}", value.name()), &*text);
            rules.push((value.name().to_owned(), text, evidence));
        }
    }
    Ok(rules)
}

/// What must not be open to everybody: remote desktop, remote management, file sharing.
fn sensitive_ports(guest: &Guest<'_>) -> Vec<(u16, &'static str)> {
    let rdp = number(guest, &format!("system:{TERMINAL}\\WinStations\\RDP-Tcp:PortNumber"), 3_389);
    let rdp = rdp.ok().and_then(|(port, _)| u16::try_from(port).ok()).unwrap_or(3_389);
    let mut ports = vec![(3_389, "RDP"), (5_985, "WinRM"), (5_986, "WinRM"), (445, "SMB"), (139, "SMB")];
    if rdp != 3_389 {
        ports.push((rdp, "RDP"));
    }
    ports
}

/// The rules that let in anybody where that matters.
fn open_rules(guest: &Guest<'_>) -> Result<(Vec<Bad>, usize), Outcome> {
    let ports = sensitive_ports(guest);
    let all = rules(guest)?;
    let count = all.len();
    let mut bad = Vec::new();
    for (name, text, evidence) in all {
        let rule = Rule::parse(&text);
        if !rule.is_open() {
            continue;
        }
        let title = rule.all("Name").find(|title| !title.starts_with('@')).unwrap_or(&name);
        if let Some((_, what)) = rule.port(&ports) {
            bad.push(Bad::new(format!("{title} ({what})"), evidence));
        } else if rule.is_public() && rule.is_for_everything() {
            bad.push(Bad::new(format!("{title} (everything)"), evidence));
        }
    }
    Ok((bad, count))
}

/// No rule lets anybody reach RDP, WinRM or SMB, or everything in the public profile.
pub(in crate::profile) fn firewall_rules(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let (bad, count) = known!(open_rules(guest));
    let looked_at =
        Evidence::explicit(hive_path(guest, "SYSTEM"), format!("{FIREWALL}\\FirewallRules"), format!("{count} rules"));
    Outcome::none_of(bad, "rules that let in anybody", "no rule lets anybody reach RDP, WinRM or SMB", vec![looked_at])
}

/// Whether a driver of SMB 1 is there and may start: its key, and since the feature can be removed also its file.
fn smb1_driver(guest: &Guest<'_>, release: &Release, name: &str) -> (bool, Evidence) {
    let root = guest.root.system_root.as_deref().unwrap_or("/Windows");
    let file = format!("{root}/System32/drivers/{name}.sys");
    match service(guest, name) {
        None => (false, Evidence::absent(hive_path(guest, "SYSTEM"), format!("Services\\{name}"))),
        Some(unit) => {
            let evidence = start_of(guest, unit);
            if release.build >= build::RELEASE_1709 && !guest.files.exists(&file) {
                return (false, Evidence::absent(file, name));
            }
            (unit.start_type.as_deref() != Some("disabled"), evidence)
        }
    }
}

/// Neither the server nor the client of SMB 1. Since Windows 10 1709 and Server 1709 the feature is not installed by default;
/// where its drivers are there it is on unless it is switched off.
pub(in crate::profile) fn smb1(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    known!(super::all_services(guest));
    let switch = known!(value(guest, "system:Services\\LanmanServer\\Parameters:SMB1"));
    let (has_server, server) = smb1_driver(guest, &release, "srv");
    let (has_client, client) = smb1_driver(guest, &release, "mrxsmb10");
    let is_off = switch.number() == Some(0);
    let evidence = vec![switch.evidence, server, client];
    let mut on = Vec::new();
    if has_server && !is_off {
        on.push("server");
    }
    if has_client {
        on.push("client");
    }
    if on.is_empty() {
        return Outcome::pass("SMB 1 is switched off or not installed", evidence);
    }
    Outcome::fail(format!("SMB 1 is on: {}", on.join(", ")), evidence).with_subjects(on)
}

/// Both sides of SMB ask for signatures. Defaults: domain controllers ask for them; since Windows 11 24H2 and Server 2025 the
/// client does, and the server of clients but Home.
pub(in crate::profile) fn smb_signing(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    let is_new = release.build >= build::WINDOWS_11_24H2;
    let is_home = release.edition.starts_with("Core");
    let server = release.is_domain_controller || (is_new && !release.is_server && !is_home);
    let client = is_new && (release.is_server || !is_home);
    let places = |service: &str| format!("system:Services\\{service}\\Parameters:RequireSecuritySignature");
    let setting = |name: &str, service: &str, default: bool| {
        Setting::new(
            format!("RequireSecuritySignature of the {name}"),
            places(service),
            Some(i64::from(default)),
            Holds::Is(1),
        )
    };
    let wanted = [setting("server", "LanmanServer", server), setting("client", "LanmanWorkstation", client)];
    settings(guest, asked, &wanted, "SMB asks for signatures on both sides")
}

/// Nobody's guest account is taken for a server's answer. Refused by default since 1709 by Enterprise, Education and servers
/// (KB4046019), and since 24H2 by Pro.
pub(in crate::profile) fn smb_guest(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    let is_refused = match release.build {
        build::WINDOWS_11_24H2.. => !release.edition.starts_with("Core"),
        build::RELEASE_1709.. => {
            release.is_server || ["Enterprise", "Education"].iter().any(|name| release.edition.starts_with(name))
        }
        _ => false,
    };
    let name = "AllowInsecureGuestAuth";
    let places = format!(
        "software:Policies\\Microsoft\\Windows\\LanmanWorkstation:{name}|system:Services\\LanmanWorkstation\\Parameters:{name}"
    );
    let wanted = [Setting::new(name, places, Some(i64::from(!is_refused)), Holds::Is(0))];
    settings(guest, asked, &wanted, "no SMB server is trusted that answers as a guest")
}

/// Whether Remote Desktop takes connections, with evidence.
fn remote_desktop(guest: &Guest<'_>) -> Result<(bool, Evidence), Outcome> {
    let name = "fDenyTSConnections";
    let (denied, evidence) = number(guest, &format!("software:{TERMINAL_POLICY}:{name}|system:{TERMINAL}:{name}"), 1)?;
    Ok((denied == 0, evidence))
}

/// Settings of the listener, by policy first. Network level authentication and TLS are the default since Server 2012.
fn rdp_settings(release: &Release) -> [Setting; 3] {
    let is_new = release.build >= build::WINDOWS_8;
    let places =
        |name: &str| format!("software:{TERMINAL_POLICY}:{name}|system:{TERMINAL}\\WinStations\\RDP-Tcp:{name}");
    let setting = |name: &str, default: i64, holds: Holds| Setting::new(name, places(name), Some(default), holds);
    [
        setting("UserAuthentication", i64::from(is_new), Holds::Is(1)),
        setting("SecurityLayer", if is_new { 2 } else { 1 }, Holds::Is(2)),
        setting("MinEncryptionLevel", 2, Holds::AtLeast(3)),
    ]
}

/// Remote Desktop is told where it is on; without network level authentication and reachable by all that is severe.
pub(in crate::profile) fn rdp(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let (is_on, evidence) = known!(remote_desktop(guest));
    if !is_on {
        return Outcome::pass("Remote Desktop is off", vec![evidence]);
    }
    let release = known!(release(guest));
    let mut evidence = vec![evidence];
    let [authentication, ..] = rdp_settings(&release);
    let is_weak = match authentication.judge(guest, asked.semantics) {
        Ok((found, flaw)) => {
            evidence.push(found);
            flaw.is_some()
        }
        Err(outcome) => return outcome,
    };
    let is_open = open_rules(guest).is_ok_and(|(bad, _)| bad.iter().any(|one| one.subject.ends_with("(RDP)")));
    let is_unfiltered = firewall(guest, asked).status == crate::profile::outcome::Status::Fail;
    let outcome = Outcome::warn("Remote Desktop takes connections", evidence);
    if is_weak && (is_open || is_unfiltered) {
        let reason = "Remote Desktop takes connections from anywhere and without network level authentication";
        return Outcome { reason: reason.to_owned(), ..outcome }.with_severity(Severity::High);
    }
    outcome
}

/// Remote Desktop authenticates before it gives a session, over TLS. The level of its own encryption matters only without TLS.
pub(in crate::profile) fn rdp_authentication(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let (is_on, evidence) = known!(remote_desktop(guest));
    if !is_on {
        return Outcome::pass("Remote Desktop is off", vec![evidence]);
    }
    let release = known!(release(guest));
    let wanted = rdp_settings(&release);
    let outcome = settings(guest, asked, &wanted, "Remote Desktop asks for network level authentication over TLS");
    let [authentication, layer, _] = wanted;
    let essential = settings(guest, asked, &[authentication, layer], "");
    if essential.status == crate::profile::outcome::Status::Pass {
        return outcome.softened().with_severity(Severity::Low);
    }
    outcome
}

/// Neither role of remote management sends passwords as they are, or anything unencrypted.
pub(in crate::profile) fn remote_management(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let mut wanted = Vec::new();
    for role in ["Client", "Service"] {
        for (policy, local) in [("AllowBasic", "auth_basic"), ("AllowUnencryptedTraffic", "allow_unencrypted")] {
            let places = format!(
                "software:Policies\\Microsoft\\Windows\\WinRM\\{role}:{policy}|\
                 software:Microsoft\\Windows\\CurrentVersion\\WSMAN\\{role}:{local}"
            );
            wanted.push(Setting::new(
                format!("{policy} of the {}", role.to_lowercase()),
                places,
                Some(0),
                Holds::Is(0),
            ));
        }
    }
    settings(guest, asked, &wanted, "remote management uses neither basic authentication nor clear text")
}

/// Old protocols of TLS: name, the build since which it is off by default. Source: Microsoft, "Protocols in TLS/SSL (Schannel
/// SSP)".
const PROTOCOLS: [(&str, u32); 4] = [
    ("SSL 2.0", build::RELEASE_1607),
    ("SSL 3.0", build::RELEASE_1607),
    ("TLS 1.0", build::WINDOWS_11_24H2),
    ("TLS 1.1", build::WINDOWS_11_24H2),
];

/// No protocol older than TLS 1.2 is on. `DisabledByDefault` alone leaves it to programs that ask for it.
pub(in crate::profile) fn schannel(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    let mut wanted = Vec::new();
    for (protocol, off_since) in PROTOCOLS {
        for side in ["Server", "Client"] {
            // Clients never used SSL 2.0 by themselves, and before Windows 7 nothing knew TLS 1.1.
            let is_never = (protocol == "SSL 2.0" && side == "Client")
                || (protocol == "TLS 1.1" && release.build < build::WINDOWS_7);
            let is_off = release.build >= off_since || is_never;
            let places = format!("system:Control\\SecurityProviders\\SCHANNEL\\Protocols\\{protocol}\\{side}:Enabled");
            let name = format!("{protocol} {}", side.to_lowercase());
            wanted.push(Setting::new(name, places, Some(i64::from(!is_off)), Holds::Is(0)));
        }
    }
    settings(guest, asked, &wanted, "no protocol older than TLS 1.2 is on")
}

/// Names are not asked of everybody on the network: neither LLMNR nor NetBIOS broadcasts.
pub(in crate::profile) fn name_resolution(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let multicast = "software:Policies\\Microsoft\\Windows NT\\DNSClient:EnableMulticast";
    let llmnr = [Setting::new("EnableMulticast", multicast, Some(1), Holds::Is(0))];
    let outcome = settings(guest, asked, &llmnr, "LLMNR is off");
    let node = "system:Services\\NetBT\\Parameters:NodeType";
    let netbios = [Setting::new("NodeType", node, Some(1), Holds::Is(2))];
    let by_node = settings(guest, asked, &netbios, "NetBIOS asks servers alone");
    let by_interface = netbios_off(guest);
    let netbios = match by_interface {
        Some(off) if by_node.status != crate::profile::outcome::Status::Pass => off,
        _ => by_node,
    };
    crate::profile::evaluate::all([outcome, netbios].into_iter())
}

/// Whether every interface has NetBIOS switched off.
fn netbios_off(guest: &Guest<'_>) -> Option<Outcome> {
    let (hive, path) = registry::hive(guest, "system", "Services\\NetBT\\Parameters\\Interfaces").ok()?;
    let interfaces = hive.key(&path)?.keys();
    let is_off = !interfaces.is_empty() && interfaces.iter().all(|key| key.number("NetbiosOptions") == Some(2));
    let evidence =
        interfaces.iter().map(|key| Evidence::explicit(hive.path(), format!("{}\\NetbiosOptions", key.path()), "2"));
    is_off.then(|| Outcome::pass("NetBIOS is off on every interface", evidence.collect()))
}

/// The print spooler is not reached from the network on servers that do not print, and installs no drivers for everybody.
pub(in crate::profile) fn spooler(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    let policy = "software:Policies\\Microsoft\\Windows NT\\Printers";
    let drivers = [
        Setting::new(
            "NoWarningNoElevationOnInstall",
            format!("{policy}\\PointAndPrint:NoWarningNoElevationOnInstall"),
            Some(0),
            Holds::Is(0),
        ),
        Setting::new(
            "RestrictDriverInstallationToAdministrators",
            format!("{policy}\\PointAndPrint:RestrictDriverInstallationToAdministrators"),
            Some(1),
            Holds::Is(1),
        ),
    ];
    let (start, start_evidence) = known!(number(guest, "system:Services\\Spooler:Start", 4));
    if start == 4 {
        return Outcome::pass("the print spooler does not start", vec![start_evidence]);
    }
    let outcome = settings(guest, asked, &drivers, "printers install drivers for administrators alone");
    if outcome.status == crate::profile::outcome::Status::Fail {
        return outcome.with_severity(Severity::High);
    }
    let endpoint = known!(value(guest, &format!("{policy}:RegisterSpoolerRemoteRpcEndPoint")));
    let is_closed = endpoint.number() == Some(2);
    let cache = "Microsoft\\ServerManager\\ServicingStorage\\ServerComponentCache\\Print-Services";
    let (state, _) = known!(number(guest, &format!("software:{cache}:InstallState"), 0));
    let mut evidence = vec![start_evidence, endpoint.evidence];
    if release.is_server && !is_closed && state != 1 {
        return Outcome::fail("the print spooler of a server that does not print can be reached", evidence);
    }
    evidence.extend(outcome.evidence);
    Outcome { evidence, ..outcome }
}

/// A local administrator's password is managed, where the machine is a member of a domain. The first place that has settings
/// decides: of device management, of group policy, local, then the older product. Source: Microsoft, "Configure policy settings
/// for Windows LAPS".
pub(in crate::profile) fn laps(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    let (has_policy, policy) = known!(key(guest, "security", "Policy"));
    if !has_policy {
        return Outcome::unknown(format!("{}: whether it is a member of a domain cannot be read", policy.path));
    }
    if super::accounts::domain(guest).is_none() {
        return Outcome::not_applicable("the machine is a member of no domain");
    }
    if release.is_domain_controller {
        return Outcome::not_applicable("a domain controller has no local accounts");
    }
    let roots = [
        "Microsoft\\Policies\\LAPS",
        "Microsoft\\Windows\\CurrentVersion\\Policies\\LAPS",
        "Microsoft\\Windows\\CurrentVersion\\LAPS\\Config",
    ];
    let places: Vec<_> = roots.iter().map(|root| format!("software:{root}:BackupDirectory")).collect();
    let backup = known!(value(guest, &places.join("|")));
    if let Some(number) = backup.number() {
        let told = format!("BackupDirectory is {number}");
        return match number {
            1 | 2 => Outcome::pass("Windows LAPS manages a local administrator's password", vec![backup.evidence]),
            _ => Outcome::fail(format!("Windows LAPS is switched off: {told}"), vec![backup.evidence]),
        };
    }
    let old = known!(value(guest, "software:Policies\\Microsoft Services\\AdmPwd:AdmPwdEnabled"));
    let extension =
        "Microsoft\\Windows NT\\CurrentVersion\\Winlogon\\GPExtensions\\{D76B9641-3288-4f75-942D-087DE603E3EA}";
    let (has_extension, extension) = known!(key(guest, "software", extension));
    let is_managed = old.number() == Some(1) && has_extension;
    let evidence = vec![backup.evidence, old.evidence, extension];
    if is_managed {
        return Outcome::pass("LAPS manages a local administrator's password", evidence);
    }
    Outcome::fail("nothing manages the passwords of local administrators", evidence)
}
