//! How credentials are kept and used: the local security authority, NTLM, logons.

use crate::guest::registry::utf16_text;
use crate::guest::windows::hives::NamedHive;
use crate::guest::windows::profiles;
use crate::profile::Semantics;
use crate::profile::evaluate::Asked;
use crate::profile::guest::Guest;
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::release::{build, release};
use crate::profile::report::Evidence;
use crate::profile::rule::Severity;

use super::{Holds, Setting, hive_path, key, known, number, settings, value};

const LSA: &str = "Control\\Lsa";
const POLICIES: &str = "Microsoft\\Windows\\CurrentVersion\\Policies\\System";
const WINLOGON: &str = "Microsoft\\Windows NT\\CurrentVersion\\Winlogon";
/// 128-bit encryption and NTLMv2 session security. Source: Microsoft, "Network security: Minimum session security for NTLM SSP".
const SESSION_SECURITY: i64 = 0x2008_0000;

/// No LM hashes: the default since Windows Vista.
pub(in crate::profile) fn lm_hash(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    let default = Some(i64::from(release.build >= build::VISTA));
    let wanted = [Setting::new("NoLMHash", format!("system:{LSA}:NoLMHash"), default, Holds::Is(1))];
    settings(guest, asked, &wanted, "no LM hashes are stored")
}

/// Which generations of NTLM are sent and taken: 5 takes NTLMv2 alone. Defaults: 3 since Windows Vista, 2 on Server 2003,
/// 0 on Windows XP.
pub(in crate::profile) fn lm_compatibility(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    let default = match release.build {
        build::VISTA.. => 3,
        _ if release.is_server => 2,
        _ => 0,
    };
    let places = format!("system:{LSA}:LmCompatibilityLevel");
    let (level, evidence) = known!(number(guest, &places, default));
    let evidence = vec![evidence];
    if asked.semantics == Semantics::Explicit && evidence.iter().any(|one| one.source != "explicit") {
        return Outcome::fail("LmCompatibilityLevel is not set explicitly", evidence);
    }
    match level {
        5.. => Outcome::pass("NTLMv2 alone is sent and taken", evidence),
        3 | 4 => Outcome::warn(format!("NTLMv2 is sent, but older NTLM is taken (level {level})"), evidence),
        _ => Outcome::fail(format!("LM and older NTLM are sent (level {level})"), evidence),
    }
}

/// Sessions of NTLM are encrypted with 128 bits and use NTLMv2's security. Default 0x20000000 since Windows 7, 0 before.
pub(in crate::profile) fn ntlm_session(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    let default = if release.build >= build::WINDOWS_7 { 0x2000_0000 } else { 0 };
    let wanted = ["NtlmMinClientSec", "NtlmMinServerSec"].map(|name| {
        let places = format!("system:{LSA}\\MSV1_0:{name}");
        Setting::new(name, places, Some(default), Holds::Bits(SESSION_SECURITY))
    });
    settings(guest, asked, &wanted, "sessions of NTLM need 128-bit encryption and NTLMv2")
}

/// Nobody lists accounts and shares without logging on.
pub(in crate::profile) fn anonymous(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let at = |name: &str| format!("system:{LSA}:{name}");
    let wanted = [
        Setting::new("RestrictAnonymousSAM", at("RestrictAnonymousSAM"), Some(1), Holds::Is(1)),
        Setting::new("RestrictAnonymous", at("RestrictAnonymous"), Some(0), Holds::AtLeast(1)),
        Setting::new("EveryoneIncludesAnonymous", at("EveryoneIncludesAnonymous"), Some(0), Holds::Is(0)),
    ];
    settings(guest, asked, &wanted, "accounts and shares are not listed to anonymous users")
}

/// The local security authority runs protected. Windows 11 writes the value where it switches this on by itself.
pub(in crate::profile) fn protection(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    if release.build < build::WINDOWS_8_1 {
        return Outcome::fail(
            "this Windows cannot protect LSASS",
            vec![Evidence::explicit(hive_path(guest, "SOFTWARE"), "CurrentBuild", release.build.to_string())],
        );
    }
    let wanted = [Setting::new("RunAsPPL", format!("system:{LSA}:RunAsPPL"), Some(0), Holds::Within(1, 2))];
    settings(guest, asked, &wanted, "LSASS runs protected")
}

