//! Parses the options of `#[task(…)]`.

use proc_macro2::TokenStream;
use quote::quote;
use std::collections::BTreeMap;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Expr, ExprArray, ExprLit, Ident, Lit, Result, Token};

/// Every option, for suggestions.
const NAMES: [&str; 21] = [
    "name",
    "queue",
    "max_retries",
    "backoff",
    "jitter",
    "retry_schedule",
    "retry_delay",
    "soft_time_limit",
    "time_limit",
    "ignore_result",
    "priority",
    "expires",
    "accept_any_result",
    "remote",
    "rate_limit",
    "global_rate_limit",
    "concurrency_limit",
    "key",
    "unique",
    "unique_for",
    "unique_until",
];
/// Options of Celery that are said in another way here.
const ELSEWHERE: [(&str, &str); 8] = [
    ("bind", "take a parameter `cx: Context`"),
    ("autoretry_for", "every error returned with `?` is retried; `TaskError::fail` is not"),
    ("default_retry_delay", "it is `retry_delay = \"3m\"`"),
    ("retry_backoff", "it is `backoff = \"1s..10m\"`"),
    ("retry_backoff_max", "it is the end of `backoff = \"1s..10m\"`"),
    ("retry_jitter", "it is `jitter = false`"),
    ("acks_late", "a message is always settled after its task ended"),
    (
        "serializer",
        "it belongs to a call, `add::call(1, 2).serializer(…)`, or to the setting `task_serializer`",
    ),
];

/// What `#[task(…)]` says.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) name: Option<String>,
    pub(crate) remote: bool,
    /// Calls of `TaskOptions` methods, in order.
    pub(crate) calls: Vec<TokenStream>,
    /// Parameters that options name, with where they do.
    pub(crate) parameters: Vec<(String, Expr)>,
}

/// One option: `name`, or `name = value`.
struct Item {
    name: Ident,
    value: Option<Expr>,
}

impl Parse for Item {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let name = input.parse()?;
        let value = if input.peek(Token![=]) {
            input.parse::<Token![=]>()?;
            Some(ungrouped(input.parse()?))
        } else {
            None
        };
        Ok(Self { name, value })
    }
}

/// An expression without the invisible brackets that `macro_rules!` puts around it.
fn ungrouped(value: Expr) -> Expr {
    match value {
        Expr::Group(group) => ungrouped(*group.expr),
        Expr::Array(mut array) => {
            array.elems = array.elems.into_iter().map(ungrouped).collect();
            Expr::Array(array)
        }
        other => other,
    }
}

/// Options that say the same thing in two ways.
const EXCLUSIVE: [[&str; 2]; 6] = [
    ["backoff", "retry_schedule"],
    ["backoff", "retry_delay"],
    ["retry_schedule", "retry_delay"],
    ["retry_schedule", "max_retries"],
    ["retry_schedule", "jitter"],
    ["retry_delay", "jitter"],
];

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let items = Punctuated::<Item, Token![,]>::parse_terminated(input)?;
        let mut options = Self::default();
        let mut seen = BTreeMap::new();
        let mut limits = (None, None);
        let mut jitter = None;
        for item in items {
            let name = item.name.to_string();
            if seen.insert(name.clone(), item.name.span()).is_some() {
                return Err(Error::new(item.name.span(), format!("`{name}` is given twice")));
            }
            match name.as_str() {
                "soft_time_limit" => limits.0 = Some(duration(&item.value()?)?),
                "time_limit" => limits.1 = Some(duration(&item.value()?)?),
                _ => {}
            }
            // The jitter belongs to the backoff, whichever of them stands first.
            if name == "jitter" {
                jitter = Some(options.call(&item)?);
            } else if let Some(call) = options.call(&item)? {
                options.calls.push(call);
            }
        }
        options.calls.extend(jitter.flatten());
        if let (Some(soft), Some(hard), Some(span)) =
            (limits.0, limits.1, seen.get("soft_time_limit"))
            && soft >= hard
        {
            return Err(Error::new(*span, "`soft_time_limit` must be shorter than `time_limit`"));
        }
        for name in ["unique_for", "unique_until"] {
            if let (Some(span), false) = (seen.get(name), seen.contains_key("unique")) {
                return Err(Error::new(*span, format!("`{name}` needs `unique`")));
            }
        }
        for [one, other] in EXCLUSIVE {
            if let (Some(_), Some(span)) = (seen.get(one), seen.get(other)) {
                return Err(Error::new(*span, format!("`{one}` and `{other}` exclude each other")));
            }
        }
        Ok(options)
    }
}

