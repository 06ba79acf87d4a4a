//! Remote control: requests to nodes and their replies (spec 7).
//!
//! Owns what kombu's mailbox puts into a message. Which node a request is for, and what a node
//! answers, is decided above. Unknown fields of a request survive.

use bytes::Bytes;

use crate::error::{FieldError, ParseError};
use crate::field::{self, EMPTY_MAP};
use crate::json::{Map, Value};
use crate::message::{
    CONTENT_ENCODING_UTF8, CONTENT_TYPE_JSON, DeliveryInfo, Headers, Message, Properties,
};

/// The fanout exchange of requests (celery 5.7.0 setting `control_exchange`, `celery` + `.pidbox`).
pub const CONTROL_EXCHANGE: &str = "celery.pidbox";

/// The direct exchange of replies (kombu 5.7.0 pidbox.py `reply_exchange_fmt`).
pub const REPLY_EXCHANGE: &str = "reply.celery.pidbox";

/// Where a reply goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReplyTo {
    /// The exchange: [`REPLY_EXCHANGE`].
    pub exchange: String,
    /// The routing key: the id of the asker's inbox.
    pub routing_key: String,
}

impl ReplyTo {
    /// The inbox with this id.
    pub fn inbox(id: &str) -> Self {
        Self { exchange: REPLY_EXCHANGE.to_owned(), routing_key: id.to_owned() }
    }

    /// The name of the inbox's queue (kombu 5.7.0 pidbox.py `get_reply_queue`).
    pub fn queue(&self) -> String {
        format!("{}.{}", self.routing_key, self.exchange)
    }
}

/// A request to nodes: a raw ordered map with typed readers, and its two headers.
///
/// kombu 5.7.0 pidbox.py `Mailbox._publish`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ControlRequest {
    /// The asker's Lamport clock (spec 6.5).
    pub clock: u64,
    /// When the asker stops waiting, in seconds since 1970; 0 for never. Nodes do not check it.
    pub expires: f64,
    body: Map,
}

impl ControlRequest {
    /// A request to every node, that wants no reply.
    pub fn new(method: &str, arguments: Map) -> Self {
        let body = Map::from([
            ("method", Value::from(method)),
            ("arguments", Value::Object(arguments)),
            ("destination", Value::Null),
            ("pattern", Value::Null),
            ("matcher", Value::Null),
        ]);
        Self { clock: 0, expires: 0.0, body }
    }

    /// Sends it to these nodes only; none means all.
    #[must_use]
    pub fn to(mut self, nodes: &[String]) -> Self {
        let nodes = nodes.iter().map(String::as_str);
        let list = (nodes.len() > 0).then(|| nodes.collect::<Value>());
        drop(self.body.insert("destination", list.unwrap_or_default()));
        self
    }

    /// Sends it to nodes whose name matches; `matcher` is `glob` or `pcre`.
    #[must_use]
    pub fn matching(mut self, pattern: &str, matcher: &str) -> Self {
        drop(self.body.insert("pattern", pattern));
        drop(self.body.insert("matcher", matcher));
        self
    }

    /// Asks for replies, which carry `ticket`.
    #[must_use]
    pub fn asking(mut self, ticket: &str, to: &ReplyTo) -> Self {
        let reply_to = Map::from([
            ("exchange", to.exchange.as_str()),
            ("routing_key", to.routing_key.as_str()),
        ]);
        drop(self.body.insert("ticket", ticket));
        drop(self.body.insert("reply_to", reply_to));
        self
    }

    /// Returns the raw body.
    pub fn body(&self) -> &Map {
        &self.body
    }

    /// Returns the command.
    pub fn method(&self) -> Option<&str> {
        field::text(&self.body, "method")
    }

    /// Returns the keyword arguments; a missing or odd field is no arguments.
    pub fn arguments(&self) -> &Map {
        self.body.get("arguments").and_then(Value::as_object).unwrap_or(&EMPTY_MAP)
    }

