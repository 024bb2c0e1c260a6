//! `x-forwarded-client-cert`: tells the application who the client is, and keeps clients from telling it themselves.
//!
//! Spec: Envoy HTTP headers, `x-forwarded-client-cert`.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::runtime::{
    PeerCertificate,
    http::{ForwardClientCert, ForwardClientCertMode},
};

const XFCC: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Rewrites the header as the connection manager asks. `own_id` is our own URI name; empty if we have none.
pub(crate) fn apply(
    headers: &mut HeaderMap,
    settings: &ForwardClientCert,
    peer: Option<&PeerCertificate>,
    own_id: &str,
) {
    use ForwardClientCertMode::{AlwaysForwardOnly, AppendForward, ForwardOnly, Sanitize, SanitizeSet};
    match (settings.mode, peer) {
        (AlwaysForwardOnly, _) | (ForwardOnly, Some(_)) => {}
        (Sanitize, _) | (ForwardOnly | AppendForward | SanitizeSet, None) => {
            headers.remove(XFCC);
        }
        (AppendForward, Some(peer)) => append(headers, &element(settings, peer, own_id)),
        (SanitizeSet, Some(peer)) => {
            headers.remove(XFCC);
            append(headers, &element(settings, peer, own_id));
        }
    }
}

/// `By=…;Hash=…;Subject="…";URI=…;DNS=…`
fn element(settings: &ForwardClientCert, peer: &PeerCertificate, own_id: &str) -> String {
    let mut parts = Vec::new();
    if !own_id.is_empty() {
        parts.push(format!("By={own_id}"));
    }
    parts.push(format!("Hash={}", peer.sha256));
    if settings.details.subject {
        parts.push(format!("Subject=\"{}\"", peer.subject.replace('\\', "\\\\").replace('"', "\\\"")));
    }
    if settings.details.uri {
        parts.extend(or_empty(peer.uri_sans.iter().map(|uri| format!("URI={}", quoted(uri))), "URI="));
    }
    if settings.details.dns {
        parts.extend(peer.dns_sans.iter().map(|dns| format!("DNS={}", quoted(dns))));
    }
    parts.join(";")
}

fn or_empty(parts: impl Iterator<Item = String>, empty: &str) -> Vec<String> {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { vec![empty.to_owned()] } else { parts }
}

/// A value with separators in it is quoted, so that it cannot pass for another element.
fn quoted(value: &str) -> String {
    if value.contains([',', ';', '=', '"', '\\']) {
        format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        value.to_owned()
    }
}

fn append(headers: &mut HeaderMap, element: &str) {
    let mut joined = String::new();
    for value in headers.get_all(XFCC) {
        joined.push_str(&String::from_utf8_lossy(value.as_bytes()));
        joined.push(',');
    }
    joined.push_str(element);
    // A certificate's names may hold bytes that no header can: then nothing is said rather than something wrong.
    match HeaderValue::from_str(&joined) {
        Ok(value) => {
            headers.insert(XFCC, value);
        }
        Err(_) => {
            headers.remove(XFCC);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::http::ClientCertDetails;

    const PEER: &str = "spiffe://cluster.local/ns/default/sa/productpage";
    const OWN: &str = "spiffe://cluster.local/ns/default/sa/reviews";

    fn check(mode: ForwardClientCertMode, received: Option<&str>, mutual_tls: bool, expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        if let Some(received) = received {
            headers.insert(XFCC, received.parse().unwrap());
        }
        let peer = PeerCertificate { uri_sans: vec![PEER.into()], sha256: "ab".into(), ..Default::default() };
        let details = ClientCertDetails { subject: true, uri: true, ..Default::default() };
        apply(&mut headers, &ForwardClientCert { mode, details }, mutual_tls.then_some(&peer), OWN);
        assert_eq!(headers.get(XFCC).map(|v| v.to_str().unwrap()), expected, "{mode:?} {received:?} {mutual_tls}");
    }

    #[test]
    fn each_mode_does_what_envoy_does() {
        use ForwardClientCertMode::*;
        let element = format!("By={OWN};Hash=ab;Subject=\"\";URI={PEER}");
        let both = format!("By=x,{element}");
        check(Sanitize, Some("By=x"), true, None);
        check(ForwardOnly, Some("By=x"), true, Some("By=x"));
        check(ForwardOnly, Some("By=x"), false, None);
        check(AppendForward, Some("By=x"), true, Some(&both));
        check(AppendForward, None, true, Some(&element));
        check(AppendForward, Some("By=x"), false, None);
        check(SanitizeSet, Some("By=x"), true, Some(&element));
        check(SanitizeSet, Some("By=x"), false, None);
        check(AlwaysForwardOnly, Some("By=x"), false, Some("By=x"));
    }

    #[test]
    fn separators_in_names_are_quoted() {
        assert_eq!(quoted("spiffe://a/b"), "spiffe://a/b");
        assert_eq!(quoted("a;URI=b"), "\"a;URI=b\"");
    }
}
