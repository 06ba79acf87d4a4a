//! Reads [`Value`] itself through serde without losing the text of numbers.
//!
//! [`Value`] asks for a newtype struct with a private name. Our deserializer answers with one
//! that shows a number as an enum variant named by its text; any other format shows what it has.
//! Serde's own buffering (`flatten`, `untagged`) comes between the two: there `1.50` becomes `1.5`.

use std::fmt;

use serde::de::{self, Deserialize, IntoDeserializer as _, VariantAccess as _, Visitor};

use crate::json::{JsonError, Map, Number, Value};

/// Marks a request for a whole [`Value`].
pub(in crate::json) const VALUE_TOKEN: &str = "$celeriac::Value";

/// Shows numbers by their text.
pub(super) struct ExactDeserializer(pub(super) Value);

impl<'de> de::Deserializer<'de> for ExactDeserializer {
    type Error = JsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.0 {
            Value::Number(number) => {
                visitor.visit_enum(number.as_str().to_owned().into_deserializer())
            }
            other => super::Deserializer::new(other).deserialize_any(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

struct ValueVisitor;

macro_rules! visit_plain {
    ($($name:ident: $type:ty),*) => {$(
        fn $name<E: de::Error>(self, plain: $type) -> Result<Value, E> {
            Ok(Value::from(plain))
        }
    )*};
}

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    visit_plain!(
        visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128,
        visit_f64: f64, visit_f32: f32, visit_str: &str, visit_string: String
    );

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(crate::json::Special::Bytes(bytes.to_vec()).to_value())
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: de::Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        let (text, variant) = access.variant::<String>()?;
        variant.unit_variant()?;
        Number::parse(&text)
            .map(Value::Number)
            .ok_or_else(|| de::Error::custom("an enum is not a value"))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((key, value)) = access.next_entry::<String, Value>()? {
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(VALUE_TOKEN, ValueVisitor)
    }
}

impl<'de> Deserialize<'de> for Map {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Object(map) => Ok(map),
            other => Err(de::Error::custom(format_args!(
                "expected an object, found {}",
                other.describe()
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Number(number) => Ok(number),
            other => Err(de::Error::custom(format_args!(
                "expected a number, found {}",
                other.describe()
            ))),
        }
    }
}