/// No clear-text passwords are kept for WDigest. The default is 0 since Windows 8.1 (KB2871997), 1 before.
pub(in crate::profile) fn wdigest(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    let default = Some(i64::from(release.build < build::WINDOWS_8_1));
    let places = "system:Control\\SecurityProviders\\WDigest:UseLogonCredential";
    let wanted = [Setting::new("UseLogonCredential", places, default, Holds::Is(0))];
    settings(guest, asked, &wanted, "WDigest keeps no clear-text passwords")
}

/// Security based on virtualization. Since Windows 11 22H2 Enterprise it is on by default where the machine can.
pub(in crate::profile) fn virtualization(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    if release.build < build::WINDOWS_10 {
        return Outcome::not_applicable("this Windows has no security based on virtualization");
    }
    let name = "EnableVirtualizationBasedSecurity";
    let places =
        format!("software:Policies\\Microsoft\\Windows\\DeviceGuard:{name}|system:Control\\DeviceGuard:{name}");
    let enabled = known!(value(guest, &places));
    let mut evidence = vec![enabled.evidence.clone()];
    for name in ["LsaCfgFlags", "HypervisorEnforcedCodeIntegrity"] {
        let places = format!("software:Policies\\Microsoft\\Windows\\DeviceGuard:{name}");
        let found = known!(value(guest, &places));
        if found.value.is_some() {
            evidence.push(found.evidence);
        }
    }
    match enabled.number() {
        Some(1..) => Outcome::pass("security based on virtualization is switched on", evidence),
        Some(_) => Outcome::fail("security based on virtualization is switched off", evidence),
        None if release.build >= build::WINDOWS_11_22H2 && release.edition.starts_with("Enterprise") => {
            Outcome::unknown("nothing sets EnableVirtualizationBasedSecurity, and the default hangs on the machine")
        }
        None => Outcome::fail("security based on virtualization is not switched on", evidence),
    }
}

/// Nobody is logged on at start, and no password for that lies in the registry. The secret of the security authority of the
/// same name is left by every setup, so it counts only where somebody is logged on by it.
pub(in crate::profile) fn auto_logon(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let (is_on, mut evidence) = {
        let (number, evidence) = known!(number(guest, &format!("software:{WINLOGON}:AutoAdminLogon"), 0));
        (number != 0, vec![evidence])
    };
    let password = known!(value(guest, &format!("software:{WINLOGON}:DefaultPassword")));
    let has_password = password.value.as_ref().is_some_and(|value| value.as_str() != Some(""));
    // What it is is nobody's business.
    let stored = if has_password { "set (not shown)" } else { "not set" };
    evidence.push(Evidence { value: stored.to_owned(), ..password.evidence });
    if is_on {
        if let Ok((true, secret)) = key(guest, "security", "Policy\\Secrets\\DefaultPassword") {
            evidence.push(secret);
        }
        let user = known!(value(guest, &format!("software:{WINLOGON}:DefaultUserName")));
        let name = user.text().unwrap_or("somebody").to_owned();
        evidence.push(user.evidence);
        let how = if has_password { ", by a password that everybody may read" } else { "" };
        return Outcome::fail(format!("{name} is logged on at every start{how}"), evidence).with_subjects([name]);
    }
    if has_password {
        return Outcome::fail("a password for logging on at start still lies in the registry", evidence);
    }
    Outcome::pass("nobody is logged on at start, and no password for it is stored", evidence)
}

/// User Account Control. Defaults: on, 5 (ask for what is not of Windows), on the secure desktop; the built-in administrator is
/// not asked.
pub(in crate::profile) fn account_control(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let at = |name: &str| format!("software:{POLICIES}:{name}");
    let wanted = [
        Setting::new("EnableLUA", at("EnableLUA"), Some(1), Holds::Is(1)),
        Setting::new("ConsentPromptBehaviorAdmin", at("ConsentPromptBehaviorAdmin"), Some(5), Holds::Within(1, 2)),
        Setting::new("PromptOnSecureDesktop", at("PromptOnSecureDesktop"), Some(1), Holds::Is(1)),
        Setting::new("FilterAdministratorToken", at("FilterAdministratorToken"), Some(0), Holds::Is(1)),
    ];
    let outcome = settings(guest, asked, &wanted, "administrators are asked before their rights are used");
    let (is_on, _) = known!(number(guest, &at("EnableLUA"), 1));
    let (prompt, _) = known!(number(guest, &at("ConsentPromptBehaviorAdmin"), 5));
    // As Windows comes, administrators are asked, though less than CIS wants.
    if is_on != 0 && prompt != 0 { outcome.with_severity(Severity::Medium) } else { outcome }
}

