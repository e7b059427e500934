//! How Windows is set to defend itself. What a policy sets (`SOFTWARE\Policies`) wins over what is set locally.
//! Sources: Microsoft's documentation of the values named here, and [MS-FASP] for the firewall's.

use crate::bytes::le_u64;
use crate::guest::linux::files::Files;
use crate::guest::linux::time::rfc3339;
use crate::guest::registry::filetime_seconds;
use crate::guest::report::{
    Defender, Filesystem, Firewall, FirewallProfile, RemoteDesktop, Security, UserAccountControl, WindowsSecurity,
};

use super::hives::{Hives, Node};
use super::services;
use super::{audit, certificates};

/// The firewall's profiles: local key, policy key, name.
const PROFILES: [(&str, &str, &str); 3] = [
    ("DomainProfile", "DomainProfile", "domain"),
    ("StandardProfile", "PrivateProfile", "private"),
    ("PublicProfile", "PublicProfile", "public"),
];
const FIREWALL: &str = "Services\\SharedAccess\\Parameters\\FirewallPolicy";
const FIREWALL_POLICY: &str = "Policies\\Microsoft\\WindowsFirewall";
const DEFENDER: &str = "Microsoft\\Windows Defender";
const DEFENDER_POLICY: &str = "Policies\\Microsoft\\Windows Defender";
const SYSTEM_POLICY: &str = "Microsoft\\Windows\\CurrentVersion\\Policies\\System";
const TERMINAL: &str = "Control\\Terminal Server";
const TERMINAL_POLICY: &str = "Policies\\Microsoft\\Windows NT\\Terminal Services";
const RDP_PORT: u32 = 3389;
/// Exclusions of the virus scanner that are taken in.
const EXCLUSIONS_MAX: usize = 1_000;

/// The module.
pub(crate) fn inspect(files: &Files<'_>, hives: &Hives<'_>, filesystems: &[Filesystem]) -> Security {
    let mut windows = WindowsSecurity {
        defender: defender(hives),
        user_account_control: user_account_control(hives),
        remote_desktop: remote_desktop(hives),
        bitlocker_devices: bitlocker(filesystems),
        ..WindowsSecurity::default()
    };
    let firewall = firewall(hives, &mut windows.firewall_profiles);
    if let Some(key) = hives.security().and_then(|hive| hive.key("Policy\\PolAdtEv")) {
        match key.bytes("").map(|value| audit::settings(&value)) {
            Some(Some(settings)) => windows.audit_policy = settings,
            Some(None) => files.warn(key.path(), "the layout of the audit policy is not known"),
            None => {}
        }
    }
    if let Some(key) = hives.control_key("Control\\SecureBoot\\State") {
        windows.secure_boot = key.flag("UEFISecureBootEnabled");
    }
    if let Some(key) = hives.control_key("Services\\LanmanServer\\Parameters") {
        windows.smb1_server = key.flag("SMB1");
        windows.smb_signing_required = key.flag("RequireSecuritySignature");
    }
    if let Some(key) = hives.control_key("Control\\Lsa") {
        windows.lm_compatibility_level = key.number("LmCompatibilityLevel").and_then(|level| u32::try_from(level).ok());
        windows.lsa_protection = key.flag("RunAsPPL");
    }
    windows.virtualization_based_security = hives
        .software_key("Policies\\Microsoft\\Windows\\DeviceGuard")
        .and_then(|key| key.flag("EnableVirtualizationBasedSecurity"))
        .or_else(|| hives.control_key("Control\\DeviceGuard")?.flag("EnableVirtualizationBasedSecurity"));
    if let Some(key) = hives.software_key("Microsoft\\Windows NT\\CurrentVersion\\Winlogon") {
        windows.automatic_logon = key.flag("AutoAdminLogon");
        windows.automatic_logon_user = key.text("DefaultUserName").filter(|_| windows.automatic_logon == Some(true));
        windows.automatic_logon_password_stored =
            windows.automatic_logon.map(|_| key.text("DefaultPassword").is_some());
    }
    windows.powershell_execution_policy = hives
        .software_key("Policies\\Microsoft\\Windows\\PowerShell")
        .and_then(|key| key.text("ExecutionPolicy"))
        .or_else(|| {
            hives.software_key("Microsoft\\PowerShell\\1\\ShellIds\\Microsoft.PowerShell")?.text("ExecutionPolicy")
        });
    windows.automatic_updates = automatic_updates(hives).map(str::to_owned);
    Security {
        firewalls: firewall.into_iter().collect(),
        certificates: certificates::read(hives),
        windows: Some(windows),
        ..Security::default()
    }
}

