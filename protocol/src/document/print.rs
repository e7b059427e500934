//! Messages as JSON: proto3 JSON with the fields' own snake_case names and 64-bit integers as numbers. Total: whatever a
//! peer sent has a printed form, also a time outside of the calendar.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use prost_reflect::{DynamicMessage, Kind, MapKey, MessageDescriptor, ReflectMessage as _, Value as Field};
use serde_json::{Map, Value};

use crate::convert::{double, free_number};

/// Which fields are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defaults {
    /// Only fields that are set.
    Left,
    /// Also fields of implicit presence that hold their default, so that `"count": 0` is visible.
    Printed,
}

/// `message` as JSON.
pub(super) fn message(message: &DynamicMessage, defaults: Defaults) -> Value {
    let descriptor = message.descriptor();
    match descriptor.full_name() {
        "google.protobuf.Timestamp" => {
            let timestamp =
                prost_types::Timestamp { seconds: i64_of(message, "seconds"), nanos: i32_of(message, "nanos") };
            Value::String(timestamp_text(&timestamp))
        }
        "google.protobuf.Duration" => {
            let duration =
                prost_types::Duration { seconds: i64_of(message, "seconds"), nanos: i32_of(message, "nanos") };
            Value::String(duration.to_string())
        }
        "google.protobuf.Struct" => member(message, "fields", defaults).unwrap_or_else(|| Value::Object(Map::new())),
        "google.protobuf.ListValue" => member(message, "values", defaults).unwrap_or_else(|| Value::Array(Vec::new())),
        "google.protobuf.Value" => free(message, &descriptor, defaults),
        _ => fields(message, &descriptor, defaults),
    }
}

/// RFC 3339 in UTC; the seconds alone where they are outside of the calendar.
pub(super) fn timestamp_text(timestamp: &prost_types::Timestamp) -> String {
    match jiff::Timestamp::new(timestamp.seconds, timestamp.nanos) {
        Ok(instant) => instant.to_string(),
        Err(_) => format!("{}s", timestamp.seconds),
    }
}

fn fields(message: &DynamicMessage, descriptor: &MessageDescriptor, defaults: Defaults) -> Value {
    let mut map = Map::new();
    for field in descriptor.fields() {
        let shown = message.has_field(&field) || (defaults == Defaults::Printed && !field.supports_presence());
        if shown {
            let name = if field.json_name().starts_with('$') { field.json_name() } else { field.name() };
            map.insert(name.to_owned(), value(message.get_field(&field).as_ref(), &field.kind(), defaults));
        }
    }
    Value::Object(map)
}

fn member(message: &DynamicMessage, name: &str, defaults: Defaults) -> Option<Value> {
    let field = message.descriptor().get_field_by_name(name)?;
    Some(value(message.get_field(&field).as_ref(), &field.kind(), defaults))
}

fn free(message: &DynamicMessage, descriptor: &MessageDescriptor, defaults: Defaults) -> Value {
    let Some(field) = descriptor.fields().find(|field| message.has_field(field)) else {
        return Value::Null;
    };
    match message.get_field(&field).as_ref() {
        Field::EnumNumber(_) => Value::Null,
        // Numbers of free JSON are doubles on the wire; 5 is printed as it was written.
        Field::F64(number) => free_number(*number),
        other => value(other, &field.kind(), defaults),
    }
}

fn value(field: &Field, kind: &Kind, defaults: Defaults) -> Value {
    match field {
        Field::Bool(value) => Value::Bool(*value),
        Field::I32(value) => (*value).into(),
        Field::I64(value) => (*value).into(),
        Field::U32(value) => (*value).into(),
        Field::U64(value) => (*value).into(),
        Field::F32(value) => double(f64::from(*value)),
        Field::F64(value) => double(*value),
        Field::String(value) => Value::String(value.clone()),
        Field::Bytes(bytes) => Value::String(BASE64_STANDARD.encode(bytes)),
        Field::EnumNumber(number) => match kind {
            Kind::Enum(descriptor) => match descriptor.get_value(*number) {
                Some(named) => Value::String(named.name().to_owned()),
                None => (*number).into(),
            },
            _ => (*number).into(),
        },
        Field::Message(inner) => message(inner, defaults),
        Field::List(elements) => Value::Array(elements.iter().map(|e| value(e, kind, defaults)).collect()),
        Field::Map(members) => {
            let inner = match kind {
                Kind::Message(entry) if entry.is_map_entry() => entry.map_entry_value_field().kind(),
                other => other.clone(),
            };
            let sorted: std::collections::BTreeMap<String, Value> =
                members.iter().map(|(name, member)| (key(name), value(member, &inner, defaults))).collect();
            Value::Object(sorted.into_iter().collect())
        }
    }
}

fn key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(value) => value.to_string(),
        MapKey::I32(value) => value.to_string(),
        MapKey::I64(value) => value.to_string(),
        MapKey::U32(value) => value.to_string(),
        MapKey::U64(value) => value.to_string(),
        MapKey::String(value) => value.clone(),
    }
}

fn i64_of(message: &DynamicMessage, name: &str) -> i64 {
    message.get_field_by_name(name).and_then(|value| value.as_i64()).unwrap_or_default()
}

fn i32_of(message: &DynamicMessage, name: &str) -> i32 {
    message.get_field_by_name(name).and_then(|value| value.as_i32()).unwrap_or_default()
}
