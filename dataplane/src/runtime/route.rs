//! Route tables: virtual hosts by host name, routes by order, and what is found for a request.
//!
//! Spec: Envoy RDS `RouteConfiguration`, `VirtualHost.domains`, `RouteMatch`.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::HeaderValue;
use rustc_hash::FxHashMap;

pub use super::route_match::RouteMatch;
use super::{
    action::{Action, RetryPolicy},
    facts::{RequestFacts, split_port},
    filter::FilterOverrides,
    format::HeaderMutations,
    limits::BodyLimit,
    rate_limit::RateLimit,
};

/// A compiled route configuration.
#[derive(Debug)]
pub struct RouteConfig {
    /// RDS name; may be empty for an inline one.
    pub name: Arc<str>,
    /// Applied after the virtual host's and the route's.
    pub headers: HeaderMutations,
    /// Header changes of the most specific level are applied last, so that they win.
    pub most_specific_headers_win: bool,
    /// Hosts are compared without port.
    pub ignore_port: bool,
    hosts: HostIndex,
    virtual_hosts: Vec<VirtualHost>,
}

/// Routes of some host names.
#[derive(Clone, Debug)]
pub struct VirtualHost {
    /// Name, for logs and metrics.
    pub name: Arc<str>,
    /// Host names in lower case: exact, `*.suffix`, `prefix.*` or `*`. Never empty.
    pub domains: Vec<Arc<str>>,
    /// In order; the first that matches is taken.
    pub routes: Vec<Route>,
    /// Redirects plaintext requests to `https`.
    pub require_tls: bool,
    /// Header changes.
    pub headers: HeaderMutations,
    /// What routes without a policy of their own try again.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Adds `x-envoy-attempt-count` to requests.
    pub attempt_count_in_request: bool,
    /// Adds `x-envoy-attempt-count` to responses.
    pub attempt_count_in_response: bool,
    /// What is set for filters.
    pub overrides: FilterOverrides,
    /// How requests become descriptors of rate limits.
    pub rate_limits: Vec<RateLimit>,
    /// How much of a request's body is kept, if not what the listener says.
    pub body_limit: Option<BodyLimit>,
}

/// One route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Name, for logs; may be empty.
    pub name: Arc<str>,
    /// What a request must be like.
    pub matching: RouteMatch,
    /// What happens then.
    pub action: Action,
    /// Header changes.
    pub headers: HeaderMutations,
    /// What is set for filters.
    pub overrides: FilterOverrides,
    /// What a request of this route is called in traces (`decorator`).
    pub operation: Option<Operation>,
    /// How much of a request's body is kept, if not what the virtual host says.
    pub body_limit: Option<BodyLimit>,
}

/// What requests are called in traces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// The name, never empty.
    pub name: HeaderValue,
    /// The proxy at the other end is told it.
    pub is_told: bool,
}

