//! Where a call goes: exact name, glob, regular expression, default; queue, exchange and key.
//!
//! Celery's order (wire specification 1.10): the call's own options, then those of the first matching
//! route, then the default queue. Exchanges are looked at only where the store has them.

use crate::error::StoreError;
use crate::exchange::{Binding, ExchangeKind, check_name};
use crate::pattern::Patterns;
use crate::priority::Level;
use crate::queue::QueueName;
use celeriac_wire::codec::{Compression, Serializer};
use celeriac_wire::{FieldError, Map, Value};
use std::collections::BTreeMap;
use std::fmt;

/// The options of calls that a route may set (a subset of those of `apply_async`).
const ROUTE_OPTIONS: [&str; 9] = [
    "queue",
    "exchange",
    "routing_key",
    "priority",
    "serializer",
    "compression",
    "expires",
    "time_limit",
    "soft_time_limit",
];

/// What calls of matching tasks get unless they say otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Route(Map);

impl Route {
    /// A route to a queue.
    pub fn to(queue: &QueueName) -> Self {
        Self(Map::from([("queue", queue.as_str())]))
    }

    /// A route from options, as a value of Celery's `task_routes` may be.
    ///
    /// # Errors
    /// `Invalid` for an option that routes do not have, or a value that it cannot have.
    pub fn parse(options: Map) -> Result<Self, StoreError> {
        for (name, value) in options.iter() {
            let refuse = |wanted: &str| {
                let found = value.describe();
                StoreError::invalid(format!(
                    "option {name:?} of a route wants {wanted}, not {found}"
                ))
            };
            match name {
                "queue" => drop(QueueName::parse(value.as_str().ok_or_else(|| refuse("a name"))?)?),
                "exchange" | "routing_key" => {
                    check_name(name, value.as_str().ok_or_else(|| refuse("a name"))?)?;
                }
                "serializer" => {
                    let text = value.as_str().ok_or_else(|| refuse("a name"))?;
                    text.parse::<Serializer>().map_err(StoreError::invalid)?;
                }
                "compression" => {
                    let text = value.as_str().ok_or_else(|| refuse("a name"))?;
                    text.parse::<Compression>().map_err(StoreError::invalid)?;
                }
                "priority" if value.as_u64().is_none_or(|number| number > 9) => {
                    return Err(refuse("a number from 0 to 9"));
                }
                "expires" | "time_limit" | "soft_time_limit"
                    if value.as_f64().is_none_or(|seconds| seconds < 0.0) =>
                {
                    return Err(refuse("a number of seconds"));
                }
                known if ROUTE_OPTIONS.contains(&known) => {}
                _ => {
                    return Err(StoreError::invalid(format!("routes have no option {name:?}"))
                        .hint(format!("use {}", ROUTE_OPTIONS.join(", "))));
                }
            }
        }
        Ok(Self(options))
    }

    /// The same with a queue, if it names neither a queue nor an exchange.
    pub fn or_queue(mut self, queue: &QueueName) -> Self {
        if !self.0.contains_key("queue") && !self.0.contains_key("exchange") {
            self.0.insert("queue", queue.as_str());
        }
        self
    }

    /// The queue that it names.
    pub fn queue(&self) -> Option<QueueName> {
        self.0.get("queue").and_then(Value::as_str).and_then(|name| QueueName::parse(name).ok())
    }
}

impl fmt::Display for Route {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (1, Some(queue)) = (self.0.len(), self.queue()) {
            return write!(formatter, "{queue}");
        }
        let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let parts = self.0.iter().map(|(name, value)| format!("{name}={}", shown(value)));
        formatter.write_str(&parts.collect::<Vec<_>>().join(", "))
    }
}

/// An exchange that a message is published to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exchange {
    /// Its name, not empty.
    pub name: String,
    /// How it chooses, as far as it is declared here; direct if not.
    pub kind: ExchangeKind,
    /// The message's routing key.
    pub routing_key: String,
}

/// Where a message is published to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A queue, through the default exchange.
    Queue(QueueName),
    /// An exchange, whose bindings say which queues get it.
    Exchange(Exchange),
}