    /// Returns the names of the nodes it is for; empty when it names none.
    ///
    /// A single name may stand without a list.
    pub fn destination(&self) -> Vec<&str> {
        match self.body.get("destination") {
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// Returns the pattern and its matcher, if both are there.
    pub fn pattern(&self) -> Option<(&str, &str)> {
        let text = |name| field::text(&self.body, name).filter(|text| !text.is_empty());
        Some((text("pattern")?, text("matcher")?))
    }

    /// Returns the mark of this request in its replies.
    pub fn ticket(&self) -> Option<&str> {
        field::text(&self.body, "ticket")
    }

    /// Returns where replies go, if any are wanted.
    pub fn reply_to(&self) -> Option<ReplyTo> {
        let to = field::present(&self.body, "reply_to")?;
        let text = |name| to.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(ReplyTo { exchange: text("exchange")?, routing_key: text("routing_key")? })
    }

    /// Reads a message of the control exchange.
    ///
    /// # Errors
    /// The body is no plain JSON object, or has no method.
    pub fn from_message(message: &Message) -> Result<Self, ParseError> {
        let body = body_of(message, "request")?;
        field::required_text(&body, "method")?;
        let expires = message.headers.get("expires").and_then(Value::as_f64).unwrap_or_default();
        Ok(Self { clock: clock_of(message), expires, body })
    }

    /// Makes the message, without the tag that a store gives each publish.
    pub fn to_message(&self) -> Message {
        // Python writes the integer 0 for "never" and a float otherwise.
        let expires = if self.expires == 0.0 { Value::from(0) } else { Value::from(self.expires) };
        let headers = Map::from([("clock", Value::from(self.clock)), ("expires", expires)]);
        message(headers, &self.body, 2, CONTROL_EXCHANGE, "")
    }
}

/// The reply of a node.
///
/// kombu 5.7.0 pidbox.py `Node.dispatch`, `Mailbox._publish_reply`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ControlReply {
    /// The node's Lamport clock.
    pub clock: u64,
    /// The mark of the request.
    pub ticket: Option<String>,
    /// What each node answers by its name; a node answers for itself.
    pub answers: Map,
}

impl ControlReply {
    /// The answer of one node.
    pub fn new(ticket: Option<&str>, node: &str, answer: Value) -> Self {
        Self { clock: 0, ticket: ticket.map(str::to_owned), answers: Map::from([(node, answer)]) }
    }

    /// Reads a message of an inbox.
    ///
    /// # Errors
    /// The body is no plain JSON object.
    pub fn from_message(message: &Message) -> Result<Self, ParseError> {
        let ticket = field::text(message.headers.as_map(), "ticket").map(str::to_owned);
        Ok(Self { clock: clock_of(message), ticket, answers: body_of(message, "reply")? })
    }

    /// Makes the message, without the tag that a store gives each publish.
    pub fn to_message(&self, to: &ReplyTo) -> Message {
        let headers = Map::from([
            ("ticket", Value::from(self.ticket.as_deref())),
            ("clock", Value::from(self.clock)),
        ]);
        message(headers, &self.answers, 1, &to.exchange, &to.routing_key)
    }
}

fn message(headers: Map, body: &Map, mode: u8, exchange: &str, routing_key: &str) -> Message {
    let mut properties = Properties::default();
    let info = DeliveryInfo { exchange: exchange.to_owned(), routing_key: routing_key.to_owned() };
    properties.set_delivery_mode(mode).set_delivery_info(&info).set_priority(0);
    Message {
        headers: Headers::from_map(headers),
        properties,
        content_type: CONTENT_TYPE_JSON.to_owned(),
        content_encoding: CONTENT_ENCODING_UTF8.to_owned(),
        body: Bytes::from(body.to_string()),
    }
}

/// kombu's mailbox takes JSON only unless it is told otherwise (pidbox.py `Mailbox.accept`).
fn body_of(message: &Message, what: &'static str) -> Result<Map, ParseError> {
    if !message.is_plain_json() {
        let found = Value::from(message.content_type.as_str());
        return Err(FieldError::new(what, "a plain application/json body", &found).into());
    }
    field::parse_object(&message.body, what)
}

fn clock_of(message: &Message) -> u64 {
    message.headers.get("clock").and_then(Value::as_u64).unwrap_or_default()
}
