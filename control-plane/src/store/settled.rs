//! That a record is read again as it is written, before anybody is told that it was: a journal that
//! cannot be read keeps the control plane from starting.

use serde_json::Value;

use super::{error::StoreError, journal::Record};

/// How often a record is read again until its numbers stay.
const READINGS: usize = 8;

/// A record as every later start reads it, with its text: what is acknowledged must be readable.
///
/// JSON's reader may take a number with a fraction for its neighbour; the one that stays is kept.
/// Anything else that comes back as something else is refused.
pub(super) fn settled(mut record: Record) -> Result<(Record, Vec<u8>), StoreError> {
    let key = record.key.clone();
    let refused = |reason: String| StoreError::Unstorable { key: key.clone(), reason };
    for _ in 0..READINGS {
        let text = record.text();
        let read: Record = serde_json::from_slice(&text).map_err(|e| refused(e.to_string()))?;
        if read == record {
            return Ok((record, text));
        }
        let alike = match (&read.value, &record.value) {
            (Some(read), Some(written)) => differ_in_fractions(read, written),
            (read, written) => read == written,
        };
        if !alike {
            return Err(refused("it would be read back as something else".to_owned()));
        }
        record = Record { value: read.value, ..record };
    }
    Err(refused("a number would be read back as another".to_owned()))
}

/// Whether two values differ in nothing but numbers with fractions.
fn differ_in_fractions(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || (one.is_f64() && other.is_f64())
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| differ_in_fractions(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|((key, one), (other_key, other))| {
                    key == other_key && differ_in_fractions(one, other)
                })
        }
        (one, other) => one == other,
    }
}
