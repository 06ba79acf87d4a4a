//! Sealed payloads: bodies and results that only who has the key can read, or that say who sent them.
//!
//! What a message is for (its headers: name, id, queue, times) stays open; what is sealed is its body, with
//! everything that follows it, and the value that it returns. Stores, monitors and tools that have no key
//! work as before and show that something is sealed.

use crate::store::{ChordDone, Plan, ResultRecord};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use celeriac_wire::{ExceptionInfo, Map, Message, State, Value};
use jiff::Timestamp;
use std::fmt;
use std::sync::Arc;

/// What stands where the arguments of a sealed message would be shown.
pub const HIDDEN: &str = "<sealed>";
/// The member that names the codec of a sealed value.
const SEALED: &str = "celeriac_sealed";
const DATA: &str = "data";
const JSON: &str = "application/json";

/// A body that is not sealed, as a message has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    /// The type of `body`, `application/json`.
    pub content_type: String,
    /// Its encoding, `utf-8`.
    pub content_encoding: String,
    /// Its bytes.
    pub body: Bytes,
    /// What it belongs to: the name of the task that it calls; empty for the value of a result. It is not
    /// part of what is sealed, but a codec can bind to it.
    pub about: String,
}

/// Seals and opens bodies: a serializer in the sense of kombu's registry, around another one.
pub trait PayloadCodec: fmt::Debug + Send + Sync {
    /// The content type of sealed bodies, by which they are known.
    fn content_type(&self) -> &str;

    /// The content encoding of sealed bodies.
    fn content_encoding(&self) -> &'static str {
        "binary"
    }

    /// Whether it hides what it seals: then values of results are sealed too, and texts that show arguments
    /// are left out.
    fn hides(&self) -> bool;

    /// Seals a body; `None` when this codec only opens.
    ///
    /// # Errors
    /// Why it cannot, for people.
    fn seal(&self, plain: &Plain, now: Timestamp) -> Option<Result<Vec<u8>, String>>;

    /// Opens a body.
    ///
    /// # Errors
    /// Why it is not to be trusted or cannot be read, for people: an unknown key, a wrong signature.
    fn open(&self, sealed: &[u8], about: &str, now: Timestamp) -> Result<Plain, String>;
}

/// What was sealed, and by which codec.
type Sealed<'a> = (&'a dyn PayloadCodec, Vec<u8>);

/// The codecs of an application.
#[derive(Clone, Debug, Default)]
pub struct Seals {
    codecs: Vec<Arc<dyn PayloadCodec>>,
    only_sealed: bool,
}

impl Seals {
    /// Adds a codec. The first that seals is used for all that is sent; all of them open.
    pub fn add(&mut self, codec: Arc<dyn PayloadCodec>) {
        self.codecs.push(codec);
    }

    /// Refuses bodies that no codec has sealed.
    pub fn refuse_plain(&mut self) {
        self.only_sealed = true;
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.codecs.is_empty() && !self.only_sealed
    }

    /// Whether what is sealed must not be shown in the clear elsewhere.
    pub fn hide(&self) -> bool {
        self.codecs.iter().any(|codec| codec.hides())
    }

    fn of_type(&self, content_type: &str) -> Option<&Arc<dyn PayloadCodec>> {
        self.codecs.iter().find(|codec| codec.content_type() == content_type)
    }

    /// Opens a message; `false` when it is not sealed.
    ///
    /// # Errors
    /// Why it is not to be trusted or cannot be read; the message stays as it was.
    pub fn open(&self, message: &mut Message, now: Timestamp) -> Result<bool, String> {
        let Some(codec) = self.of_type(&message.content_type) else {
            if self.only_sealed {
                let kind = &message.content_type;
                return Err(format!("bodies that are not sealed are refused here: {kind}"));
            }
            return Ok(false);
        };
        let about = message.headers.task().unwrap_or_default();
        let plain = codec.open(&message.body, about, now)?;
        let Plain { content_type, content_encoding, body, .. } = plain;
        (message.content_type, message.content_encoding) = (content_type, content_encoding);
        message.body = body;
        Ok(true)
    }

