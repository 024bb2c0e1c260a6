//! Random requests.

use ferromesh_xds_translator::explain::Request;
use serde_json::json;

use crate::{
    credentials::Credentials,
    gateways::{OTHERS, PASSED, TLS_PORT},
    mesh::{Dice, Mesh, ORIGINS, PATHS, PORTS, SERVICES, TLS, VALUES},
};

/// Names the number of a request, for the access log and for who is asked.
pub(crate) const NUMBER: &str = "x-n";
/// Tells who is asked about a request what to say.
pub(crate) const ASK: &str = "x-ask";
/// Tells the application to fail.
pub(crate) const FAIL: &str = "x-fail";

/// A request.
pub(crate) struct Call {
    pub(crate) number: usize,
    pub(crate) request: Request,
    /// Whether the client shows a certificate where it is asked for one.
    pub(crate) certificate: bool,
    /// Whether who is asked about it refuses it.
    pub(crate) unwanted: bool,
    /// What the application answers.
    pub(crate) status: u16,
}

impl Call {
    pub(crate) fn random(
        dice: &mut Dice,
        mesh: &Mesh,
        credentials: &Credentials,
        number: usize,
    ) -> Self {
        let secure = dice.chance(if mesh.client.is_none() { 50 } else { 10 });
        let place = place(dice, mesh, secure);
        let query = match dice.below(4) {
            0 | 1 => format!("?q={}", dice.pick(&VALUES)),
            2 => format!("?p=1&q={}", dice.pick(&VALUES[..2])),
            _ => String::new(),
        };
        let url = format!("{place}{}{query}", dice.pick(&PATHS));
        let mut method = *dice.pick(&["GET", "GET", "GET", "POST", "PUT"]);
        let mut headers = vec![format!("{NUMBER}: {number}")];
        for name in ["x-a", "x-b"] {
            if dice.chance(55) {
                headers.push(format!("{name}: {}", dice.pick(&VALUES)));
            }
        }
        if dice.chance(if mesh.client.is_none() { 75 } else { 55 }) {
            headers.push(token(dice, credentials));
        }
        if dice.chance(25) {
            headers.push(format!("origin: {}", dice.pick(&ORIGINS)));
            if dice.chance(60) {
                method = "OPTIONS";
                headers.push("access-control-request-method: GET".to_owned());
            }
        }
        if dice.chance(5) {
            headers.push(format!("x-forwarded-proto: {}", dice.pick(&["http", "https"])));
        }
        if secure && dice.chance(8) {
            headers.push(format!("host: {}.test", dice.pick(&SERVICES)));
        }
        let (unwanted, fails) = (dice.chance(40), dice.chance(12));
        headers.extend(unwanted.then(|| format!("{ASK}: no")));
        headers.extend(fails.then(|| format!("{FAIL}: 1")));
        let request = Request::parse(method, &url, &headers).expect("a good request");
        let certificate = dice.chance(50);
        Self { number, request, certificate, unwanted, status: if fails { 500 } else { 200 } }
    }

    /// As people read it.
    pub(crate) fn line(&self) -> String {
        let with = if self.certificate { "with" } else { "without" };
        let Request { method, headers, .. } = &self.request;
        format!("{method} {} {headers:?}, {with} a certificate", self.request.url())
    }
}

/// Scheme, host and port.
fn place(dice: &mut Dice, mesh: &Mesh, secure: bool) -> String {
    let service = *dice.pick(&[SERVICES[0], SERVICES[0], SERVICES[1], SERVICES[2], SERVICES[3]]);
    let names = match mesh.client {
        None => vec![format!("{service}.test")],
        Some(_) => vec![
            service.to_owned(),
            format!("{service}.shop"),
            format!("{service}.shop.svc.cluster.local"),
        ],
    };
    let odd = dice.chance(4);
    let host = match (mesh.client, secure) {
        (None, true) if dice.chance(20) => *dice.pick(&[PASSED, PASSED, OTHERS[0], OTHERS[1]]),
        _ if dice.chance(4) => "unknown.test",
        _ => dice.pick(&names).as_str(),
    };
    let port = match (mesh.client, secure, odd) {
        (_, true, true) => 80,
        (None, true, false) | (None, false, true) => TLS_PORT,
        (Some(_), true, false) => TLS.0,
        (Some(_), false, true) => 81,
        (_, false, false) => dice.pick(&PORTS).0,
    };
    let (scheme, usual) = if secure { ("https", TLS_PORT) } else { ("http", 80) };
    match port == usual {
        true => format!("{scheme}://{host}"),
        false => format!("{scheme}://{host}:{port}"),
    }
}

/// A header with a token: good, of somebody else, too old, for others, or none at all.
fn token(dice: &mut Dice, credentials: &Credentials) -> String {
    let mut claims = json!({"iss": "https://login.test", "sub": "alice", "exp": 4_102_444_800_u64});
    if dice.chance(70) {
        claims["aud"] = dice.pick(&[json!("shop"), json!("bank"), json!(["bank", "shop"])]).clone();
    }
    if dice.chance(80) {
        claims["group"] =
            dice.pick(&[json!("staff"), json!(["staff", "x"]), json!("guest")]).clone();
    }
    let mut signer = &credentials.issuer;
    match dice.below(10) {
        0 => claims["exp"] = json!(1_000_000_000),
        1 => claims["iss"] = json!("https://evil.test"),
        2 => signer = &credentials.forger,
        _ => {}
    }
    let text = match dice.chance(5) {
        true => "no.token.at-all".to_owned(),
        false => signer.sign_as(credentials.issuer.kid(), &claims),
    };
    match dice.chance(20) {
        true => format!("x-jwt: JWT {text}"),
        false => format!("authorization: Bearer {text}"),
    }
}
