//! Dates.

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

use super::{Failure, Function, Parameter, ParameterKind, number, text};
use crate::number::Number;
use crate::quote::quote;
use crate::value::{Entries, Value};

mod duration;

const TEXT: ParameterKind = ParameterKind::String;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new(
        "formatdate",
        &[Parameter::string("format"), Parameter::string("time")],
        TEXT,
        |_, values| {
            let moment = parse(text(values, 1)?).map_err(|error| Failure::argument(1, error))?;
            format(text(values, 0)?, moment).map(Value::text)
        },
    ),
    Function::new(
        "formattimestamp",
        &[Parameter::string("format"), Parameter::any("time")],
        TEXT,
        |_, values| format_timestamp(values),
    ),
    Function::new(
        "timeadd",
        &[Parameter::string("timestamp"), Parameter::string("duration")],
        TEXT,
        |_, values| {
            let moment = parse(text(values, 0)?).map_err(Failure::new)?;
            let span = duration::parse(text(values, 1)?).map_err(Failure::new)?;
            let sum =
                moment.checked_add(span).ok_or_else(|| Failure::new("the time is out of range"))?;
            Ok(Value::text(rfc3339(sum)))
        },
    ),
    Function::new("timestamp", &[], TEXT, |surroundings, _| {
        Ok(Value::text(timestamp_text(surroundings.now())))
    }),
    Function::new(
        "unixtimestampparse",
        &[Parameter::number("unix_timestamp")],
        ParameterKind::Any,
        |_, values| Ok(parts(unix(number(values, 0)?)?)),
    ),
];

/// Writes seconds since the beginning of 1970 as a time.
pub(crate) fn timestamp_text(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds).map(rfc3339).unwrap_or_default()
}

/// Makes a time of seconds since the beginning of 1970.
fn unix(seconds: &Number) -> Result<OffsetDateTime, Failure> {
    let seconds = seconds
        .to_i64()
        .ok_or_else(|| Failure::new("unix timestamp must be an integer number of seconds"))?;
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_err(|_| Failure::new("unix timestamp is out of range"))
}

/// Formats a time that is text or a number. The format X is the number of seconds.
fn format_timestamp(values: &[Value]) -> Result<Value, Failure> {
    let pattern = text(values, 0)?;
    let moment = match &values[1] {
        Value::String(written) => parse(written).map_err(|error| {
            if pattern == "X" {
                Failure::argument(1, "timestamp string must be RFC3339")
            } else {
                Failure::argument(1, error)
            }
        })?,
        Value::Number(seconds) => {
            unix(seconds).map_err(|failure| Failure::argument(1, failure.message))?
        }
        _ => {
            return Err(Failure::argument(
                1,
                "must be a string timestamp or a unix timestamp number",
            ));
        }
    };
    if pattern == "X" {
        return Ok(Value::text(moment.unix_timestamp().to_string()));
    }
    format(pattern, moment).map(Value::text)
}

/// Returns the parts of a time as an object.
fn parts(moment: OffsetDateTime) -> Value {
    let mut entries = Entries::new();
    let mut add = |name: &str, value: i64| {
        entries.insert(name.into(), Value::Number(Number::from(value)));
    };
    let (iso_year, iso_week, _) = moment.to_iso_week_date();
    add("year", i64::from(moment.year()));
    add("year_day", i64::from(moment.ordinal()));
    add("day", i64::from(moment.day()));
    add("month", i64::from(u8::from(moment.month())));
    add("weekday", i64::from(moment.weekday().number_days_from_sunday()));
    add("hour", i64::from(moment.hour()));
    add("minute", i64::from(moment.minute()));
    add("second", i64::from(moment.second()));
    add("iso_year", i64::from(iso_year));
    add("iso_week", i64::from(iso_week));
    entries.insert("month_name".into(), Value::text(moment.month().to_string()));
    entries.insert("weekday_name".into(), Value::text(moment.weekday().to_string()));
    entries.insert("rfc3339".into(), Value::text(rfc3339(moment)));
    Value::object(entries)
}

/// Writes a time with its offset.
fn rfc3339(moment: OffsetDateTime) -> String {
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{}",
        moment.year(),
        u8::from(moment.month()),
        moment.day(),
        moment.hour(),
        moment.minute(),
        moment.second(),
        offset(moment.offset(), true, "Z")
    )
}

