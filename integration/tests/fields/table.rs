//! The data plane's table of fields: every message of it, the rows on the way to a value, and
//! whether it agrees with the descriptors of the API.

use std::collections::{BTreeMap, BTreeSet};

use ferromesh_dataplane::compile::known::{self, Field, Known, Message};
use ferromesh_proto::ResourceType;
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind};

use super::leaf::Step;

/// A field of a message in one place, or a label in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    message: usize,
    number: u32,
    label: String,
}

impl Row {
    pub(crate) fn of(message: &'static Message, field: &Field) -> Self {
        let message = std::ptr::from_ref(message) as usize;
        Self { message, number: field.number, label: String::new() }
    }
}

/// What the table says about a value.
pub(crate) struct Trace {
    /// The rows on the way to it.
    pub(crate) rows: Vec<Row>,
    /// The message that the way ends in, if it ends in one that is read by its fields.
    pub(crate) message: Option<&'static Message>,
    /// Why the value has no effect, if it has none.
    pub(crate) reason: Option<&'static str>,
    /// Only zero is without effect.
    pub(crate) zero: bool,
}

/// Follows the steps from a resource of this type.
pub(crate) fn trace(kind: ResourceType, steps: &[Step]) -> Trace {
    let root = known::resource(kind).expect("a type that the proxy takes");
    let mut trace = Trace { rows: Vec::new(), message: Some(root), reason: None, zero: false };
    let mut last = Known::In(root);
    for (at, step) in steps.iter().enumerate() {
        match (step, trace.message) {
            (Step::Field(field), Some(message)) => {
                let row = message.field(field.number());
                let row = row.unwrap_or_else(|| panic!("{} is in no row", field.full_name()));
                trace.rows.push(Row::of(message, row));
                last = row.known;
                trace.message = inside(row.known);
                match row.known {
                    Known::PackedAs(_) => trace.message = None,
                    Known::NoEffect(why) => trace.reason = Some(why),
                    Known::Zero(why) => (trace.reason, trace.zero) = (Some(why), true),
                    Known::Labels(listed) => trace.label(listed, &steps[at + 1..]),
                    _ => {}
                }
            }
            (Step::Packed(name), None) => {
                trace.message = match last {
                    Known::PackedAs(message) => Some(message),
                    Known::Packed | Known::PackedMap => known::packed(name),
                    _ => None,
                };
                trace.reason = trace.reason.or(known::without_effect(name));
            }
            _ => {}
        }
        if trace.reason.is_some() {
            break;
        }
    }
    trace
}

impl Trace {
    fn label(&mut self, listed: &[(&'static str, &'static str)], steps: &[Step]) {
        let keys = steps.iter().filter_map(|step| match step {
            Step::Entry(key) => key.as_str(),
            _ => None,
        });
        let label = keys.take(2).collect::<Vec<_>>().join(".");
        self.reason = listed.iter().find(|(known, _)| *known == label).map(|(_, why)| *why);
        let row = self.rows.last().map(|row| Row { label, ..row.clone() });
        self.rows.extend(row);
    }
}

fn inside(known: Known) -> Option<&'static Message> {
    match known {
        Known::In(message)
        | Known::Each(message)
        | Known::Map(message)
        | Known::PackedAs(message) => Some(message),
        _ => None,
    }
}

/// Every message of the table, with a place where it occurs.
pub(crate) fn messages() -> Vec<(&'static Message, String)> {
    let root = |kind: ResourceType| Some((known::resource(kind)?, kind.short_name().to_owned()));
    let roots = ResourceType::ALL.into_iter().filter_map(root);
    let packed = known::all_packed().map(|message| (message, format!("<{}>", message.name)));
    let mut found: Vec<_> = roots.into_iter().chain(packed).collect();
    let mut at = 0;
    while let Some((message, place)) = found.get(at).cloned() {
        at += 1;
        for field in message.fields {
            let Some(inner) = inside(field.known) else { continue };
            if !found.iter().any(|(known, _)| std::ptr::eq(*known, inner)) {
                found.push((inner, format!("{place}.{}", field.name)));
            }
        }
    }
    found
}

/// Whether a row claims to be read, so that a change of it must change what is compiled. What holds
/// nothing but fields without effect claims nothing.
pub(crate) fn claims(field: &Field) -> bool {
    let silent = |message: &Message| {
        message.fields.iter().all(|field| matches!(field.known, Known::NoEffect(_)))
    };
    match field.known {
        Known::Read
        | Known::Values(_)
        | Known::Marker
        | Known::Packed
        | Known::PackedMap
        | Known::PackedAs(_)
        | Known::Labels(_) => true,
        Known::In(message) | Known::Each(message) | Known::Map(message) => {
            !silent(message) || message.fields.is_empty()
        }
        Known::NoEffect(_) | Known::Zero(_) | Known::Refused | Known::Guard => false,
    }
}

/// Where the table and the API differ.
pub(crate) fn differences(pool: &DescriptorPool) -> Vec<String> {
    let mut wrong = Vec::new();
    for (message, place) in messages() {
        let Some(descriptor) = pool.get_message_by_name(message.name) else {
            wrong.push(format!("{place}: no message {}", message.name));
            continue;
        };
        let fields: BTreeMap<u32, FieldDescriptor> =
            descriptor.fields().map(|field| (field.number(), field)).collect();
        for (number, field) in &fields {
            let Some(row) = message.field(*number) else {
                let full_name = field.full_name();
                wrong.push(format!("{place}: nothing is said about {number} {full_name}"));
                continue;
            };
            if row.name != field.name() || !fits(row.known, field) {
                wrong.push(format!("{place}: {number} {} is {field:?}", row.name));
            }
        }
        let strange = message.fields.iter().filter(|row| !fields.contains_key(&row.number));
        wrong.extend(strange.map(|row| format!("{place}: the API has no {}", row.name)));
    }
    wrong
}

/// Whether a row can be about such a field.
fn fits(known: Known, field: &FieldDescriptor) -> bool {
    let of = |message: &Message, kind: &Kind| {
        kind.as_message().is_some_and(|descriptor| descriptor.full_name() == message.name)
    };
    let any = |kind: &Kind| {
        kind.as_message().is_some_and(|descriptor| descriptor.full_name() == "google.protobuf.Any")
    };
    let kind = field.kind();
    let value = || match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
        other => other,
    };
    let single = !field.is_list() && !field.is_map();
    match known {
        Known::Read | Known::NoEffect(_) | Known::Refused | Known::Guard => true,
        Known::Zero(_) => single && kind.as_message().is_some(),
        Known::Values(most) => kind.as_enum().is_some_and(|values| {
            let all: BTreeSet<_> = values.values().map(|value| value.number()).collect();
            (0..).zip(&all).all(|(expected, value)| expected == *value)
                && all.last().is_some_and(|last| u64::try_from(*last) == Ok(most))
        }),
        Known::Marker => {
            single && kind.as_message().is_some_and(|inner| inner.fields().next().is_none())
        }
        Known::In(message) => single && of(message, &kind),
        Known::Each(message) => field.is_list() && of(message, &kind),
        Known::Map(message) => field.is_map() && of(message, &value()),
        Known::Packed | Known::PackedAs(_) => single && any(&kind),
        Known::PackedMap => field.is_map() && any(&value()),
        Known::Labels(_) => field.is_map(),
    }
}
