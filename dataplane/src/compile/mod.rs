//! Compiles xDS messages into what the hot path executes; the only place that knows Envoy's
//! protobuf types.
//!
//! One function per resource type, each from the encoded message alone, so that a push compiles
//! what it changed and nothing else. What this proxy cannot do is a [`Rejection`] naming resource,
//! field and reason, which becomes a NACK. Nothing that is set is skipped silently: a field is read,
//! refused, or stands in the table of all fields ([`known`]) with the reason why it has no effect on
//! a request (statistics, buffer sizes).

use std::{collections::BTreeSet, fmt, sync::Arc};

use ferromesh_proto::ResourceType;
use prost::Message;

use crate::runtime::{
    Cluster, Listener, RouteConfig, endpoint::EndpointSet, secret::SecretMaterial,
};

mod access_log;
mod authz;
mod cel;
mod close;
mod cluster;
mod code;
mod collector;
mod connection_ask;
mod endpoint;
mod field;
mod filter;
mod filter_chain;
mod format;
mod grpc_service;
mod guard;
mod hcm;
mod header;
pub mod known;
mod limits;
mod listener;
mod log_service;
mod matcher;
mod metadata;
mod metrics;
mod rate_limit;
mod route;
mod route_action;
mod route_match;
mod secret;
mod tls;
mod trace;

use self::field::Invalid;
pub use self::{code::ImagedCode, guard::Guards, secret::SecretSlots};

/// Why a resource was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Rejection {
    /// Its type.
    pub kind: ResourceType,
    /// Its name.
    pub name: String,
    /// Where in the message, such as `filter_chains[0].filters[1].typed_config`; may be empty.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
    /// What it guards is closed, for the version in force would guard less.
    pub closed: bool,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.short_name(), self.name)?;
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.reason)?;
        if self.closed {
            f.write_str("; what it guards is closed until a version is accepted, since the one in force guards less")?;
        }
        Ok(())
    }
}

/// What compiled resources share beyond their messages.
#[derive(Default)]
pub struct Context {
    /// Slots of secrets, which outlive configurations.
    pub secrets: SecretSlots,
    needs: Needs,
}

/// Names of resources that another one refers to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Needs {
    /// EDS names.
    pub endpoints: BTreeSet<String>,
    /// RDS names.
    pub routes: BTreeSet<String>,
    /// SDS names, without those that the workload's own identity answers.
    pub secrets: BTreeSet<String>,
    /// The proxy's own replicas; nothing waits for them.
    pub peers: bool,
}

/// A compiled resource and what it refers to.
#[derive(Clone)]
pub struct Compiled<T> {
    /// The resource.
    pub value: Arc<T>,
    /// What must have arrived before it can serve.
    pub needs: Needs,
    /// What it guards, to hold a refused version of it against.
    pub guards: Guards,
}

impl<T: Clone> Compiled<T> {
    /// The resource as something else, such as bound to its state.
    pub fn map<U>(self, bind: impl FnOnce(T) -> U) -> Compiled<U> {
        let value = Arc::new(bind(Arc::unwrap_or_clone(self.value)));
        Compiled { value, needs: self.needs, guards: self.guards }
    }
}

impl Context {
    /// Compiles a CDS resource.
    pub fn cluster(&mut self, name: &str, body: &[u8]) -> Result<Compiled<Cluster>, Rejection> {
        let kind = ResourceType::Cluster;
        let result = parse(kind, body).and_then(|message| {
            cluster::compile(self, name, &message).map(|value| (value, guard::cluster(&message)))
        });
        self.finish(kind, name, result)
    }

    /// Compiles an LDS resource; `version` tells it from its predecessors.
    pub fn listener(
        &mut self,
        name: &str,
        version: u64,
        body: &[u8],
    ) -> Result<Compiled<Listener>, Rejection> {
        let kind = ResourceType::Listener;
        let result = parse(kind, body).and_then(|message| {
            listener::compile(self, name, version, &message)
                .map(|value| (value, guard::listener(&message)))
        });
        self.finish(kind, name, result)
    }

    /// Compiles an RDS resource.
    pub fn routes(&mut self, name: &str, body: &[u8]) -> Result<Compiled<RouteConfig>, Rejection> {
        let kind = ResourceType::Route;
        let result = parse(kind, body).and_then(|message| {
            route::compile(name, &message).map(|value| (value, guard::routes(&message)))
        });
        self.finish(kind, name, result)
    }

    /// Compiles an EDS resource.
    pub fn endpoints(
        &mut self,
        name: &str,
        body: &[u8],
    ) -> Result<Compiled<EndpointSet>, Rejection> {
        let kind = ResourceType::Endpoint;
        let result =
            parse(kind, body).and_then(|message| endpoint::compile(name, &message)).map(unguarded);
        self.finish(kind, name, result)
    }

    /// Compiles an SDS resource.
    pub fn secret(
        &mut self,
        name: &str,
        body: &[u8],
    ) -> Result<Compiled<SecretMaterial>, Rejection> {
        let kind = ResourceType::Secret;
        let result =
            parse(kind, body).and_then(|message| secret::compile(name, &message)).map(unguarded);
        self.finish(kind, name, result)
    }

    /// Refuses a resource of a type that this proxy does not take.
    pub fn untaken(&self, kind: ResourceType, name: &str) -> Rejection {
        let Invalid { field, reason } = known::untaken();
        Rejection { kind, name: name.to_owned(), field, reason, closed: false }
    }

    fn finish<T>(
        &mut self,
        kind: ResourceType,
        name: &str,
        result: Result<(T, Guards), Invalid>,
    ) -> Result<Compiled<T>, Rejection> {
        let needs = std::mem::take(&mut self.needs);
        match result {
            Ok((value, guards)) => Ok(Compiled { value: Arc::new(value), needs, guards }),
            Err(Invalid { field, reason }) => {
                Err(Rejection { kind, name: name.to_owned(), field, reason, closed: false })
            }
        }
    }
}

/// What it guards is seen in itself.
fn unguarded<T>(value: T) -> (T, Guards) {
    (value, Guards::default())
}

/// Reads a resource of which every field is known.
fn parse<M: Message + Default>(kind: ResourceType, body: &[u8]) -> Result<M, Invalid> {
    known::check(kind, body)?;
    M::decode(body).map_err(|error| Invalid::new(format!("not a valid message: {error}")))
}

/// A resource's name on the wire must be the one in its message: xDS names are how resources refer
/// to each other.
fn check_name(on_the_wire: &str, in_the_message: &str) -> Result<(), Invalid> {
    if on_the_wire == in_the_message {
        return Ok(());
    }
    Err(Invalid::new(format!(
        "expected {on_the_wire:?} as in the response, got {in_the_message:?}"
    ))
    .at("name"))
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
