//! An operator's own rules over those of the program: what is named differently is replaced, what is new is added, and what
//! would silently do nothing is an error.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::{Content, evaluate, rule::Rule};
use crate::bytes::hex;

/// A file of an operator's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFile {
    /// What people call it.
    pub name: String,
    /// YAML: a list of rules, each with its `id` and what differs, or whole where it is new.
    pub text: String,
}

impl Content {
    /// These rules with an operator's over them. The version tells that they are not the program's.
    ///
    /// # Errors
    /// Everything that is wrong, each with its file and id.
    pub fn overlaid(self, files: &[RuleFile]) -> Result<Self, Vec<String>> {
        let mut rules: BTreeMap<String, Rule> = self.rules.into_iter().map(|rule| (rule.id.clone(), rule)).collect();
        let mut seen: BTreeMap<String, &str> = BTreeMap::new();
        let mut problems = Vec::new();
        let mut sum = Sha256::new();
        for file in files {
            sum.update(file.text.as_bytes());
            sum.update([0]);
            let entries: Vec<Map<String, Value>> = match serde_saphyr::from_str(&file.text) {
                Ok(entries) => entries,
                Err(error) => {
                    problems.push(format!("{}: {error}", file.name));
                    continue;
                }
            };
            for entry in entries {
                let Some(id) = entry.get("id").and_then(Value::as_str).map(str::to_owned) else {
                    problems.push(format!("{}: a rule has no id", file.name));
                    continue;
                };
                if let Some(before) = seen.insert(id.clone(), &file.name) {
                    problems.push(format!("{}: {id}: it is in {before} already", file.name));
                    continue;
                }
                match applied(rules.get(&id), entry) {
                    Ok(Some(rule)) => drop(rules.insert(id, rule)),
                    Ok(None) => drop(rules.remove(&id)),
                    Err(problem) => problems.push(format!("{}: {id}: {problem}", file.name)),
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut digits = hex(&sum.finalize());
        digits.truncate(8);
        Ok(Self { rules: rules.into_values().collect(), version: format!("{}+local.{digits}", self.version) })
    }
}

/// The rule that an entry makes of `known`; `None` where it takes it away.
fn applied(known: Option<&Rule>, mut entry: Map<String, Value>) -> Result<Option<Rule>, String> {
    match (entry.remove("disabled"), known) {
        (None | Some(Value::Bool(false)), _) => {}
        (Some(Value::Bool(true)), None) => return Err("there is no such check that could be disabled".to_owned()),
        (Some(Value::Bool(true)), Some(_)) if entry.len() > 1 => {
            return Err("it is disabled, and what else it says has no effect".to_owned());
        }
        (Some(Value::Bool(true)), Some(_)) => return Ok(None),
        (Some(_), _) => return Err("disabled is true or false".to_owned()),
    }
    let whole = match known {
        None => entry,
        Some(known) => {
            let Ok(Value::Object(mut whole)) = serde_json::to_value(known) else {
                return Err("the rule it changes cannot be changed".to_owned());
            };
            if entry.len() == 1 {
                return Err("it changes nothing".to_owned());
            }
            whole.extend(entry);
            whole
        }
    };
    let rule: Rule = serde_json::from_value(Value::Object(whole)).map_err(|error| match known {
        None => format!("there is no such check, and a new one must be whole: {error}"),
        Some(_) => error.to_string(),
    })?;
    if let Some(flaw) = rule.flaw() {
        return Err(flaw);
    }
    let others = rule.when.iter().map(|when| &when.holds).chain(rule.escalate.iter().map(|one| &one.when));
    others.chain([&rule.check]).try_for_each(evaluate::knows)?;
    Ok(Some(rule))
}

#[cfg(test)]
mod tests {
    use super::super::{Profile, Severity};
    use super::*;

    const NEW: &str = "- id: site.banner\n  title: The banner is ours\n  severity: low\n  profiles: [hardening]\n  \
        applies_to: [linux]\n  check: {fact: 'sshd:Banner', eq: /etc/issue.net}\n  remediation: Set it.\n";

    fn overlaid(texts: &[&str]) -> Result<Content, Vec<String>> {
        let files = texts.iter().enumerate();
        let files: Vec<_> =
            files.map(|(at, text)| RuleFile { name: format!("{at}.yaml"), text: (*text).to_owned() }).collect();
        Content::embedded().overlaid(&files)
    }

    fn rule<'c>(content: &'c Content, id: &str) -> &'c Rule {
        content.rules.iter().find(|rule| rule.id == id).unwrap()
    }

    #[test]
    fn what_differs_is_replaced_and_the_rest_stays() {
        let embedded = Content::embedded();
        let id = "ssh.permit-root-login";
        let content = overlaid(&[&format!("- id: {id}\n  severity: low\n  title: Ours\n")]).unwrap();
        let (before, after) = (rule(&embedded, id), rule(&content, id));
        assert_eq!((after.severity, after.title.as_str()), (Severity::Low, "Ours"));
        assert_eq!((&after.check, &after.mappings), (&before.check, &before.mappings));
        assert!(
            content.version().starts_with("2026.") && content.version().contains("+local."),
            "{}",
            content.version()
        );
        assert_ne!(content.version(), embedded.version());

        let content = overlaid(&[&format!("- id: {id}\n  disabled: true\n"), NEW]).unwrap();
        assert!(!content.ids().any(|known| known == id));
        assert_eq!(rule(&content, "site.banner").profiles, [Profile::Hardening]);
        assert_eq!(content.ids().count(), embedded.ids().count());
        assert!(content.ids().is_sorted());
    }

    #[test]
    fn what_would_do_nothing_is_an_error_with_file_and_id() {
        let refused = |texts: &[&str], words: &str| {
            let problems = overlaid(texts).map(|_| ()).expect_err(words);
            assert!(problems.iter().any(|problem| problem.contains(words)), "{problems:?}");
        };
        refused(
            &["- id: ssh.permit-rot-login\n  severity: low\n"],
            "0.yaml: ssh.permit-rot-login: there is no such check",
        );
        refused(&["- id: a.b\n  disabled: true\n"], "0.yaml: a.b: there is no such check that could be disabled");
        refused(&["- id: ssh.permit-root-login\n"], "0.yaml: ssh.permit-root-login: it changes nothing");
        refused(&["- id: ssh.permit-root-login\n  disabled: true\n  severity: low\n"], "has no effect");
        refused(&["- id: ssh.permit-root-login\n  sevrity: low\n"], "sevrity");
        refused(
            &["- id: ssh.permit-root-login\n  check: {fn: ssh.no-such-thing}\n"],
            "no function \"ssh.no-such-thing\"",
        );
        refused(&["- id: ssh.permit-root-login\n  check: {fact: 'nothing:x', eq: 1}\n"], "no fact \"nothing\"");
        refused(&["- id: ssh.permit-root-login\n  check: {fact: 'sshd:Banner'}\n"], "something that is asked of it");
        refused(&[NEW, NEW], "1.yaml: site.banner: it is in 0.yaml already");
        refused(&[&NEW.replace("  remediation: Set it.\n", "")], "missing field `remediation`");
        refused(&["- severity: low\n"], "0.yaml: a rule has no id");
        refused(&["a: ["], "0.yaml: ");
    }
}