/// A value that a policy may set, else what is set locally.
fn policy_first(policy: Option<&Node<'_>>, local: Option<&Node<'_>>, name: &str) -> Option<(bool, String)> {
    let read = |key: Option<&Node<'_>>| Some((key?.flag(name)?, key?.path()));
    read(policy).or_else(|| read(local))
}

fn firewall(hives: &Hives<'_>, profiles: &mut Vec<FirewallProfile>) -> Option<Firewall> {
    let local = hives.control_key(FIREWALL)?;
    let policy = hives.software_key(FIREWALL_POLICY);
    for (local_name, policy_name, name) in PROFILES {
        // Windows XP has two profiles only.
        let Some(own) = local.key(local_name) else { continue };
        let by_policy = policy.as_ref().and_then(|key| key.key(policy_name));
        let value = |name: &str| policy_first(by_policy.as_ref(), Some(&own), name);
        // Without a value it filters, blocks what comes in and lets out what goes out ([MS-FASP], FW_PROFILE_CONFIG).
        let (enabled, source) = value("EnableFirewall").unwrap_or((true, own.path()));
        let blocks = |name: &str, default: bool| {
            if value(name).map_or(default, |(blocks, _)| blocks) { "block" } else { "allow" }.to_owned()
        };
        profiles.push(FirewallProfile {
            name: name.to_owned(),
            enabled,
            default_inbound: blocks("DefaultInboundAction", true),
            default_outbound: blocks("DefaultOutboundAction", false),
            source,
        });
    }
    let rules = local.key("FirewallRules").map(|key| {
        let is_active = |value: &crate::guest::registry::Value<'_>| {
            key.text_of(value).is_some_and(|rule| rule.split('|').any(|part| part.eq_ignore_ascii_case("Active=TRUE")))
        };
        key.values().iter().filter(|value| is_active(value)).count() as u64
    });
    let service = ["MpsSvc", "SharedAccess"].iter().find_map(|name| hives.control_key(&format!("Services\\{name}")));
    let starts = service.as_ref().and_then(services::start_type).is_some_and(|start| start.starts_with("automatic"));
    let inbound = profiles.iter().filter(|profile| profile.enabled);
    Some(Firewall {
        r#type: "windows".to_owned(),
        enabled: starts && profiles.iter().any(|profile| profile.enabled),
        rules,
        default_policies: inbound
            .map(|profile| format!("{}:input={}", profile.name, profile.default_inbound))
            .collect(),
        sources: vec![local.path()],
        ..Firewall::default()
    })
}

