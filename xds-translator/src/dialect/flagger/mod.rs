//! Flagger's kinds. None is served yet.

use super::kind::{Serving, guards_nothing, kinds};

kinds! {
    600;
    /// Flagger's Canary.
    CANARY: "flagger.app" ["v1beta1"] "Canary" "canaries" "canary" Namespaced => Serving::Planned(guards_nothing);
}
