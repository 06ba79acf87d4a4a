//! Named bounds of everything this crate reads or builds.
//!
//! A bound is checked where input enters; printing needs none because nothing deeper than
//! [`JSON_DEPTH_MAX`] can be parsed or serialized.

/// Deepest nesting of arrays and objects a JSON text or serialized value may have.
///
/// Python 3.11 stops at its recursion limit (about 1000); 256 keeps parse, print, compare and
/// drop within a stack of 1 MiB even without optimization (a test holds this).
pub const JSON_DEPTH_MAX: usize = 256;

/// Number of keys above which a [`Map`](crate::json::Map) keeps a hash index.
///
/// Task headers have about 20 keys; a scan of so few beats hashing them.
pub const MAP_SCAN_MAX: usize = 32;

/// Longest headers text, in bytes, that [`Headers::parse`](crate::message::Headers::parse) accepts.
///
/// `RabbitMQ` refuses a header frame above its `frame_max` (131072 by default); this leaves room
/// for large stamps on Redis.
pub const HEADERS_BYTES_MAX: usize = 1024 * 1024;

/// Characters of a value shown in an error message.
pub const FOUND_CHARS_MAX: usize = 60;

/// Length at which an argument text is cut.
///
/// celery 5.7.0 app/amqp.py `argsrepr_maxsize = 1024`.
pub const REPR_CHARS_MAX: usize = 1024;

/// Container levels shown in an argument text.
///
/// celery 5.7.0 setting `task_repr_maxlevels`, default 3.
pub const REPR_LEVELS_MAX: usize = 3;

/// Most bytes that a compressed body may have when it is decompressed, and that the texts of a YAML
/// body may have when its aliases are followed.
pub const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// Most memory that a decompressor may ask for before it writes anything: the window of a stream,
/// in bytes. Python's presets need at most 64 MiB (xz -9); a header can ask for 4 GiB.
pub const WINDOW_BYTES_MAX: u32 = 96 << 20;

/// Most values in a `MessagePack` or YAML body: a value takes 32 bytes of memory, but one byte there.
pub const VALUES_MAX: usize = 4_000_000;

/// Most events accepted in one message.
///
/// celery 5.7.0 flushes its buffer at 24 (`events_buffer_limit` of a worker is far lower in
/// practice); the bound only stops nonsense.
pub const EVENTS_PER_MESSAGE_MAX: usize = 100_000;
