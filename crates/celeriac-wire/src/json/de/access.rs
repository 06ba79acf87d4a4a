//! Walks arrays, objects and enums, and adds the path to errors.

use serde::de::{self, DeserializeSeed, Error as _, IntoDeserializer as _, Visitor};

use super::Deserializer;
use crate::json::{JsonError, Map, Number, Value};

/// The elements of an array.
pub(super) struct ArrayAccess {
    items: std::vec::IntoIter<Value>,
    index: usize,
}

impl ArrayAccess {
    pub(super) fn new(items: Vec<Value>) -> Self {
        Self { items: items.into_iter(), index: 0 }
    }

    pub(super) fn visit<'de, V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, JsonError> {
        let length = self.items.len();
        let value = visitor.visit_seq(&mut self)?;
        if self.items.len() == 0 {
            Ok(value)
        } else {
            let expected = format!("an array of {} elements", self.index);
            Err(JsonError::mismatch(expected, format!("an array of {length}")))
        }
    }
}

impl<'de> de::SeqAccess<'de> for &mut ArrayAccess {
    type Error = JsonError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, JsonError> {
        let Some(item) = self.items.next() else {
            return Ok(None);
        };
        let index = self.index;
        self.index += 1;
        seed.deserialize(Deserializer::new(item)).map(Some).map_err(|error| error.at_index(index))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// The entries of an object.
pub(super) struct ObjectAccess {
    entries: std::vec::IntoIter<(String, Value)>,
    next: Option<(String, Value)>,
}

impl ObjectAccess {
    pub(super) fn new(map: Map) -> Self {
        Self { entries: map.into_iter(), next: None }
    }

    pub(super) fn visit<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_map(self)
    }
}

impl<'de> de::MapAccess<'de> for ObjectAccess {
    type Error = JsonError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, JsonError> {
        let Some((key, value)) = self.entries.next() else {
            return Ok(None);
        };
        let read = seed.deserialize(KeyDeserializer(key.clone())).map(Some);
        self.next = Some((key, value));
        read
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, JsonError> {
        let (key, value) = self.next.take().ok_or_else(|| JsonError::invalid("no key was read"))?;
        seed.deserialize(Deserializer::new(value)).map_err(|error| error.at(&key))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

/// A key: text, or what `json.dumps` made of a number, a bool or `None`.
struct KeyDeserializer(String);

impl KeyDeserializer {
    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match Number::parse(&self.0) {
            Some(number) => {
                de::Deserializer::deserialize_any(Deserializer::new(number.into()), visitor)
            }
            None => visitor.visit_string(self.0),
        }
    }
}

macro_rules! number_keys {
    ($($name:ident),*) => {$(
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            self.number(visitor)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for KeyDeserializer {
    type Error = JsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_string(self.0)
    }

    number_keys!(
        deserialize_i8,
        deserialize_i16,
        deserialize_i32,
        deserialize_i64,
        deserialize_i128,
        deserialize_u8,
        deserialize_u16,
        deserialize_u32,
        deserialize_u64,
        deserialize_u128,
        deserialize_f32,
        deserialize_f64
    );

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.0.as_str() {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            _ => visitor.visit_string(self.0),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        if self.0 == "null" { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    serde::forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

/// An enum as `{"Variant": data}`.
pub(super) struct EnumAccess {
    pub(super) variant: String,
    pub(super) value: Value,
}

impl<'de> de::EnumAccess<'de> for EnumAccess {
    type Error = JsonError;
    type Variant = VariantAccess;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, VariantAccess), JsonError> {
        let variant = seed.deserialize(KeyDeserializer(self.variant.clone()))?;
        Ok((variant, VariantAccess { name: self.variant, value: self.value }))
    }
}

/// The data of an enum variant.
pub(super) struct VariantAccess {
    name: String,
    value: Value,
}

impl<'de> de::VariantAccess<'de> for VariantAccess {
    type Error = JsonError;

    fn unit_variant(self) -> Result<(), JsonError> {
        if self.value.is_null() {
            return Ok(());
        }
        Err(JsonError::invalid_type(de::Unexpected::Other(&self.value.describe()), &"null")
            .at(&self.name))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, JsonError> {
        seed.deserialize(Deserializer::new(self.value)).map_err(|error| error.at(&self.name))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, JsonError> {
        de::Deserializer::deserialize_tuple(Deserializer::new(self.value), len, visitor)
            .map_err(|error| error.at(&self.name))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        de::Deserializer::deserialize_struct(Deserializer::new(self.value), "", fields, visitor)
            .map_err(|error| error.at(&self.name))
    }
}
