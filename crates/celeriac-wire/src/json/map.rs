//! The ordered map of an object.

use std::collections::HashMap;

use super::Value;
use crate::limits::MAP_SCAN_MAX;

/// An object's keys and values in insertion order.
///
/// Setting an existing key keeps its place, as Python's `dict`. Small maps are scanned, larger
/// ones (above [`MAP_SCAN_MAX`] keys) have a hash index, so that hostile input
/// with very many keys stays linear.
#[derive(Clone, Default)]
pub struct Map {
    entries: Vec<(String, Value)>,
    /// Boxed because most maps have none and a `Value` should stay small.
    #[expect(clippy::box_collection, reason = "24 bytes less in every `Value`")]
    index: Option<Box<HashMap<String, usize>>>,
}

impl Map {
    /// Creates an empty map.
    pub const fn new() -> Self {
        Self { entries: Vec::new(), index: None }
    }

    /// Creates an empty map with room for some keys.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { entries: Vec::with_capacity(capacity), index: None }
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn position(&self, key: &str) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(key).copied(),
            None => self.entries.iter().position(|(name, _)| name == key),
        }
    }

    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.position(key).and_then(|at| self.entries.get(at)).map(|(_, value)| value)
    }

    /// Returns the value of a key for changing.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.position(key).and_then(|at| self.entries.get_mut(at)).map(|(_, value)| value)
    }

    /// Returns the value of a key for changing, after inserting `null` if it was absent.
    pub fn get_or_insert_null(&mut self, key: &str) -> &mut Value {
        let at = self.position(key).unwrap_or_else(|| {
            self.push(key.to_owned(), Value::Null);
            self.entries.len() - 1
        });
        &mut self.entries[at].1
    }

    /// Returns whether the key is there, even with the value `null`.
    pub fn contains_key(&self, key: &str) -> bool {
        self.position(key).is_some()
    }

    /// Sets a key and returns its former value; a new key goes to the end.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        let key = key.into();
        let value = value.into();
        if let Some(former) = self.get_mut(&key) {
            return Some(std::mem::replace(former, value));
        }
        self.push(key, value);
        None
    }

    /// Sets a key and returns its former value; a new key goes to the given place, or to the end.
    pub fn insert_at(
        &mut self,
        place: usize,
        key: impl Into<String>,
        value: impl Into<Value>,
    ) -> Option<Value> {
        let key = key.into();
        let value = value.into();
        if let Some(former) = self.get_mut(&key) {
            return Some(std::mem::replace(former, value));
        }
        self.entries.insert(place.min(self.entries.len()), (key, value));
        self.rebuild_index();
        None
    }

    /// Removes a key, keeping the order of the others.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.position(key)?;
        let (_, value) = self.entries.remove(at);
        self.rebuild_index();
        Some(value)
    }

    /// Keeps only the entries for which `keep` is true, in order.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &mut Value) -> bool) {
        self.entries.retain_mut(|(key, value)| keep(key, value));
        self.rebuild_index();
    }

    /// Removes all keys.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.index = None;
    }

    /// Iterates over keys and values in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &Value)> + ExactSizeIterator {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Iterates over keys and changeable values in order.
    pub fn iter_mut(
        &mut self,
    ) -> impl DoubleEndedIterator<Item = (&str, &mut Value)> + ExactSizeIterator {
        self.entries.iter_mut().map(|(key, value)| (key.as_str(), value))
    }

    /// Iterates over the keys in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
        self.entries.iter().map(|(key, _)| key.as_str())
    }

    /// Iterates over the values in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &Value> + ExactSizeIterator {
        self.entries.iter().map(|(_, value)| value)
    }

    fn push(&mut self, key: String, value: Value) {
        if let Some(index) = &mut self.index {
            index.insert(key.clone(), self.entries.len());
        }
        self.entries.push((key, value));
        if self.index.is_none() && self.entries.len() > MAP_SCAN_MAX {
            self.rebuild_index();
        }
    }

    fn rebuild_index(&mut self) {
        self.index = (self.entries.len() > MAP_SCAN_MAX).then(|| {
            let places = self.entries.iter().enumerate().map(|(at, (key, _))| (key.clone(), at));
            Box::new(places.collect())
        });
    }
}

impl std::fmt::Debug for Map {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(key, value)| other.get(key) == Some(value))
    }
}

impl<K: Into<String>, V: Into<Value>> Extend<(K, V)> for Map {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Map {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::new();
        map.extend(entries);
        map
    }
}

impl<K: Into<String>, V: Into<Value>, const N: usize> From<[(K, V); N]> for Map {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl IntoIterator for Map {
    type Item = (String, Value);
    type IntoIter = std::vec::IntoIter<(String, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::{MAP_SCAN_MAX, Map};
    use crate::json::Value;

    #[test]
    fn keeps_order_below_and_above_the_index_bound() {
        for size in [3, MAP_SCAN_MAX, MAP_SCAN_MAX + 1, 3 * MAP_SCAN_MAX] {
            let mut map: Map = (0..size).map(|n| (format!("k{n}"), n)).collect();
            assert_eq!(map.insert("k1", 100), Some(Value::from(1)));
            assert_eq!(map.remove("k0"), Some(Value::from(0)));
            assert_eq!(map.remove("k0"), None);
            map.insert("k0", Value::Null);
            assert_eq!(map.insert_at(1, "new", true), None);
            let keys: Vec<&str> = map.keys().collect();
            assert_eq!(&keys[..3], ["k1", "new", "k2"]);
            assert_eq!(keys.last(), Some(&"k0"));
            assert_eq!(map.get("k2"), Some(&Value::from(2)));
            assert!(map.contains_key("k0"));
            map.retain(|key, _| key == "new");
            assert_eq!(map.len(), 1);
            assert_eq!(map.get("k2"), None);
        }
    }

    #[test]
    fn equality_ignores_order() {
        let one = Map::from([("a", 1), ("b", 2)]);
        let two = Map::from([("b", 2), ("a", 1)]);
        assert_eq!(one, two);
        assert_ne!(one, Map::from([("a", 1), ("c", 2)]));
    }
}
