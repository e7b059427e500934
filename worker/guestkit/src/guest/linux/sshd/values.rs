//! Arguments of keywords, as sshd reads and prints them. Source: sshd_config(5) of OpenSSH 9.2; what its `-T` printed or refused.

use std::net::IpAddr;

use super::builds::Build;
use super::keywords::{Kind, YES_NO};

/// The largest number of a keyword.
const NUMBER_MAX: i64 = 0x7fff_ffff;
/// Ways to prove who somebody is, each with the keyword that switches it.
pub(super) const METHODS: [(&str, Option<&str>); 7] = [
    ("none", None),
    ("publickey", Some("pubkeyauthentication")),
    ("gssapi-keyex", Some("gssapikeyexchange")),
    ("gssapi-with-mic", Some("gssapiauthentication")),
    ("password", Some("passwordauthentication")),
    ("keyboard-interactive", Some("kbdinteractiveauthentication")),
    ("hostbased", Some("hostbasedauthentication")),
];

/// The arguments: words apart by blanks, quotes taken off; a `#` at the start of a word begins a comment.
///
/// # Errors
/// A quote that is not closed.
pub(super) fn arguments(text: &str) -> Result<Vec<String>, String> {
    let is_blank = |character: &char| matches!(character, ' ' | '\t');
    let mut words = Vec::new();
    let mut characters = text.chars().peekable();
    loop {
        while characters.next_if(is_blank).is_some() {}
        match characters.peek() {
            None | Some('#') => return Ok(words),
            Some(_) => {}
        }
        let (mut word, mut quote) = (String::new(), None);
        while let Some(character) = characters.next_if(|c| quote.is_some() || !is_blank(c)) {
            match (quote, character) {
                (_, '\\') => {
                    let is_escaped =
                        |next: &char| matches!(next, '"' | '\'' | '\\') || (quote.is_none() && *next == ' ');
                    word.push(characters.next_if(is_escaped).unwrap_or('\\'));
                }
                (None, '"' | '\'') => quote = Some(character),
                (Some(open), _) if open == character => quote = None,
                _ => word.push(character),
            }
        }
        if quote.is_some() {
            return Err("invalid quotes".to_owned());
        }
        words.push(word);
    }
}

/// The printed forms of a keyword's arguments, each of which is a line.
///
/// # Errors
/// Why the server refuses them.
pub(super) fn read(build: &Build, name: &str, kind: Kind, rest: &str) -> Result<Vec<String>, String> {
    let words = arguments(rest)?;
    match kind {
        Kind::Ignored => return Ok(Vec::new()),
        // These take the line as it stands.
        Kind::Rest => return Ok(vec![none_or(rest)]),
        Kind::Command if rest.starts_with('/') || is_none(rest) => return Ok(vec![none_or(rest)]),
        Kind::Command => return Err("it is no absolute path".to_owned()),
        Kind::IpQos => return qualities(build, &words).map(|value| vec![value]),
        _ => {}
    }
    let (first, further) = words.split_first().ok_or("missing argument")?;
    if first.is_empty() && kind != Kind::KeyOptions {
        return Err("missing argument".to_owned());
    }
    if let Some(lines) = many(name, kind, &words)? {
        return Ok(lines);
    }
    if !further.is_empty() {
        return Err("extra arguments at end of line".to_owned());
    }
    one(build, name, kind, first).map(|value| vec![value])
}

