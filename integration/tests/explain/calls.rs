//! Random requests.

use ferromesh_xds_translator::explain::Request;
use serde_json::json;

use crate::{
    mesh::{Dice, Mesh, PATHS, PORTS, SERVICES, VALUES},
    site::Credentials,
};

/// Names the number of a request, for the access log.
pub(crate) const NUMBER: &str = "x-n";

/// A request.
pub(crate) struct Call {
    pub(crate) number: usize,
    pub(crate) request: Request,
}

impl Call {
    pub(crate) fn random(
        dice: &mut Dice,
        mesh: &Mesh,
        credentials: &Credentials,
        number: usize,
    ) -> Self {
        let service =
            *dice.pick(&[SERVICES[0], SERVICES[0], SERVICES[1], SERVICES[2], SERVICES[3]]);
        let port = if dice.chance(4) { 81 } else { dice.pick(&PORTS).0 };
        let names = match mesh.client {
            None => vec![format!("{service}.test"); 5],
            Some(_) => vec![
                service.to_owned(),
                format!("{service}.shop"),
                format!("{service}.shop.svc.cluster.local"),
            ],
        };
        let host =
            if dice.chance(4) { "unknown.test".to_owned() } else { dice.pick(&names).clone() };
        let written = if port == 80 { String::new() } else { format!(":{port}") };
        let query = match dice.below(4) {
            0 | 1 => format!("?q={}", dice.pick(&VALUES)),
            2 => format!("?p=1&q={}", dice.pick(&VALUES[..2])),
            _ => String::new(),
        };
        let url = format!("http://{host}{written}{}{query}", dice.pick(&PATHS));
        let method = *dice.pick(&["GET", "GET", "GET", "POST", "PUT"]);
        let mut headers = vec![format!("{NUMBER}: {number}")];
        for name in ["x-a", "x-b"] {
            if dice.chance(55) {
                headers.push(format!("{name}: {}", dice.pick(&VALUES)));
            }
        }
        if dice.chance(35) {
            headers.push(token(dice, credentials));
        }
        let request = Request::parse(method, &url, &headers).expect("a good request");
        Self { number, request }
    }

    /// As people read it.
    pub(crate) fn line(&self) -> String {
        format!("{} {} {:?}", self.request.method, self.request.url(), self.request.headers)
    }
}

/// A header with a token: good, of somebody else, too old, for others, or none at all.
fn token(dice: &mut Dice, credentials: &Credentials) -> String {
    let mut claims = json!({"iss": "https://login.test", "sub": "alice", "exp": 4_102_444_800_u64});
    if dice.chance(70) {
        claims["aud"] = dice.pick(&[json!("shop"), json!("bank"), json!(["bank", "shop"])]).clone();
    }
    if dice.chance(50) {
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
