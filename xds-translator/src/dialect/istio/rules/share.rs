//! Shares of requests, and fields that others have replaced.

use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{decode::Decoder, forms::check_percent, istio::shared::Percent},
};

/// Notes a share that is none, in the field `field`.
pub(super) fn check_share(field: &'static str, share: Option<&Percent>, at: &mut Decoder) {
    if let Some(share) = share {
        at.within(field, |at| check_percent("value", share.value, at));
    }
}

/// Says that Istio has another field for what is here.
pub(super) fn remark_deprecated(instead: &str, at: &mut Decoder) {
    at.remark(|path| Diagnostic::warning(Code::Deprecated, path, "deprecated").fix(instead));
}