fn defender(hives: &Hives<'_>) -> Option<Defender> {
    let service = hives.control_key("Services\\WinDefend")?;
    let local = hives.software_key(DEFENDER);
    let policy = hives.software_key(DEFENDER_POLICY);
    let flag = |path: &str, name: &str| {
        let below = |key: &Option<Node<'_>>| {
            let key = key.as_ref()?;
            if path.is_empty() { key.flag(name) } else { key.key(path)?.flag(name) }
        };
        below(&policy).or_else(|| below(&local))
    };
    let signatures = local.as_ref().and_then(|key| key.key("Signature Updates"));
    let mut exclusions = Vec::new();
    for root in [&policy, &local].into_iter().flatten() {
        for kind in ["Paths", "Extensions", "Processes"] {
            let values = root.key(&format!("Exclusions\\{kind}")).map(|key| key.values()).unwrap_or_default();
            exclusions.extend(values.iter().map(|value| value.name().to_owned()).filter(|name| !name.is_empty()));
        }
    }
    exclusions.sort();
    exclusions.dedup();
    exclusions.truncate(EXCLUSIONS_MAX);
    let applied = signatures.as_ref().and_then(|key| key.bytes("SignaturesLastUpdated"));
    Some(Defender {
        start_type: services::start_type(&service)?.to_owned(),
        disabled: flag("", "DisableAntiSpyware").or_else(|| flag("", "DisableAntiVirus")),
        real_time_disabled: flag("Real-Time Protection", "DisableRealtimeMonitoring"),
        // Odd numbers are switched on.
        tamper_protection: local
            .as_ref()
            .and_then(|key| key.key("Features")?.number("TamperProtection"))
            .map(|number| number % 2 == 1),
        engine_version: signatures.as_ref().and_then(|key| key.text("EngineVersion")),
        signature_version: signatures.as_ref().and_then(|key| key.text("AVSignatureVersion")),
        signatures_at: applied.and_then(|time| rfc3339(filetime_seconds(le_u64(&time, 0)?)?)),
        exclusions,
    })
}

fn user_account_control(hives: &Hives<'_>) -> Option<UserAccountControl> {
    let key = hives.software_key(SYSTEM_POLICY)?;
    let number = |name: &str| key.number(name).and_then(|number| u32::try_from(number).ok());
    Some(UserAccountControl {
        enabled: key.flag("EnableLUA")?,
        admin_prompt: number("ConsentPromptBehaviorAdmin"),
        user_prompt: number("ConsentPromptBehaviorUser"),
        secure_desktop: key.flag("PromptOnSecureDesktop"),
        remote_admin_unfiltered: key.flag("LocalAccountTokenFilterPolicy"),
    })
}

fn remote_desktop(hives: &Hives<'_>) -> Option<RemoteDesktop> {
    let local = hives.control_key(TERMINAL)?;
    let policy = hives.software_key(TERMINAL_POLICY);
    let listener = local.key("WinStations\\RDP-Tcp");
    let (is_denied, _) = policy_first(policy.as_ref(), Some(&local), "fDenyTSConnections")?;
    let number = |name: &str| {
        let read = |key: Option<&Node<'_>>| key?.number(name).and_then(|number| u32::try_from(number).ok());
        read(policy.as_ref()).or_else(|| read(listener.as_ref()))
    };
    Some(RemoteDesktop {
        enabled: !is_denied,
        network_level_authentication: number("UserAuthentication").map(|number| number != 0),
        port: number("PortNumber").unwrap_or(RDP_PORT),
        security_layer: number("SecurityLayer"),
    })
}

/// Devices that BitLocker encrypts, by the name that probing gives them.
fn bitlocker(filesystems: &[Filesystem]) -> Vec<String> {
    let is_encrypted = |filesystem: &&Filesystem| filesystem.r#type.as_deref() == Some("BitLocker");
    filesystems.iter().filter(is_encrypted).map(|filesystem| filesystem.device.clone()).collect()
}

/// `AUOptions`, of the policy first.
fn automatic_updates(hives: &Hives<'_>) -> Option<&'static str> {
    let policy = hives.software_key("Policies\\Microsoft\\Windows\\WindowsUpdate\\AU");
    let local = hives.software_key("Microsoft\\Windows\\CurrentVersion\\WindowsUpdate\\Auto Update");
    if policy.as_ref().and_then(|key| key.flag("NoAutoUpdate")) == Some(true) {
        return Some("disabled");
    }
    let options = policy.and_then(|key| key.number("AUOptions")).or_else(|| local?.number("AUOptions"))?;
    match options {
        1 => Some("disabled"),
        2 => Some("notify"),
        3 => Some("download"),
        4 => Some("install"),
        5 => Some("local-admin"),
        _ => None,
    }
}
