//! Why fields have no effect on a request.

// Names and words for people.
pub(in crate::compile) const PEOPLE: &str = "said for people and tools";
pub(in crate::compile) const STATISTICS: &str =
    "about Envoy's statistics, of which ours have their own form";
pub(in crate::compile) const ONE_SPAN: &str =
    "of a request one span is told, none of what it leads to";
pub(in crate::compile) const TYPE_DECIDES: &str = "the type of its configuration decides";
pub(in crate::compile) const SHADOW: &str = "a shadow only counts";
pub(in crate::compile) const FINGERPRINTS: &str = "no operator of a log and no rule tells them";

// How resources and secrets are fetched: our proxy has one stream and an identity of its own.
pub(in crate::compile) const PATIENCE: &str =
    "our proxy waits by rules of its own, and serves nothing more weakly meanwhile";
pub(in crate::compile) const ONE_API: &str = "there is one version of the API";
pub(in crate::compile) const OWN_SECRETS: &str =
    "the workload's own secrets come from its identity or its files, not over a socket";

// Memory and pace.
pub(in crate::compile) const MEMORY: &str = "the size of a buffer or of a table";
pub(in crate::compile) const PACE: &str = "how soon something is looked up, opened or tried again";
pub(in crate::compile) const WORKERS: &str = "how connections are shared between workers";
pub(in crate::compile) const CODEC: &str = "how Envoy reads or writes the same messages";

// What our proxy does not have, and refuses where it is asked for.
pub(in crate::compile) const RUNTIME: &str = "nothing here has Envoy's runtime: the default counts";
pub(in crate::compile) const NO_HEALTH_CHECKS: &str =
    "clusters that ask for active health checks are refused";
pub(in crate::compile) const NO_OVERLOAD: &str =
    "there is no overload manager and no limit for all listeners";
pub(in crate::compile) const OFF: &str = "0 switches off a detector that our proxy does not have";
pub(in crate::compile) const OPTIONAL: &str =
    "a filter that is not served is refused, optional or not";

/// Of endpoints with the same weight any may serve.
pub(in crate::compile) const FREE_CHOICE: &str = "which of the healthy endpoints serves a request is free; our proxy gives a new one its share \
     at once";
