//! From Rust types to values.

mod key;
mod number;

use serde::ser::{self, Serialize};

use self::key::KeySerializer;
use super::{JsonError, Map, Number, Special, Value};
use crate::limits::JSON_DEPTH_MAX;

/// Marks a newtype struct that carries the exact text of a [`Number`].
pub(super) const NUMBER_TOKEN: &str = "$celeriac::Number";

/// A serde serializer whose output is a [`Value`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Serializer {
    depth: usize,
}

impl Serializer {
    /// Creates a serializer at the top level.
    pub const fn new() -> Self {
        Self { depth: 0 }
    }

    fn deeper(self) -> Result<Self, JsonError> {
        if self.depth == JSON_DEPTH_MAX {
            return Err(JsonError::invalid("arrays and objects are nested too deep"));
        }
        Ok(Self { depth: self.depth + 1 })
    }

    fn array(self, wrap: Option<&'static str>) -> Result<ArraySerializer, JsonError> {
        Ok(ArraySerializer { inner: self.inside(wrap)?, items: Vec::new(), wrap })
    }

    fn object(self, wrap: Option<&'static str>) -> Result<ObjectSerializer, JsonError> {
        Ok(ObjectSerializer { inner: self.inside(wrap)?, map: Map::new(), key: None, wrap })
    }

    /// An enum variant with data is one level for its name and one for its data.
    fn inside(self, wrap: Option<&'static str>) -> Result<Self, JsonError> {
        let inner = self.deeper()?;
        if wrap.is_some() { inner.deeper() } else { Ok(inner) }
    }
}

fn wrapped(wrap: Option<&'static str>, value: Value) -> Value {
    match wrap {
        Some(variant) => Value::Object(Map::from([(variant, value)])),
        None => value,
    }
}

macro_rules! numbers {
    ($($name:ident: $type:ty),*) => {$(
        fn $name(self, number: $type) -> Result<Value, JsonError> {
            Ok(Value::from(number))
        }
    )*};
}

impl ser::Serializer for Serializer {
    type Ok = Value;
    type Error = JsonError;
    type SerializeSeq = ArraySerializer;
    type SerializeTuple = ArraySerializer;
    type SerializeTupleStruct = ArraySerializer;
    type SerializeTupleVariant = ArraySerializer;
    type SerializeMap = ObjectSerializer;
    type SerializeStruct = ObjectSerializer;
    type SerializeStructVariant = ObjectSerializer;

    numbers!(
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32,
        serialize_u64: u64, serialize_u128: u128, serialize_f32: f32, serialize_f64: f64
    );

    fn serialize_bool(self, flag: bool) -> Result<Value, JsonError> {
        Ok(Value::Bool(flag))
    }

    fn serialize_char(self, c: char) -> Result<Value, JsonError> {
        Ok(Value::String(c.to_string()))
    }

    fn serialize_str(self, text: &str) -> Result<Value, JsonError> {
        Ok(Value::from(text))
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Value, JsonError> {
        Ok(Special::Bytes(bytes.to_vec()).to_value())
    }

    fn serialize_none(self) -> Result<Value, JsonError> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, JsonError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Value, JsonError> {
        Ok(Value::Null)
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<Value, JsonError> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<Value, JsonError> {
        Ok(Value::from(variant))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Value, JsonError> {
        if name == NUMBER_TOKEN {
            return value.serialize(number::NumberTextSerializer);
        }
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, JsonError> {
        let value = value.serialize(self.deeper()?).map_err(|error| error.at(variant))?;
        Ok(wrapped(Some(variant), value))
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<ArraySerializer, JsonError> {
        self.array(None)
    }

    fn serialize_tuple(self, _len: usize) -> Result<ArraySerializer, JsonError> {
        self.array(None)
    }

    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        _len: usize,
    ) -> Result<ArraySerializer, JsonError> {
        self.array(None)
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<ArraySerializer, JsonError> {
        self.array(Some(variant))
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<ObjectSerializer, JsonError> {
        self.object(None)
    }

    fn serialize_struct(
        self,
        _name: &'static str,
        _len: usize,
    ) -> Result<ObjectSerializer, JsonError> {
        self.object(None)
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<ObjectSerializer, JsonError> {
        self.object(Some(variant))
    }
}

/// Collects the elements of an array.
#[derive(Debug)]
pub struct ArraySerializer {
    inner: Serializer,
    items: Vec<Value>,
    wrap: Option<&'static str>,
}

impl ArraySerializer {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
        let index = self.items.len();
        let value = value.serialize(self.inner).map_err(|error| error.at_index(index))?;
        self.items.push(value);
        Ok(())
    }

    fn finish(self) -> Value {
        wrapped(self.wrap, Value::Array(self.items))
    }
}

macro_rules! array_serializer {
    ($($role:ident, $push:ident;)*) => {$(
        impl ser::$role for ArraySerializer {
            type Ok = Value;
            type Error = JsonError;

            fn $push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
                self.push(value)
            }

            fn end(self) -> Result<Value, JsonError> {
                Ok(self.finish())
            }
        }
    )*};
}
array_serializer! {
    SerializeSeq, serialize_element;
    SerializeTuple, serialize_element;
    SerializeTupleStruct, serialize_field;
    SerializeTupleVariant, serialize_field;
}

/// Collects the entries of an object.
#[derive(Debug)]
pub struct ObjectSerializer {
    inner: Serializer,
    map: Map,
    key: Option<String>,
    wrap: Option<&'static str>,
}

impl ObjectSerializer {
    fn set<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), JsonError> {
        let value = value.serialize(self.inner).map_err(|error| error.at(key))?;
        self.map.insert(key, value);
        Ok(())
    }

    fn finish(self) -> Value {
        wrapped(self.wrap, Value::Object(self.map))
    }
}

impl ser::SerializeMap for ObjectSerializer {
    type Ok = Value;
    type Error = JsonError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), JsonError> {
        self.key = Some(key.serialize(KeySerializer)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
        let key = self.key.take().ok_or_else(|| JsonError::invalid("a value came without key"))?;
        self.set(&key, value)
    }

    fn end(self) -> Result<Value, JsonError> {
        Ok(self.finish())
    }
}

macro_rules! object_serializer {
    ($($role:ident),*) => {$(
        impl ser::$role for ObjectSerializer {
            type Ok = Value;
            type Error = JsonError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), JsonError> {
                self.set(key, value)
            }

            fn end(self) -> Result<Value, JsonError> {
                Ok(self.finish())
            }
        }
    )*};
}
object_serializer!(SerializeStruct, SerializeStructVariant);

impl Serialize for Value {
    /// Exact with [`Serializer`]; other formats get the nearest number they have.
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(flag) => serializer.serialize_bool(*flag),
            Self::Number(number) => number.serialize(serializer),
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(items) => serializer.collect_seq(items),
            Self::Object(map) => map.serialize(serializer),
        }
    }
}

impl Serialize for Map {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl Serialize for Number {
    /// Exact with [`Serializer`]; other formats get an integer or the nearest float.
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(number) = self.as_i64().filter(|number| Self::from(*number) == *self) {
            return serializer.serialize_i64(number);
        }
        if let Some(number) = self.as_u64().filter(|number| Self::from(*number) == *self) {
            return serializer.serialize_u64(number);
        }
        serializer.serialize_newtype_struct(NUMBER_TOKEN, &number::NumberText(self))
    }
}
