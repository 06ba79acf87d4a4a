//! Exchanges as data: which queues receive a message, given the bindings (wire specification 2.3,
//! 2.4).
//!
//! Pure. A store keeps the bindings, in kombu's own form where it shares them with stock workers
//! ([`Binding::member`]), and asks [`receivers`] at each publish.

use crate::error::StoreError;
use crate::queue::QueueName;
use regex::{Regex, RegexBuilder};
use std::fmt;
use std::str::FromStr;

/// The longest name of an exchange, and the longest routing key, in bytes (AMQP's short string).
pub const EXCHANGE_NAME_BYTES_MAX: usize = 255;
/// The most memory that a compiled binding pattern takes, in bytes.
const PATTERN_BYTES_MAX: usize = 256 << 10;
/// What kombu puts between the parts of a member (`kombu/transport/redis.py` 5.7, `sep`).
pub const SEPARATOR: &str = "\u{6}\u{16}";

/// How an exchange chooses queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExchangeKind {
    /// Those bound with exactly the routing key.
    #[default]
    Direct,
    /// Those whose binding key matches word by word: `*` is one word, `#` any text.
    Topic,
    /// All.
    Fanout,
}

impl ExchangeKind {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Topic => "topic",
            Self::Fanout => "fanout",
        }
    }
}

impl fmt::Display for ExchangeKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for ExchangeKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Direct, Self::Topic, Self::Fanout];
        all.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            format!("{text:?} is no exchange type of celeriac; use direct, topic or fanout")
        })
    }
}

/// The name of an exchange or a routing key.
///
/// # Errors
/// `Invalid` for control characters, which separate kombu's fields, and for too long ones.
pub fn check_name(what: &str, name: &str) -> Result<(), StoreError> {
    if name.len() > EXCHANGE_NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(StoreError::invalid(format!(
            "{what} {name:?} is longer than {EXCHANGE_NAME_BYTES_MAX} bytes or has control characters"
        )));
    }
    Ok(())
}

/// A queue that takes part in an exchange.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Binding {
    /// The exchange.
    pub exchange: String,
    /// How it chooses.
    pub kind: ExchangeKind,
    /// What the queue is bound with.
    pub routing_key: String,
    /// The queue.
    pub queue: QueueName,
}

impl Binding {
    /// What a queue has that is declared nowhere: the direct exchange of its own name, and its name as
    /// key (wire specification 1.10).
    pub fn own(queue: &QueueName) -> Self {
        let (exchange, routing_key) = (queue.to_string(), queue.to_string());
        Self { exchange, kind: ExchangeKind::Direct, routing_key, queue: queue.clone() }
    }

    /// The member of `_kombu.binding.<exchange>` that kombu writes for it
    /// (`kombu/transport/virtual/exchange.py` 5.7): routing key, pattern and queue.
    pub fn member(&self) -> String {
        let pattern = match self.kind {
            ExchangeKind::Topic => pattern_of(&self.routing_key),
            ExchangeKind::Direct | ExchangeKind::Fanout => String::new(),
        };
        let key = &self.routing_key;
        format!("{key}{SEPARATOR}{pattern}{SEPARATOR}{}", self.queue)
    }

    /// Reads such a member; `None` for what kombu would not understand either.
    ///
    /// The table does not say what the exchange is: a member with a pattern is of a topic exchange,
    /// one without is of a direct one, unless the exchange is known to be a fanout.
    pub fn of_member(exchange: &str, member: &str, known: Option<ExchangeKind>) -> Option<Self> {
        let mut parts = member.split(SEPARATOR);
        let (key, pattern, queue) = (parts.next()?, parts.next()?, parts.next()?);
        let kind = known.unwrap_or(match pattern {
            "" => ExchangeKind::Direct,
            _ => ExchangeKind::Topic,
        });
        let queue = QueueName::parse(queue).ok().filter(|_| parts.next().is_none())?;
        let (exchange, routing_key) = (exchange.to_owned(), key.to_owned());
        Some(Self { exchange, kind, routing_key, queue })
    }

    /// Whether a message with this routing key goes to the queue.
    pub fn takes(&self, routing_key: &str) -> bool {
        match self.kind {
            ExchangeKind::Direct => self.routing_key == routing_key,
            ExchangeKind::Fanout => true,
            ExchangeKind::Topic => {
                let pattern = compile(&joined(&self.routing_key, escape));
                // Python's `$` also matches before a last line break.
                let line = routing_key.strip_suffix('\n').unwrap_or(routing_key);
                pattern.is_some_and(|pattern| pattern.is_match(line))
            }
        }
    }
}

/// kombu's regular expression of a topic key (`TopicExchange.key_to_pattern`, 5.7).
///
/// Note that `#` stands between two dots like any word: `a.#` takes `a.b` and `a.b.c`, but not `a`.
pub fn pattern_of(routing_key: &str) -> String {
    joined(routing_key, escape_as_kombu)
}

/// The words of a key as one expression.
fn joined(routing_key: &str, escape: fn(&str) -> String) -> String {
    let words: Vec<String> = routing_key
        .split('.')
        .map(|word| match word {
            "*" => r"[^\.]+".to_owned(),
            "#" => ".*?".to_owned(),
            word => escape(word),
        })
        .collect();
    format!("^{}$", words.join(r"\."))
}