/// What takes several arguments; `None` for what takes one.
fn many(name: &str, kind: Kind, words: &[String]) -> Result<Option<Vec<String>>, String> {
    let line = |line: String| Ok(Some(vec![line]));
    let all = |what: &str, is_right: &dyn Fn(&str) -> bool| match words.iter().find(|word| !is_right(word)) {
        Some(word) => Err(format!("{word:?} is no {what}")),
        None => Ok(()),
    };
    match kind {
        Kind::Words => line(words.join(" ")),
        Kind::Names => {
            all("name of a variable", &|word| !word.is_empty() && !word.contains('='))?;
            Ok(Some(words.to_vec()))
        }
        Kind::Variables => {
            all("variable with its value", &|word| word.contains('='))?;
            let mut kept: Vec<String> = Vec::new();
            for word in words {
                let variable = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
                if !kept.iter().any(|other| variable(other) == variable(word)) {
                    kept.push(word.clone());
                }
            }
            Ok(Some(kept))
        }
        Kind::Accounts => {
            let of_users = name.ends_with("users");
            let is_right = |word: &str| {
                let host = word.split_once('@').map(|(_, host)| host).filter(|_| of_users);
                !word.is_empty() && host.is_none_or(are_addresses)
            };
            all("pattern", &is_right)?;
            Ok(Some(words.to_vec()))
        }
        Kind::Methods => {
            if words.len() > 1 && words.iter().any(|word| word == "any") {
                return Err("\"any\" must appear alone".to_owned());
            }
            let is_method = |word: &str| {
                let word = word.split(':').next().unwrap_or_default();
                METHODS.iter().any(|(known, _)| *known == word)
            };
            all("list of methods", &|word| word == "any" || word.split(',').all(is_method))?;
            line(words.join(" "))
        }
        Kind::Forwards | Kind::Listens => forwards(kind, words).map(|value| Some(vec![value])),
        Kind::Channels => {
            if words.len() > 1 && words.iter().any(|word| word.eq_ignore_ascii_case("none")) {
                return Err("\"none\" must appear alone".to_owned());
            }
            let is_timeout = |word: &str| {
                let parts = word.split_once('=');
                parts.is_some_and(|(channel, time)| !channel.is_empty() && seconds(time).is_some())
            };
            all("channel with its time", &|word| word.eq_ignore_ascii_case("none") || is_timeout(word))?;
            line(words.join(" "))
        }
        Kind::KeyOptions => {
            let known = ["none", "touch-required", "verify-required"];
            all("option", &|word| known.iter().any(|known| known.eq_ignore_ascii_case(word)))?;
            // Printed from flags, in this order.
            let set = known.iter().skip(1).filter(|known| words.iter().any(|word| word.eq_ignore_ascii_case(known)));
            let set: Vec<_> = set.copied().collect();
            line(if set.is_empty() { "none".to_owned() } else { set.join(" ") })
        }
        Kind::ListenAddress => match words {
            [address] => Ok(Some(vec![listen_address(address)?])),
            [address, key, domain] if key == "rdomain" => {
                Ok(Some(vec![format!("{} rdomain {domain}", listen_address(address)?)]))
            }
            _ => Err("bad address".to_owned()),
        },
        Kind::Subsystem => match words {
            [_, command, ..] if !command.is_empty() => line(words.join(" ")),
            _ => Err("missing subsystem command".to_owned()),
        },
        Kind::RekeyLimit => match words {
            [_] | [_, _] => {
                rekey_limit(words).map(|value| Some(vec![value])).ok_or_else(|| "bad number or time".to_owned())
            }
            _ => Err("extra arguments at end of line".to_owned()),
        },
        Kind::RoutingDomain => Err("it is not supported on this platform".to_owned()),
        _ => Ok(None),
    }
}

/// What takes one argument.
fn one(build: &Build, name: &str, kind: Kind, word: &str) -> Result<String, String> {
    let bad = || format!("unsupported option \"{word}\"");
    let found = match kind {
        Kind::Flag => choose(YES_NO, word),
        Kind::Choice(choices) => choose(choices, word),
        Kind::ExactChoice(choices) => {
            choices.iter().find(|(known, _)| *known == word).map(|(_, shown)| (*shown).to_owned())
        }
        Kind::Number => number(word).map(|number| number.to_string()),
        Kind::Octal => octal(word),
        Kind::TimeOrNone if is_none(word) || seconds(word) == Some(0) => Some("none".to_owned()),
        Kind::Time | Kind::TimeOrNone => seconds(word).map(|seconds| seconds.to_string()),
        Kind::Path => Some(none_or(word)),
        Kind::Algorithms(list) => return build.algorithms(name, list, word),
        Kind::GssExchanges => build.has_gss_exchanges(word).then(|| word.to_owned()),
        Kind::Port => port(word).filter(|port| *port > 0).map(|port| port.to_string()),
        Kind::MaxStartups => max_startups(word),
        Kind::SourceStartups if word == "none" => Some("none".to_owned()),
        Kind::SourceStartups => number(word).map(|number| number.to_string()),
        Kind::SourceNetwork => source_network(word),
        _ => Some(word.to_owned()),
    };
    found.ok_or_else(bad)
}

fn is_none(text: &str) -> bool {
    text.eq_ignore_ascii_case("none")
}

fn none_or(text: &str) -> String {
    if is_none(text) { "none".to_owned() } else { text.to_owned() }
}

fn choose(choices: &[(&str, &str)], word: &str) -> Option<String> {
    choices.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, shown)| (*shown).to_owned())
}