/// How bodies are written when a call does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// Celery's `task_serializer`.
    pub serializer: Serializer,
    /// Celery's `task_compression`.
    pub compression: Option<Compression>,
}

/// The routing table of an application.
#[derive(Clone, Debug)]
pub struct Router {
    default: QueueName,
    routes: Patterns<Route>,
    declared: BTreeMap<QueueName, Binding>,
    default_level: Option<Level>,
    encoding: Encoding,
    exchanges: bool,
}

impl Router {
    /// A table that sends everything to `default`, on a store without exchanges.
    pub fn new(default: QueueName) -> Self {
        Self {
            default,
            routes: Patterns::default(),
            declared: BTreeMap::new(),
            default_level: None,
            encoding: Encoding::default(),
            exchanges: false,
        }
    }

    /// Adds a route to a queue. `pattern` is an exact task name, a glob (`reports.*`), or a regular
    /// expression between slashes (`/^reports\.(daily|weekly)$/`). Exact names win; patterns are tried
    /// in order.
    ///
    /// # Errors
    /// `Invalid` when the glob or the regular expression does not parse.
    #[expect(clippy::needless_pass_by_value, reason = "callers have just parsed it")]
    pub fn add(&mut self, pattern: &str, queue: QueueName) -> Result<(), StoreError> {
        self.add_route(pattern, Route::to(&queue))
    }

    /// Adds a route with options; the pattern is as in [`Router::add`].
    ///
    /// # Errors
    /// As [`Router::add`].
    pub fn add_route(&mut self, pattern: &str, route: Route) -> Result<(), StoreError> {
        self.routes.add("route", pattern, route)
    }

    /// Declares how a queue takes part in an exchange (an entry of Celery's `task_queues`, or the
    /// default queue with `task_default_exchange`).
    ///
    /// # Errors
    /// `Invalid` for names that no exchange or key can have.
    pub fn declare(&mut self, binding: Binding) -> Result<(), StoreError> {
        check_name("exchange", &binding.exchange)?;
        check_name("routing key", &binding.routing_key)?;
        self.declared.insert(binding.queue.clone(), binding);
        Ok(())
    }

    /// How a queue is bound: as it was declared, or to the exchange of its own name.
    pub fn binding_of(&self, queue: &QueueName) -> Binding {
        self.declared.get(queue).cloned().unwrap_or_else(|| Binding::own(queue))
    }

    /// The queues that were declared with an exchange: what a store with exchanges must bind.
    pub fn bindings(&self) -> impl Iterator<Item = &Binding> {
        self.declared.values()
    }

    /// Says whether the store has exchanges; without them a call to one is refused.
    pub fn allow_exchanges(&mut self, allowed: bool) {
        self.exchanges = allowed;
    }

    /// Gives calls without a priority this level; without it they carry none, like stock messages.
    pub fn set_default_level(&mut self, level: Option<Level>) {
        self.default_level = level;
    }

    /// The level of calls that name none.
    pub fn default_level(&self) -> Option<Level> {
        self.default_level
    }

    /// Says how bodies are written when a call does not.
    pub fn set_encoding(&mut self, encoding: Encoding) {
        self.encoding = encoding;
    }

    /// How bodies are written when a call does not say.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The first matching route, if any.
    pub fn matching(&self, task: &str) -> Option<&Route> {
        self.routes.find(task)
    }

    /// The options of a call: its own that are not null, over those of the route.
    pub fn options_of(&self, task: &str, own: &Map) -> Map {
        let mut options = self.matching(task).map(|route| route.0.clone()).unwrap_or_default();
        for (name, value) in own.iter().filter(|(_, value)| !value.is_null()) {
            options.insert(name, value.clone());
        }
        options
    }

