//! Words of TLS that go to the proxy as they are written: a name that it does not know costs the
//! listener, or the cluster.

use std::sync::Arc;

use super::line::remark_refused_by_ours;
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{decode::Decoder, forms::each, suggest},
};

/// Cipher suites of TLS 1.2 and before by OpenSSL's names, as BoringSSL knows them (Istio
/// `ValidCipherSuites`).
const CIPHER_SUITES: &[&str] = &[
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
];

/// Curves by BoringSSL's names (Istio `ValidECDHCurves`).
const CURVES: &[&str] = &["P-256", "P-384", "P-521", "X25519", "X25519MLKEM768"];

/// Notes cipher suites that no proxy knows.
pub(super) fn check_cipher_suites(suites: &[Arc<str>], at: &mut Decoder) {
    each("cipherSuites", suites, at, |suite, at| {
        check_word("cipher suite", suite, CIPHER_SUITES, at)
    });
}

/// The suites of TLS 1.2 that our own proxy has.
const OURS: &[&str] = &[
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
];

/// Says which cipher suites only Envoy has.
pub(super) fn remark_suites_of_envoy(suites: &[Arc<str>], at: &mut Decoder) {
    each("cipherSuites", suites, at, |suite, at| {
        if CIPHER_SUITES.contains(&&**suite) && !OURS.contains(&&**suite) {
            remark_refused_by_ours("listeners with it", at);
        }
    });
}

/// Says that our own proxy does not choose curves.
pub(super) fn remark_curves_of_envoy(curves: &[Arc<str>], at: &mut Decoder) {
    if !curves.is_empty() {
        at.within("ecdhCurves", |at| remark_refused_by_ours("listeners with it", at));
    }
}

/// Notes curves that no proxy knows.
pub(super) fn check_curves(curves: &[Arc<str>], at: &mut Decoder) {
    each("ecdhCurves", curves, at, |curve, at| check_word("curve", curve, CURVES, at));
}

fn check_word(what: &str, word: &str, known: &[&'static str], at: &mut Decoder) {
    if known.contains(&word) {
        return;
    }
    let message = format!("not a {what} that proxies know");
    let finding = Diagnostic::error(Code::InvalidValue, at.path(), message)
        .expected(format!("one of {}", known.join(", ")), format!("`{word}`"));
    at.note(suggest::advise(finding, word, known.iter().copied()));
}
