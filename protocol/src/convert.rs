//! Wire to domain and back. From the wire everything is checked and refused with the field's name; to the wire nothing fails.

pub mod failure;
pub mod state;
pub mod time;
pub mod worker;

use guestkit_domain::{JobId, LeaseId, WorkerId};
use serde::{Deserialize as _, Deserializer};

use crate::status::Refusal;

/// The job that a request names.
///
/// # Errors
/// `INVALID_ARGUMENT` when the text cannot be a job's name.
pub fn job_id(text: &str) -> Result<JobId, Refusal> {
    JobId::new(text).map_err(|error| Refusal::of_field("job_id", error.to_string()))
}

/// The worker that a request names.
///
/// # Errors
/// `INVALID_ARGUMENT` when the text cannot be a worker's name.
pub fn worker_id(text: &str) -> Result<WorkerId, Refusal> {
    WorkerId::new(text).map_err(|error| Refusal::of_field("worker_id", error.to_string()))
}

/// The lease that a message is about.
///
/// # Errors
/// `INVALID_ARGUMENT` for 0, which is never minted.
pub fn lease_id(value: u64) -> Result<LeaseId, Refusal> {
    match value {
        0 => Err(Refusal::of_field("lease_id", "required")),
        value => Ok(LeaseId(value)),
    }
}

/// A JSON object as the wire carries it. Numbers become doubles: integers beyond 2^53 lose their last digits.
#[must_use]
pub fn to_struct(members: &serde_json::Map<String, serde_json::Value>) -> prost_types::Struct {
    prost_types::Struct { fields: members.iter().map(|(name, value)| (name.clone(), to_value(value))).collect() }
}

fn to_value(value: &serde_json::Value) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(*value),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => Kind::StringValue(text.clone()),
        serde_json::Value::Array(elements) => {
            Kind::ListValue(prost_types::ListValue { values: elements.iter().map(to_value).collect() })
        }
        serde_json::Value::Object(members) => Kind::StructValue(to_struct(members)),
    };
    prost_types::Value { kind: Some(kind) }
}

/// Deserializes a member of free JSON that is an object.
pub(crate) fn struct_from_json<'de, D: Deserializer<'de>>(from: D) -> Result<Option<prost_types::Struct>, D::Error> {
    let members = Option::<serde_json::Map<String, serde_json::Value>>::deserialize(from)?;
    Ok(members.as_ref().map(to_struct))
}

/// Deserializes a member of free JSON. That it is there and null is told apart from its not being there.
pub(crate) fn value_from_json<'de, D: Deserializer<'de>>(from: D) -> Result<Option<prost_types::Value>, D::Error> {
    Ok(Some(to_value(&serde_json::Value::deserialize(from)?)))
}

/// A JSON object from the wire. A number that is whole is printed without a fraction, as it was written.
#[must_use]
pub fn from_struct(object: &prost_types::Struct) -> serde_json::Value {
    serde_json::Value::Object(object.fields.iter().map(|(name, value)| (name.clone(), from_value(value))).collect())
}

fn from_value(value: &prost_types::Value) -> serde_json::Value {
    use prost_types::value::Kind;
    match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(value)) => serde_json::Value::Bool(*value),
        Some(Kind::NumberValue(number)) => free_number(*number),
        Some(Kind::StringValue(text)) => serde_json::Value::String(text.clone()),
        Some(Kind::ListValue(list)) => serde_json::Value::Array(list.values.iter().map(from_value).collect()),
        Some(Kind::StructValue(object)) => from_struct(object),
    }
}

/// A number of free JSON, which is a double on the wire: whole where it can be, a text where JSON has no such number.
pub(crate) fn free_number(number: f64) -> serde_json::Value {
    // 2^53: every whole double up to here is one integer.
    if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 {
        return serde_json::Value::Number((number as i64).into());
    }
    double(number)
}

/// A double, with the texts of proto3 JSON for what JSON cannot write.
pub(crate) fn double(number: f64) -> serde_json::Value {
    match serde_json::Number::from_f64(number) {
        Some(number) => serde_json::Value::Number(number),
        None if number.is_nan() => serde_json::Value::String("NaN".to_owned()),
        None if number.is_sign_positive() => serde_json::Value::String("Infinity".to_owned()),
        None => serde_json::Value::String("-Infinity".to_owned()),
    }
}
