//! The state-of-the-world variant on the wire: one list of names per request, full lists for CDS
//! and LDS.

use ferromesh_proto::{
    ResourceType,
    discovery::{ControlPlane, DiscoveryRequest, DiscoveryResponse},
};

use super::{
    session::{Fault, Response, Session, Verdict},
    wire::{Form, Outgoing},
};

impl Session {
    /// Takes a request. A stale one (its nonce is not that of the newest response of its type)
    /// changes nothing, since the client will repeat its names when it answers the newest; only
    /// what it says of a response that was overtaken counts.
    ///
    /// # Errors
    /// [`Fault`] when the stream must be closed.
    pub fn on_sotw(&mut self, request: DiscoveryRequest) -> Result<Option<Verdict>, Fault> {
        let DiscoveryRequest {
            version_info,
            resource_names,
            type_url,
            response_nonce,
            error_detail,
            ..
        } = request;
        let Some(kind) = ResourceType::from_type_url(&type_url) else {
            self.on_foreign(type_url, vec![], !response_nonce.is_empty())?;
            return Ok(None);
        };
        let track = &self.tracks[kind.index()];
        let fresh = response_nonce.is_empty() || !track.is_seen();
        let number = self.number_of(&response_nonce);
        if !fresh && number != Some(track.newest()) {
            let error = error_detail.map(|e| e.message);
            return Ok(number.and_then(|number| self.judge(kind, number, error, version_info)));
        }
        self.limit(kind, resource_names.len().saturating_sub(track.subscription().list().len()))?;
        let verdict = match number {
            Some(number) if !fresh => {
                self.judge(kind, number, error_detail.map(|e| e.message), version_info)
            }
            _ => None,
        };
        self.wake();
        if self.tracks[kind.index()].repeats(&resource_names) && !fresh {
            return Ok(verdict);
        }
        let names = self.intern(kind, resource_names);
        self.with_track(kind, |track, _, set| track.replace(names, fresh, set));
        self.settle_awaited(kind);
        Ok(verdict)
    }
}

/// Encodes a response.
pub(super) fn encode(response: Response, identifier: &str) -> Outgoing {
    let type_url = type_url(&response);
    let fields = DiscoveryResponse {
        version_info: response.version.to_string(),
        nonce: response.nonce,
        control_plane: Some(ControlPlane { identifier: identifier.to_owned() }),
        type_url: type_url.clone(),
        ..DiscoveryResponse::default()
    };
    Outgoing::new(Form::Plain, type_url, &fields, response.resources)
}

/// The type URL of a response.
pub(super) fn type_url(response: &Response) -> String {
    response.kind.as_ref().map_or_else(|url| url.to_string(), |kind| kind.type_url().to_owned())
}
