//! Map keys become text, as `json.dumps` does with numbers, bools and `None`.

use serde::ser::{self, Impossible, Serialize};

use crate::json::{JsonError, Number};

/// Serializes a map key to text.
pub(super) struct KeySerializer;

fn unexpected() -> JsonError {
    JsonError::invalid("a key of an object must be text, a number, a bool or null")
}

macro_rules! refuse {
    ($($name:ident($($type:ty),*) -> $output:ty;)*) => {$(
        fn $name(self, $(_: $type),*) -> Result<$output, JsonError> {
            Err(unexpected())
        }
    )*};
}

macro_rules! numbers {
    ($($name:ident: $type:ty),*) => {$(
        fn $name(self, number: $type) -> Result<String, JsonError> {
            Ok(Number::from(number).as_str().to_owned())
        }
    )*};
}

impl ser::Serializer for KeySerializer {
    type Ok = String;
    type Error = JsonError;
    type SerializeSeq = Impossible<String, JsonError>;
    type SerializeTuple = Impossible<String, JsonError>;
    type SerializeTupleStruct = Impossible<String, JsonError>;
    type SerializeTupleVariant = Impossible<String, JsonError>;
    type SerializeMap = Impossible<String, JsonError>;
    type SerializeStruct = Impossible<String, JsonError>;
    type SerializeStructVariant = Impossible<String, JsonError>;

    numbers!(
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32,
        serialize_u64: u64, serialize_u128: u128, serialize_f32: f32, serialize_f64: f64
    );

    fn serialize_bool(self, flag: bool) -> Result<String, JsonError> {
        Ok(flag.to_string())
    }

    fn serialize_char(self, c: char) -> Result<String, JsonError> {
        Ok(c.to_string())
    }

    fn serialize_str(self, text: &str) -> Result<String, JsonError> {
        Ok(text.to_owned())
    }

    fn serialize_none(self) -> Result<String, JsonError> {
        Ok("null".to_owned())
    }

    fn serialize_unit(self) -> Result<String, JsonError> {
        Ok("null".to_owned())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<String, JsonError> {
        value.serialize(self)
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<String, JsonError> {
        Ok(variant.to_owned())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<String, JsonError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _value: &T,
    ) -> Result<String, JsonError> {
        Err(unexpected())
    }

    refuse! {
        serialize_bytes(&[u8]) -> String;
        serialize_unit_struct(&'static str) -> String;
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
    }
}
