//! The incremental variant on the wire: subscriptions are increments, responses carry what changed
//! and what is gone.

use ferromesh_proto::{
    ResourceType, Version,
    discovery::{ControlPlane, DeltaDiscoveryRequest, DeltaDiscoveryResponse},
};

use super::{
    session::{Fault, Response, Session, Verdict},
    sotw::type_url,
    track::ClientVersion,
    wire::{Form, Outgoing},
};

impl Session {
    /// Takes a request. Its subscription counts whatever its nonce says; an unknown nonce is no
    /// answer to anything.
    ///
    /// # Errors
    /// [`Fault`] when the stream must be closed.
    pub fn on_delta(&mut self, request: DeltaDiscoveryRequest) -> Result<Option<Verdict>, Fault> {
        let Some(kind) = ResourceType::from_type_url(&request.type_url) else {
            let plain_answer =
                !request.response_nonce.is_empty() && request.resource_names_subscribe.is_empty();
            self.on_foreign(request.type_url, request.resource_names_subscribe, plain_answer)?;
            return Ok(None);
        };
        self.limit(
            kind,
            request.resource_names_subscribe.len() + request.initial_resource_versions.len(),
        )?;
        let verdict = self.number_of(&request.response_nonce).and_then(|number| {
            self.judge(kind, number, request.error_detail.map(|e| e.message), String::new())
        });
        let names = (
            self.intern(kind, request.resource_names_subscribe),
            self.intern(kind, request.resource_names_unsubscribe),
        );
        let brought = self.client_versions(kind, request.initial_resource_versions);
        self.with_track(kind, |track, gates, set| {
            track.adjust(names, brought, &gates.awaited[kind.index()], set)
        });
        self.settle_awaited(kind);
        self.wake();
        Ok(verdict)
    }

    /// What the client says it has. A version that is not of our making differs from every one that
    /// is.
    fn client_versions(
        &mut self,
        kind: ResourceType,
        versions: impl IntoIterator<Item = (String, String)>,
    ) -> Vec<ClientVersion> {
        let read = |(name, version): (String, String)| {
            (name, Version::parse(&version).unwrap_or_default())
        };
        let versions: Vec<(String, Version)> = versions.into_iter().map(read).collect();
        self.gates.resumed |= !versions.is_empty() && kind.row().followed_by.is_some();
        let compared = self.compare(kind, versions);
        self.note_strangers(compared.iter().filter(|c| c.current.is_none()).map(|c| &c.name));
        compared
    }

    /// What the client has asked for need not be expected any longer.
    pub(super) fn settle_awaited(&mut self, kind: ResourceType) {
        let subscription = self.tracks[kind.index()].subscription();
        self.gates.awaited[kind.index()].retain(|name| !subscription.covers(name));
    }
}

/// Encodes a response.
pub(super) fn encode(response: Response, identifier: &str) -> Outgoing {
    let type_url = type_url(&response);
    let fields = DeltaDiscoveryResponse {
        system_version_info: response.version.to_string(),
        nonce: response.nonce,
        removed_resources: response.removed.iter().map(ToString::to_string).collect(),
        control_plane: Some(ControlPlane { identifier: identifier.to_owned() }),
        type_url: type_url.clone(),
        ..DeltaDiscoveryResponse::default()
    };
    Outgoing::new(Form::Named, type_url, &fields, response.resources)
}