/// kombu's `escape_regex(word, ".#*")` (`kombu/utils/text.py` 5.7): everything but letters and digits
/// gets a backslash. `*` and `#` are left alone also inside a word.
fn escape_as_kombu(word: &str) -> String {
    let mut escaped = String::with_capacity(word.len());
    for c in word.chars() {
        if !c.is_alphanumeric() && c != '*' && c != '#' {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// The same for an expression of Rust, which knows a backslash only before signs of ASCII.
fn escape(word: &str) -> String {
    let mut escaped = String::with_capacity(word.len());
    for c in word.chars() {
        if c.is_ascii_punctuation() && c != '*' && c != '#' && c != '<' && c != '>' {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

fn compile(pattern: &str) -> Option<Regex> {
    RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build().ok()
}

/// The queues that receive a message: each once, in the order of the bindings.
pub fn receivers<'a>(
    bindings: impl IntoIterator<Item = &'a Binding>,
    routing_key: &str,
) -> Vec<QueueName> {
    let mut queues: Vec<QueueName> = Vec::new();
    for binding in bindings {
        if !queues.contains(&binding.queue) && binding.takes(routing_key) {
            queues.push(binding.queue.clone());
        }
    }
    queues
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(kind: ExchangeKind, key: &str, queue: &str) -> Binding {
        let (exchange, routing_key) = ("x".to_owned(), key.to_owned());
        Binding { exchange, kind, routing_key, queue: QueueName::parse(queue).unwrap() }
    }

    #[test]
    fn members_are_those_that_kombu_writes() {
        // Captured: task_exchange_topic and task_basic.
        for (binding, member) in [
            (bound(ExchangeKind::Topic, "a.#", "tq"), "a.#\u{6}\u{16}^a\\..*?$\u{6}\u{16}tq"),
            // kombu 5.7 `key_to_pattern`: not Python's `re.escape`.
            (
                bound(ExchangeKind::Topic, "a_b-ä–.*", "q"),
                "a_b-ä–.*\u{6}\u{16}^a\\_b\\-ä\\–\\.[^\\.]+$\u{6}\u{16}q",
            ),
            (bound(ExchangeKind::Direct, "celery", "celery"), "celery\u{6}\u{16}\u{6}\u{16}celery"),
        ] {
            assert_eq!(binding.member(), member);
            assert_eq!(Binding::of_member("x", member, None), Some(binding));
        }
        let own = Binding::own(&QueueName::celery());
        assert_eq!(own.member(), "celery\u{6}\u{16}\u{6}\u{16}celery");
        let fanout = bound(ExchangeKind::Fanout, "", "q");
        let read = Binding::of_member("x", &fanout.member(), Some(ExchangeKind::Fanout));
        assert_eq!(read, Some(fanout));
        for bad in [
            "",
            "a",
            "a\u{6}\u{16}",
            "a\u{6}\u{16}\u{6}\u{16}",
            "\u{6}\u{16}\u{6}\u{16}q\u{6}\u{16}",
        ] {
            assert_eq!(Binding::of_member("x", bad, None), None, "{bad:?}");
        }
    }

    /// Each line was put to kombu 5.7's `TopicExchange` and Python's `re.match`.
    #[test]
    fn topics_match_as_in_kombu() {
        for (key, routing_key, expected) in [
            ("a.#", "a.b", true),
            ("a.#", "a.b.c", true),
            ("a.#", "a", false),
            ("a.#", "a.", true),
            ("#", "", true),
            ("#", "a.b", true),
            ("*", "a", true),
            ("*", "a.b", false),
            ("*", "", false),
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.c", false),
            ("a.#.c", "a.x.y.c", true),
            ("a.#.c", "a.c", false),
            ("a+b", "a+b", true),
            ("a+b", "aab", false),
            ("a-b é", "a-b é", true),
            ("a_b-c.#", "a_b-c.d", true),
            ("a#b", "a#b", true),
            ("a*b", "aab", true),
            ("a*b", "a*b", false),
            ("ä–ö.*", "ä–ö.x", true),
            ("a b.<x>", "a b.<x>", true),
            ("a", "A", false),
        ] {
            let takes = bound(ExchangeKind::Topic, key, "q").takes(routing_key);
            assert_eq!(takes, expected, "{key} and {routing_key}");
        }
    }

    #[test]
    fn a_queue_receives_once_whatever_it_is_bound_with() {
        let bindings = [
            bound(ExchangeKind::Topic, "a.*", "one"),
            bound(ExchangeKind::Topic, "#", "all"),
            bound(ExchangeKind::Topic, "a.#", "one"),
            bound(ExchangeKind::Topic, "b.*", "two"),
        ];
        let names = |queues: Vec<QueueName>| -> Vec<String> {
            queues.iter().map(ToString::to_string).collect()
        };
        assert_eq!(names(receivers(&bindings, "a.x")), ["one", "all"]);
        assert_eq!(names(receivers(&bindings, "c")), ["all"]);
        let fanout =
            [bound(ExchangeKind::Fanout, "", "one"), bound(ExchangeKind::Fanout, "k", "two")];
        assert_eq!(names(receivers(&fanout, "whatever")), ["one", "two"]);
        let direct =
            [bound(ExchangeKind::Direct, "k", "one"), bound(ExchangeKind::Direct, "l", "two")];
        assert_eq!(names(receivers(&direct, "l")), ["two"]);
        assert_eq!(names(receivers(&direct, "m")), Vec::<String>::new());
        assert!(check_name("exchange", "a\u{6}b").is_err() && check_name("exchange", "a").is_ok());
    }
}
