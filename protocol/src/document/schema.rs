//! The JSON Schema (draft 2020-12) of the job document, made of the descriptors, their comments and the table of rules: what
//! an editor completes and explains is what the check takes.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::operation::operations;
use super::rules::{self, Rule};
use super::{descriptor, descriptor_in, operation, pool};

/// The schema of the job document. It describes the snake_case names; the camelCase ones of proto3 JSON are taken as well.
#[must_use]
pub fn job_document_schema() -> Value {
    let documented = pool(crate::DESCRIPTORS);
    let mut definitions = Map::new();
    let mut root = message(&descriptor_in(&documented, "guestkit.v1.JobDocument"), true, &mut definitions);
    for known in operations() {
        let payload = descriptor_in(&documented, known.payload_message);
        let name = payload.name().to_owned();
        let schema = message(&payload, !known.open, &mut definitions);
        definitions.insert(name, schema);
    }
    if let Some(payload) = definitions.get_mut("Payload").and_then(Value::as_object_mut) {
        payload.insert("allOf".to_owned(), Value::Array(operations().iter().map(data_of).collect()));
    }
    if let Value::Object(members) = &mut root {
        members.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        members.insert("title".to_owned(), json!("guestkit job document, version 1"));
        members.insert("$defs".to_owned(), Value::Object(definitions));
    }
    root
}

fn data_of(known: &operation::KnownOperation) -> Value {
    let payload = descriptor(known.payload_message);
    json!({
        "if": {"properties": {"type": {"const": known.payload_type}}},
        "then": {"properties": {"data": {"$ref": format!("#/$defs/{}", payload.name())}}}
    })
}

fn message(message: &MessageDescriptor, closed: bool, definitions: &mut Map<String, Value>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in message.fields() {
        let name = if field.json_name().starts_with('$') { field.json_name() } else { field.name() };
        if rules::required(field.full_name()) {
            required.push(name.to_owned());
        }
        properties.insert(name.to_owned(), property(&field, definitions));
    }
    let mut schema = json!({"type": "object", "properties": properties});
    if let Value::Object(members) = &mut schema {
        if !required.is_empty() {
            members.insert("required".to_owned(), json!(required));
        }
        if closed {
            members.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
    }
    schema
}

fn property(field: &FieldDescriptor, definitions: &mut Map<String, Value>) -> Value {
    let mut schema = if field.is_map() {
        let values = match field.kind() {
            Kind::Message(entry) => kind(&entry.map_entry_value_field().kind(), definitions),
            _ => json!({}),
        };
        json!({"type": "object", "additionalProperties": values})
    } else if field.is_list() {
        json!({"type": "array", "items": kind(&field.kind(), definitions)})
    } else {
        kind(&field.kind(), definitions)
    };
    if let Value::Object(members) = &mut schema {
        if let Some(comment) = comment(field) {
            members.insert("description".to_owned(), Value::String(comment));
        }
        if let Some(rule) = rules::rule(field.full_name()) {
            bound(rule, members);
        }
    }
    schema
}

fn kind(kind: &Kind, definitions: &mut Map<String, Value>) -> Value {
    match kind {
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Double | Kind::Float => json!({"type": "number"}),
        Kind::String | Kind::Bytes => json!({"type": "string"}),
        Kind::Enum(names) => json!({"enum": names.values().map(|v| v.name().to_owned()).collect::<Vec<_>>()}),
        Kind::Message(inner) => match inner.full_name() {
            "google.protobuf.Timestamp" => json!({"type": "string", "format": "date-time"}),
            "google.protobuf.Duration" => json!({"type": "string"}),
            "google.protobuf.Struct" => json!({"type": "object"}),
            // The only lists of free values are lists of texts.
            "google.protobuf.ListValue" => json!({"type": "array", "items": {"type": "string"}}),
            "google.protobuf.Value" => json!({}),
            _ => {
                if !definitions.contains_key(inner.name()) {
                    // Holds the place, so that a message that contains itself ends.
                    definitions.insert(inner.name().to_owned(), Value::Null);
                    let schema = message(inner, true, definitions);
                    definitions.insert(inner.name().to_owned(), schema);
                }
                json!({"$ref": format!("#/$defs/{}", inner.name())})
            }
        },
        _ => json!({"type": "integer"}),
    }
}

fn bound(rule: Rule, members: &mut Map<String, Value>) {
    let (key, value) = match rule {
        Rule::Range { min, max } => {
            members.insert("minimum".to_owned(), number(min));
            ("maximum", number(max))
        }
        Rule::Words([word]) => ("const", json!(word)),
        Rule::Words(words) => ("enum", json!(words)),
        Rule::Text { bytes_max } => ("maxLength", json!(bytes_max)),
        Rule::Grammar { pattern, .. } => ("pattern", json!(pattern)),
        Rule::List { entries_max, pattern, .. } => {
            members.insert("maxItems".to_owned(), json!(entries_max));
            ("items", json!({"type": "string", "pattern": pattern}))
        }
        Rule::Map { entries_max, key_bytes_max, value_bytes_max } => {
            members.insert("maxProperties".to_owned(), json!(entries_max));
            members.insert("propertyNames".to_owned(), json!({"minLength": 1, "maxLength": key_bytes_max}));
            ("additionalProperties", json!({"type": "string", "maxLength": value_bytes_max}))
        }
    };
    members.insert(key.to_owned(), value);
}

fn number(value: f64) -> Value {
    if value.fract() == 0.0 { json!(value as i64) } else { json!(value) }
}

/// The comment above a field in the proto file.
fn comment(field: &FieldDescriptor) -> Option<String> {
    let file = field.parent_message().parent_file();
    let info = file.file_descriptor_proto().source_code_info.as_ref()?;
    let location = info.location.iter().find(|location| location.path == field.path())?;
    let text = location.leading_comments().split_whitespace().collect::<Vec<_>>().join(" ");
    (!text.is_empty()).then_some(text)
}
