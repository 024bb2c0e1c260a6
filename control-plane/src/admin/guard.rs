//! Who may ask the REST API: for everything that writes, and for reading too when the address is not
//! loopback, somebody with a token, whose role allows it; on loopback, only requests that were meant for it (a web
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

use super::{
    problem::Problem,
    token::AdminToken,
    users::{ADMINISTRATOR, Role, Users, Who},
};

/// What the guard knows.
#[derive(Debug)]
pub struct Guard {
    /// The administrator's token.
    pub token: Arc<AdminToken>,
    /// Others, with roles.
    pub users: Option<Arc<Users>>,
    /// Whether the API listens on loopback only.
    pub loopback: bool,
}

/// Lets a request pass or answers it.
pub(super) async fn check(
    State(guard): State<Arc<Guard>>,
    mut request: Request,
    next: Next,
) -> Response {
    match guard.judge(&request) {
        Err(problem) if problem.status == 401 => {
            (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], problem).into_response()
        }
        Err(problem) => problem.into_response(),
        Ok(who) => {
            if let Some(who) = who {
                request.extensions_mut().insert(who);
            }
            next.run(request).await
        }
    }
}

/// The least role for a request.
fn needed(method: &Method, path: &str) -> Role {
    match (method, path) {
        (&Method::GET | &Method::HEAD, _) => Role::Viewer,
        // They store nothing.
        (&Method::POST, "/api/v1/plan" | "/api/v1/explain") => Role::Viewer,
        (_, "/api/v1/tokens" | "/api/v1/log") => Role::Admin,
        _ => Role::Editor,
    }
}

impl Guard {
    /// Who asks, if that is known, or why the request is refused.
    fn judge<B>(&self, request: &axum::http::Request<B>) -> Result<Option<Who>, Problem> {
        let host = request.headers().get(HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
        if self.loopback && !is_local(host) {
            let detail = format!(
                "the API listens on loopback, but the request is for {host:?}: use an address or localhost"
            );
            return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "wrong host", detail));
        }
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if reads && self.loopback {
            return Ok(None);
        }
        let (method, path) = (request.method(), request.uri().path());
        let header = request.headers().get(AUTHORIZATION).and_then(|h| h.to_str().ok());
        let who = self.who(header).inspect_err(|problem| {
            tracing::warn!(target: "audit", %method, path, reason = problem.detail, "request refused");
        })?;
        let needed = needed(method, path);
        if who.role >= needed {
            return Ok(Some(who));
        }
        let Who { name, role } = who;
        tracing::warn!(target: "audit", who = %name, %method, path, "request refused: the role does not allow it");
        let detail = format!("{name} is {}: expected {}", role.name(), needed.name());
        Err(Problem::new(StatusCode::FORBIDDEN, "not permitted", detail))
    }

    /// Whose token the credentials are.
    fn who(&self, credentials: Option<&str>) -> Result<Who, Problem> {
        let refused = |detail| Problem::new(StatusCode::UNAUTHORIZED, "not authenticated", detail);
        let token = credentials.and_then(bearer).map(str::trim);
        let token = token.ok_or_else(|| refused("send `Authorization: Bearer TOKEN` with the administrator's token (file admin-token in the data directory), or a user's"))?;
        if self.token.accepts(token) {
            return Ok(Who { name: ADMINISTRATOR.into(), role: Role::Admin });
        }
        let user = self.users.as_ref().and_then(|users| users.find(token));
        user.ok_or_else(|| refused("the token is neither the administrator's nor a user's"))
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
    use super::{super::users, *};

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
        let users = dir.path().join("users");
        let tokens = [("viewer", Role::Viewer), ("editor", Role::Editor), ("admin", Role::Admin)]
            .map(|(name, role)| (name, users::add(&users, name, role).expect("added")));
        let users = Some(Arc::new(Users::open(&users).expect("opened")));
        let guard = Guard { token: Arc::new(token_of_admin), users, loopback };
        let of_user = |named: &str| tokens.iter().find(|(name, _)| *name == named);
        let mut request =
            axum::http::Request::builder().method(method).uri(path).header(HOST, host);
        if let Some(token) = token {
            let token = match of_user(token) {
                Some((_, token)) => token.as_str(),
                None if token == "good" => shown.as_str(),
                None => token,
            };
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        guard.judge(&request.body(()).expect("a request")).err().map(|p| p.status)
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
            (false, "GET", api, "mesh.example", Some("viewer"), None),
            (true, "POST", "/api/v1/plan", "localhost", Some("viewer"), None),
            (true, "POST", "/api/v1/plan", "localhost", None, Some(401)),
            (true, "POST", api, "localhost", Some("viewer"), Some(403)),
            (true, "POST", api, "localhost", Some("editor"), None),
            (true, "POST", "/api/v1/tokens", "localhost", Some("editor"), Some(403)),
            (true, "PUT", "/api/v1/log", "localhost", Some("editor"), Some(403)),
            (true, "POST", "/api/v1/tokens", "localhost", Some("admin"), None),
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