/// Writes an offset, or a word if there is none.
fn offset(offset: UtcOffset, colon: bool, zero: &str) -> String {
    if offset.is_utc() && !zero.is_empty() {
        return zero.to_owned();
    }
    let sign = if offset.is_negative() { '-' } else { '+' };
    let colon = if colon { ":" } else { "" };
    let hours = offset.whole_hours().unsigned_abs();
    let minutes = offset.minutes_past_hour().unsigned_abs();
    format!("{sign}{hours:02}{colon}{minutes:02}")
}

/// Reads a time.
fn parse(written: &str) -> Result<OffsetDateTime, String> {
    let invalid = |reason: String| format!("not a valid RFC3339 timestamp: {reason}");
    let mut reader = TimeReader { rest: written };
    let year = reader.number(4, "year", 0, 9999).map_err(invalid)?;
    reader.mark('-').map_err(invalid)?;
    let month = reader.number(2, "month", 1, 12).map_err(invalid)?;
    reader.mark('-').map_err(invalid)?;
    let day = reader.number(2, "day of month", 1, 31).map_err(invalid)?;
    if !reader.rest.starts_with('T') {
        return Err(invalid("missing required time introducer 'T'".into()));
    }
    reader.rest = &reader.rest[1..];
    let hour = reader.number(2, "hour", 0, 23).map_err(invalid)?;
    reader.mark(':').map_err(invalid)?;
    let minute = reader.number(2, "minute", 0, 59).map_err(invalid)?;
    reader.mark(':').map_err(invalid)?;
    let second = reader.number(2, "second", 0, 59).map_err(invalid)?;
    let nanoseconds = reader.fraction();
    let zone = reader.zone().map_err(invalid)?;
    let out_of_range = || invalid("day out of range".into());
    let month = Month::try_from(month as u8).map_err(|_| out_of_range())?;
    let date =
        Date::from_calendar_date(year as i32, month, day as u8).map_err(|_| out_of_range())?;
    let time = Time::from_hms_nano(hour as u8, minute as u8, second as u8, nanoseconds)
        .map_err(|_| out_of_range())?;
    Ok(PrimitiveDateTime::new(date, time).assume_offset(zone))
}

/// A reader of a time.
struct TimeReader<'a> {
    rest: &'a str,
}

impl TimeReader<'_> {
    /// Reads a number of digits.
    fn number(&mut self, length: usize, what: &str, least: u32, most: u32) -> Result<u32, String> {
        if self.rest.is_empty() {
            return Err(format!("end of string before {what}"));
        }
        let digits = self.rest.get(..length).unwrap_or(self.rest);
        let value = digits
            .parse::<u32>()
            .ok()
            .filter(|_| digits.len() == length && digits.bytes().all(|byte| byte.is_ascii_digit()));
        match value {
            Some(value) if (least..=most).contains(&value) => {
                self.rest = &self.rest[length..];
                Ok(value)
            }
            Some(_) if what == "hour" => Err("hour must be between 0 and 23 inclusive".into()),
            _ if what == "hour" || what == "minute" => {
                Err(format!("{what} must have exactly two digits"))
            }
            _ => Err(format!("cannot use {} as {what}", quote(self.rest))),
        }
    }

    /// Reads a mark.
    fn mark(&mut self, mark: char) -> Result<(), String> {
        let expected = quote(&mark.to_string());
        match self.rest.strip_prefix(mark) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None if self.rest.is_empty() => {
                Err(format!("end of string where {expected} is expected"))
            }
            None => Err(format!("found {} where {expected} is expected", quote(self.rest))),
        }
    }

    /// Reads a fraction of a second, in nanoseconds.
    fn fraction(&mut self) -> u32 {
        let Some(rest) = self.rest.strip_prefix('.') else {
            return 0;
        };
        let length = rest.bytes().take_while(u8::is_ascii_digit).count();
        if length == 0 {
            return 0;
        }
        let digits: String = rest[..length].chars().chain("000000000".chars()).take(9).collect();
        self.rest = &rest[length..];
        digits.parse().unwrap_or(0)
    }

    /// Reads the offset.
    fn zone(&mut self) -> Result<UtcOffset, String> {
        let cannot = |rest: &str| format!("cannot use {} as UTC offset", quote(rest));
        if self.rest.is_empty() {
            return Err("end of string before UTC offset".into());
        }
        if self.rest == "Z" {
            return Ok(UtcOffset::UTC);
        }
        let whole = self.rest;
        let sign: i8 = match whole.as_bytes()[0] {
            b'+' => 1,
            b'-' => -1,
            _ => return Err(cannot(whole)),
        };
        let (hours, minutes) = whole[1..].split_once(':').ok_or_else(|| cannot(whole))?;
        let part = |text: &str, most: i8| {
            text.parse::<i8>().ok().filter(|value| {
                text.len() == 2
                    && text.bytes().all(|byte| byte.is_ascii_digit())
                    && (0..=most).contains(value)
            })
        };
        let hours = part(hours, 23).ok_or_else(|| cannot(whole))?;
        let minutes = part(minutes, 59).ok_or_else(|| cannot(whole))?;
        UtcOffset::from_hms(sign * hours, sign * minutes, 0).map_err(|_| cannot(whole))
    }
}

