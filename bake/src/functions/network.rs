//! Network prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use num_bigint::BigInt;
use num_traits::ToPrimitive;

use super::{Failure, Function, Parameter, ParameterKind, number, text, whole};
use crate::value::Value;

const PREFIX: Parameter = Parameter::string("prefix");

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new(
        "cidrhost",
        &[PREFIX, Parameter::number("hostnum")],
        ParameterKind::String,
        |_, values| host(values),
    ),
    Function::new("cidrnetmask", &[PREFIX], ParameterKind::String, |_, values| {
        let prefix = Prefix::read(text(values, 0)?)?;
        if prefix.width == 128 {
            return Err(Failure::new(
                "IPv6 addresses cannot have a netmask: use the prefix length",
            ));
        }
        Ok(Value::text(address(prefix.mask(), prefix.width)))
    }),
    Function::new(
        "cidrsubnet",
        &[PREFIX, Parameter::number("newbits"), Parameter::number("netnum")],
        ParameterKind::String,
        |_, values| subnet(values),
    ),
    Function::new("cidrsubnets", &[PREFIX], ParameterKind::ListOfString, |_, values| {
        subnets(values)
    })
    .with_more(Parameter::number("newbits")),
];

/// A network prefix.
#[derive(Clone, Copy)]
struct Prefix {
    base: u128,
    length: u32,
    width: u32,
}

impl Prefix {
    /// Reads a prefix. Bits behind the prefix are dropped.
    fn read(written: &str) -> Result<Self, Failure> {
        let invalid = || {
            Failure::argument(
                0,
                format!("invalid CIDR expression: invalid CIDR address: {written}"),
            )
        };
        let (address, length) = written.split_once('/').ok_or_else(invalid)?;
        let (base, width) = match address.parse::<IpAddr>().map_err(|_| invalid())? {
            IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
            IpAddr::V6(address) => (u128::from(address), 128),
        };
        let length: u32 = length.parse().map_err(|_| invalid())?;
        if length > width {
            return Err(invalid());
        }
        let prefix = Self { base, length, width };
        Ok(Self { base: base & prefix.mask(), ..prefix })
    }

    /// Returns the bits of the prefix.
    fn mask(&self) -> u128 {
        let all = if self.width == 32 { u128::from(u32::MAX) } else { u128::MAX };
        let host = self.width - self.length;
        if host >= 128 { 0 } else { all >> host << host }
    }

    /// Writes the prefix.
    fn text(&self) -> String {
        format!("{}/{}", address(self.base, self.width), self.length)
    }

    /// Returns a prefix within this one.
    fn within(&self, bits: u32, index: u128) -> Self {
        let length = self.length + bits;
        let shift = self.width - length;
        let offset = if shift >= 128 { 0 } else { index << shift };
        Self { base: self.base | offset, length, ..*self }
    }
}

/// Writes an address.
fn address(bits: u128, width: u32) -> String {
    if width == 32 {
        Ipv4Addr::from(bits as u32).to_string()
    } else {
        Ipv6Addr::from(bits).to_string()
    }
}

/// Returns an address of a network, counted from its end if the number is negative.
fn host(values: &[Value]) -> Result<Value, Failure> {
    let prefix = Prefix::read(text(values, 0)?)?;
    let given = number(values, 1)?;
    if !given.is_whole() {
        return Err(Failure::argument(1, "host number must be a whole number"));
    }
    let bits = prefix.width - prefix.length;
    let size = BigInt::from(1) << bits;
    let mut index = BigInt::from(given.truncated());
    let is_negative = given.is_negative() && index != BigInt::from(0);
    let too_large = || {
        Failure::new(format!(
            "prefix of {} does not accommodate a host numbered {given}",
            prefix.length
        ))
    };
    if is_negative {
        index = &size - index;
        if index < BigInt::from(0) {
            return Err(too_large());
        }
    } else if index >= size {
        return Err(too_large());
    }
    let index = index.to_u128().ok_or_else(too_large)?;
    Ok(Value::text(address(prefix.base | index, prefix.width)))
}

/// Returns the number of bits by which a prefix becomes longer.
fn new_bits(prefix: &Prefix, values: &[Value], index: usize) -> Result<u32, Failure> {
    let bits = whole(values, index)?;
    let bits = u32::try_from(bits)
        .map_err(|_| Failure::argument(index, "must extend prefix by at least one bit"))?;
    if prefix.length.saturating_add(bits) > prefix.width {
        return Err(Failure::new(format!(
            "insufficient address space to extend prefix of {} by {bits}",
            prefix.length
        )));
    }
    Ok(bits)
}

/// Returns a longer prefix by its number.
fn subnet(values: &[Value]) -> Result<Value, Failure> {
    let prefix = Prefix::read(text(values, 0)?)?;
    let bits = new_bits(&prefix, values, 1)?;
    let given = number(values, 2)?;
    if !given.is_whole() {
        return Err(Failure::argument(2, "network number must be a whole number"));
    }
    let index = given.truncated().to_u128();
    let limit = 1_u128.checked_shl(bits);
    let fits = |index: &u128| limit.is_none_or(|limit| *index < limit);
    let index = index.filter(fits).filter(|index| !given.is_negative() || *index == 0);
    let index = index.ok_or_else(|| {
        Failure::new(format!(
            "prefix extension of {bits} does not accommodate a subnet numbered {given}"
        ))
    })?;
    Ok(Value::text(prefix.within(bits, index).text()))
}

/// Returns prefixes that follow each other.
fn subnets(values: &[Value]) -> Result<Value, Failure> {
    let prefix = Prefix::read(text(values, 0)?)?;
    let mut next = Some(prefix.base);
    let mut made = Vec::new();
    for index in 1..values.len() {
        let bits = new_bits(&prefix, values, index)?;
        if bits < 1 {
            return Err(Failure::argument(index, "must extend prefix by at least one bit"));
        }
        if bits > 32 {
            return Err(Failure::argument(index, "may not extend prefix by more than 32 bits"));
        }
        let length = prefix.length + bits;
        let size = 1_u128.checked_shl(prefix.width - length).unwrap_or(0);
        let exhausted = || {
            Failure::argument(
                index,
                format!(
                    "not enough remaining address space for a subnet with a prefix of {length} bits"
                ),
            )
        };
        let from = next.ok_or_else(exhausted)?;
        let base = from.checked_add(size - 1).ok_or_else(exhausted)? & !(size - 1);
        if base & prefix.mask() != prefix.base {
            return Err(exhausted());
        }
        made.push(Prefix { base, length, width: prefix.width }.text());
        next = base.checked_add(size);
    }
    Ok(Value::texts(made))
}
