//! Walks a JSON value against a message descriptor (proto3 JSON, ProtoJSON chapter of the Protocol Buffers documentation)
//! and reports everything that does not fit, at once. What is left over is sound and can be transcoded: a library that
//! stops at the first problem never meets one.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Number, Value};

use super::path::Path;
use super::problems::Problems;

/// Greatest integer that a `google.protobuf.Struct` (numbers are doubles) holds exactly with all below it: 2^53.
const EXACT_INTEGER_MAX: u64 = 1 << 53;

/// Whether members that the message does not define are problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// They are problems.
    Refused,
    /// They are dropped at the top level: the message knows only some of the members.
    Dropped,
}

/// The members of `value` that fit `descriptor`; everything else is in `problems`.
pub(super) fn message(
    descriptor: &MessageDescriptor,
    value: Value,
    unknown: Unknown,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Option<Value> {
    match descriptor.full_name() {
        "google.protobuf.Timestamp" => timestamp(value, path, problems),
        "google.protobuf.Duration" => expect_text(value, path, problems, "a duration such as \"1.5s\""),
        "google.protobuf.Struct" => match value {
            Value::Object(_) => free(value, path, problems),
            other => mismatch(path, problems, "an object", &other),
        },
        "google.protobuf.ListValue" => match value {
            Value::Array(_) => free(value, path, problems),
            other => mismatch(path, problems, "a list", &other),
        },
        "google.protobuf.Value" => free(value, path, problems),
        _ => match value {
            Value::Object(members) => Some(Value::Object(fields(descriptor, members, unknown, path, problems))),
            other => mismatch(path, problems, "an object", &other),
        },
    }
}

fn fields(
    descriptor: &MessageDescriptor,
    members: Map<String, Value>,
    unknown: Unknown,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Map<String, Value> {
    let mut kept = Map::new();
    let mut chosen: Vec<String> = Vec::new();
    for (name, value) in members {
        let here = path.member(&name);
        let Some(field) = descriptor.get_field_by_name(&name).or_else(|| descriptor.get_field_by_json_name(&name))
        else {
            if unknown == Unknown::Refused && !problems.is_full() {
                problems.add(&here, unknown_field(descriptor, &name));
            }
            continue;
        };
        if value.is_null() && !takes_null(&field) {
            continue;
        }
        if kept.contains_key(field.json_name()) {
            problems.add(&here, format!("given twice, as {} and {}; keep one", field.name(), field.json_name()));
            continue;
        }
        if let Some(oneof) = field.containing_oneof().filter(|oneof| oneof.fields().len() > 1) {
            if chosen.iter().any(|name| name == oneof.name()) {
                problems.add(&here, format!("only one member of {} may be given", oneof.name()));
                continue;
            }
            chosen.push(oneof.name().to_owned());
        }
        if let Some(value) = field_value(&field, value, &here, problems) {
            kept.insert(field.json_name().to_owned(), value);
        }
    }
    kept
}

/// `null` is the absence of a field, except where any JSON value is a value.
fn takes_null(field: &FieldDescriptor) -> bool {
    !field.is_list() && matches!(field.kind(), Kind::Message(m) if m.full_name() == "google.protobuf.Value")
}

fn unknown_field(descriptor: &MessageDescriptor, name: &str) -> String {
    let names: Vec<String> = descriptor.fields().map(|field| field.name().to_owned()).collect();
    match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("unknown field, did you mean {near}?"),
        None => "unknown field".to_owned(),
    }
}

/// The word that was probably meant: at most a third of the letters differ.
pub(super) fn nearest<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Longer words are nobody's typing error, and distance costs the product of the lengths.
    if word.len() > 64 {
        return None;
    }
    words
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.chars().count().div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn field_value(field: &FieldDescriptor, value: Value, path: &Path<'_>, problems: &mut Problems) -> Option<Value> {
    if field.is_map() {
        return map(field, value, path, problems);
    }
    if !field.is_list() {
        return single(&field.kind(), value, path, problems);
    }
    match value {
        Value::Array(elements) => {
            let fitting = elements.into_iter().enumerate();
            Some(Value::Array(
                fitting.filter_map(|(i, element)| single(&field.kind(), element, &path.element(i), problems)).collect(),
            ))
        }
        other => mismatch(path, problems, "a list", &other),
    }
}

fn map(field: &FieldDescriptor, value: Value, path: &Path<'_>, problems: &mut Problems) -> Option<Value> {
    let Kind::Message(entry) = field.kind() else { return None };
    let kind = entry.map_entry_value_field().kind();
    match value {
        Value::Object(members) => {
            let mut kept = Map::new();
            for (name, value) in members {
                if let Some(value) = single(&kind, value, &path.member(&name), problems) {
                    kept.insert(name, value);
                }
            }
            Some(Value::Object(kept))
        }
        other => mismatch(path, problems, "an object", &other),
    }
}

fn single(kind: &Kind, value: Value, path: &Path<'_>, problems: &mut Problems) -> Option<Value> {
    match kind {
        Kind::Message(descriptor) => message(descriptor, value, Unknown::Refused, path, problems),
        Kind::Bool => match value {
            Value::Bool(_) => Some(value),
            other => mismatch(path, problems, "true or false", &other),
        },
        Kind::String => expect_text(value, path, problems, "a text"),
        Kind::Bytes => expect_text(value, path, problems, "bytes as base64"),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            integer(&value, i32::MIN.into(), i32::MAX.into(), path, problems)
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            integer(&value, i64::MIN.into(), i64::MAX.into(), path, problems)
        }
        Kind::Uint32 | Kind::Fixed32 => integer(&value, 0, u32::MAX.into(), path, problems),
        Kind::Uint64 | Kind::Fixed64 => integer(&value, 0, u64::MAX.into(), path, problems),
        Kind::Double | Kind::Float => number(&value, path, problems),
        Kind::Enum(descriptor) => match &value {
            Value::String(name) if descriptor.get_value_by_name(name).is_some() => Some(value),
            other => {
                let names: Vec<String> = descriptor.values().map(|v| v.name().to_owned()).collect();
                mismatch(path, problems, &format!("one of {}", names.join(", ")), other)
            }
        },
    }
}