    /// Where a message with these options goes (`app/amqp.py` `send_task_message`, Celery 5.7): a
    /// direct exchange without both an exchange and a key of the call's own is the default exchange.
    ///
    /// # Errors
    /// A name that cannot be, or an exchange on a store that has none.
    pub fn address(&self, options: &Map) -> Result<Address, FieldError> {
        let text = |name: &str| match options.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(other) => Err(FieldError::new(format!("options.{name}"), "a name", other)),
        };
        let (queue, exchange, key) = (text("queue")?, text("exchange")?, text("routing_key")?);
        let queue = match queue {
            Some(name) => Some(parse_queue("options.queue", name)?),
            None if exchange.is_none() => Some(self.default.clone()),
            None => None,
        };
        let name = exchange.unwrap_or_default();
        let declared = queue.as_ref().and_then(|queue| self.declared.get(queue));
        let kind = declared.map_or(ExchangeKind::Direct, |binding| binding.kind);
        match (queue, declared) {
            (Some(queue), _)
                if kind == ExchangeKind::Direct
                    && (name.is_empty() || key.unwrap_or_default().is_empty()) =>
            {
                Ok(Address::Queue(queue))
            }
            (Some(_), Some(declared)) if exchange.is_none() => {
                let key = key.unwrap_or(&declared.routing_key);
                self.exchange(&declared.exchange, declared.kind, key)
            }
            (None, _) if name.is_empty() => {
                parse_queue("options.routing_key", key.unwrap_or_default()).map(Address::Queue)
            }
            _ => {
                let of_name = self.bindings().find(|binding| binding.exchange == name);
                let kind = of_name.map_or(ExchangeKind::Direct, |binding| binding.kind);
                self.exchange(name, kind, key.unwrap_or_default())
            }
        }
    }

    fn exchange(&self, name: &str, kind: ExchangeKind, key: &str) -> Result<Address, FieldError> {
        if check_name("exchange", name).is_err() || check_name("key", key).is_err() {
            let wanted = "a name of at most 255 bytes without control characters";
            return Err(FieldError::new("options.exchange", wanted, &Value::from(name)));
        }
        if !self.exchanges {
            let wanted = "a queue, because this store has no exchanges";
            return Err(FieldError::new("options.exchange", wanted, &Value::from(name)));
        }
        let (name, routing_key) = (name.to_owned(), key.to_owned());
        Ok(Address::Exchange(Exchange { name, kind, routing_key }))
    }

    /// The queue for everything that matches no route.
    pub fn default_queue(&self) -> &QueueName {
        &self.default
    }
}

