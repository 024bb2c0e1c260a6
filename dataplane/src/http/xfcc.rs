//! `x-forwarded-client-cert`: tells the application who the client is, and keeps clients from
//! telling it themselves.
//!
//! Spec: Envoy HTTP headers, `x-forwarded-client-cert`.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use crate::{
    codec::fields::append_element,
    runtime::{
        PeerCertificate,
        http::{ForwardClientCert, ForwardClientCertMode},
    },
};

const XFCC: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Rewrites the header as the connection manager asks. `own_names` are the URI names of the
/// certificate that the peer was shown; there may be none.
pub(crate) fn apply(
    headers: &mut HeaderMap,
    settings: &ForwardClientCert,
    peer: Option<&PeerCertificate>,
    own_names: &[Arc<str>],
) {
    use ForwardClientCertMode::{
        AlwaysForwardOnly, AppendForward, ForwardOnly, Sanitize, SanitizeSet,
    };
    match (settings.mode, peer) {
        (AlwaysForwardOnly, _) | (ForwardOnly, Some(_)) => {}
        (Sanitize, _) | (ForwardOnly | AppendForward | SanitizeSet, None) => {
            headers.remove(XFCC);
        }
        (AppendForward, Some(peer)) => {
            append_element(headers, &XFCC, &element(settings, peer, own_names));
        }
        (SanitizeSet, Some(peer)) => {
            headers.remove(XFCC);
            append_element(headers, &XFCC, &element(settings, peer, own_names));
        }
    }
}

/// `By=…;Hash=…;Cert="…";Chain="…";Subject="…";URI=…;DNS=…`, in Envoy's order.
fn element(settings: &ForwardClientCert, peer: &PeerCertificate, own_names: &[Arc<str>]) -> String {
    /// More than most clients need.
    const ROOM: usize = 320;
    let details = &settings.details;
    let mut text = String::with_capacity(ROOM);
    own_names.iter().for_each(|name| pair(&mut text, "By", name));
    pair(&mut text, "Hash", &peer.sha256);
    let encoded = peer.encoded.as_ref();
    // What stands in quotes has no quotes in it: PEM is encoded, and a subject has escapes of its
    // own (RFC 2253).
    for (name, value) in [
        ("Cert", encoded.filter(|_| details.cert).map(|encoded| &*encoded.leaf)),
        ("Chain", encoded.filter(|_| details.chain).map(|encoded| &*encoded.chain)),
        ("Subject", details.subject.then_some(&*peer.subject)),
    ] {
        if let Some(value) = value {
            begin(&mut text, name);
            text.push('"');
            text.push_str(value);
            text.push('"');
        }
    }
    match &peer.uri_sans[..] {
        _ if !details.uri => {}
        // Envoy says that way that it has looked.
        [] => begin(&mut text, "URI"),
        names => names.iter().for_each(|uri| pair(&mut text, "URI", uri)),
    }
    if details.dns {
        peer.dns_sans.iter().for_each(|dns| pair(&mut text, "DNS", dns));
    }
    text
}

fn begin(text: &mut String, name: &str) {
    if !text.is_empty() {
        text.push(';');
    }
    text.push_str(name);
    text.push('=');
}

/// A value with separators in it is quoted, so that it cannot pass for another element.
fn pair(text: &mut String, name: &str, value: &str) {
    begin(text, name);
    if !value.bytes().any(|byte| matches!(byte, b',' | b';' | b'=' | b'"' | b'\\')) {
        return text.push_str(value);
    }
    text.push('"');
    for character in value.chars() {
        if matches!(character, '"' | '\\') {
            text.push('\\');
        }
        text.push(character);
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{facts::EncodedChain, http::ClientCertDetails};

    const PEER: &str = "spiffe://cluster.local/ns/default/sa/productpage";
    const OWN: &str = "spiffe://cluster.local/ns/default/sa/reviews";

    fn check(
        mode: ForwardClientCertMode,
        received: Option<&str>,
        mutual_tls: bool,
        expected: Option<&str>,
    ) {
        let mut headers = HeaderMap::new();
        if let Some(received) = received {
            headers.insert(XFCC, received.parse().unwrap());
        }
        let peer = PeerCertificate {
            uri_sans: vec![PEER.into()],
            sha256: "ab".into(),
            ..Default::default()
        };
        let details = ClientCertDetails { subject: true, uri: true, ..Default::default() };
        apply(
            &mut headers,
            &ForwardClientCert { mode, details },
            mutual_tls.then_some(&peer),
            &[OWN.into()],
        );
        assert_eq!(
            headers.get(XFCC).map(|v| v.to_str().unwrap()),
            expected,
            "{mode:?} {received:?} {mutual_tls}"
        );
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

    /// Order and spelling of Envoy 1.40, for a client and a server of a public authority and for
    /// workloads.
    #[test]
    fn everything_that_is_asked_for_is_told_in_envoys_order() {
        let details =
            ClientCertDetails { subject: true, uri: true, dns: true, cert: true, chain: true };
        let settings = ForwardClientCert { mode: ForwardClientCertMode::SanitizeSet, details };
        let encoded = EncodedChain { leaf: "leaf%0A".into(), chain: "leaf%0Aca%0A".into() };
        let mut peer = PeerCertificate {
            subject: "CN=a,O=b\\, c".into(),
            sha256: "ab".into(),
            encoded: Some(encoded),
            ..Default::default()
        };
        let told = r#"Hash=ab;Cert="leaf%0A";Chain="leaf%0Aca%0A";Subject="CN=a,O=b\, c""#;
        assert_eq!(element(&settings, &peer, &[]), format!("{told};URI="));
        peer.uri_sans = vec!["spiffe://td/one".into(), "spiffe://td/two".into()];
        peer.dns_sans = vec!["a.test".into(), "b.test".into()];
        let names = "URI=spiffe://td/one;URI=spiffe://td/two;DNS=a.test;DNS=b.test";
        let own = ["spiffe://td/gw".into(), "spiffe://td/second".into()];
        let by = "By=spiffe://td/gw;By=spiffe://td/second";
        assert_eq!(element(&settings, &peer, &own), format!("{by};{told};{names}"));
    }

    #[test]
    fn no_bytes_of_a_client_keep_its_name_out() {
        let peer = PeerCertificate { sha256: "ab".into(), ..Default::default() };
        let mode = ForwardClientCertMode::AppendForward;
        let settings = ForwardClientCert { mode, details: ClientCertDetails::default() };
        let mut headers = HeaderMap::new();
        headers.insert(XFCC, http::HeaderValue::from_bytes(b"By=\xff").unwrap());
        apply(&mut headers, &settings, Some(&peer), &[]);
        assert_eq!(headers[XFCC].as_bytes(), b"By=\xff,Hash=ab");
        // A name of a certificate that no field can hold.
        let own = ["a\n".into()];
        apply(&mut headers, &settings, Some(&peer), &own);
        assert!(!headers.contains_key(XFCC), "nothing is said rather than something wrong");
    }

    #[test]
    fn separators_in_names_are_quoted() {
        for (value, expected) in [
            ("spiffe://a/b", "URI=spiffe://a/b"),
            ("a;URI=b", "URI=\"a;URI=b\""),
            ("a\"b\\c", "URI=\"a\\\"b\\\\c\""),
        ] {
            let mut text = String::new();
            pair(&mut text, "URI", value);
            assert_eq!(text, expected, "{value}");
        }
    }
}
