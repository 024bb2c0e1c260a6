//! Dynamic metadata as messages bring it.

use std::collections::BTreeMap;

use envoy_types::pb::google::protobuf::{Struct, Value as Wire, value::Kind};

use crate::runtime::metadata::{Fields, Value};

/// Values by key.
pub(super) fn fields(wire: Struct) -> Fields {
    let fields: BTreeMap<_, _> = wire.fields.into_iter().collect();
    fields.into_iter().map(|(key, inner)| (key.into(), value(inner))).collect()
}

fn value(wire: Wire) -> Value {
    match wire.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(number)) => Value::Number(number),
        Some(Kind::StringValue(text)) => Value::Text(text.into()),
        Some(Kind::BoolValue(yes)) => Value::Bool(yes),
        Some(Kind::StructValue(inner)) => Value::Struct(fields(inner)),
        Some(Kind::ListValue(list)) => Value::List(list.values.into_iter().map(value).collect()),
    }
}
