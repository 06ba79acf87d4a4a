//! Carries the exact text of a number through serde.

use serde::ser::{self, Impossible, Serialize};

use crate::json::{JsonError, Number, Value};

/// A number that shows its text only to [`NumberTextSerializer`].
pub(super) struct NumberText<'a>(pub(super) &'a Number);

impl Serialize for NumberText<'_> {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Only NumberTextSerializer is not human readable and of this error type; any other
        // binary format also gets the text, which loses nothing.
        if !serializer.is_human_readable() {
            return serializer.serialize_str(self.0.as_str());
        }
        match self.0.as_f64() {
            Some(number) => serializer.serialize_f64(number),
            None => serializer.serialize_str(self.0.as_str()),
        }
    }
}

/// Takes the text of a [`NumberText`] and nothing else.
pub(super) struct NumberTextSerializer;

fn unexpected() -> JsonError {
    JsonError::invalid("the newtype struct is not a number")
}

macro_rules! refuse {
    ($($name:ident($($type:ty),*) -> $output:ty;)*) => {$(
        fn $name(self, $(_: $type),*) -> Result<$output, JsonError> {
            Err(unexpected())
        }
    )*};
}

impl ser::Serializer for NumberTextSerializer {
    type Ok = Value;
    type Error = JsonError;
    type SerializeSeq = Impossible<Value, JsonError>;
    type SerializeTuple = Impossible<Value, JsonError>;
    type SerializeTupleStruct = Impossible<Value, JsonError>;
    type SerializeTupleVariant = Impossible<Value, JsonError>;
    type SerializeMap = Impossible<Value, JsonError>;
    type SerializeStruct = Impossible<Value, JsonError>;
    type SerializeStructVariant = Impossible<Value, JsonError>;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_str(self, text: &str) -> Result<Value, JsonError> {
        Number::parse(text).map(Value::Number).ok_or_else(unexpected)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _value: &T) -> Result<Value, JsonError> {
        Err(unexpected())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _value: &T,
    ) -> Result<Value, JsonError> {
        Err(unexpected())
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _value: &T,
    ) -> Result<Value, JsonError> {
        Err(unexpected())
    }

    refuse! {
        serialize_bool(bool) -> Value;
        serialize_i8(i8) -> Value;
        serialize_i16(i16) -> Value;
        serialize_i32(i32) -> Value;
        serialize_i64(i64) -> Value;
        serialize_u8(u8) -> Value;
        serialize_u16(u16) -> Value;
        serialize_u32(u32) -> Value;
        serialize_u64(u64) -> Value;
        serialize_f32(f32) -> Value;
        serialize_f64(f64) -> Value;
        serialize_char(char) -> Value;
        serialize_bytes(&[u8]) -> Value;
        serialize_none() -> Value;
        serialize_unit() -> Value;
        serialize_unit_struct(&'static str) -> Value;
        serialize_unit_variant(&'static str, u32, &'static str) -> Value;
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
    }
}