/// The machine locks after a while, by its own policy or by a screen saver of everybody.
pub(in crate::profile) fn inactivity(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let limit = asked.limit_number(900);
    let found = known!(value(guest, &format!("software:{POLICIES}:InactivityTimeoutSecs")));
    let mut evidence = vec![found.evidence.clone()];
    let seconds = found.number().unwrap_or(0);
    if (1..=limit).contains(&seconds) {
        return Outcome::pass(format!("sessions lock after {seconds} s"), evidence);
    }
    if seconds == 0 {
        let savers = savers(guest);
        let all = savers.iter().all(|(seconds, _)| seconds.is_some_and(|seconds| (1..=limit).contains(&seconds)));
        let is_by_saver = all && !savers.is_empty();
        evidence.extend(savers.into_iter().map(|(_, evidence)| evidence));
        if is_by_saver {
            return Outcome::pass("everybody's screen saver locks the session", evidence);
        }
        return Outcome::fail("sessions do not lock by themselves", evidence);
    }
    Outcome::fail(format!("sessions lock after {seconds} s, should after at most {limit}"), evidence)
}

/// Of each person: seconds after which a screen saver locks the session.
fn savers(guest: &Guest<'_>) -> Vec<(Option<i64>, Evidence)> {
    let Some(hives) = guest.hives else { return Vec::new() };
    let people = profiles::with_hives(guest.files, hives);
    let text = |hive: &NamedHive<'_>, name: &str| {
        let keys = ["Software\\Policies\\Microsoft\\Windows\\Control Panel\\Desktop", "Control Panel\\Desktop"];
        keys.iter().find_map(|path| hive.key(path)?.text(name))
    };
    let saver = |person: &profiles::UserHive<'_>| {
        let is_secure = text(&person.hive, "ScreenSaverIsSecure").as_deref() == Some("1");
        let is_on = text(&person.hive, "ScreenSaveActive").as_deref() != Some("0");
        let seconds = text(&person.hive, "ScreenSaveTimeOut").and_then(|text| text.parse::<i64>().ok());
        let told = match seconds.filter(|_| is_secure && is_on) {
            Some(seconds) => format!("locks after {seconds} s"),
            None => "does not lock".to_owned(),
        };
        let evidence = Evidence::explicit(person.hive.path(), "Control Panel\\Desktop (screen saver)", told);
        (seconds.filter(|_| is_secure && is_on), evidence)
    };
    people.iter().map(saver).collect()
}

/// Answer files that setup leaves, and where group policies kept passwords until MS14-025.
const ANSWER_FILES: [&str; 12] = [
    "/unattend.xml",
    "/autounattend.xml",
    "{}/unattend.xml",
    "{}/Panther/unattend.xml",
    "{}/Panther/autounattend.xml",
    "{}/Panther/Unattend/unattend.xml",
    "{}/Panther/Unattend/autounattend.xml",
    "{}/System32/Sysprep/unattend.xml",
    "{}/System32/Sysprep/sysprep.xml",
    "{}/System32/Sysprep/Panther/unattend.xml",
    "{}/Panther/UnattendGC/unattend.xml",
    "{}/Setup/Scripts/unattend.xml",
];
const PREFERENCES: [&str; 4] = [
    "{}/SYSVOL/sysvol/*/Policies/*/Machine/Preferences/*/*.xml",
    "{}/SYSVOL/sysvol/*/Policies/*/User/Preferences/*/*.xml",
    "/ProgramData/Microsoft/Group Policy/History/*/Machine/Preferences/*/*.xml",
    "/ProgramData/Microsoft/Group Policy/History/*/User/Preferences/*/*.xml",
];
/// What Windows writes over passwords of answer files it has used.
const DELETED: &str = "SENSITIVE*DATA*DELETED";

