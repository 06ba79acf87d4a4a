//! The commands of remote control, and which node a request is for. Pure.
//!
//! kombu 5.7.0 pidbox.py `Node.handle_message`, matcher.py (wire specification 7.1): the names of
//! the destination, else the pattern, else everybody.

mod commands;

pub use commands::{Argument, ArgumentKind, COMMANDS, Command};

use celeriac_wire::ControlRequest;
use regex::RegexBuilder;

/// The largest regular expression of a request, compiled, in bytes: whoever may send requests must
/// not be able to fill a worker's memory.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// Whether the node of this name has to handle the request.
///
/// # Errors
/// A sentence, for a matcher that does not exist or a pattern that does not parse: the request is
/// for nobody then.
pub fn is_addressed(request: &ControlRequest, node: &str) -> Result<bool, String> {
    let names = request.destination();
    if !names.is_empty() {
        return Ok(names.contains(&node));
    }
    match request.pattern() {
        None => Ok(true),
        Some((pattern, "glob")) => Ok(glob(pattern, node)),
        Some((pattern, "pcre")) => {
            // Python's re.match begins at the beginning and may end anywhere.
            let regex = RegexBuilder::new(&format!(r"\A(?:{pattern})"))
                .size_limit(REGEX_BYTES_MAX)
                .build()
                .map_err(|error| format!("the pattern {pattern:?} is wrong: {error}"))?;
            Ok(regex.is_match(node))
        }
        Some((_, matcher)) => Err(format!("there is no matcher {matcher:?}; use glob or pcre")),
    }
}

/// Python's `fnmatch.fnmatchcase`: `*`, `?`, `[seq]` and `[!seq]`, nothing else is special.
fn glob(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // The place after the latest star, and where its match ends: a step back is only ever to it.
    let (mut at, mut pos, mut star) = (0, 0, None);
    while pos < text.len() {
        match pattern.get(at) {
            Some('*') => {
                at += 1;
                star = Some((at, pos));
                continue;
            }
            Some(&token) => {
                if let Some(next) = step(&pattern, at, token, text[pos]) {
                    (at, pos) = (next, pos + 1);
                    continue;
                }
            }
            None => {}
        }
        let Some((after, end)) = star else { return false };
        star = Some((after, end + 1));
        (at, pos) = (after, end + 1);
    }
    pattern[at..].iter().all(|token| *token == '*')
}

/// The place after the token at `at` if it matches the letter.
fn step(pattern: &[char], at: usize, token: char, letter: char) -> Option<usize> {
    match token {
        '?' => Some(at + 1),
        '[' => match set(pattern, at) {
            Some((inside, negated, next)) => (contains(inside, letter) != negated).then_some(next),
            // Without its end a bracket is a letter.
            None => (letter == '[').then_some(at + 1),
        },
        _ => (token == letter).then_some(at + 1),
    }
}

/// What is between the brackets that begin at `at`, whether it is negated, and the place after.
fn set(pattern: &[char], at: usize) -> Option<(&[char], bool, usize)> {
    let negated = pattern.get(at + 1) == Some(&'!');
    let start = at + 1 + usize::from(negated);
    // A bracket right at the beginning is one of the letters.
    let end = (start + 1..pattern.len()).find(|place| pattern[*place] == ']')?;
    Some((&pattern[start..end], negated, end + 1))
}

fn contains(set: &[char], letter: char) -> bool {
    let mut at = 0;
    while let Some(&first) = set.get(at) {
        if set.get(at + 1) == Some(&'-')
            && let Some(&last) = set.get(at + 2)
        {
            if (first..=last).contains(&letter) {
                return true;
            }
            at += 3;
        } else if first == letter {
            return true;
        } else {
            at += 1;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use celeriac_wire::Map;

    #[test]
    fn globs_match_as_pythons_fnmatch() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("t*", "two@vm", true),
            ("t*", "ctl@vm", false),
            ("*@vm", "ctl@vm", true),
            ("*@v?", "ctl@vm", true),
            ("*@v?", "ctl@v", false),
            ("[ct]*", "ctl@vm", true),
            ("[!ct]*", "ctl@vm", false),
            ("[a-c]tl@vm", "ctl@vm", true),
            ("w[0-9-]", "w-", true),
            ("[]x]", "]", true),
            ("[", "[", true),
            ("a[b", "a[b", true),
            ("*a*b", "xaxbxab", true),
            ("*a*b", "xaxbxa", false),
            ("{a,b}", "a", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_request_is_for_whom_it_names() {
        let all = || ControlRequest::new("ping", Map::new());
        let names = |names: &[&str]| {
            all().to(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        for (request, expected) in [
            (all(), Ok(true)),
            (names(&["a@b", "w@h"]), Ok(true)),
            (names(&["a@b"]), Ok(false)),
            // The destination goes before the pattern.
            (names(&["w@h"]).matching("nobody", "glob"), Ok(true)),
            (all().matching("w*", "glob"), Ok(true)),
            (all().matching("W*", "glob"), Ok(false)),
            (all().matching("w", "pcre"), Ok(true)),
            (all().matching("@h", "pcre"), Ok(false)),
            (all().matching("x|.*@h$", "pcre"), Ok(true)),
        ] {
            assert_eq!(is_addressed(&request, "w@h"), expected, "{request:?}");
        }
        for (pattern, matcher) in [("(", "pcre"), ("w", "sql"), ("(a{1000}){1000}", "pcre")] {
            assert!(is_addressed(&all().matching(pattern, matcher), "w@h").is_err(), "{pattern}");
        }
    }
}