/// Formats a time: letters are verbs, text in single quotes stands for itself.
fn format(pattern: &str, moment: OffsetDateTime) -> Result<String, Failure> {
    let mut text = String::new();
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        if first == '\'' {
            rest = quoted(rest, &mut text)?;
        } else if first.is_ascii_alphabetic() {
            let length = rest.chars().take_while(|character| *character == first).count();
            verb(&rest[..length], moment, &mut text)?;
            rest = &rest[length..];
        } else {
            let length = rest
                .find(|character: char| character == '\'' || character.is_ascii_alphabetic())
                .unwrap_or(rest.len());
            text.push_str(&rest[..length]);
            rest = &rest[length..];
        }
    }
    Ok(text)
}

/// Writes a text in single quotes, in which two of them stand for one. Returns what follows.
fn quoted<'a>(pattern: &'a str, text: &mut String) -> Result<&'a str, Failure> {
    if let Some(rest) = pattern.strip_prefix("''") {
        text.push('\'');
        return Ok(rest);
    }
    let mut rest = &pattern[1..];
    loop {
        let end = rest.find('\'').ok_or_else(|| Failure::argument(0, "unterminated literal '"))?;
        text.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('\'') {
            Some(more) => {
                text.push('\'');
                rest = more;
            }
            None => return Ok(rest),
        }
    }
}

/// Writes a part of a time.
fn verb(verb: &str, moment: OffsetDateTime, text: &mut String) -> Result<(), Failure> {
    let letter = verb.as_bytes()[0];
    let length = verb.len();
    let number = |value: u8| if length == 1 { value.to_string() } else { format!("{value:02}") };
    let refuse = |rule: &str| {
        Err(Failure::argument(0, format!("invalid date format verb {}{rule}", quote(verb))))
    };
    let hour = moment.hour();
    let written = match (letter, length) {
        (b'Y', 2) => format!("{:02}", moment.year() % 100),
        (b'Y', 4) => format!("{:04}", moment.year()),
        (b'Y', _) => return refuse(": year must either be \"YY\" or \"YYYY\""),
        (b'M', 1 | 2) => number(u8::from(moment.month())),
        (b'M', 3) => moment.month().to_string()[..3].to_owned(),
        (b'M', 4) => moment.month().to_string(),
        (b'M', _) => return refuse(": month must be \"M\", \"MM\", \"MMM\", or \"MMMM\""),
        (b'D', 1 | 2) => number(moment.day()),
        (b'D', _) => return refuse(": day of month must either be \"D\" or \"DD\""),
        (b'E', 3) => moment.weekday().to_string()[..3].to_owned(),
        (b'E', 4) => moment.weekday().to_string(),
        (b'E', _) => return refuse(": day of week must either be \"EEE\" or \"EEEE\""),
        (b'h', 1 | 2) => number(hour),
        (b'h', _) => return refuse(": 24-hour must either be \"h\" or \"hh\""),
        (b'H', 1 | 2) => number(if hour.is_multiple_of(12) { 12 } else { hour % 12 }),
        (b'H', _) => return refuse(": 12-hour must either be \"H\" or \"HH\""),
        (b'A', 2) => if hour < 12 { "AM" } else { "PM" }.to_owned(),
        (b'a', 2) => if hour < 12 { "am" } else { "pm" }.to_owned(),
        (b'A', _) => return refuse(": must be \"AA\""),
        (b'a', _) => return refuse(": must be \"aa\""),
        (b'm', 1 | 2) => number(moment.minute()),
        (b'm', _) => return refuse(": minute must either be \"m\" or \"mm\""),
        (b's', 1 | 2) => number(moment.second()),
        (b's', _) => return refuse(": second must either be \"s\" or \"ss\""),
        (b'Z', 1) => offset(moment.offset(), true, "Z"),
        (b'Z', 3) => offset(moment.offset(), false, "UTC"),
        (b'Z', 4) => offset(moment.offset(), false, ""),
        (b'Z', 5) => offset(moment.offset(), true, ""),
        (b'Z', _) => return refuse(": timezone must be Z, ZZZZ, or ZZZZZ"),
        _ => return refuse(""),
    };
    text.push_str(&written);
    Ok(())
}