/// No answer file has a password any more.
pub(in crate::profile) fn answer_files(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let root = guest.root.system_root.as_deref().unwrap_or("/Windows");
    let mut paths: Vec<String> = ANSWER_FILES.iter().map(|path| path.replace("{}", root)).collect();
    let named = known!(value(guest, "machine:Setup:UnattendFile"));
    paths.extend(named.text().and_then(profiles::guest_path));
    let sysprep = format!("{root}/System32/Sysprep");
    paths.extend(
        guest.files.names(&sysprep).into_iter().filter(|name| is_xml(name)).map(|name| format!("{sysprep}/{name}")),
    );
    paths.extend(PREFERENCES.iter().flat_map(|pattern| guest.files.glob(&pattern.replace("{}", root))));
    let mut seen = std::collections::HashSet::new();
    paths.retain(|path| seen.insert(path.to_lowercase()));
    let (mut looked_at, mut bad) = (vec![named.evidence], Vec::new());
    for path in paths {
        let Some(bytes) = guest.files.bytes(&path) else { continue };
        let text = match bytes.strip_prefix(b"\xff\xfe") {
            Some(units) => utf16_text(units),
            None => String::from_utf8_lossy(&bytes).into_owned(),
        };
        match password_in(&text) {
            Some(element) => {
                let evidence = Evidence::explicit(&*path, element, "set (not shown)");
                bad.push(Bad::new(path, evidence));
            }
            None => looked_at.push(Evidence::explicit(path, "password", "not set, or deleted")),
        }
    }
    Outcome::none_of(bad, "passwords in files", "no answer file has a password", looked_at)
}

fn is_xml(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".xml")
}

/// The element or attribute of an answer file, or of a preference, that holds a password. Base64 hides nothing, nor does the
/// published key of `cpassword`.
fn password_in(text: &str) -> Option<String> {
    let mut above: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        let content = before.trim();
        let holder = above.iter().rev().find(|name| **name != "Value").copied().unwrap_or_default();
        let is_own = matches!(above.last().copied(), Some("Value" | "Password" | "AdministratorPassword"));
        let is_password = is_own && matches!(holder, "Password" | "AdministratorPassword");
        if is_password && !content.is_empty() && !content.contains(DELETED) {
            return Some(above.join("/"));
        }
        if let Some(comment) = after.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, rest)| rest);
            continue;
        }
        let (tag, next) = after.split_once('>')?;
        rest = next;
        if tag.starts_with(['?', '!']) {
            continue;
        }
        if tag.starts_with('/') {
            above.pop();
            continue;
        }
        let name = tag.split([' ', '\t', '\r', '\n', '/']).next().unwrap_or_default();
        let name = name.rsplit(':').next().unwrap_or_default();
        let attribute = tag.split_once("cpassword=").map(|(_, after)| after.trim_start_matches(['"', '\'']));
        if attribute.and_then(|value| value.chars().next()).is_some_and(|first| first.is_ascii_alphanumeric()) {
            let is_empty = tag.contains("cpassword=\"\"") || tag.contains("cpassword=''");
            if !is_empty {
                return Some(format!("{name}/@cpassword"));
            }
        }
        // Answer files are shallow.
        if !tag.ends_with('/') && above.len() < 64 {
            above.push(name);
        }
    }
    None
}

/// Remote Assistance is off. Clients offer it by default; servers do not have it until it is added.
pub(in crate::profile) fn remote_assistance(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    let policy = "software:Policies\\Microsoft\\Windows NT\\Terminal Services";
    let local = "system:Control\\Remote Assistance";
    let help = format!("{policy}:fAllowToGetHelp|{local}:fAllowToGetHelp");
    let wanted = [
        Setting::new("fAllowToGetHelp", help, Some(i64::from(!release.is_server)), Holds::Is(0)),
        Setting::new("fAllowUnsolicited", format!("{policy}:fAllowUnsolicited"), Some(0), Holds::Is(0)),
    ];
    settings(guest, asked, &wanted, "nobody is invited to assist from afar")
}

#[cfg(test)]
mod tests {
    use super::password_in;

    #[test]
    fn passwords_of_answer_files_are_found() {
        let set = "<u:unattend><UserAccounts><AdministratorPassword><Value>QQ==</Value></AdministratorPassword></UserAccounts>";
        assert!(password_in(set).is_some());
        let deleted = "<AdministratorPassword>*SENSITIVE*DATA*DELETED*</AdministratorPassword><AutoLogon><Password><Value/></Password></AutoLogon>";
        assert_eq!(password_in(deleted), None);
        assert!(password_in("<Credentials><Domain>d</Domain><Password>x</Password></Credentials>").is_some());
        assert_eq!(password_in("<!-- <Password>x</Password> --><Properties cpassword=\"\" userName=\"a\"/>"), None);
        assert_eq!(
            password_in("<Properties action=\"U\" cpassword=\"j1Uy\"/>").as_deref(),
            Some("Properties/@cpassword")
        );
        assert_eq!(password_in("<MinimumPasswordAge>1</MinimumPasswordAge>"), None);
    }
}
