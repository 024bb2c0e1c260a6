//! The request that is asked about.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A request, as a client would send it. Over HTTP/1.1.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// Whether the client speaks TLS (`https`).
    pub secure: bool,
    /// The host that is asked for, in lower case; an IPv6 address in brackets.
    pub host: String,
    /// The port that is called.
    pub port: u16,
    /// `:authority`: the host, with the port where the URL names it; the header `host` replaces it.
    pub authority: String,
    /// Path and query; begins with a slash.
    pub target: String,
    /// Other headers; names in lower case.
    pub headers: Vec<(String, String)>,
}

/// Why this is no request.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestError {
    /// Not a URL that can be asked for.
    #[error("URL {got:?}: expected {expected}")]
    Url {
        /// What was given.
        got: String,
        /// What is expected.
        expected: &'static str,
    },
    /// Not a method.
    #[error("method {0:?}: expected a word such as GET")]
    Method(String),
    /// Not a header.
    #[error("header {got:?}: expected {expected}")]
    Header {
        /// What was given.
        got: String,
        /// What is expected.
        expected: &'static str,
    },
}

impl Request {
    /// Reads a method, an absolute URL and headers as `name: value`.
    ///
    /// # Errors
    /// One of them is malformed.
    pub fn parse(method: &str, url: &str, headers: &[String]) -> Result<Self, RequestError> {
        if method.is_empty() || !method.chars().all(is_token) {
            return Err(RequestError::Method(method.to_owned()));
        }
        let malformed = |expected| RequestError::Url { got: url.to_owned(), expected };
        let (scheme, rest) = url.split_once("://").ok_or(malformed("http://HOST[:PORT][/PATH]"))?;
        let secure = match &*scheme.to_ascii_lowercase() {
            "http" => false,
            "https" => true,
            _ => return Err(malformed("the scheme http or https")),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (place, target) = rest.split_at(end);
        let target = target.split('#').next().unwrap_or_default();
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        if target.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(malformed("a path without blanks"));
        }
        let (host, port) = split_port(place);
        let host = host.to_ascii_lowercase();
        let written: Option<u16> = match port {
            Some(port) => {
                let number = port.parse().ok().filter(|number| *number > 0);
                Some(number.ok_or(malformed("a port between 1 and 65535"))?)
            }
            None => None,
        };
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '@';
        if host.is_empty() || host.contains(bad) {
            return Err(malformed("a host"));
        }
        let port = written.unwrap_or(if secure { 443 } else { 80 });
        let authority = written.map_or(host.clone(), |port| format!("{host}:{port}"));
        let (method, headers) = (method.to_owned(), read_headers(headers)?);
        let mut request = Self { method, secure, host, port, authority, target, headers };
        if let Some(at) = request.headers.iter().position(|(name, _)| name == "host") {
            request.authority = request.headers.remove(at).1;
        }
        Ok(request)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        let usual = self.port == if self.secure { 443 } else { 80 };
        match usual {
            true => format!("{scheme}://{}{}", self.host, self.target),
            false => format!("{scheme}://{}:{}{}", self.host, self.port, self.target),
        }
    }

    /// The path without query.
    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The query, without `?`.
    pub(super) fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// The first value of a query parameter, as it is written.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query()?.split('&').find_map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (key == name).then_some(value)
        })
    }

    /// A header's value, several joined by commas; pseudo headers by their names.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        match name {
            ":method" => return Some(self.method.clone()),
            ":authority" | "host" => return Some(self.authority.clone()),
            ":path" => return Some(self.target.clone()),
            ":scheme" | "x-forwarded-proto" => return Some(self.scheme()),
            _ => {}
        }
        self.own(name)
    }

    /// The scheme that is told, else that of the connection.
    fn scheme(&self) -> String {
        let told = self.own("x-forwarded-proto").map(|told| told.to_ascii_lowercase());
        let told = told.filter(|told| matches!(&**told, "http" | "https"));
        told.unwrap_or_else(|| if self.secure { "https" } else { "http" }.to_owned())
    }

    fn own(&self, name: &str) -> Option<String> {
        let lower = name.to_ascii_lowercase();
        let values: Vec<&str> = self
            .headers
            .iter()
            .filter(|(own, _)| *own == lower)
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(","))
    }

    /// The host as an address, if it is one.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }
}

/// Host and port of an authority.
pub(super) fn split_port(authority: &str) -> (&str, Option<&str>) {
    let from = authority.rfind(']').unwrap_or(0);
    match authority[from..].rfind(':') {
        Some(at) => (&authority[..from + at], Some(&authority[from + at + 1..])),
        None => (authority, None),
    }
}

fn read_headers(headers: &[String]) -> Result<Vec<(String, String)>, RequestError> {
    let read = |text: &String| {
        let malformed = |expected| RequestError::Header { got: text.clone(), expected };
        let (name, value) = text.split_once(':').ok_or(malformed("NAME: VALUE"))?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
        if name.is_empty() || !name.chars().all(is_token) {
            return Err(malformed("a name of letters, digits and dashes before the colon"));
        }
        if value.chars().any(|c| c.is_control() && c != '\t') {
            return Err(malformed("a value in one line"));
        }
        Ok((name, value))
    };
    headers.iter().map(read).collect()
}

/// Characters of names (RFC 9110 section 5.6.2).
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(url: &str, headers: &[&str]) -> Result<Request, RequestError> {
        let headers: Vec<String> = headers.iter().map(|text| (*text).to_owned()).collect();
        Request::parse("GET", url, &headers)
    }

    #[test]
    fn a_url_says_host_port_and_path() {
        let table = [
            ("http://Reviews/a?b=1#c", "reviews", 80, "reviews", "/a?b=1"),
            ("https://reviews.shop", "reviews.shop", 443, "reviews.shop", "/"),
            ("http://reviews:9080?x", "reviews", 9080, "reviews:9080", "/?x"),
            ("http://[2001:db8::1]:81/", "[2001:db8::1]", 81, "[2001:db8::1]:81", "/"),
        ];
        for (url, host, port, authority, target) in table {
            let read = request(url, &[]).expect(url);
            let Request { host: h, port: p, authority: a, target: t, .. } = &read;
            assert_eq!((&**h, *p, &**a, &**t), (host, port, authority, target), "{url}");
        }
        let read = request("http://a/", &["Host: b:1", "X-A: 1", "x-a: 2"]).expect("a request");
        assert_eq!((&*read.authority, read.header("X-a")), ("b:1", Some("1,2".to_owned())));
    }

    #[test]
    fn what_is_no_request_is_refused_with_what_is_expected() {
        for url in ["reviews", "ftp://a", "http://", "http://a:0", "http://a:x", "http://a/ b"] {
            let error = request(url, &[]).expect_err(url).to_string();
            assert!(error.contains("expected"), "{error}");
        }
        assert!(request("http://a", &["x"]).is_err() && request("http://a", &["x y: 1"]).is_err());
        assert!(Request::parse("G T", "http://a", &[]).is_err());
    }
}
