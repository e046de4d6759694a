//! The type that values of several types can share.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::convert::is_possible;
use crate::types::Type;

/// The numbers of types of each kind.
#[derive(Default)]
struct Kinds {
    maps: usize,
    lists: usize,
    sets: usize,
    objects: usize,
    tuples: usize,
    dynamic: usize,
}

impl Kinds {
    /// Counts.
    fn of(types: &[Type]) -> Self {
        let mut kinds = Self::default();
        for kind in types {
            match kind {
                Type::Map(_) => kinds.maps += 1,
                Type::List(_) => kinds.lists += 1,
                Type::Set(_) => kinds.sets += 1,
                Type::Object(_) => kinds.objects += 1,
                Type::Tuple(_) => kinds.tuples += 1,
                Type::Dynamic => kinds.dynamic += 1,
                _ => {}
            }
        }
        kinds
    }
}

/// Returns the type to which all of the types can be converted.
///
/// `lossy` allows conversions that may fail for some values.
pub(crate) fn unify(types: &[Type], lossy: bool) -> Option<Type> {
    let first = types.first()?;
    if types.iter().all(|kind| kind == first) {
        return Some(first.clone());
    }
    let kinds = Kinds::of(types);
    let all = types.len() - kinds.dynamic;
    if kinds.maps > 0 && kinds.maps == all {
        return collections(types, &kinds, lossy, Type::map);
    }
    if kinds.maps > 0 && kinds.maps + kinds.objects == all {
        if let Some(Type::Map(element)) = mixed(types, lossy, |kind| match kind {
            Type::Object(_) => to_map(std::slice::from_ref(kind), lossy),
            _ => None,
        }) {
            return Some(Type::Map(element));
        }
    } else if kinds.lists > 0 && kinds.lists == all {
        return collections(types, &kinds, lossy, Type::list);
    } else if kinds.lists > 0 && kinds.lists + kinds.tuples == all {
        if let Some(Type::List(element)) = mixed(types, lossy, |kind| match kind {
            Type::Tuple(_) => to_list(std::slice::from_ref(kind), lossy),
            _ => None,
        }) {
            return Some(Type::List(element));
        }
    } else if kinds.sets > 0 && kinds.sets == all {
        return collections(types, &kinds, lossy, Type::set);
    } else if kinds.objects > 0 && kinds.objects == all {
        return objects(types, &kinds, lossy);
    } else if kinds.tuples > 0 && kinds.tuples == all {
        return tuples(types, &kinds, lossy);
    } else if kinds.objects > 0 && kinds.tuples > 0 {
        return None;
    }
    preferred(types, lossy)
}

/// Returns the first type, in order of preference, to which all others can be converted.
fn preferred(types: &[Type], lossy: bool) -> Option<Type> {
    let mut order: Vec<&Type> = types.iter().collect();
    order.sort_by(|left, right| compare(left, right));
    order.dedup();
    order
        .into_iter()
        .find(|want| types.iter().all(|have| have == *want || is_possible(have, want, lossy)))
        .cloned()
}

/// Orders types by preference: what others convert to without loss comes first.
fn compare(left: &Type, right: &Type) -> Ordering {
    let rank = |kind: &Type| match kind {
        Type::String => 0,
        Type::Dynamic => 2,
        _ => 1,
    };
    match (left, right) {
        (Type::List(left), Type::List(right))
        | (Type::Set(left), Type::Set(right))
        | (Type::Map(left), Type::Map(right)) => compare(left, right),
        (Type::List(_), Type::Tuple(_) | Type::Set(_))
        | (Type::Map(_), Type::Object(_))
        | (Type::Tuple(_), Type::Set(_)) => Ordering::Less,
        (Type::Tuple(_) | Type::Set(_), Type::List(_))
        | (Type::Object(_), Type::Map(_))
        | (Type::Set(_), Type::Tuple(_)) => Ordering::Greater,
        _ => rank(left).cmp(&rank(right)),
    }
}

