//! The AMQP properties of a message.

use std::time::Duration;

use crate::error::{FieldError, ParseError};
use crate::field::{self, raw_map};
use crate::json::{Map, Value};

/// Where a message was published to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeliveryInfo {
    /// The exchange; empty is the default exchange.
    pub exchange: String,
    /// The routing key; with the default exchange, the queue.
    pub routing_key: String,
}

/// The properties of a message: a raw ordered map with typed readers (spec 1.3).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties(Map);

raw_map!(Properties);

impl Properties {
    /// Creates the properties Celery always writes, with defaults.
    ///
    /// `reply_to` is empty, which is allowed; `delivery_mode` is 2 (persistent).
    pub fn new(task_id: &str) -> Self {
        Self(Map::from([
            ("correlation_id", Value::from(task_id)),
            ("reply_to", Value::from("")),
            ("delivery_mode", Value::from(2)),
            ("priority", Value::from(0)),
        ]))
    }

    /// Parses a JSON object.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        field::parse_object(bytes, "properties").map(Self)
    }

    /// Prints the properties as a JSON object.
    pub fn to_json(&self) -> String {
        self.0.to_string()
    }

    /// Returns the task id the message belongs to.
    pub fn correlation_id(&self) -> Option<&str> {
        field::text(&self.0, "correlation_id")
    }

    /// Returns the queue for replies; nothing if it is empty.
    pub fn reply_to(&self) -> Option<&str> {
        field::text(&self.0, "reply_to").filter(|queue| !queue.is_empty())
    }

    /// Returns 1 for transient, 2 for persistent.
    pub fn delivery_mode(&self) -> Option<u8> {
        self.0.get("delivery_mode").and_then(Value::as_u64).and_then(|mode| mode.try_into().ok())
    }

    /// Returns the priority, clamped into 0 to 255.
    ///
    /// A float is cut and digits in a string are read, as Python's `int()` does
    /// (kombu 5.7.0 transport/virtual/base.py `_get_message_priority`); anything else is nothing.
    /// Redis clamps further to 0 to 9 when it chooses the list (spec 2.5).
    pub fn priority(&self) -> Option<u8> {
        match self.0.get("priority")? {
            Value::Number(number) => number.as_f64().filter(|number| !number.is_nan()),
            Value::String(text) => text.trim().parse::<i64>().ok().map(|number| number as f64),
            _ => None,
        }
        .map(|number| number.clamp(0.0, 255.0) as u8)
    }

    /// Returns the time to live a publisher gave: a string of whole milliseconds.
    pub fn expiration(&self) -> Result<Option<Duration>, FieldError> {
        let Some(value) = field::present(&self.0, "expiration") else {
            return Ok(None);
        };
        let millis = match value {
            Value::String(text) => text.parse().ok(),
            other => other.as_u64(),
        };
        match millis {
            Some(millis) => Ok(Some(Duration::from_millis(millis))),
            None => Err(FieldError::new("expiration", "whole milliseconds in a string", value)),
        }
    }

    /// Returns where the message was published to.
    pub fn delivery_info(&self) -> DeliveryInfo {
        let info = self.0.get("delivery_info");
        let text = |name| {
            let value = info.and_then(|info| info.get(name)).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        DeliveryInfo { exchange: text("exchange"), routing_key: text("routing_key") }
    }

    /// Returns the tag that names this publish on Redis.
    pub fn delivery_tag(&self) -> Option<&str> {
        field::text(&self.0, "delivery_tag")
    }

    /// Returns how the body stands in a Redis envelope: `base64`, `utf-8` or nothing (spec 2.2).
    pub fn body_encoding(&self) -> Option<&str> {
        field::text(&self.0, "body_encoding")
    }

    /// Sets the task id the message belongs to.
    pub fn set_correlation_id(&mut self, id: &str) -> &mut Self {
        self.insert("correlation_id", id)
    }

    /// Sets the queue for replies.
    pub fn set_reply_to(&mut self, queue: &str) -> &mut Self {
        self.insert("reply_to", queue)
    }

    /// Sets 1 for transient, 2 for persistent.
    pub fn set_delivery_mode(&mut self, mode: u8) -> &mut Self {
        self.insert("delivery_mode", mode)
    }

    /// Sets the priority; 0 is the highest on Redis and the lowest on `RabbitMQ` (spec 0, rule 1).
    pub fn set_priority(&mut self, priority: u8) -> &mut Self {
        self.insert("priority", priority)
    }

    /// Sets or removes the time to live, in whole milliseconds.
    pub fn set_expiration(&mut self, expiration: Option<Duration>) -> &mut Self {
        if let Some(expiration) = expiration {
            return self.insert("expiration", expiration.as_millis().to_string());
        }
        drop(self.0.remove("expiration"));
        self
    }

    /// Sets where the message is published to, keeping unknown fields beside it.
    pub fn set_delivery_info(&mut self, info: &DeliveryInfo) -> &mut Self {
        let mut map = match self.0.get_mut("delivery_info") {
            Some(Value::Object(map)) => std::mem::take(map),
            _ => Map::new(),
        };
        map.insert("exchange", info.exchange.as_str());
        map.insert("routing_key", info.routing_key.as_str());
        self.insert("delivery_info", map)
    }

    /// Sets the tag that names this publish on Redis.
    pub fn set_delivery_tag(&mut self, tag: &str) -> &mut Self {
        self.insert("delivery_tag", tag)
    }

    /// Sets how the body stands in a Redis envelope.
    pub fn set_body_encoding(&mut self, encoding: &str) -> &mut Self {
        self.insert("body_encoding", encoding)
    }
}
