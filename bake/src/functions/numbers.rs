//! Functions of numbers.

use num_bigint::BigUint;

use super::{Failure, Function, Parameter, ParameterKind, number, text, whole};
use crate::number::Number;
use crate::types::Type;
use crate::value::Value;

const NUM: &[Parameter] = &[Parameter::number("num")];
const VALUES: Parameter = Parameter::number("numbers");
/// The most numbers that `range` makes.
const LONGEST_RANGE: usize = 1024;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("absolute", NUM, ParameterKind::Number, |_, values| {
        Ok(Value::Number(number(values, 0)?.absolute()))
    }),
    Function::new("ceil", NUM, ParameterKind::Number, |_, values| {
        Ok(Value::Number(number(values, 0)?.ceil()))
    }),
    Function::new("floor", NUM, ParameterKind::Number, |_, values| {
        Ok(Value::Number(number(values, 0)?.floor()))
    }),
    Function::new("int", NUM, ParameterKind::Number, |_, values| {
        Ok(Value::Number(number(values, 0)?.int()))
    }),
    Function::new(
        "log",
        &[Parameter::number("num"), Parameter::number("base")],
        ParameterKind::Number,
        |_, values| double(number(values, 0)?.to_f64().ln() / number(values, 1)?.to_f64().ln()),
    ),
    Function::new("max", &[], ParameterKind::Number, |_, values| {
        extreme(values, |left, right| left > right)
    })
    .with_more(VALUES),
    Function::new("min", &[], ParameterKind::Number, |_, values| {
        extreme(values, |left, right| left < right)
    })
    .with_more(VALUES),
    Function::new("negate", NUM, ParameterKind::Number, |_, values| {
        Ok(Value::Number(number(values, 0)?.negate()))
    }),
    Function::new(
        "parseint",
        &[Parameter::any("number"), Parameter::number("base")],
        ParameterKind::Number,
        |_, values| parse_int(values),
    ),
    Function::new(
        "pow",
        &[Parameter::number("num"), Parameter::number("power")],
        ParameterKind::Number,
        |_, values| double(number(values, 0)?.to_f64().powf(number(values, 1)?.to_f64())),
    ),
    Function::new("range", &[], ParameterKind::ListOfNumber, |_, values| range(values))
        .with_more(Parameter::number("params")),
    Function::new("signum", NUM, ParameterKind::Number, |_, values| {
        Ok(Value::Number(Number::from(whole(values, 0)?.signum())))
    }),
];

/// Makes a number of a double.
fn double(value: f64) -> Result<Value, Failure> {
    Number::from_f64(value).map(Value::Number).ok_or_else(|| Failure::new("not a number"))
}

/// Returns the number that comes before all others in an order.
fn extreme(values: &[Value], better: fn(&Number, &Number) -> bool) -> Result<Value, Failure> {
    let mut best: Option<&Number> = None;
    for index in 0..values.len() {
        let number = number(values, index)?;
        if best.is_none_or(|best| better(number, best)) {
            best = Some(number);
        }
    }
    best.map(|number| Value::Number(number.clone()))
        .ok_or_else(|| Failure::new("must pass at least one number"))
}

/// Reads a whole number in a base.
fn parse_int(values: &[Value]) -> Result<Value, Failure> {
    if !matches!(values.first(), Some(Value::String(_))) {
        let name = values.first().map(|value| value.type_of().name()).unwrap_or_default();
        return Err(Failure::argument(0, format!("first argument must be a string, not {name}")));
    }
    let written = text(values, 0)?;
    let base = whole(values, 1).map_err(|failure| Failure::argument(1, failure.message))?;
    if !(2..=62).contains(&base) {
        return Err(Failure::argument(1, "base must be a whole number between 2 and 62 inclusive"));
    }
    digits(written, base as u32).map(Value::Number).ok_or_else(|| {
        Failure::argument(
            0,
            format!("cannot parse {} as a base {base} integer", crate::quote::quote(written)),
        )
    })
}

/// Reads digits in a base. Above base 36, capitals are digits of their own.
fn digits(written: &str, base: u32) -> Option<Number> {
    let negative = written.starts_with('-');
    let unsigned = written.strip_prefix(['-', '+']).unwrap_or(written);
    if unsigned.is_empty() || unsigned.len() > 10_000 {
        return None;
    }
    let mut value = BigUint::from(0_u32);
    for character in unsigned.chars() {
        let digit = match character {
            '0'..='9' => character as u32 - '0' as u32,
            'a'..='z' => character as u32 - 'a' as u32 + 10,
            'A'..='Z' if base <= 36 => character as u32 - 'A' as u32 + 10,
            'A'..='Z' => character as u32 - 'A' as u32 + 36,
            _ => return None,
        };
        if digit >= base {
            return None;
        }
        value = value * base + digit;
    }
    Some(Number::whole(negative, value))
}

/// Makes a list of numbers in steps.
fn range(values: &[Value]) -> Result<Value, Failure> {
    let zero = Number::zero();
    let toward = |start: &Number, end: &Number| Number::from(if end < start { -1_i64 } else { 1 });
    let (start, end, step) = match values.len() {
        1 => (zero.clone(), number(values, 0)?.clone(), toward(&zero, number(values, 0)?)),
        2 => {
            let start = number(values, 0)?;
            let end = number(values, 1)?;
            (start.clone(), end.clone(), toward(start, end))
        }
        3 => (number(values, 0)?.clone(), number(values, 1)?.clone(), number(values, 2)?.clone()),
        _ => return Err(Failure::new("must have one, two, or three arguments")),
    };
    if step.is_zero() {
        return Err(Failure::argument(2, "step must not be zero"));
    }
    let down = step < zero;
    if down && end > start {
        return Err(Failure::argument(1, "end must be less than start when step is negative"));
    }
    if !down && end < start {
        return Err(Failure::argument(1, "end must be greater than start when step is positive"));
    }
    let mut items = Vec::new();
    let mut next = start;
    while if down { next > end } else { next < end } {
        if items.len() >= LONGEST_RANGE {
            return Err(Failure::new(
                "more than 1024 values were generated; either decrease the difference between \
                 start and end or use a smaller step",
            ));
        }
        items.push(Value::Number(next.clone()));
        next = next.add(&step).unwrap_or_else(|| end.clone());
    }
    Ok(Value::list(Type::Number, items))
}
