//! From values to Rust types.

mod access;
mod exact;

use serde::de::{self, Error as _, IntoDeserializer as _, Visitor};

use self::access::{ArrayAccess, EnumAccess, ObjectAccess};
use self::exact::ExactDeserializer;
pub(super) use self::exact::VALUE_TOKEN;
use super::{JsonError, Number, Special, Value};

/// A serde deserializer over a [`Value`].
#[derive(Debug)]
pub struct Deserializer {
    value: Value,
}

impl Deserializer {
    /// Creates a deserializer of the value.
    pub const fn new(value: Value) -> Self {
        Self { value }
    }

    fn float<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.value.as_f64() {
            Some(number) => visitor.visit_f64(number),
            None => self.wrong(&visitor),
        }
    }

    /// Visits an array as a sequence and refuses elements that nobody asked for.
    fn array<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.value {
            Value::Array(items) => ArrayAccess::new(items).visit(visitor),
            other => Self::new(other).wrong(&visitor),
        }
    }

    fn object<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.value {
            Value::Object(map) => ObjectAccess::new(map).visit(visitor),
            other => Self::new(other).wrong(&visitor),
        }
    }

    fn wrong<T>(self, expected: &dyn de::Expected) -> Result<T, JsonError> {
        let error = JsonError::invalid_type(de::Unexpected::Unit, expected);
        Err(match error {
            JsonError::Mismatch { path, expected, .. } => {
                JsonError::Mismatch { path, expected, found: self.value.describe() }
            }
            other => other,
        })
    }
}

/// Visits a number as the narrowest type that holds it.
fn visit_number<'de, V: Visitor<'de>>(number: &Number, visitor: V) -> Result<V::Value, JsonError> {
    if !number.is_integer() {
        return match number.as_f64() {
            Some(float) => visitor.visit_f64(float),
            None => Err(JsonError::mismatch("a number", Value::from(number.clone()).describe())),
        };
    }
    if let Some(integer) = number.as_u64() {
        visitor.visit_u64(integer)
    } else if let Some(integer) = number.as_i64() {
        visitor.visit_i64(integer)
    } else if let Some(integer) = number.as_i128() {
        visitor.visit_i128(integer)
    } else if let Some(integer) = number.as_u128() {
        visitor.visit_u128(integer)
    } else {
        Err(JsonError::mismatch(
            "an integer of at most 128 bits",
            Value::from(number.clone()).describe(),
        ))
    }
}

macro_rules! by_shape {
    ($($name:ident),* => $method:ident) => {$(
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            self.$method(visitor)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Deserializer {
    type Error = JsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(flag) => visitor.visit_bool(flag),
            Value::Number(number) => visit_number(&number, visitor),
            Value::String(text) => visitor.visit_string(text),
            Value::Array(items) => ArrayAccess::new(items).visit(visitor),
            Value::Object(map) => ObjectAccess::new(map).visit(visitor),
        }
    }

    by_shape!(
        deserialize_bool, deserialize_i8, deserialize_i16, deserialize_i32, deserialize_i64,
        deserialize_i128, deserialize_u8, deserialize_u16, deserialize_u32, deserialize_u64,
        deserialize_u128, deserialize_char, deserialize_str, deserialize_string,
        deserialize_unit, deserialize_identifier => deserialize_any
    );
    by_shape!(deserialize_f32, deserialize_f64 => float);
    by_shape!(deserialize_seq => array);
    by_shape!(deserialize_map => object);
    by_shape!(deserialize_byte_buf => deserialize_bytes);

    /// Bytes are a marker object (spec 1.6); text and an array of numbers are accepted too.
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match Special::read(&self.value) {
            Some(Ok(Special::Bytes(bytes))) => visitor.visit_byte_buf(bytes),
            Some(Err(error)) => Err(error),
            _ => match self.value {
                Value::String(text) => visitor.visit_byte_buf(text.into_bytes()),
                Value::Array(items) => ArrayAccess::new(items).visit(visitor),
                other => Self::new(other).wrong(&visitor),
            },
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        if name == VALUE_TOKEN {
            return visitor.visit_newtype_struct(ExactDeserializer(self.value));
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.array(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.array(visitor)
    }

    /// A struct is an object; an array in field order is accepted as serde does.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        match self.value {
            Value::Array(items) => ArrayAccess::new(items).visit(visitor),
            other => Self::new(other).object(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        match self.value {
            Value::String(variant) => visitor.visit_enum(variant.into_deserializer()),
            Value::Object(map) if map.len() == 1 => match map.into_iter().next() {
                Some((variant, value)) => visitor.visit_enum(EnumAccess { variant, value }),
                None => Err(JsonError::invalid("an enum needs one key")),
            },
            other => {
                let found = other.describe();
                Err(JsonError::mismatch("a name or an object with one name as key", found))
            }
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_unit()
    }
}
