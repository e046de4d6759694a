//! `null` as Go's decoder takes it.
//!
//! To Go, a member that is `null` is one that isn't there: a text stays empty, a number zero, a list
//! or a map without entries. Images are written by programs in Go and for them, so that every member
//! of a config, a manifest or an index can be `null`. [`Nullable`] wraps any deserializer and gives
//! `null` that meaning for every type that a value is read as, on all levels. Options stay `None`, and
//! values of any type (`serde_json::Value`) keep their nulls.

use std::fmt;
use std::iter::empty;

use serde::Deserializer;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeSeed, EnumAccess, Error, MapAccess, SeqAccess, Visitor};

/// A deserializer to which `null` is the zero value of each type.
pub(super) struct Nullable<D>(pub(super) D);

/// A visitor whose nested values are nullable, too.
struct Nested<V>(V);

/// A seed that makes what a nullable deserializer gives.
struct NestedSeed<S>(S);

/// Forwards a method that reads a type, with the zero value of that type for `null`.
macro_rules! nullable {
    ($($method:ident($($name:ident: $type:ty),*) => |$visitor:ident| $zero:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($name: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            struct OrZero<V>(V, ($($type,)*));
            impl<'de, V: Visitor<'de>> Visitor<'de> for OrZero<V> {
                type Value = V::Value;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.0.expecting(f)
                }

                fn visit_none<E: Error>(self) -> Result<V::Value, E> {
                    let $visitor = self.0;
                    $zero
                }

                fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
                    self.visit_none()
                }

                fn visit_some<D: Deserializer<'de>>(self, it: D) -> Result<V::Value, D::Error> {
                    let ($($name,)*) = self.1;
                    it.$method($($name,)* Nested(self.0))
                }
            }
            self.0.deserialize_option(OrZero(visitor, ($($name,)*)))
        }
    )*};
}

/// Forwards a method as it is.
macro_rules! forwarded {
    ($($method:ident($($name:ident: $type:ty),*);)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($name: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method($($name,)* visitor)
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Nullable<D> {
    type Error = D::Error;

    nullable! {
        deserialize_bool() => |visitor| visitor.visit_bool(false);
        deserialize_i8() => |visitor| visitor.visit_i64(0);
        deserialize_i16() => |visitor| visitor.visit_i64(0);
        deserialize_i32() => |visitor| visitor.visit_i64(0);
        deserialize_i64() => |visitor| visitor.visit_i64(0);
        deserialize_u8() => |visitor| visitor.visit_u64(0);
        deserialize_u16() => |visitor| visitor.visit_u64(0);
        deserialize_u32() => |visitor| visitor.visit_u64(0);
        deserialize_u64() => |visitor| visitor.visit_u64(0);
        deserialize_f32() => |visitor| visitor.visit_f64(0.0);
        deserialize_f64() => |visitor| visitor.visit_f64(0.0);
        deserialize_str() => |visitor| visitor.visit_str("");
        deserialize_string() => |visitor| visitor.visit_str("");
        deserialize_seq() => |visitor| visitor.visit_seq(SeqDeserializer::new(empty::<()>()));
        deserialize_map() => |visitor| visitor.visit_map(MapDeserializer::new(empty::<((), ())>()));
        deserialize_struct(name: &'static str, fields: &'static [&'static str]) =>
            |visitor| visitor.visit_map(MapDeserializer::new(empty::<((), ())>()));
    }

    forwarded! {
        deserialize_any();
        deserialize_char();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_tuple(length: usize);
        deserialize_tuple_struct(name: &'static str, length: usize);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_option(Nested(visitor))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, Nested(visitor))
    }
}

/// Forwards what is visited as it is.
macro_rules! visited {
    ($($method:ident($type:ty);)*) => {$(
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.0.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Nested<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    visited! {
        visit_bool(bool);
        visit_i64(i64);
        visit_u64(u64);
        visit_f64(f64);
        visit_str(&str);
        visit_borrowed_str(&'de str);
        visit_string(String);
        visit_bytes(&[u8]);
        visit_borrowed_bytes(&'de [u8]);
        visit_byte_buf(Vec<u8>);
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Nullable(inner))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Nullable(inner))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Nested(entries))
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Nested(members))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(variant)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Nested<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(NestedSeed(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Nested<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(NestedSeed(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for NestedSeed<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Nullable(deserializer))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::Value;

    use crate::json::from_go;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    struct Everything {
        text: String,
        number: i64,
        size: u64,
        float: f64,
        flag: bool,
        list: Vec<String>,
        map: BTreeMap<String, u32>,
        nested: Inner,
        wrapped: Wrapper,
        option: Option<Inner>,
        any: Value,
        #[serde(flatten)]
        other: BTreeMap<String, Value>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Inner {
        text: String,
        list: Vec<u8>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    struct Wrapper(String);

    #[test]
    fn null_is_the_zero_of_each_type() {
        let text = br#"{"text":null,"number":null,"size":null,"float":null,"flag":null,"list":null,
            "map":null,"nested":null,"wrapped":null,"option":null,"any":null,"more":null}"#;
        let expected = Everything {
            other: BTreeMap::from([("more".to_owned(), Value::Null)]),
            ..Everything::default()
        };
        assert_eq!(from_go::<Everything>(text).unwrap(), expected);
        assert_eq!(from_go::<Vec<Inner>>(b"null").unwrap(), []);
    }

    #[test]
    fn nulls_are_zeros_on_all_levels() {
        let text = br#"{"text":"a","number":-1,"size":1,"float":0.5,"flag":true,"list":[null,"b"],
            "map":{"a":null,"b":2},"nested":{"text":null,"list":[null,1]},"wrapped":"w",
            "option":{"text":null},"any":[null,{"a":null}],"more":[null]}"#;
        let expected = Everything {
            text: "a".to_owned(),
            number: -1,
            size: 1,
            float: 0.5,
            flag: true,
            list: vec![String::new(), "b".to_owned()],
            map: BTreeMap::from([("a".to_owned(), 0), ("b".to_owned(), 2)]),
            nested: Inner { text: String::new(), list: vec![0, 1] },
            wrapped: Wrapper("w".to_owned()),
            option: Some(Inner::default()),
            any: serde_json::json!([null, {"a": null}]),
            other: BTreeMap::from([("more".to_owned(), serde_json::json!([null]))]),
        };
        assert_eq!(from_go::<Everything>(text).unwrap(), expected);
    }

    #[test]
    fn all_else_is_as_strict_as_before() {
        for text in [r#"{"text":1}"#, r#"{"list":{}}"#, "true", "1", r#"{"text":"a"} x"#, "nul"] {
            assert!(from_go::<Inner>(text.as_bytes()).is_err(), "{text}");
        }
        let error = from_go::<Inner>(b"{\"list\":\n[1, \"x\"]}").unwrap_err();
        assert_eq!(error.line(), 2, "the error says where it is: {error}");
    }
}
