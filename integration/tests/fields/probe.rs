//! Sets each field of each message in a resource alone, whether it was set or not, and holds what
//! comes of it against the table.

use std::collections::{BTreeMap, BTreeSet};

use ferromesh_dataplane::compile::known::{Field, Known, Message};
use ferromesh_proto::ResourceType;
use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, ReflectMessage, Value};

use super::{
    compiled,
    leaf::{self, Step},
    table::{self, Row},
};

/// A row that this many places do not show to be read is not read.
const PLACES: usize = 6;
/// Values that are enough to see that nothing comes of a field.
const FEW: usize = 3;

/// What is known of rows so far.
pub(crate) struct Probe {
    /// Those that were shown to be read.
    pub(crate) read: BTreeSet<Row>,
    /// What the table says and is not so.
    pub(crate) wrong: BTreeSet<String>,
    looked_at: BTreeMap<Row, usize>,
}

/// A message in a resource.
struct Place<'a> {
    kind: ResourceType,
    name: &'a str,
    resource: &'a DynamicMessage,
    steps: &'a [Step],
    before: &'a str,
}

impl Place<'_> {
    /// What comes of the resource with this value in the place's message; `None` if it has it.
    fn with(&self, field: &FieldDescriptor, value: &Value) -> Option<Result<String, String>> {
        let mut resource = self.resource.clone();
        let set = &mut |message: &mut DynamicMessage| message.set_field(field, value.clone());
        leaf::edit(&mut resource, self.steps, set);
        // What is no presence is not on the wire.
        let said = field.supports_presence() || !value.is_default_for_field(field);
        (said && resource != *self.resource)
            .then(|| compiled(self.kind, self.name, &resource.encode_to_vec()))
    }

    /// Whether a value of the field changes anything. Of a choice between several fields it must be
    /// the value, since another field is left out with any of them.
    fn is_read(&self, field: &FieldDescriptor) -> bool {
        let values = leaf::samples(field);
        let mut results = values.iter().filter_map(|value| self.with(field, value));
        if field.containing_oneof().is_none() || field.kind().as_message().is_some() {
            return results.any(|result| result.as_deref() != Ok(self.before));
        }
        let all: BTreeSet<_> = results.collect();
        all.len() > 1 || all.iter().any(Result::is_err)
    }
}

impl Probe {
    pub(crate) fn new(read: BTreeSet<Row>) -> Self {
        Self { read, wrong: BTreeSet::new(), looked_at: BTreeMap::new() }
    }

    pub(crate) fn resource(&mut self, kind: ResourceType, name: &str, resource: &DynamicMessage) {
        let before = compiled(kind, name, &resource.encode_to_vec()).expect("it is accepted");
        for steps in leaf::messages(resource) {
            let trace = table::trace(kind, &steps);
            let Some(message) = trace.message.filter(|_| trace.reason.is_none()) else { continue };
            let place = Place { kind, name, resource, steps: &steps, before: &before };
            for row in message.fields {
                if self.row(&place, message, row) {
                    self.read.insert(Row::of(message, row));
                    self.read.extend(trace.rows.iter().cloned());
                }
            }
        }
    }

    /// Whether the row is shown to be read.
    fn row(&mut self, place: &Place<'_>, message: &'static Message, row: &'static Field) -> bool {
        let key = Row::of(message, row);
        let looked_at = self.looked_at.entry(key.clone()).or_default();
        let enough = if table::claims(row) { PLACES } else { 1 };
        if self.read.contains(&key) || *looked_at >= enough {
            return false;
        }
        *looked_at += 1;
        let Some(field) = field(place, row.number) else { return false };
        let mut few = leaf::samples(&field).into_iter().take(FEW);
        match row.known {
            Known::Refused | Known::Guard => {
                let accepted = few.any(|value| matches!(place.with(&field, &value), Some(Ok(_))));
                if accepted {
                    self.wrong.insert(format!("refused by the table only: {}", field.full_name()));
                }
                false
            }
            // Another field of a choice is left out with it.
            Known::NoEffect(_) if field.containing_oneof().is_some() => false,
            Known::NoEffect(_) => {
                let before = Ok(place.before.to_owned());
                if few.any(|value| place.with(&field, &value).is_some_and(|after| after != before))
                {
                    let name = field.full_name();
                    self.wrong.insert(format!("without effect by the table only: {name}"));
                }
                false
            }
            _ => place.is_read(&field),
        }
    }
}

/// The descriptor of a field of the place's message.
fn field(place: &Place<'_>, number: u32) -> Option<FieldDescriptor> {
    let mut found = None;
    leaf::edit(&mut place.resource.clone(), place.steps, &mut |message| {
        found = message.descriptor().get_field(number);
    });
    found
}
