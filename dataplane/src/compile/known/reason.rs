//! Why fields have no effect on a request.

// Names and words for people.
pub(super) const PEOPLE: &str = "said for people and tools";
pub(super) const STATISTICS: &str = "about Envoy's statistics, of which ours have their own form";
pub(super) const TRACER: &str = "our proxy has no tracer";
pub(super) const TYPE_DECIDES: &str = "the type of its configuration decides";
pub(super) const SHADOW: &str = "a shadow only counts";
pub(super) const FINGERPRINTS: &str = "no operator of a log and no rule tells them";

// How resources and secrets are fetched: our proxy has one stream and an identity of its own.
pub(super) const PATIENCE: &str =
    "our proxy waits by rules of its own, and serves nothing more weakly meanwhile";
pub(super) const ONE_API: &str = "there is one version of the API";
pub(super) const OWN_SECRETS: &str =
    "the workload's own secrets come from its identity or its files, not over a socket";

// Memory and pace.
pub(super) const MEMORY: &str = "the size of a buffer or of a table";
pub(super) const PACE: &str = "how soon something is looked up, opened or tried again";
pub(super) const WORKERS: &str = "how connections are shared between workers";
pub(super) const CODEC: &str = "how Envoy reads or writes the same messages";

// What our proxy does not have, and refuses where it is asked for.
pub(super) const RUNTIME: &str = "nothing here has Envoy's runtime: the default counts";
pub(super) const NO_HEALTH_CHECKS: &str = "clusters that ask for active health checks are refused";
pub(super) const NO_OVERLOAD: &str = "there is no overload manager and no limit for all listeners";
pub(super) const OFF: &str = "0 switches off a detector that our proxy does not have";
pub(super) const OPTIONAL: &str = "a filter that is not served is refused, optional or not";

/// Of endpoints with the same weight any may serve.
pub(super) const FREE_CHOICE: &str = "which of the healthy endpoints serves a request is free; our proxy gives a new one its share \
     at once";