/// Unifies collections of one kind.
fn collections(
    types: &[Type],
    kinds: &Kinds,
    lossy: bool,
    make: impl Fn(Type) -> Type,
) -> Option<Type> {
    if kinds.dynamic > 0 {
        return Some(Type::Dynamic);
    }
    let elements: Vec<Type> = types.iter().filter_map(Type::element).cloned().collect();
    checked(make(unify(&elements, lossy)?), types, lossy)
}

/// Unifies collections with structures that become such collections first.
fn mixed(types: &[Type], lossy: bool, collect: impl Fn(&Type) -> Option<Type>) -> Option<Type> {
    let replaced: Vec<Type> =
        types.iter().map(|kind| collect(kind).unwrap_or_else(|| kind.clone())).collect();
    if replaced.iter().any(|kind| matches!(kind, Type::Object(_) | Type::Tuple(_))) {
        return None;
    }
    unify(&replaced, lossy)
}

/// Returns a type if all of the types can be converted to it.
fn checked(want: Type, types: &[Type], lossy: bool) -> Option<Type> {
    types.iter().all(|have| *have == want || is_possible(have, &want, lossy)).then_some(want)
}

/// Unifies objects: to an object if their attributes have the same names, else to a map.
fn objects(types: &[Type], kinds: &Kinds, lossy: bool) -> Option<Type> {
    if kinds.dynamic > 0 {
        return Some(Type::Dynamic);
    }
    let objects: Vec<_> = types
        .iter()
        .filter_map(|kind| match kind {
            Type::Object(object) => Some(object),
            _ => None,
        })
        .collect();
    let first = objects.first()?;
    if objects.iter().any(|object| !object.attributes.keys().eq(first.attributes.keys())) {
        return to_map(types, lossy);
    }
    let mut attributes: BTreeMap<Rc<str>, Type> = BTreeMap::new();
    for name in first.attributes.keys() {
        let across: Vec<Type> =
            objects.iter().filter_map(|object| object.attributes.get(name)).cloned().collect();
        attributes.insert(name.clone(), unify(&across, lossy)?);
    }
    checked(Type::object(attributes), types, lossy).or_else(|| to_map(types, lossy))
}

/// Unifies tuples: to a tuple if they have the same length, else to a list.
fn tuples(types: &[Type], kinds: &Kinds, lossy: bool) -> Option<Type> {
    if kinds.dynamic > 0 {
        return Some(Type::Dynamic);
    }
    let tuples: Vec<_> = types
        .iter()
        .filter_map(|kind| match kind {
            Type::Tuple(elements) => Some(elements),
            _ => None,
        })
        .collect();
    let length = tuples.first()?.len();
    if tuples.iter().any(|elements| elements.len() != length) {
        return to_list(types, lossy);
    }
    let mut elements = Vec::with_capacity(length);
    for index in 0..length {
        let across: Vec<Type> = tuples.iter().map(|elements| elements[index].clone()).collect();
        elements.push(unify(&across, lossy)?);
    }
    checked(Type::Tuple(elements.into()), types, lossy).or_else(|| to_list(types, lossy))
}

/// Returns the map that objects can become.
fn to_map(types: &[Type], lossy: bool) -> Option<Type> {
    let mut elements = Vec::new();
    for kind in types {
        if let Type::Object(object) = kind {
            elements.extend(object.attributes.values().cloned());
        }
    }
    checked(Type::map(unify(&elements, lossy)?), types, lossy)
}

/// Returns the list that tuples can become.
fn to_list(types: &[Type], lossy: bool) -> Option<Type> {
    let mut elements = Vec::new();
    for kind in types {
        if let Type::Tuple(tuple) = kind {
            elements.extend(tuple.iter().cloned());
        }
    }
    checked(Type::list(unify(&elements, lossy)?), types, lossy)
}
