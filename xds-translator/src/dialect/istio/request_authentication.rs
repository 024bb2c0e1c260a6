//! `security.istio.io RequestAuthentication`: which tokens workloads take with requests.

use std::{sync::Arc, time::Duration};

use super::shared::{TargetRef, WorkloadSelector};
use crate::dialect::schema::{choice, object};

object! { no_null;
    /// Which tokens workloads take with requests: a token where a rule looks for one must be valid;
    /// requests without a token pass, unless a rule says that it must be there.
    RequestAuthentication {
        /// Workloads of the namespace; absent: all (in the root namespace: all of the mesh).
        "selector" selector: Option<WorkloadSelector>,
        /// Deprecated: use `targetRefs`.
        "targetRef" target_ref: Option<TargetRef>,
        /// Gateways, services or waypoints instead of a selector.
        "targetRefs" target_refs: Vec<TargetRef>,
        /// Tokens that are taken, by issuer.
        "jwtRules" jwt_rules: Vec<JwtRule>,
    }
}

object! { no_null;
    /// The tokens of one issuer (JWT, RFC 7519).
    JwtRule {
        /// The claim `iss` of its tokens.
        "issuer" issuer: Arc<str>,
        /// One of these must be in the claim `aud`; absent: nothing is asked.
        "audiences" audiences: Vec<Arc<str>>,
        /// Where its keys are; absent, and without `jwks`: where the issuer's OpenID configuration
        /// says.
        "jwksUri" jwks_uri: Arc<str>,
        /// The same as `jwksUri`.
        "jwks_uri" jwks_uri_snake: Arc<str>,
        /// Its keys: a JWK set (RFC 7517) as JSON.
        "jwks" jwks: Arc<str>,
        /// Headers that may hold a token. Without any place: `Authorization: Bearer`, and the query
        /// parameter `access_token`.
        "fromHeaders" from_headers: Vec<JwtHeader>,
        /// Query parameters that may hold a token.
        "fromParams" from_params: Vec<Arc<str>>,
        /// Cookies that may hold a token.
        "fromCookies" from_cookies: Vec<Arc<str>>,
        /// A header that is set to the payload of a valid token, in base64url.
        "outputPayloadToHeader" output_payload_to_header: Arc<str>,
        /// Headers that are set to claims of a valid token.
        "outputClaimToHeaders" output_claim_to_headers: Vec<ClaimToHeader>,
        /// Leave the token in the request.
        "forwardOriginalToken" forward_original_token: bool,
        /// Limit for fetching the keys (5 s).
        "timeout" timeout: Option<Duration>,
        /// Claims whose text is a list of words, beside `scope` and `permission`.
        "spaceDelimitedClaims" space_delimited_claims: Vec<Arc<str>>,
        /// Whether a token must be there.
        "presence" presence: Presence,
    }
}

choice! {
    /// Whether a token must be there.
    Presence {
        /// Requests without one pass.
        Optional = "OPTIONAL",
        /// Requests without one are refused.
        Required = "REQUIRED",
    }
}

object! { no_null;
    /// A header that may hold a token.
    JwtHeader {
        /// Its name.
        "name" name: Arc<str> [required],
        /// What stands before the token, such as `Bearer ` with its blank.
        "prefix" prefix: Arc<str>,
    }
}

object! { no_null;
    /// A header that is set to a claim.
    ClaimToHeader {
        /// The header.
        "header" header: Arc<str> [required],
        /// The claim, of text, number or truth value; dots lead to claims within claims.
        "claim" claim: Arc<str> [required],
    }
}

impl JwtRule {
    /// Where its keys are, by whichever name that is written; empty: not said.
    pub fn keys_url(&self) -> &Arc<str> {
        if self.jwks_uri.is_empty() { &self.jwks_uri_snake } else { &self.jwks_uri }
    }
}