/// A whole number, also as `5.0` or `"5"`, which proto3 JSON accepts.
fn integer(value: &Value, min: i128, max: i128, path: &Path<'_>, problems: &mut Problems) -> Option<Value> {
    let found = match value {
        Value::Number(number) => whole(number),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let Some(found) = found else {
        return mismatch(path, problems, "a whole number", value);
    };
    if found < min || found > max {
        problems.add(path, format!("must be {min} to {max}, is {found}"));
        return None;
    }
    match (u64::try_from(found), i64::try_from(found)) {
        (Ok(found), _) => Some(found.into()),
        (_, Ok(found)) => Some(found.into()),
        _ => None,
    }
}

fn whole(number: &Number) -> Option<i128> {
    if let Some(unsigned) = number.as_u64() {
        return Some(unsigned.into());
    }
    if let Some(signed) = number.as_i64() {
        return Some(signed.into());
    }
    let double = number.as_f64()?;
    // Beyond 2^53 a double does not name one whole number.
    (double.fract() == 0.0 && double.abs() <= EXACT_INTEGER_MAX as f64).then_some(double as i128)
}

/// A finite number, also as a text. JSON has no NaN; the texts "NaN" and "Infinity" are refused because no field wants them.
fn number(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<Value> {
    let found = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse::<f64>().ok(),
        _ => None,
    };
    match found.and_then(Number::from_f64) {
        Some(number) => Some(Value::Number(number)),
        None => mismatch(path, problems, "a number", value),
    }
}

fn timestamp(value: Value, path: &Path<'_>, problems: &mut Problems) -> Option<Value> {
    let parsed = match &value {
        Value::String(text) => text.parse::<jiff::Timestamp>().ok().filter(|_| text.contains(['T', 't'])),
        _ => None,
    };
    match parsed {
        // In UTC and with its nanoseconds: the one form that every reader of proto3 JSON takes.
        Some(instant) if instant.as_second() >= -62_135_596_800 => Some(Value::String(instant.to_string())),
        _ => mismatch(path, problems, "a time such as \"2026-01-31T08:15:00Z\" (RFC 3339)", &value),
    }
}

fn expect_text(value: Value, path: &Path<'_>, problems: &mut Problems, what: &str) -> Option<Value> {
    match value {
        Value::String(_) => Some(value),
        other => mismatch(path, problems, what, &other),
    }
}

/// Free JSON: anything, as long as it is carried exactly.
fn free(value: Value, path: &Path<'_>, problems: &mut Problems) -> Option<Value> {
    match &value {
        Value::Object(members) => {
            for (name, member) in members {
                free_part(member, &path.member(name), problems);
            }
        }
        other => free_part(other, path, problems),
    }
    Some(value)
}

fn free_part(value: &Value, path: &Path<'_>, problems: &mut Problems) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                free_part(member, &path.member(name), problems);
            }
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                free_part(element, &path.element(index), problems);
            }
        }
        Value::Number(number) => {
            let magnitude = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
            if magnitude.is_some_and(|magnitude| magnitude > EXACT_INTEGER_MAX) {
                problems.add(path, format!("{number} cannot be carried exactly; write it as a text"));
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn mismatch(path: &Path<'_>, problems: &mut Problems, wanted: &str, found: &Value) -> Option<Value> {
    if !problems.is_full() {
        problems.add(path, format!("must be {wanted}, is {}", described(found)));
    }
    None
}

fn described(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("the text {:?}", crate::status::shortened(text, 80)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