/// What was found for a request.
#[derive(Clone, Copy, Debug)]
pub enum RouteDecision<'a> {
    /// The first route that matches.
    Route {
        /// Its virtual host.
        host: &'a VirtualHost,
        /// The route.
        route: &'a Route,
    },
    /// The host wants TLS and the request came without: redirect to `https`.
    RequireTls(&'a VirtualHost),
    /// The host is known but no route matches: 404.
    NoRoute(&'a VirtualHost),
    /// The host is not known: 404.
    NoHost,
}

impl RouteConfig {
    /// Indexes virtual hosts by their domains.
    ///
    /// # Errors
    /// The domain that two of them claim (Envoy refuses that too).
    pub fn new(
        name: Arc<str>,
        ignore_port: bool,
        virtual_hosts: Vec<VirtualHost>,
    ) -> Result<Self, Arc<str>> {
        Ok(Self {
            name,
            headers: HeaderMutations::default(),
            most_specific_headers_win: false,
            ignore_port,
            hosts: HostIndex::new(&virtual_hosts)?,
            virtual_hosts,
        })
    }

    /// The same with other virtual hosts.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_hosts(&self, virtual_hosts: Vec<VirtualHost>) -> Result<Self, Arc<str>> {
        let headers = self.headers.clone();
        let most_specific_headers_win = self.most_specific_headers_win;
        let new = Self::new(self.name.clone(), self.ignore_port, virtual_hosts)?;
        Ok(Self { headers, most_specific_headers_win, ..new })
    }

    /// Every virtual host, in the order of the message.
    pub fn virtual_hosts(&self) -> &[VirtualHost] {
        &self.virtual_hosts
    }

    /// The virtual host for an authority.
    pub fn virtual_host(&self, authority: &str) -> Option<&VirtualHost> {
        let host = if self.ignore_port { split_port(authority).0 } else { authority };
        self.hosts.find(host).map(|index| &self.virtual_hosts[index])
    }

    /// Whether a virtual host has this address as one of its domains, with or without the port; `*`
    /// does not count.
    pub fn names_address(&self, address: SocketAddr) -> bool {
        let host = match address.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let exact = &self.hosts.exact;
        exact.contains_key(&*host) || exact.contains_key(&*format!("{host}:{}", address.port()))
    }

    /// What to do with a request; `random` decides about shares of routes (not about weights of
    /// clusters).
    pub fn find(&self, request: &RequestFacts<'_>, random: u64) -> RouteDecision<'_> {
        let Some(host) = self.virtual_host(request.authority) else { return RouteDecision::NoHost };
        if host.require_tls && request.scheme != "https" {
            return RouteDecision::RequireTls(host);
        }
        match host.routes.iter().find(|route| route.matching.matches(request, random)) {
            Some(route) => RouteDecision::Route { host, route },
            None => RouteDecision::NoRoute(host),
        }
    }
}

/// Host names to indices: exact, then `*.suffix` and `prefix.*` (longest first), then `*`.
#[derive(Debug, Default)]
struct HostIndex {
    exact: FxHashMap<Arc<str>, usize>,
    suffixes: AffixIndex,
    prefixes: AffixIndex,
    any: Option<usize>,
}

/// Affixes of equal length share a table; longest first.
#[derive(Debug, Default)]
struct AffixIndex(Vec<(usize, FxHashMap<Arc<str>, usize>)>);

impl HostIndex {
    fn new(virtual_hosts: &[VirtualHost]) -> Result<Self, Arc<str>> {
        let mut index = Self::default();
        for (place, host) in virtual_hosts.iter().enumerate() {
            for domain in &host.domains {
                if index.insert(domain, place).is_some() {
                    return Err(domain.clone());
                }
            }
        }
        Ok(index)
    }

    fn insert(&mut self, domain: &Arc<str>, place: usize) -> Option<usize> {
        if &**domain == "*" {
            self.any.replace(place)
        } else if let Some(suffix) = domain.strip_prefix('*') {
            self.suffixes.insert(suffix, place)
        } else if let Some(prefix) = domain.strip_suffix('*') {
            self.prefixes.insert(prefix, place)
        } else {
            self.exact.insert(domain.clone(), place)
        }
    }

    fn find(&self, host: &str) -> Option<usize> {
        let host = lower_case(host);
        let exact = self.exact.get(&*host).copied();
        exact
            .or_else(|| self.suffixes.find(&host, |host, length| host.get(host.len() - length..)))
            .or_else(|| self.prefixes.find(&host, |host, length| host.get(..length)))
            .or(self.any)
    }
}

impl AffixIndex {
    fn insert(&mut self, affix: &str, place: usize) -> Option<usize> {
        let found = self.0.binary_search_by(|(length, _)| affix.len().cmp(length));
        let index = found.unwrap_or_else(|at| {
            self.0.insert(at, (affix.len(), FxHashMap::default()));
            at
        });
        self.0[index].1.insert(affix.into(), place)
    }

    fn find(&self, host: &str, cut: impl Fn(&str, usize) -> Option<&str>) -> Option<usize> {
        // The `*` stands for at least one character.
        let candidates = self.0.iter().filter(|(length, _)| *length < host.len());
        candidates.filter_map(|(length, table)| table.get(cut(host, *length)?)).next().copied()
    }
}

fn lower_case(host: &str) -> Cow<'_, str> {
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

#[cfg(test)]
mod tests;
