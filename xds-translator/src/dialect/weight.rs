//! Weights of destinations that may be written as a quantity.

use serde_json::Value;

use super::{
    decode::{Decoder, describe},
    schema::{Decode, Shape},
};

/// A weight in thousandths: a whole number, or a quantity (`900m`, `0.5`).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Weight(pub u32);

/// Largest weight: sums of many fit into what proxies count in.
const MOST: f64 = 1_000_000.0;

impl Decode for Weight {
    fn decode(value: &Value, at: &mut Decoder) -> Self {
        let whole = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => match text.strip_suffix('m') {
                Some(thousandths) => thousandths.parse::<f64>().ok().map(|t| t / 1000.0),
                None => text.parse().ok(),
            },
            _ => None,
        };
        let valid = whole.filter(|weight| (0.0..=MOST).contains(weight));
        // Within 0 to 1,000,000,000 thousandths, which fit.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within u32")]
        match valid {
            Some(weight) => Self((weight * 1000.0).round() as u32),
            None => {
                at.invalid(
                    format!("expected a weight from 0 to {MOST}, got {}", describe(value)),
                    None,
                );
                Self::default()
            }
        }
    }

    fn shape() -> Shape {
        Shape::Any
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn weights_are_numbers_or_quantities() {
        let table = [
            (json!(90), Some(90_000)),
            (json!("900m"), Some(900)),
            (json!("1"), Some(1000)),
            (json!(0.5), Some(500)),
            (json!(-1), None),
            (json!("x"), None),
            (json!([]), None),
        ];
        for (written, expected) in table {
            let mut at = Decoder::default();
            let weight = Weight::decode(&written, &mut at);
            let valid = at.finish().is_empty();
            assert_eq!(valid.then_some(weight.0), expected, "{written}");
        }
    }
}
