//! Arguments of a script as one `MessagePack` value, which Redis' `cmsgpack` reads.
//!
//! Text and bytes are both raw strings there: Lua has one string type.

/// A `MessagePack` value under construction.
#[derive(Debug, Default)]
pub(super) struct Pack(Vec<u8>);

impl Pack {
    /// Begins a map of `count` entries; a key and a value follow for each.
    pub(super) fn map(&mut self, count: usize) -> &mut Self {
        let _infallible = rmp::encode::write_map_len(&mut self.0, count as u32);
        self
    }

    /// Begins an array of `count` values.
    pub(super) fn array(&mut self, count: usize) -> &mut Self {
        let _infallible = rmp::encode::write_array_len(&mut self.0, count as u32);
        self
    }

    /// A string of any bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let _infallible = rmp::encode::write_str_len(&mut self.0, bytes.len() as u32);
        self.0.extend_from_slice(bytes);
        self
    }

    /// A string.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// A whole number. Lua keeps 53 bits of it.
    pub(super) fn number(&mut self, number: i64) -> &mut Self {
        let _infallible = rmp::encode::write_sint(&mut self.0, number);
        self
    }

    /// A truth value.
    pub(super) fn truth(&mut self, truth: bool) -> &mut Self {
        let _infallible = rmp::encode::write_bool(&mut self.0, truth);
        self
    }

    /// Appends a value that was built elsewhere.
    pub(super) fn value(&mut self, other: &Self) -> &mut Self {
        self.0.extend_from_slice(&other.0);
        self
    }

    /// The finished bytes.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}