impl Options {
    /// The method call that an option stands for.
    fn call(&mut self, item: &Item) -> Result<Option<TokenStream>> {
        let name = item.name.to_string();
        Ok(match name.as_str() {
            "name" => {
                self.name = Some(plain_name(&item.value()?)?);
                None
            }
            "remote" => {
                item.flag()?;
                self.remote = true;
                None
            }
            "queue" => {
                let queue = queue_name(&item.value()?)?;
                Some(quote!(.queue(#queue)))
            }
            "max_retries" => Some(max_retries(&item.value()?)?),
            "backoff" => Some(backoff(&item.value()?)?),
            "jitter" => match item.value()? {
                Expr::Lit(ExprLit { lit: Lit::Bool(on), .. }) => Some(quote!(.jitter(#on))),
                other => return Err(Error::new_spanned(other, "expected true or false")),
            },
            "retry_schedule" => Some(schedule(&item.value()?)?),
            "retry_delay" | "soft_time_limit" | "time_limit" | "expires" => {
                let (method, value) = (&item.name, item.value()?);
                let millis = duration(&value)?;
                if millis == 0 && name != "retry_delay" {
                    let text =
                        format!("`{name}` of no time lets nothing run; leave it out for none");
                    return Err(Error::new_spanned(value, text));
                }
                Some(quote!(.#method(::core::time::Duration::from_millis(#millis))))
            }
            "ignore_result" | "accept_any_result" => {
                item.flag()?;
                let method = &item.name;
                Some(quote!(.#method()))
            }
            "priority" => Some(priority(&item.value()?)?),
            "rate_limit" => {
                let [rate] = rates(&item.value()?)?.try_into().map_err(|_| {
                    Error::new(item.name.span(), "`rate_limit` is one rate, e.g. \"10/m\"")
                })?;
                Some(quote!(.rate_limit(#rate)))
            }
            "global_rate_limit" => {
                let rates = rates(&item.value()?)?;
                Some(quote!(.global_rate_limit([#(#rates),*])))
            }
            "concurrency_limit" => {
                let count = count(&item.value()?)?;
                Some(quote!(.concurrency_limit(#count)))
            }
            "key" => {
                let value = item.value()?;
                let parameter = text(&value)?;
                self.parameters.push((parameter.clone(), value));
                Some(quote!(.key(#parameter)))
            }
            "unique" => match &item.value {
                None => Some(quote!(.unique())),
                Some(value) => {
                    let parameter = text(value)?;
                    self.parameters.push((parameter.clone(), value.clone()));
                    Some(quote!(.unique_by(#parameter)))
                }
            },
            "unique_for" => {
                let millis = duration(&item.value()?)?;
                Some(quote!(.unique_for(::core::time::Duration::from_millis(#millis))))
            }
            "unique_until" => {
                let value = item.value()?;
                let until = match text(&value)?.as_str() {
                    "started" => quote!(Started),
                    "finished" => quote!(Finished),
                    _ => return Err(Error::new_spanned(value, "expected started or finished")),
                };
                Some(quote!(.unique_until(::celeriac::Until::#until)))
            }
            _ => return Err(unknown(&item.name)),
        })
    }
}

impl Item {
    fn value(&self) -> Result<Expr> {
        let name = &self.name;
        self.value
            .clone()
            .ok_or_else(|| Error::new(name.span(), format!("`{name}` needs a value: `{name} = …`")))
    }

    fn flag(&self) -> Result<()> {
        match &self.value {
            None => Ok(()),
            Some(value) => {
                Err(Error::new_spanned(value, format!("`{}` takes no value", self.name)))
            }
        }
    }
}

fn unknown(name: &Ident) -> Error {
    let text = name.to_string();
    if let Some((_, advice)) = ELSEWHERE.iter().find(|(known, _)| *known == text) {
        return Error::new(name.span(), format!("unknown option `{text}`; {advice}"));
    }
    let near = NAMES
        .iter()
        .map(|known| (strsim::jaro_winkler(known, &text), *known))
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .filter(|(likeness, _)| *likeness > 0.7);
    let hint = match near {
        Some((_, known)) => format!("did you mean `{known}`?"),
        None => format!("the options are {}", NAMES.join(", ")),
    };
    Error::new(name.span(), format!("unknown option `{text}`; {hint}"))
}

fn text(value: &Expr) -> Result<String> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) if !text.value().is_empty() => {
            Ok(text.value())
        }
        other => Err(Error::new_spanned(other, "expected a text in quotes")),
    }
}

/// A text without control characters, which would break logs and tables.
fn plain_name(value: &Expr) -> Result<String> {
    let name = text(value)?;
    if name.chars().any(char::is_control) {
        return Err(Error::new_spanned(value, "a name has no control characters"));
    }
    Ok(name)
}

/// What `celeriac_core::QueueName` accepts, refused here instead of at the start of the program.
fn queue_name(value: &Expr) -> Result<String> {
    let queue = plain_name(value)?;
    if queue.len() > 255 || queue.starts_with("celeriac:") {
        let text = "a queue's name has at most 255 bytes and does not begin with `celeriac:`";
        return Err(Error::new_spanned(value, text));
    }
    Ok(queue)
}

fn max_retries(value: &Expr) -> Result<TokenStream> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) if text.value() == "forever" => {
            Ok(quote!(.retry_forever()))
        }
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => {
            let number: u32 = number.base10_parse()?;
            Ok(quote!(.max_retries(#number)))
        }
        other => Err(Error::new_spanned(other, "expected a number, or \"forever\"")),
    }
}

fn backoff(value: &Expr) -> Result<TokenStream> {
    let wrong =
        || Error::new_spanned(value, "expected a first delay and a ceiling, e.g. \"2s..10m\"");
    let range = text(value).map_err(|_| wrong())?;
    let (first, max) = range.split_once("..").ok_or_else(wrong)?;
    let (Some(first), Some(max)) = (millis(first), millis(max)) else {
        return Err(wrong());
    };
    if first == 0 || first % 1000 != 0 {
        return Err(Error::new_spanned(
            value,
            "the first delay is a whole number of seconds, at least 1s",
        ));
    }
    if max < first {
        return Err(Error::new_spanned(value, "the ceiling is below the first delay"));
    }
    let factor = u32::try_from(first / 1000).map_err(|_| wrong())?;
    Ok(quote!(.backoff(#factor, ::core::time::Duration::from_millis(#max))))
}

fn schedule(value: &Expr) -> Result<TokenStream> {
    let Expr::Array(ExprArray { elems, .. }) = value else {
        return Err(Error::new_spanned(value, "expected a list of delays, e.g. [\"60s\", \"5m\"]"));
    };
    if elems.is_empty() {
        let text = "an empty schedule is no retry at all: write `max_retries = 0`";
        return Err(Error::new_spanned(value, text));
    }
    let delays = elems.iter().map(duration).collect::<Result<Vec<u64>>>()?;
    Ok(quote!(.retry_schedule(::std::vec![#(::core::time::Duration::from_millis(#delays)),*])))
}

fn priority(value: &Expr) -> Result<TokenStream> {
    let level = match text(value)?.as_str() {
        "critical" => quote!(Critical),
        "high" => quote!(High),
        "normal" => quote!(Normal),
        "low" => quote!(Low),
        _ => {
            return Err(Error::new_spanned(value, "expected critical, high, normal or low"));
        }
    };
    Ok(quote!(.priority(::celeriac::Priority::#level)))
}

fn count(value: &Expr) -> Result<u32> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => match number.base10_parse()? {
            0 => Err(Error::new_spanned(value, "a limit of 0 lets nothing run")),
            number => Ok(number),
        },
        other => Err(Error::new_spanned(other, "expected a number")),
    }
}

/// Rates as `celeriac_core::throttle` reads them, one or several with commas.
fn rates(value: &Expr) -> Result<Vec<TokenStream>> {
    let wrong = || {
        let text = "expected a rate such as \"10/s\", \"100/m\", \"1000/h\" or \"100/m burst\"";
        Error::new_spanned(value, text)
    };
    let texts = text(value).map_err(|_| wrong())?;
    let rate = |one: &str| {
        let one = one.trim();
        let (numbers, burst) = match one.strip_suffix("burst") {
            Some(numbers) => (numbers.trim_end(), true),
            None => (one, false),
        };
        let (count, unit) = numbers.split_once('/')?;
        let count: u32 = count.trim().parse().ok().filter(|count| *count > 0)?;
        let unit = unit.trim();
        let digits = unit.find(|c: char| !c.is_ascii_digit())?;
        let times: u64 = if digits == 0 { 1 } else { unit[..digits].parse().ok()? };
        let seconds = times
            .checked_mul(match &unit[digits..] {
                "s" => 1,
                "m" => 60,
                "h" => 3600,
                "d" => 86_400,
                _ => return None,
            })
            .filter(|seconds| *seconds > 0)?;
        let per = quote!(::core::time::Duration::from_secs(#seconds));
        Some(quote!(::celeriac::Rate { count: #count, per: #per, burst: #burst }))
    };
    texts.split(',').map(|one| rate(one).ok_or_else(wrong)).collect()
}

/// A duration in milliseconds: `"500ms"`, `"10s"`, `"5m"`, `"2h"`, `"1d"`, or whole seconds.
fn duration(value: &Expr) -> Result<u64> {
    let wrong = || {
        Error::new_spanned(
            value,
            "expected a duration such as \"500ms\", \"10s\", \"5m\", \"2h\" or \"1d\"",
        )
    };
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => millis(&text.value()).ok_or_else(wrong),
        Expr::Lit(ExprLit { lit: Lit::Int(seconds), .. }) => {
            seconds.base10_parse::<u64>()?.checked_mul(1000).ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

fn millis(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests;
