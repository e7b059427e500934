//! What is audited: the default value of `SECURITY\Policy\PolAdtEv`.
//!
//! Sources: the layouts as Kazamiya ("PolAdtEv") describes them; the order and names of subcategories as the identifiers of
//! [MS-GPAC], section 2.2.1.2 (0CCE9210 to 0CCE924B), number them.

use crate::bytes::{le_u16, le_u32};
use crate::guest::report::AuditSetting;

/// The categories, and their subcategories in the order they came to be: an older Windows has the first of each.
pub(crate) const CATEGORIES: [(&str, &[&str]); 9] = [
    (
        "System",
        &[
            "Security State Change",
            "Security System Extension",
            "System Integrity",
            "IPsec Driver",
            "Other System Events",
        ],
    ),
    (
        "Logon/Logoff",
        &[
            "Logon",
            "Logoff",
            "Account Lockout",
            "IPsec Main Mode",
            "IPsec Quick Mode",
            "IPsec Extended Mode",
            "Special Logon",
            "Other Logon/Logoff Events",
            "Network Policy Server",
            "User / Device Claims",
            "Group Membership",
            "Access Rights",
        ],
    ),
    (
        "Object Access",
        &[
            "File System",
            "Registry",
            "Kernel Object",
            "SAM",
            "Certification Services",
            "Application Generated",
            "Handle Manipulation",
            "File Share",
            "Filtering Platform Packet Drop",
            "Filtering Platform Connection",
            "Other Object Access Events",
            "Detailed File Share",
            "Removable Storage",
            "Central Policy Staging",
        ],
    ),
    ("Privilege Use", &["Sensitive Privilege Use", "Non Sensitive Privilege Use", "Other Privilege Use Events"]),
    (
        "Detailed Tracking",
        &[
            "Process Creation",
            "Process Termination",
            "DPAPI Activity",
            "RPC Events",
            "Plug and Play Events",
            "Token Right Adjusted Events",
        ],
    ),
    (
        "Policy Change",
        &[
            "Audit Policy Change",
            "Authentication Policy Change",
            "Authorization Policy Change",
            "MPSSVC Rule-Level Policy Change",
            "Filtering Platform Policy Change",
            "Other Policy Change Events",
        ],
    ),
    (
        "Account Management",
        &[
            "User Account Management",
            "Computer Account Management",
            "Security Group Management",
            "Distribution Group Management",
            "Application Group Management",
            "Other Account Management Events",
        ],
    ),
    (
        "DS Access",
        &[
            "Directory Service Access",
            "Directory Service Changes",
            "Directory Service Replication",
            "Detailed Directory Service Replication",
        ],
    ),
    (
        "Account Logon",
        &[
            "Credential Validation",
            "Kerberos Service Ticket Operations",
            "Other Account Logon Events",
            "Kerberos Authentication Service",
        ],
    ),
];
/// Bytes of the value before Windows Vista: a switch, nine categories, their count.
const OLD_BYTES: usize = 44;

/// The settings in `value`; `None` where its layout is none of those known.
pub(crate) fn settings(value: &[u8]) -> Option<Vec<AuditSetting>> {
    if value.len() == OLD_BYTES && le_u32(value, 40) == Some(9) {
        return old_settings(value);
    }
    let categories = usize::from(le_u16(value, 4)?);
    if categories != CATEGORIES.len() {
        return None;
    }
    // The counts of subcategories end the value.
    let counts_at = usize::try_from(le_u32(value, 8)?).ok()?;
    let mut settings = Vec::new();
    let mut at = 12;
    for (index, (category, names)) in CATEGORIES.iter().enumerate() {
        let count = usize::from(le_u16(value, counts_at.checked_add(2 * index)?)?);
        for number in 0..count {
            if at >= counts_at {
                return None;
            }
            let bits = le_u16(value, at)?;
            at += 2;
            let name =
                names.get(number).map_or_else(|| format!("subcategory {}", number + 1), |name| (*name).to_owned());
            settings.push(setting(category, Some(name), u32::from(bits)));
        }
    }
    Some(settings)
}

fn old_settings(value: &[u8]) -> Option<Vec<AuditSetting>> {
    let is_on = value.first().is_some_and(|byte| *byte != 0);
    let setting = |(index, (category, _)): (usize, &(&str, &[&str]))| {
        let bits = le_u32(value, 4 + 4 * index)?;
        Some(setting(category, None, if is_on { bits } else { 0 }))
    };
    CATEGORIES.iter().enumerate().map(setting).collect()
}

fn setting(category: &str, subcategory: Option<String>, bits: u32) -> AuditSetting {
    AuditSetting { category: category.to_owned(), subcategory, success: bits & 1 != 0, failure: bits & 2 != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_of_every_layout_are_read() {
        let counts = [5_u16, 9, 12, 3, 4, 6, 6, 4, 4];
        let all: u16 = counts.iter().sum();
        let mut value = vec![0, 1, 0, 0, 9, 0, 0, 0];
        value.extend((12 + 2 * u32::from(all)).to_le_bytes());
        value.extend((0..all).flat_map(|number| (number % 4).to_le_bytes()));
        value.extend(counts.iter().flat_map(|count| count.to_le_bytes()));
        let found = settings(&value).unwrap();
        assert_eq!(found.len(), usize::from(all));
        let logon = &found[5];
        assert_eq!((logon.category.as_str(), logon.subcategory.as_deref()), ("Logon/Logoff", Some("Logon")));
        assert_eq!((logon.success, logon.failure), (true, false), "5 % 4 is 1");
        for length in 0..value.len() {
            assert!(settings(&value[..length]).is_none(), "{length}");
        }
        let mut old = vec![1, 0, 0, 0];
        old.extend([3_u32, 1, 0, 2, 0, 0, 0, 0, 0, 9].iter().flat_map(|number| number.to_le_bytes()));
        let found = settings(&old).unwrap();
        assert_eq!(found.len(), 9);
        assert!(found[0].success && found[0].failure && found[3].failure && !found[3].success);
    }
}
