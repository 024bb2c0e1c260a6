//! Errors that know their field, and conversions of values that occur everywhere.

use std::{net::IpAddr, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::core::v3::{Address, CidrRange, Metadata, address, socket_address::PortSpecifier},
        r#type::v3::{FractionalPercent, fractional_percent::DenominatorType},
    },
    google::protobuf::{self, Any, value::Kind},
};
use ipnet::IpNet;
use prost::{Message, Name};

use crate::runtime::matcher::Share;

/// A field that cannot be compiled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Invalid {
    /// Path from the resource; empty for the resource itself.
    pub(super) field: String,
    /// What is wrong.
    pub(super) reason: String,
    /// It is wrong in a file of this machine, which may become right without another message.
    pub(super) in_file: bool,
}

impl Invalid {
    /// An error about the field that is being compiled.
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { field: String::new(), reason: reason.into(), in_file: false }
    }

    /// The same error, found in a file of this machine.
    pub(super) fn in_file(self) -> Self {
        Self { in_file: true, ..self }
    }

    /// The same error seen from one level up.
    pub(super) fn at(mut self, field: &str) -> Self {
        let separator = if self.field.is_empty() || self.field.starts_with('[') { "" } else { "." };
        self.field = format!("{field}{separator}{}", self.field);
        self
    }
}

/// Says where an error happened.
pub(super) trait At {
    /// Prefixes the path of an error.
    fn at(self, field: &str) -> Self;
}

impl<T> At for Result<T, Invalid> {
    fn at(self, field: &str) -> Self {
        self.map_err(|error| error.at(field))
    }
}

/// Compiles each element, naming the one that fails.
pub(super) fn each<'a, S: 'a, T>(
    field: &str,
    items: impl IntoIterator<Item = &'a S>,
    mut compile: impl FnMut(&'a S) -> Result<T, Invalid>,
) -> Result<Vec<T>, Invalid> {
    let numbered = items.into_iter().enumerate();
    numbered.map(|(index, item)| compile(item).at(&format!("{field}[{index}]"))).collect()
}

/// Refuses the first field that is set although this proxy does not act on it.
pub(super) fn refuse(fields: &[(&str, bool)]) -> Result<(), Invalid> {
    match fields.iter().find(|(_, set)| *set) {
        Some((field, _)) => Err(Invalid::new("not supported by this proxy").at(field)),
        None => Ok(()),
    }
}

/// A field that must be there.
pub(super) fn required<'a, T>(field: &str, value: Option<&'a T>) -> Result<&'a T, Invalid> {
    value.ok_or_else(|| Invalid::new("required, but missing").at(field))
}

/// The type that an `Any` holds, without host.
pub(super) fn type_name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

/// Reads an `Any` of a known type.
pub(super) fn unpack<M: Message + Default + Name>(any: &Any) -> Result<M, Invalid> {
    let (wanted, got) = (M::full_name(), type_name(any));
    if wanted != got {
        return Err(Invalid::new(format!("expected {wanted}, got {got}")));
    }
    M::decode(&*any.value).map_err(|error| Invalid::new(format!("not a valid {wanted}: {error}")))
}

/// A duration that is not negative.
pub(super) fn duration(field: &str, value: &protobuf::Duration) -> Result<Duration, Invalid> {
    match (u64::try_from(value.seconds), u32::try_from(value.nanos)) {
        (Ok(seconds), Ok(nanos)) => Ok(Duration::new(seconds, nanos)),
        _ => Err(Invalid::new("expected a duration of at least 0s").at(field)),
    }
}

/// An optional duration.
pub(super) fn optional_duration(
    field: &str,
    value: Option<&protobuf::Duration>,
) -> Result<Option<Duration>, Invalid> {
    value.map(|value| duration(field, value)).transpose()
}

/// An optional duration in which zero means none.
pub(super) fn limit(
    field: &str,
    value: Option<&protobuf::Duration>,
) -> Result<Option<Duration>, Invalid> {
    Ok(optional_duration(field, value)?.filter(|duration| !duration.is_zero()))
}

/// A share of requests.
pub(super) fn share(value: &FractionalPercent) -> Share {
    let parts = match value.denominator() {
        DenominatorType::Hundred => u64::from(value.numerator) * 10_000,
        DenominatorType::TenThousand => u64::from(value.numerator) * 100,
        DenominatorType::Million => u64::from(value.numerator),
    };
    Share::per_million(u32::try_from(parts).unwrap_or(u32::MAX))
}

/// A port number.
pub(super) fn port(field: &str, value: u32) -> Result<u16, Invalid> {
    u16::try_from(value)
        .map_err(|_| Invalid::new(format!("expected a port up to 65535, got {value}")).at(field))
}

/// An address prefix.
pub(super) fn cidr(range: &CidrRange) -> Result<IpNet, Invalid> {
    let address = ip("address_prefix", &range.address_prefix)?;
    let length = range.prefix_len.as_ref().map_or(0, |length| length.value);
    let length = u8::try_from(length).unwrap_or(u8::MAX);
    let net = IpNet::new(address, length)
        .map_err(|error| Invalid::new(error.to_string()).at("prefix_len"))?;
    Ok(net.trunc())
}

/// An IP address.
pub(super) fn ip(field: &str, text: &str) -> Result<IpAddr, Invalid> {
    text.parse()
        .map_err(|_| Invalid::new(format!("expected an IP address, got {text:?}")).at(field))
}

/// Host (name or address) and port of a TCP socket address.
pub(super) fn host_and_port(address: &Address) -> Result<(&str, u16), Invalid> {
    let Some(address::Address::SocketAddress(socket)) = &address.address else {
        return Err(Invalid::new(
            "expected a socket_address, others are not supported by this proxy",
        ));
    };
    refuse(&[("socket_address.protocol", socket.protocol != 0)])?;
    let number = match &socket.port_specifier {
        Some(PortSpecifier::PortValue(number)) => *number,
        Some(PortSpecifier::NamedPort(_)) => {
            return Err(Invalid::new("expected a port_value").at("socket_address"));
        }
        None => 0,
    };
    Ok((&socket.address, port("socket_address.port_value", number)?))
}

/// The string values of one namespace of metadata.
pub(super) fn metadata_strings<'a>(
    metadata: Option<&'a Metadata>,
    namespace: &str,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let fields = metadata.and_then(|metadata| metadata.filter_metadata.get(namespace));
    let values = fields.into_iter().flat_map(|fields| &fields.fields);
    values.filter_map(|(key, value)| match &value.kind {
        Some(Kind::StringValue(text)) => Some((key.as_str(), text.as_str())),
        _ => None,
    })
}

/// Whether a wrapped flag is set, with a default.
pub(super) fn flag(value: Option<&protobuf::BoolValue>, default: bool) -> bool {
    value.map_or(default, |value| value.value)
}

/// A wrapped number, with a default.
pub(super) fn number(value: Option<&protobuf::UInt32Value>, default: u32) -> u32 {
    value.map_or(default, |value| value.value)
}

/// An HTTP status.
pub(super) fn status(field: &str, code: u32) -> Result<u16, Invalid> {
    let status = u16::try_from(code).ok().filter(|status| (100..600).contains(status));
    status.ok_or_else(|| Invalid::new(format!("expected an HTTP status, got {code}")).at(field))
}