    /// Seals a message, unless it is sealed already or no codec here seals.
    ///
    /// # Errors
    /// Why it cannot be sealed; the message stays as it was.
    pub fn seal(&self, message: &mut Message, now: Timestamp) -> Result<(), String> {
        if self.of_type(&message.content_type).is_some() {
            return Ok(());
        }
        let plain = Plain {
            content_type: message.content_type.clone(),
            content_encoding: message.content_encoding.clone(),
            body: message.body.clone(),
            about: message.headers.task().unwrap_or_default().to_owned(),
        };
        let Some((codec, sealed)) = self.sealed(&plain, now, false)? else { return Ok(()) };
        codec.content_type().clone_into(&mut message.content_type);
        codec.content_encoding().clone_into(&mut message.content_encoding);
        message.body = sealed.into();
        if codec.hides() {
            message.headers.insert("argsrepr", HIDDEN).insert("kwargsrepr", HIDDEN);
        }
        Ok(())
    }

    fn sealed(
        &self,
        plain: &Plain,
        now: Timestamp,
        only_hiding: bool,
    ) -> Result<Option<Sealed<'_>>, String> {
        for codec in self.codecs.iter().filter(|codec| codec.hides() || !only_hiding) {
            if let Some(sealed) = codec.seal(plain, now) {
                return Ok(Some((&**codec, sealed?)));
            }
        }
        Ok(None)
    }

    /// Seals everything in a plan that needs it: messages, values of results, values of members of chords.
    ///
    /// # Errors
    /// Why something cannot be sealed; then nothing of the plan may be written.
    pub fn seal_plan(&self, mut plan: Plan, now: Timestamp) -> Result<Plan, String> {
        if self.codecs.is_empty() {
            return Ok(plan);
        }
        for one in &mut plan.publish {
            self.seal(&mut one.message, now)?;
        }
        for one in &mut plan.routed {
            self.seal(&mut one.message, now)?;
        }
        for record in &mut plan.results {
            self.seal_record(record, now)?;
        }
        for part in plan.parts.iter_mut().filter(|part| part.state == State::Success) {
            part.result = self.seal_value(std::mem::take(&mut part.result), now)?;
        }
        Ok(plan)
    }

    /// Seals the value of a success. States, exceptions and progress stay open: they are for operators.
    fn seal_record(&self, record: &mut ResultRecord, now: Timestamp) -> Result<(), String> {
        if record.meta.state() == State::Success {
            let value = self.seal_value(record.meta.result().clone(), now)?;
            let hidden = value.get(SEALED).is_some();
            record.meta.set("result", value);
            // Celery's `result_extended` has them beside it.
            for (name, shown) in
                [("args", record.meta.args().is_some()), ("kwargs", record.meta.kwargs().is_some())]
            {
                if hidden && shown {
                    record.meta.set(name, HIDDEN);
                }
            }
        }
        Ok(())
    }

    fn seal_value(&self, value: Value, now: Timestamp) -> Result<Value, String> {
        let body = Bytes::from(value.to_bytes());
        let (content_type, content_encoding) = (JSON.to_owned(), "utf-8".to_owned());
        let plain = Plain { content_type, content_encoding, body, about: String::new() };
        let Some((codec, sealed)) = self.sealed(&plain, now, true)? else { return Ok(value) };
        let mut map = Map::new();
        map.insert(SEALED, codec.content_type());
        map.insert(DATA, STANDARD.encode(sealed));
        Ok(Value::Object(map))
    }

    /// Opens a value that [`Seals::seal_plan`] has sealed; others stay as they are.
    ///
    /// # Errors
    /// Why it cannot be read: no codec of its type, an unknown key, damage.
    pub fn open_value(&self, value: Value, now: Timestamp) -> Result<Value, String> {
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let (Some(kind), Some(data)) = (text(SEALED), text(DATA)) else { return Ok(value) };
        let codec = self.of_type(kind).ok_or_else(|| {
            format!("it is sealed as {kind}, and this program has no codec for that")
        })?;
        let sealed = STANDARD.decode(data).map_err(|error| error.to_string())?;
        let plain = codec.open(&sealed, "", now)?;
        Value::parse(&plain.body).map_err(|error| error.to_string())
    }

    /// Opens the values of a chord's members. One that cannot be opened has failed.
    pub fn open_parts(&self, done: &ChordDone, now: Timestamp) -> ChordDone {
        let mut done = done.clone();
        for part in done.parts.iter_mut().filter(|part| part.state == State::Success) {
            match self.open_value(std::mem::take(&mut part.result), now) {
                Ok(value) => part.result = value,
                Err(text) => {
                    let exception =
                        ExceptionInfo::new("celery.exceptions", "SecurityError", vec![text.into()]);
                    (part.state, part.result) = (State::Failure, exception.to_value());
                }
            }
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns every byte around: enough to see what is sealed.
    #[derive(Debug)]
    struct Mirror(bool);

    impl PayloadCodec for Mirror {
        fn content_type(&self) -> &'static str {
            "application/x-mirror"
        }
        fn hides(&self) -> bool {
            self.0
        }
        fn seal(&self, plain: &Plain, _now: Timestamp) -> Option<Result<Vec<u8>, String>> {
            Some(Ok(plain.body.iter().map(|byte| !byte).collect()))
        }
        fn open(&self, sealed: &[u8], about: &str, _now: Timestamp) -> Result<Plain, String> {
            if sealed.is_empty() {
                return Err("broken glass".to_owned());
            }
            Ok(Plain {
                content_type: JSON.to_owned(),
                content_encoding: "utf-8".to_owned(),
                body: sealed.iter().map(|byte| !byte).collect(),
                about: about.to_owned(),
            })
        }
    }

    fn seals(hides: bool) -> Seals {
        let mut seals = Seals::default();
        seals.add(Arc::new(Mirror(hides)));
        seals
    }

    fn message() -> Message {
        let mut message = Message::new("t", "id", "[[1], {}, {}]");
        message.headers.insert("argsrepr", "(1,)");
        message
    }

    #[test]
    fn a_message_is_sealed_once_and_opened() {
        for hides in [true, false] {
            let (seals, plain, now) = (seals(hides), message(), Timestamp::UNIX_EPOCH);
            let mut sealed = plain.clone();
            seals.seal(&mut sealed, now).unwrap();
            assert_eq!(sealed.content_type, "application/x-mirror");
            assert_eq!(sealed.headers.argsrepr() == Some(HIDDEN), hides);
            let once = sealed.clone();
            seals.seal(&mut sealed, now).unwrap();
            assert_eq!(sealed, once);
            assert_eq!(seals.open(&mut sealed, now), Ok(true));
            assert_eq!(sealed.body, plain.body);
            assert_eq!(seals.open(&mut sealed, now), Ok(false));
        }
    }

    #[test]
    fn what_is_not_sealed_can_be_refused() {
        let mut seals = seals(true);
        seals.refuse_plain();
        let error = seals.open(&mut message(), Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(error.contains("application/json"), "{error}");
        let mut empty = Message { body: Bytes::new(), ..message() };
        "application/x-mirror".clone_into(&mut empty.content_type);
        let before = empty.clone();
        assert_eq!(seals.open(&mut empty, Timestamp::UNIX_EPOCH), Err("broken glass".to_owned()));
        assert_eq!(empty, before);
    }

    #[test]
    fn values_are_sealed_by_what_hides() {
        let now = Timestamp::UNIX_EPOCH;
        let value = Value::parse(br#"{"a": [1, null]}"#).unwrap();
        let sealed = seals(true).seal_value(value.clone(), now).unwrap();
        assert!(!sealed.to_string().contains('['));
        assert_eq!(seals(true).open_value(sealed.clone(), now), Ok(value.clone()));
        assert!(Seals::default().open_value(sealed, now).unwrap_err().contains("x-mirror"));
        assert_eq!(seals(false).seal_value(value.clone(), now), Ok(value.clone()));
        assert_eq!(seals(true).open_value(value.clone(), now), Ok(value));
    }
}
