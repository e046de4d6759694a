//! Functions of sets.

use super::{Failure, Function, Parameter, ParameterKind, items};
use crate::convert::convert;
use crate::types::Type;
use crate::unify::unify;
use crate::value::Value;

const FIRST: Parameter = Parameter::new("first_set", ParameterKind::SetOfAny);
const OTHERS: Parameter = Parameter::new("other_sets", ParameterKind::SetOfAny);
const ANY: ParameterKind = ParameterKind::Any;
/// The most elements of a product.
const LARGEST_PRODUCT: usize = 200_000;
/// The most elements of a set that is compared with another one.
const LARGEST_SET: usize = 5_000;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new(
        "sethaselement",
        &[Parameter::new("set", ParameterKind::SetOfAny), Parameter::any("elem")],
        ParameterKind::Bool,
        |_, values| Ok(Value::Bool(items(values, 0)?.iter().any(|item| same(item, &values[1])))),
    ),
    Function::new("setintersection", &[FIRST], ANY, |_, values| {
        combine(values, |left, right| keep(left, right, true))
    })
    .with_more(OTHERS),
    Function::new("setproduct", &[], ANY, |_, values| product(values))
        .with_more(Parameter::any("sets")),
    Function::new(
        "setsubtract",
        &[
            Parameter::new("a", ParameterKind::SetOfAny),
            Parameter::new("b", ParameterKind::SetOfAny),
        ],
        ANY,
        |_, values| combine(values, |left, right| keep(left, right, false)),
    ),
    Function::new("setsymmetricdifference", &[FIRST], ANY, |_, values| {
        combine(values, |left, right| {
            let mut kept = keep(left, right, false);
            kept.extend(keep(right, left, false));
            kept
        })
    })
    .with_more(OTHERS),
    Function::new("setunion", &[FIRST], ANY, |_, values| {
        combine(values, |left, right| {
            let mut all = left.to_vec();
            all.extend(right.iter().cloned());
            all
        })
    })
    .with_more(OTHERS),
];

/// Returns `true` if two elements are the same.
fn same(left: &Value, right: &Value) -> bool {
    left.equals(right) == Some(true)
}

/// Returns the elements that another set has, or those that it doesn't have.
fn keep(left: &[Value], right: &[Value], common: bool) -> Vec<Value> {
    let has = |item: &Value| right.iter().any(|other| same(item, other));
    left.iter().filter(|item| has(item) == common).cloned().collect()
}

/// Combines sets one after the other, as sets of a common type.
fn combine(
    values: &[Value],
    combination: fn(&[Value], &[Value]) -> Vec<Value>,
) -> Result<Value, Failure> {
    let mut types = Vec::new();
    for value in values {
        if let Value::Set(sequence) = value
            && !(sequence.items.is_empty() && sequence.element == Type::Dynamic)
        {
            types.push(sequence.element.clone());
        }
    }
    let element = if types.is_empty() {
        Type::Dynamic
    } else {
        unify(&types, true)
            .ok_or_else(|| Failure::new("given sets must all have compatible element types"))?
    };
    let want = Type::set(element.clone());
    let mut combined: Option<Vec<Value>> = None;
    for (index, value) in values.iter().enumerate() {
        let set = convert(value, &want).map_err(|error| Failure::argument(index, error))?;
        let items = set.items().unwrap_or_default();
        if items.len() > LARGEST_SET {
            return Err(Failure::argument(index, "the set is too large"));
        }
        combined = Some(match combined {
            None => items.to_vec(),
            Some(before) => combination(&before, items),
        });
    }
    Ok(Value::set(element, combined.unwrap_or_default()))
}

/// Returns all combinations of elements.
fn product(values: &[Value]) -> Result<Value, Failure> {
    if values.len() < 2 {
        return Err(Failure::new("at least two arguments are required"));
    }
    let mut elements = Vec::new();
    let mut total: usize = 1;
    for (index, value) in values.iter().enumerate() {
        let kind = match value {
            Value::Set(sequence) | Value::List(sequence) => sequence.element.clone(),
            Value::Tuple(sequence) if sequence.items.is_empty() => Type::Dynamic,
            Value::Tuple(sequence) => {
                let types: Vec<Type> = sequence.items.iter().map(Value::type_of).collect();
                unify(&types, true).ok_or_else(|| {
                    Failure::argument(index, "all elements must be of the same type")
                })?
            }
            _ => return Err(Failure::argument(index, "a set or a list is required")),
        };
        elements.push(kind);
        total = total.saturating_mul(items(values, index)?.len());
    }
    let is_list = values.iter().all(|value| !matches!(value, Value::Set(_)));
    if total > LARGEST_PRODUCT {
        return Err(Failure::new("the product has too many elements"));
    }
    let mut combinations: Vec<Vec<Value>> = vec![Vec::new()];
    for (index, element) in elements.iter().enumerate() {
        let mut longer = Vec::with_capacity(combinations.len());
        for combination in &combinations {
            for item in items(values, index)? {
                let mut next = combination.clone();
                next.push(convert(item, element).map_err(Failure::new)?);
                longer.push(next);
            }
        }
        combinations = longer;
    }
    let element = Type::Tuple(elements.into());
    let combinations = combinations.into_iter().map(Value::tuple).collect();
    Ok(if is_list { Value::list(element, combinations) } else { Value::set(element, combinations) })
}
