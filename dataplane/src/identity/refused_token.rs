//! Why a join token was refused, as far as it can be told here. The control plane says only that a
//! caller is not authenticated, since any further word would help somebody who guesses; but who
//! holds a token can read it.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ferromesh_proto::SpiffeId;
use serde::Deserialize;

/// The audience by which a join token is known; tokens of a cluster have others.
const AUDIENCE: &str = "ferromesh-ca";

/// What a join token says of itself. Unsigned as far as is known here: good for a message alone.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    aud: String,
    exp: u64,
    #[serde(default)]
    once: bool,
}

/// Why a token in a file was refused to a proxy that is to be `id`, and what to do; `None`: it is
/// no join token, and others know.
pub(super) fn explain(token: &str, id: &SpiffeId, file: &Path, now: SystemTime) -> Option<String> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    if claims.aud != AUDIENCE {
        return None;
    }
    let ended = UNIX_EPOCH + Duration::from_secs(claims.exp);
    let why = match now.duration_since(ended) {
        _ if claims.sub != id.to_string() => {
            let asked = "as --namespace, --service-account and --trust-domain say";
            format!("it is one for {}, and this proxy is to be {id}, {asked}", claims.sub)
        }
        Ok(since) => format!("it ended {} ago", span(since)),
        Err(_) if claims.once => {
            "it is good for one certificate, which was probably given out before".to_owned()
        }
        Err(_) => "it is another mesh's, or the clocks of the two machines differ".to_owned(),
    };
    let (namespace, account) = (id.namespace(), id.service_account());
    let (file, make) = (file.display(), "ferromesh token create");
    Some(format!("{why}; make a new one: `{make} -n {namespace} -s {account} > {file}`"))
}

/// A time in its largest unit.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(86_400, "days"), (3600, "hours"), (60, "minutes")];
    match units.into_iter().find(|(unit, _)| seconds >= 2 * unit) {
        Some((unit, name)) => format!("{} {name}", seconds / unit),
        None => format!("{seconds} seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_token_says_why_and_what_to_do() {
        let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
        let said = |claims: &str| {
            let token = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims));
            let now = UNIX_EPOCH + Duration::from_secs(10_000);
            explain(&token, &id, Path::new("cart.token"), now)
        };
        let own = |more: &str| {
            said(&format!(r#"{{"sub": "{id}", "aud": "ferromesh-ca", "jti": "x", {more}}}"#))
        };
        let table = [
            (own(r#""exp": 9900"#), "it ended 100 seconds ago"),
            (own(r#""exp": 2000"#), "it ended 2 hours ago"),
            (own(r#""exp": 10100, "once": true"#), "good for one certificate"),
            (own(r#""exp": 10100"#), "another mesh's"),
            (
                said(
                    r#"{"sub": "spiffe://cluster.local/ns/a/sa/b", "aud": "ferromesh-ca", "exp": 1}"#,
                ),
                "one for spiffe://cluster.local/ns/a/sa/b, and this proxy is to be spiffe",
            ),
        ];
        for (said, expected) in table {
            let said = said.unwrap();
            assert!(said.contains(expected), "{said}");
            let fix = "`ferromesh token create -n shop -s cart > cart.token`";
            assert!(said.ends_with(fix), "{said}");
        }
        assert_eq!(said(r#"{"sub": "system:serviceaccount:a:b", "aud": ["istio-ca"]}"#), None);
        let now = SystemTime::now();
        assert_eq!(explain("rubbish", &id, Path::new("t"), now), None);
    }
}
