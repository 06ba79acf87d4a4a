//! One field of a crontab: text to a set of numbers, as Celery's `crontab_parser` reads it.

use super::ScheduleError;

/// The longest field, in bytes: all sixty minutes one by one need 169.
pub(super) const FIELD_BYTES_MAX: usize = 512;

const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// What a field counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// Celery's name of it.
    pub(super) name: &'static str,
    min: u32,
    max: u32,
    /// Words for its numbers, from `min` on.
    words: &'static [&'static str],
}

pub(super) const MINUTE: Field = Field { name: "minute", min: 0, max: 59, words: &[] };
pub(super) const HOUR: Field = Field { name: "hour", min: 0, max: 23, words: &[] };
pub(super) const DAY_OF_WEEK: Field = Field { name: "day_of_week", min: 0, max: 6, words: &DAYS };
pub(super) const DAY_OF_MONTH: Field = Field { name: "day_of_month", min: 1, max: 31, words: &[] };
pub(super) const MONTH_OF_YEAR: Field =
    Field { name: "month_of_year", min: 1, max: 12, words: &MONTHS };

impl Field {
    /// Reads a field: its text without spaces, and the bit of every number in it
    /// (`celery/schedules.py` 5.7.0 `crontab_parser.parse`).
    pub(super) fn parse(self, text: &str) -> Result<(String, u64), ScheduleError> {
        if text.len() > FIELD_BYTES_MAX {
            let why = format!("is longer than {FIELD_BYTES_MAX} bytes");
            return Err(ScheduleError::new(format!("{} {why}; write ranges", self.name)));
        }
        let mut written = String::with_capacity(text.len());
        let mut set = 0;
        for part in text.split(',') {
            let part = part.trim_matches(|c: char| c.is_ascii_whitespace());
            let bits = self.part(part);
            set |= bits.map_err(|why| self.refuse(text, &why))?;
            if !written.is_empty() {
                written.push(',');
            }
            written.push_str(part);
        }
        Ok((written, set))
    }

    fn refuse(self, text: &str, why: &str) -> ScheduleError {
        ScheduleError::new(format!("{} {text:?}: {why}", self.name))
    }

    /// `*`, `*/n`, `a`, `a-b`, `a-b/n`.
    fn part(self, part: &str) -> Result<u64, String> {
        if part.is_empty() {
            return Err("a part between two commas is empty; write *, 5, 1-5, */10 or 1,15".into());
        }
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let (from, until) = if range == "*" {
            (self.min, self.max)
        } else if let Some((from, until)) = range.split_once('-') {
            if from.is_empty() {
                return Err(format!("{part:?} is negative; {}", self.numbers()));
            }
            (self.number(from)?, self.number(until)?)
        } else {
            let number = self.number(range)?;
            if step.is_some() {
                let max = self.max;
                return Err(format!("only a range has steps; write {range}-{max}/n or */n"));
            }
            (number, number)
        };
        Ok(self.steps(from, until, self.step(step)?))
    }

    fn step(self, step: Option<&str>) -> Result<u32, String> {
        let Some(step) = step else { return Ok(1) };
        match decimal(step) {
            // More than the whole field is the same as all of it.
            Some(step) if step > 0 => Ok(step.min(self.max + 1)),
            _ => Err(format!("{step:?} is no step; write a number from 1 on, such as */5")),
        }
    }

    /// Every `step`th number from `from` to `until`; a range whose end is smaller goes on at the start.
    fn steps(self, from: u32, until: u32, step: u32) -> u64 {
        let count = self.max - self.min + 1;
        let length = (until + count - from) % count;
        let taken = (0..=length).step_by(step as usize);
        taken.fold(0, |set, ahead| set | 1 << ((from - self.min + ahead) % count + self.min))
    }

    fn number(self, text: &str) -> Result<u32, String> {
        if let Some(number) = decimal(text) {
            if (self.min..=self.max).contains(&number) {
                return Ok(number);
            }
            let hint = if self == DAY_OF_WEEK && number == 7 { "; 0 is Sunday" } else { "" };
            return Err(format!("{number} is out of range; {}{hint}", self.numbers()));
        }
        // As Celery: the first three letters count (celery/utils/time.py 5.7.0 `weekday`).
        let letters = text.chars().all(|c| c.is_ascii_alphabetic());
        let start = text.get(..3).filter(|_| letters).map(str::to_ascii_lowercase);
        let found = start.and_then(|start| self.words.iter().position(|word| *word == start));
        match found {
            Some(position) => Ok(self.min + position as u32),
            None => Err(format!("{text:?} is not understood; {}", self.numbers())),
        }
    }

    /// What a number of this field looks like.
    fn numbers(self) -> String {
        match self.words {
            [first, .., last] => {
                format!("write {} to {}, or {first} to {last}", self.min, self.max)
            }
            _ => format!("write {} to {}", self.min, self.max),
        }
    }
}

/// A number of at most nine digits.
fn decimal(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}
