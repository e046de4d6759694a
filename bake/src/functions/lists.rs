//! Functions of lists and tuples.

use super::{Failure, Function, Parameter, ParameterKind, items, whole};
use crate::convert::convert;
use crate::types::Type;
use crate::unify::unify;
use crate::value::Value;

const LIST: Parameter = Parameter::any("list");
const ANY: ParameterKind = ParameterKind::Any;
const ANY_LIST: Parameter = Parameter::new("list", ParameterKind::ListOfAny);

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("chunklist", &[ANY_LIST, Parameter::number("size")], ANY, |_, values| {
        chunks(values)
    }),
    Function::new("coalescelist", &[], ANY, |_, values| coalesce(values))
        .with_more(Parameter::any("vals").open()),
    Function::new(
        "compact",
        &[Parameter::new("list", ParameterKind::ListOfString)],
        ParameterKind::ListOfString,
        |_, values| {
            let kept = items(values, 0)?.iter().filter_map(Value::as_text);
            Ok(Value::texts(kept.filter(|text| !text.is_empty())))
        },
    ),
    Function::new("concat", &[], ANY, |_, values| concat(values)).with_more(Parameter::any("seqs")),
    Function::new("distinct", &[ANY_LIST], ANY, |_, values| distinct(values)),
    Function::new("element", &[LIST, Parameter::number("index")], ANY, |_, values| element(values)),
    Function::new("flatten", &[LIST], ANY, |_, values| flatten(values)),
    Function::new("indexof", &[LIST, Parameter::any("value")], ParameterKind::Number, |_, v| {
        index_of(v)
    }),
    Function::new("reverselist", &[LIST], ANY, |_, values| reverse(values)),
    Function::new(
        "slice",
        &[LIST, Parameter::number("start_index"), Parameter::number("end_index")],
        ANY,
        |_, values| slice(values),
    ),
];

/// Makes a list like another one, or a tuple like another one.
fn like(value: &Value, items: Vec<Value>) -> Value {
    match value {
        Value::List(sequence) | Value::Set(sequence) => {
            Value::list(sequence.element.clone(), items)
        }
        _ => Value::tuple(items),
    }
}

/// Cuts a list into pieces.
fn chunks(values: &[Value]) -> Result<Value, Failure> {
    let list = items(values, 0)?;
    let size = whole(values, 1)
        .map_err(|failure| Failure::new(format!("invalid size: {}", failure.message)))?;
    let size =
        usize::try_from(size).map_err(|_| Failure::new("the size argument must be positive"))?;
    let kind = values[0].type_of();
    if list.is_empty() {
        return Ok(Value::list(kind, Vec::new()));
    }
    if size == 0 {
        return Ok(Value::list(kind, vec![values[0].clone()]));
    }
    let pieces = list.chunks(size).map(|piece| like(&values[0], piece.to_vec()));
    Ok(Value::list(kind, pieces.collect()))
}

/// Returns the first list that has elements.
fn coalesce(values: &[Value]) -> Result<Value, Failure> {
    if values.is_empty() {
        return Err(Failure::new("at least one argument is required"));
    }
    for value in values {
        if !value.is_known() {
            return Ok(Value::UNKNOWN);
        }
        if !matches!(value.type_of(), Type::List(_) | Type::Tuple(_)) {
            return Err(Failure::new("coalescelist arguments must be lists or tuples"));
        }
    }
    let filled = values.iter().find(|value| value.items().is_some_and(|items| !items.is_empty()));
    filled.cloned().ok_or_else(|| Failure::new("no non-null arguments"))
}

/// Joins lists to a list if their elements have a common type, else to a tuple.
fn concat(values: &[Value]) -> Result<Value, Failure> {
    if values.is_empty() {
        return Err(Failure::new("at least one argument is required"));
    }
    let types: Vec<Type> = values.iter().map(Value::type_of).collect();
    if types.iter().all(|kind| matches!(kind, Type::List(_)))
        && let Some(Type::List(element)) = unify(&types, true)
    {
        let mut joined = Vec::new();
        let want = Type::List(element.clone());
        for (index, value) in values.iter().enumerate() {
            let list = convert(value, &want).map_err(|error| Failure::argument(index, error))?;
            joined.extend(list.items().unwrap_or_default().iter().cloned());
        }
        return Ok(Value::list((*element).clone(), joined));
    }
    let mut joined = Vec::new();
    for (index, value) in values.iter().enumerate() {
        match value {
            Value::List(sequence) | Value::Tuple(sequence) => {
                joined.extend(sequence.items.iter().cloned());
            }
            other => {
                return Err(Failure::argument(
                    index,
                    format!(
                        "all arguments must be lists or tuples; got {}",
                        other.type_of().name()
                    ),
                ));
            }
        }
    }
    Ok(Value::tuple(joined))
}