fn parse_queue(field: &str, name: &str) -> Result<QueueName, FieldError> {
    QueueName::parse(name)
        .map_err(|_| FieldError::new(field, "a valid queue name", &Value::from(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str) -> QueueName {
        QueueName::parse(name).unwrap()
    }

    fn to(name: &str) -> Address {
        Address::Queue(queue(name))
    }

    fn via(name: &str, kind: ExchangeKind, routing_key: &str) -> Address {
        let (name, routing_key) = (name.to_owned(), routing_key.to_owned());
        Address::Exchange(Exchange { name, kind, routing_key })
    }

    fn map(entries: &[(&str, &str)]) -> Map {
        entries.iter().map(|(key, value)| (*key, Value::from(*value))).collect()
    }

    #[test]
    fn exact_beats_pattern_beats_default() {
        // covers: S4-10, S1-39
        let mut router = Router::new(queue("default"));
        router.add("app.collect.*", queue("collect")).unwrap();
        router.add(r"/^app\.(report|etl)\./", queue("heavy")).unwrap();
        router.add("app.collect.urgent", queue("fast")).unwrap();
        for (task, expected) in [
            ("app.collect.rss", "collect"),
            ("app.collect.urgent", "fast"),
            ("app.report.daily", "heavy"),
            ("app.etl.load", "heavy"),
            ("other", "default"),
        ] {
            let options = router.options_of(task, &Map::new());
            assert_eq!(router.address(&options).unwrap(), to(expected), "{task}");
        }
    }

    #[test]
    fn a_broken_pattern_is_refused_with_its_text() {
        let mut router = Router::new(QueueName::celery());
        let error = router.add("/(/", QueueName::celery()).unwrap_err().to_string();
        assert!(error.contains("/(/") && error.contains("regular expression"), "{error}");
        assert!(router.add("a[", QueueName::celery()).unwrap_err().to_string().contains("glob"));
    }

    /// Celery 5.7 `app/routes.py` `Router.route` and `app/amqp.py` `send_task_message`.
    #[test]
    fn queue_exchange_and_key_give_an_address_as_in_celery() {
        let mut router = Router::new(queue("celery"));
        let declare = |router: &mut Router, name: &str, kind, key: &str| {
            let (exchange, routing_key) = (format!("{name}-x"), key.to_owned());
            router.declare(Binding { exchange, kind, routing_key, queue: queue(name) }).unwrap();
        };
        declare(&mut router, "topical", ExchangeKind::Topic, "a.#");
        declare(&mut router, "all", ExchangeKind::Fanout, "");
        declare(&mut router, "plain", ExchangeKind::Direct, "k");
        router.allow_exchanges(true);
        for (options, expected) in [
            (map(&[]), to("celery")),
            (map(&[("queue", "q")]), to("q")),
            // A key alone changes nothing on a direct exchange.
            (map(&[("routing_key", "k")]), to("celery")),
            (map(&[("exchange", ""), ("routing_key", "q")]), to("q")),
            (map(&[("exchange", ""), ("queue", "q")]), to("q")),
            (map(&[("queue", "plain")]), to("plain")),
            (map(&[("queue", "plain"), ("exchange", "e")]), to("plain")),
            (
                map(&[("queue", "plain"), ("exchange", "e"), ("routing_key", "r")]),
                via("e", ExchangeKind::Direct, "r"),
            ),
            (map(&[("queue", "topical")]), via("topical-x", ExchangeKind::Topic, "a.#")),
            (
                map(&[("queue", "topical"), ("routing_key", "a.b")]),
                via("topical-x", ExchangeKind::Topic, "a.b"),
            ),
            (map(&[("queue", "all")]), via("all-x", ExchangeKind::Fanout, "")),
            (
                map(&[("exchange", "topical-x"), ("routing_key", "a.b")]),
                via("topical-x", ExchangeKind::Topic, "a.b"),
            ),
            (map(&[("exchange", "nobody-knows")]), via("nobody-knows", ExchangeKind::Direct, "")),
        ] {
            assert_eq!(router.address(&options).unwrap(), expected, "{options:?}");
        }
        for (options, field) in [
            (map(&[("queue", "celeriac:x")]), "options.queue"),
            (map(&[("exchange", ""), ("routing_key", "")]), "options.routing_key"),
            (map(&[("exchange", "a\u{6}")]), "options.exchange"),
        ] {
            assert_eq!(router.address(&options).unwrap_err().field, field, "{options:?}");
        }
        let default = Binding {
            exchange: "work".to_owned(),
            kind: ExchangeKind::Topic,
            routing_key: "w.default".to_owned(),
            queue: queue("celery"),
        };
        router.declare(default).unwrap();
        let expected = via("work", ExchangeKind::Topic, "w.default");
        assert_eq!(router.address(&Map::new()).unwrap(), expected);
        assert_eq!(router.bindings().count(), 4);
        router.allow_exchanges(false);
        let error = router.address(&map(&[("queue", "all")])).unwrap_err();
        assert!(error.to_string().contains("this store has no exchanges"), "{error}");
    }

    #[test]
    fn a_call_wins_over_its_route() {
        let mut router = Router::new(queue("celery"));
        let route = map(&[("queue", "reports"), ("serializer", "msgpack")]);
        router.add_route("reports.*", Route::parse(route).unwrap()).unwrap();
        let call = Map::from([("queue", Value::Null), ("serializer", Value::from("yaml"))]);
        let options = router.options_of("reports.daily", &call);
        assert_eq!(options, map(&[("queue", "reports"), ("serializer", "yaml")]));
        assert_eq!(router.options_of("other", &call), map(&[("serializer", "yaml")]));
        let error = Route::parse(map(&[("qeue", "x")])).unwrap_err().to_string();
        assert!(error.contains("qeue"), "{error}");
        for bad in [("serializer", "pickle"), ("compression", "rar"), ("queue", "")] {
            assert!(Route::parse(map(&[bad])).is_err(), "{bad:?}");
        }
    }
}