fn number(text: &str) -> Option<i64> {
    text.parse().ok().filter(|number| (0..=NUMBER_MAX).contains(number))
}

/// Digits up to the first other character.
fn octal(text: &str) -> Option<String> {
    let end = text.find(|c: char| !('0'..='7').contains(&c)).unwrap_or(text.len());
    let mask = u32::from_str_radix(text.get(..end)?, 8).ok().filter(|mask| *mask <= 0o777)?;
    Some(format!("0{mask:o}"))
}

/// `1h30m` in seconds.
fn seconds(text: &str) -> Option<u64> {
    let mut total = 0_u64;
    let mut number: Option<u64> = None;
    let mut has_any = false;
    for character in text.chars() {
        if let Some(digit) = character.to_digit(10) {
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(u64::from(digit))?);
            has_any = true;
            continue;
        }
        let unit = match character.to_ascii_lowercase() {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    let total = total.checked_add(number.unwrap_or(0))?;
    (has_any && total <= NUMBER_MAX.unsigned_abs()).then_some(total)
}

/// A number, or the name of a service. Names are looked up in a table that hardly ever has others than these two.
fn port(word: &str) -> Option<u16> {
    match word {
        "ssh" => Some(22),
        "https" => Some(443),
        _ => word.parse().ok(),
    }
}

/// `address`, `address:port`, `[address]:port`; numbers in their shortest form, IPv6 in brackets.
fn listen_address(text: &str) -> Result<String, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(shown(address));
    }
    let (host, port_word) = match text.strip_prefix('[') {
        Some(inside) => {
            let (host, behind) = inside.split_once(']').ok_or("bad address")?;
            let behind = match behind.strip_prefix(':') {
                Some(port) => Some(port),
                None if behind.is_empty() => None,
                None => return Err("bad address".to_owned()),
            };
            (host, behind)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    // A name is what a running system looks up.
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if host.is_empty() || !host.chars().all(is_name) {
        return Err(format!("bad addr or host: {host}"));
    }
    let host = host.parse::<IpAddr>().map_or_else(|_| host.to_owned(), shown);
    match port_word {
        None => Ok(host),
        Some(word) => {
            let port = port(word).filter(|port| *port > 0).ok_or("bad port number")?;
            Ok(format!("{host}:{port}"))
        }
    }
}

fn shown(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

fn forwards(kind: Kind, words: &[String]) -> Result<String, String> {
    if let [word] = words
        && (word == "any" || word == "none")
    {
        return Ok(word.clone());
    }
    let is_port = |word: &str| word == "*" || port(word).is_some_and(|port| port > 0);
    let mut shown = Vec::new();
    for word in words {
        let (host, port) = match word.rsplit_once(':') {
            None if kind == Kind::Listens => ("*", word.as_str()),
            None => return Err("bad port number".to_owned()),
            Some((host, port)) => (host, port),
        };
        let is_host = if host.starts_with('[') { host.ends_with(']') } else { !host.contains(':') };
        if !is_host || !is_port(port) {
            return Err("bad port number".to_owned());
        }
        shown.push(format!("{host}:{port}"));
    }
    Ok(shown.join(" "))
}

/// Numbers that stand apart by colons at the start of a text, at most `count`.
fn numbers(text: &str, count: usize) -> Vec<i64> {
    let mut found = Vec::new();
    let mut rest = text;
    while found.len() < count {
        let digits = rest.strip_prefix(['-', '+']).unwrap_or(rest);
        let signed = rest.len().saturating_sub(digits.len());
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let Some(number) = rest.get(..signed.saturating_add(end)).and_then(|text| text.parse().ok()) else { break };
        found.push(number);
        match digits.get(end..).and_then(|behind| behind.strip_prefix(':')) {
            Some(behind) => rest = behind,
            None => break,
        }
    }
    found
}

/// `start:rate:full`, or one number for both ends.
fn max_startups(text: &str) -> Option<String> {
    match *numbers(text, 3).as_slice() {
        [start] if start > 0 => Some(format!("{start}:30:{start}")),
        [start, rate, full] if (1..=full).contains(&start) && (1..=100).contains(&rate) => {
            Some(format!("{start}:{rate}:{full}"))
        }
        _ => None,
    }
}

/// Lengths of the prefixes of one source, IPv4 and IPv6. Of one alone 9.2 takes the other for 0, and prints it.
fn source_network(text: &str) -> Option<String> {
    match *numbers(text, 2).as_slice() {
        [four] if (0..=32).contains(&four) => Some(format!("{four}:0")),
        [four, six] if (0..=32).contains(&four) && (0..=128).contains(&six) => Some(format!("{four}:{six}")),
        _ => None,
    }
}

/// Bytes and seconds.
fn rekey_limit(words: &[String]) -> Option<String> {
    let bytes = match words.first()?.as_str() {
        "default" => 0,
        text => {
            let unit = match text.chars().last()?.to_ascii_lowercase() {
                'k' => 1_u64 << 10,
                'm' => 1 << 20,
                'g' => 1 << 30,
                't' => 1 << 40,
                'p' => 1 << 50,
                'e' => 1 << 60,
                _ => 1,
            };
            let digits =
                if unit > 1 || text.ends_with(['b', 'B']) { text.get(..text.len().checked_sub(1)?)? } else { text };
            digits.parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| *bytes == 0 || *bytes >= 16)?
        }
    };
    let time = match words.get(1).map(String::as_str) {
        None | Some("none") => 0,
        Some(text) => seconds(text)?,
    };
    Some(format!("{bytes} {time}"))
}

/// Classes of service and their numbers, as sshd_config(5), "IPQoS", names them (RFC 2474, RFC 2597, RFC 3246, RFC 8622, RFC 1349).
const QUALITIES: [(&str, u8); 25] = [
    ("af11", 0x28),
    ("af12", 0x30),
    ("af13", 0x38),
    ("af21", 0x48),
    ("af22", 0x50),
    ("af23", 0x58),
    ("af31", 0x68),
    ("af32", 0x70),
    ("af33", 0x78),
    ("af41", 0x88),
    ("af42", 0x90),
    ("af43", 0x98),
    ("cs0", 0x00),
    ("cs1", 0x20),
    ("cs2", 0x40),
    ("cs3", 0x60),
    ("cs4", 0x80),
    ("cs5", 0xa0),
    ("cs6", 0xc0),
    ("cs7", 0xe0),
    ("ef", 0xb8),
    ("le", 0x01),
    ("lowdelay", 0x10),
    ("throughput", 0x08),
    ("reliability", 0x04),
];

/// Classes of service of interactive sessions and of others.
///
/// # Errors
/// What is no class.
fn qualities(build: &Build, words: &[String]) -> Result<String, String> {
    let (first, second) = match words {
        [one] => (one, one),
        [first, second] => (first, second),
        [] => return Err("missing argument".to_owned()),
        _ => return Err("extra arguments at end of line".to_owned()),
    };
    let quality = |word: &str| quality(build, word).ok_or_else(|| format!("bad IPQoS value: {word}"));
    Ok(format!("{} {}", quality(first)?, quality(second)?))
}

/// Builds whose default is a DSCP class take the type-of-service names of old as `none`.
fn quality(build: &Build, word: &str) -> Option<String> {
    let number = match word.strip_prefix("0x") {
        Some(hexadecimal) => u8::from_str_radix(hexadecimal, 16).ok(),
        None if word.starts_with('0') && word.len() > 1 => u8::from_str_radix(word, 8).ok(),
        None => word.parse().ok(),
    };
    let named =
        |name: &str| QUALITIES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(known, _)| *known);
    let shown = match number {
        Some(number) => match QUALITIES.iter().find(|(_, value)| *value == number) {
            Some((name, _)) => *name,
            None => return Some(format!("0x{number:02x}")),
        },
        None if is_none(word) => return Some("none".to_owned()),
        None => named(word)?,
    };
    let is_old = ["lowdelay", "throughput", "reliability"].contains(&shown);
    let takes_old = build.default_of("ipqos").is_none_or(|default| default.starts_with("lowdelay"));
    Some(if is_old && !takes_old { "none" } else { shown }.to_owned())
}

/// Whether a list of hosts and networks, apart by commas, has no network that cannot be: with host bits set, or a length that its
/// family does not have.
pub(super) fn are_addresses(list: &str) -> bool {
    list.split(',').all(|entry| {
        let entry = entry.strip_prefix('!').unwrap_or(entry);
        !entry.is_empty() && is_address(entry)
    })
}

fn is_address(entry: &str) -> bool {
    let Some((address, length)) = entry.split_once('/') else { return true };
    let (Ok(length), Ok(address)) = (length.parse::<u32>(), address.parse::<IpAddr>()) else { return true };
    let (bits, width) = match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    // A length that no family has makes it the pattern of a name.
    length > 128 || (length <= width && (length == 128 || bits.checked_shl(length).unwrap_or(0) == 0))
}
