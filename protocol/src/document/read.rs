//! Strict JSON: every duplicate member is a problem with its path, and nesting is bounded. `serde_json` alone would keep
//! the last of two members and say nothing.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::path::Path;
use super::problems::Problems;

/// Levels of objects and lists. Documents need about eight; free data may go deeper, but not so deep that a reader of
/// the wire form (limit 100, three levels per JSON level) refuses what was accepted here.
pub(super) const DEPTH_MAX: usize = 24;

/// Reads one JSON value that fills `bytes`; duplicates go to `problems`.
pub(super) fn read(bytes: &[u8], problems: &mut Problems) -> Result<Value, serde_json::Error> {
    let seen = RefCell::new(std::mem::take(problems));
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Reader { path: Path::ROOT, depth: 0, problems: &seen }.deserialize(&mut deserializer);
    *problems = seen.into_inner();
    let value = value?;
    deserializer.end()?;
    Ok(value)
}

struct Reader<'p, 'a> {
    path: Path<'p>,
    depth: usize,
    problems: &'a RefCell<Problems>,
}

impl Reader<'_, '_> {
    fn deeper<E: Error>(&self) -> Result<usize, E> {
        match self.depth {
            DEPTH_MAX.. => Err(E::custom(format_args!("nested deeper than {DEPTH_MAX} levels"))),
            depth => Ok(depth + 1),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut list = Vec::new();
        loop {
            let path = self.path.element(list.len());
            match elements.next_element_seed(Reader { path, depth, problems: self.problems })? {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let path = self.path.member(&name);
            let value = members.next_value_seed(Reader { path, depth, problems: self.problems })?;
            if map.contains_key(&name) {
                self.problems.borrow_mut().add(&path, "given twice; keep one");
            } else {
                map.insert(name, value);
            }
        }
        Ok(Value::Object(map))
    }
}
