//! The incremental variant on the wire: subscriptions are increments, responses carry what changed and what is gone.

use std::sync::Arc;

use ferromesh_proto::{
    ResourceType, Version,
    discovery::{Any, ControlPlane, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource},
};

use super::{
    session::{Fault, Response, Session, Verdict},
    sotw::type_url,
};

impl Session {
    /// Takes a request. Its subscription counts whatever its nonce says; an unknown nonce is no answer to anything.
    ///
    /// # Errors
    /// [`Fault`] when the stream must be closed.
    pub fn on_delta(&mut self, request: DeltaDiscoveryRequest) -> Result<Option<Verdict>, Fault> {
        let Some(kind) = ResourceType::from_type_url(&request.type_url) else {
            let plain_answer = !request.response_nonce.is_empty() && request.resource_names_subscribe.is_empty();
            self.on_foreign(request.type_url, request.resource_names_subscribe, plain_answer)?;
            return Ok(None);
        };
        self.limit(kind, request.resource_names_subscribe.len() + request.initial_resource_versions.len())?;
        let verdict = self
            .number_of(&request.response_nonce)
            .and_then(|number| self.judge(kind, number, request.error_detail.map(|e| e.message), String::new()));
        let names = (
            self.intern(kind, request.resource_names_subscribe),
            self.intern(kind, request.resource_names_unsubscribe),
        );
        let known = self.known_versions(kind, request.initial_resource_versions);
        self.with_track(kind, |track, gates, shelf| track.adjust(names, known, &gates.awaited, shelf));
        self.settle_awaited(kind);
        self.wake();
        Ok(verdict)
    }

    /// What the client says it has. A version that is not of our making differs from every one that is.
    fn known_versions(
        &mut self,
        kind: ResourceType,
        versions: impl IntoIterator<Item = (String, String)>,
    ) -> Vec<(Arc<str>, Version)> {
        let (names, versions): (Vec<String>, Vec<String>) = versions.into_iter().unzip();
        self.gates.resumed |= !names.is_empty() && kind == ResourceType::Cluster;
        let versions = versions.iter().map(|v| Version::parse(v).unwrap_or_default());
        self.intern(kind, names).into_iter().zip(versions).collect()
    }

    /// Endpoints that the client has asked for need not be expected any longer.
    pub(super) fn settle_awaited(&mut self, kind: ResourceType) {
        if kind == ResourceType::Endpoint {
            let subscription = self.tracks[kind.index()].subscription();
            self.gates.awaited.retain(|name| !subscription.covers(name));
        }
    }
}

/// Spells a response. Bodies are shared, not copied.
pub fn encode(response: Response, identifier: &str) -> DeltaDiscoveryResponse {
    let type_url = type_url(&response);
    let resource = |r: &Arc<ferromesh_proto::EncodedResource>| Resource {
        version: r.version.to_string(),
        resource: Some(Any { type_url: type_url.clone(), value: r.body.clone() }),
        name: r.name.to_string(),
        aliases: vec![],
    };
    DeltaDiscoveryResponse {
        system_version_info: response.version.to_string(),
        resources: response.resources.iter().map(resource).collect(),
        nonce: response.nonce,
        removed_resources: response.removed.iter().map(ToString::to_string).collect(),
        control_plane: Some(ControlPlane { identifier: identifier.to_owned() }),
        resource_errors: vec![],
        type_url,
    }
}
