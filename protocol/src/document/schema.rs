//! The JSON Schemas (draft 2020-12) of the job document and of reports, made of the descriptors, their comments and the table
//! of rules: what an editor completes and explains is what the check takes, and what a report has is what its schema says.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::operation::operations;
use super::rules::{self, Rule};
use super::{descriptor, descriptor_in, operation, pool};

/// Whose words a schema describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    /// A user's: a name that is not known is a mistake.
    Taken,
    /// Ours: what is not `optional` is always there, and later versions add names.
    Printed,
}

/// The messages that were met, by name.
struct Definitions {
    words: Words,
    schemas: Map<String, Value>,
}

impl Definitions {
    fn of(words: Words) -> Self {
        Self { words, schemas: Map::new() }
    }

    /// Completes the schema of a whole document.
    fn publish(self, mut root: Value, title: &str) -> Value {
        if let Value::Object(members) = &mut root {
            members.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
            members.insert("title".to_owned(), json!(title));
            members.insert("$defs".to_owned(), Value::Object(self.schemas));
        }
        root
    }
}

/// The schema of the report of `operation` as JSON and YAML have it; `None` where the operation is not known.
#[must_use]
pub fn report_schema(operation: &str) -> Option<Value> {
    let known = operations().iter().find(|known| known.name == operation)?;
    let mut definitions = Definitions::of(Words::Printed);
    let root = message(&descriptor_in(&pool(crate::DESCRIPTORS), known.report_message), false, &mut definitions);
    Some(definitions.publish(root, &format!("report of {operation}")))
}

/// The schema of the job document. It describes the snake_case names; the camelCase ones of proto3 JSON are taken as well.
#[must_use]
pub fn job_document_schema() -> Value {
    let documented = pool(crate::DESCRIPTORS);
    let mut definitions = Definitions::of(Words::Taken);
    let root = message(&descriptor_in(&documented, "guestkit.v1.JobDocument"), true, &mut definitions);
    for known in operations() {
        let payload = descriptor_in(&documented, known.payload_message);
        let name = payload.name().to_owned();
        let schema = message(&payload, !known.open, &mut definitions);
        definitions.schemas.insert(name, schema);
    }
    if let Some(payload) = definitions.schemas.get_mut("Payload").and_then(Value::as_object_mut) {
        payload.insert("allOf".to_owned(), Value::Array(operations().iter().map(data_of).collect()));
    }
    definitions.publish(root, "guestkit job document, version 1")
}

fn data_of(known: &operation::KnownOperation) -> Value {
    let payload = descriptor(known.payload_message);
    json!({
        "if": {"properties": {"type": {"const": known.payload_type}}},
        "then": {"properties": {"data": {"$ref": format!("#/$defs/{}", payload.name())}}}
    })
}

fn message(message: &MessageDescriptor, closed: bool, definitions: &mut Definitions) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in message.fields() {
        let name = if field.json_name().starts_with('$') { field.json_name() } else { field.name() };
        let is_required = match definitions.words {
            Words::Taken => rules::required(field.full_name()),
            Words::Printed => !field.supports_presence(),
        };
        if is_required {
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

fn property(field: &FieldDescriptor, definitions: &mut Definitions) -> Value {
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

fn kind(kind: &Kind, definitions: &mut Definitions) -> Value {
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
                if !definitions.schemas.contains_key(inner.name()) {
                    // Holds the place, so that a message that contains itself ends.
                    definitions.schemas.insert(inner.name().to_owned(), Value::Null);
                    let schema = message(inner, definitions.words == Words::Taken, definitions);
                    definitions.schemas.insert(inner.name().to_owned(), schema);
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
        Rule::Choice(words) => {
            members.insert("uniqueItems".to_owned(), Value::Bool(true));
            ("items", json!({"enum": words}))
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
