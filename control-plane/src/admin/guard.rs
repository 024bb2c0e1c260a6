//! Who may ask the REST API: the administrator's token for everything that writes, and for reading
//! too when the address is not loopback; on loopback, only requests that were meant for it (a web
//! page elsewhere must not reach it by a name that resolves to 127.0.0.1).

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{
        Method, StatusCode,
        header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{problem::Problem, token::AdminToken};

/// What the guard knows.
#[derive(Debug)]
pub struct Guard {
    /// The administrator's token.
    pub token: Arc<AdminToken>,
    /// Whether the API listens on loopback only.
    pub loopback: bool,
}

/// Lets a request pass or answers it.
pub(super) async fn check(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    match guard.refuse(&request) {
        Some(problem) if problem.status == 401 => {
            (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], problem).into_response()
        }
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

impl Guard {
    fn refuse<B>(&self, request: &axum::http::Request<B>) -> Option<Problem> {
        let host = request.headers().get(HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
        if self.loopback && !is_local(host) {
            let detail = format!(
                "the API listens on loopback, but the request is for {host:?}: use an address or localhost"
            );
            return Some(Problem::new(StatusCode::MISDIRECTED_REQUEST, "wrong host", detail));
        }
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if reads && self.loopback {
            return None;
        }
        let header = request.headers().get(AUTHORIZATION).and_then(|h| h.to_str().ok());
        match header.and_then(bearer) {
            Some(token) if self.token.accepts(token.trim()) => None,
            Some(_) => Some(Problem::new(
                StatusCode::UNAUTHORIZED,
                "not authenticated",
                "the token is not the administrator's",
            )),
            None => {
                let detail = "send `Authorization: Bearer TOKEN` with the administrator's token (file admin-token in the data directory)";
                Some(Problem::new(StatusCode::UNAUTHORIZED, "not authenticated", detail))
            }
        }
    }
}

/// The token of credentials of the scheme `Bearer`, whose name has no case (RFC 9110 section 11.1).
fn bearer(credentials: &str) -> Option<&str> {
    let (scheme, token) = credentials.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// Whether a `Host` header names this machine directly.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(
        loopback: bool,
        method: &str,
        path: &str,
        host: &str,
        token: Option<&str>,
    ) -> Option<u16> {
        let dir = tempfile::tempdir().expect("a directory");
        let (token_of_admin, shown) = AdminToken::open(&dir.path().join("t")).expect("a token");
        let shown = shown.expect("shown");
        let guard = Guard { token: Arc::new(token_of_admin), loopback };
        let mut request =
            axum::http::Request::builder().method(method).uri(path).header(HOST, host);
        if let Some(token) = token {
            request = request.header(
                AUTHORIZATION,
                format!("Bearer {}", if token == "good" { shown.as_str() } else { token }),
            );
        }
        guard.refuse(&request.body(()).expect("a request")).map(|p| p.status)
    }

    #[test]
    fn writing_needs_the_token_and_reading_needs_it_off_loopback() {
        let api = "/api/v1/objects";
        let table = [
            (true, "GET", api, "127.0.0.1:8080", None, None),
            (true, "GET", api, "[::1]:8080", None, None),
            (true, "GET", api, "evil.example:8080", None, Some(421)),
            (true, "POST", api, "localhost:8080", None, Some(401)),
            (true, "POST", api, "localhost:8080", Some("bad"), Some(401)),
            (true, "DELETE", api, "localhost", Some("good"), None),
            (false, "GET", api, "mesh.example", None, Some(401)),
            (false, "GET", api, "mesh.example", Some("good"), None),
        ];
        for (loopback, method, path, host, token, expected) in table {
            assert_eq!(
                refused(loopback, method, path, host, token),
                expected,
                "{method} {path} {host} {token:?}"
            );
        }
    }

    #[test]
    fn the_name_of_the_scheme_has_no_case() {
        for (credentials, token) in
            [("Bearer a", Some("a")), ("bearer a", Some("a")), ("Basic a", None), ("Bearer", None)]
        {
            assert_eq!(bearer(credentials), token, "{credentials}");
        }
    }
}