/// Removes elements that were there before.
fn distinct(values: &[Value]) -> Result<Value, Failure> {
    let mut kept: Vec<Value> = Vec::new();
    let all = items(values, 0)?;
    if all.len() > 4_000 {
        return Err(Failure::new("the list is too long"));
    }
    for item in all {
        if !kept.iter().any(|other| other.equals(item) == Some(true)) {
            kept.push(item.clone());
        }
    }
    Ok(like(&values[0], kept))
}

/// Returns the element at an index, which wraps around.
fn element(values: &[Value]) -> Result<Value, Failure> {
    let list = match &values[0] {
        Value::List(sequence) | Value::Tuple(sequence) => &sequence.items,
        other => {
            return Err(Failure::new(format!(
                "cannot read elements from {}",
                other.type_of().name()
            )));
        }
    };
    let index = whole(values, 1)
        .map_err(|failure| Failure::new(format!("invalid index: {}", failure.message)))?;
    if list.is_empty() {
        return Err(Failure::new("cannot use element function with an empty list"));
    }
    Ok(list[index.rem_euclid(list.len() as i64) as usize].clone())
}

/// Takes the elements out of lists within lists.
fn flatten(values: &[Value]) -> Result<Value, Failure> {
    let Some(items) = values[0].items() else {
        return Err(Failure::new("can only flatten lists, sets and tuples"));
    };
    let mut flat = Vec::new();
    flatten_into(items, &mut flat);
    Ok(Value::tuple(flat))
}

/// Adds elements, those of lists within one by one.
fn flatten_into(items: &[Value], flat: &mut Vec<Value>) {
    for item in items {
        match item.items() {
            Some(inner) => flatten_into(inner, flat),
            None => flat.push(item.clone()),
        }
    }
}

/// Returns the index of an element.
fn index_of(values: &[Value]) -> Result<Value, Failure> {
    let (Value::List(sequence) | Value::Tuple(sequence)) = &values[0] else {
        return Err(Failure::new("argument must be a list or tuple"));
    };
    if sequence.items.is_empty() {
        return Err(Failure::new("cannot search an empty list"));
    }
    let found = sequence.items.iter().position(|item| item.equals(&values[1]) == Some(true));
    found.map(|index| Value::Number(index.into())).ok_or_else(|| Failure::new("item not found"))
}

/// Turns the order around.
fn reverse(values: &[Value]) -> Result<Value, Failure> {
    let Some(items) = values[0].items() else {
        return Err(Failure::argument(
            0,
            format!("can only reverse list or tuple values, not {}", values[0].type_of().name()),
        ));
    };
    Ok(like(&values[0], items.iter().rev().cloned().collect()))
}

/// Takes the elements between two indexes.
fn slice(values: &[Value]) -> Result<Value, Failure> {
    let list = match &values[0] {
        Value::List(sequence) | Value::Tuple(sequence) => &sequence.items,
        Value::Set(_) => {
            return Err(Failure::argument(
                0,
                "cannot slice a set, because its elements do not have indices; explicitly convert \
                 to a list if the ordering of the result is not important",
            ));
        }
        _ => return Err(Failure::argument(0, "must be a list or tuple value")),
    };
    let index = |argument: usize, name: &str| {
        let index = whole(values, argument).map_err(|failure| {
            Failure::argument(argument, format!("invalid {name} index: {}", failure.message))
        })?;
        let index = usize::try_from(index).map_err(|_| {
            Failure::argument(argument, format!("{name} index must not be less than zero"))
        })?;
        if index > list.len() {
            return Err(Failure::argument(
                argument,
                format!("{name} index must not be greater than the length of the list"),
            ));
        }
        Ok(index)
    };
    let start = index(1, "start")?;
    let end = index(2, "end")?;
    if start > end {
        return Err(Failure::argument(1, "start index must not be greater than end index"));
    }
    Ok(like(&values[0], list[start..end].to_vec()))
}
