//! The webhooks' configurations in the cluster: the leader writes into them by which root the API
//! server knows the webhooks, and writes it again whenever it is missing, is changed by others, or
//! the roots change.
//!
//! Everything else in them belongs to whoever installed the mesh. A configuration that is not there
//! is waited for.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use ferromesh_cert_authority::TrustBundle;
use futures_util::{Stream, StreamExt, future::ready, stream};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, watcher},
    },
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::sleep};

use super::{KubeCluster, OURS, Trouble, leader, said};

/// The configurations: kind, REST name and name of the object.
const CONFIGURATIONS: [(&str, &str, &str); 2] = [
    ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "ferromesh-injector"),
    ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "ferromesh-validator"),
];
/// Pause after the API server did not take a change.
const RETRY: Duration = Duration::from_secs(2);

/// Keeps the root in both configurations, for as long as it is polled and whenever this replica
/// leads. `ready` ends when there is somebody to answer the API server.
pub async fn keep(
    cluster: KubeCluster,
    ready: impl Future<Output = ()>,
    bundle: watch::Receiver<Arc<TrustBundle>>,
    leads: watch::Receiver<bool>,
) {
    ready.await;
    leader::while_leading(leads, || lead(cluster.clone(), bundle.clone())).await;
}

/// What of a configuration matters here.
#[derive(Clone, Debug)]
struct Seen {
    version: String,
    /// Name and caBundle of each webhook.
    webhooks: Vec<(String, Option<String>)>,
}

async fn lead(cluster: KubeCluster, mut bundle: watch::Receiver<Arc<TrustBundle>>) {
    let apis: Vec<Api<DynamicObject>> =
        CONFIGURATIONS.iter().map(|names| api(&cluster, names)).collect();
    let mut changes = stream::select_all(
        apis.iter().enumerate().map(|(index, api)| Box::pin(changes(index, api))),
    );
    let mut seen: BTreeMap<usize, Seen> = BTreeMap::new();
    let mut trouble = Trouble::default();
    loop {
        let root = STANDARD.encode(bundle.borrow_and_update().pem());
        let mut wrong = false;
        for (index, seen) in &seen {
            let name = CONFIGURATIONS[*index].2;
            if let Err(error) = write(&apis[*index], name, seen, &root).await {
                let why = format!("{name}: {}", said(&error));
                trouble.tell_why("the root of the webhooks was not written", &why);
                wrong = true;
            }
        }
        if !wrong {
            trouble.over();
        }
        tokio::select! {
            changed = bundle.changed() => if changed.is_err() { return },
            Some((index, now)) = changes.next() => match now {
                Some(now) => drop(seen.insert(index, now)),
                None => drop(seen.remove(&index)),
            },
            () = sleep(RETRY), if wrong => {}
        }
    }
}

fn api(cluster: &KubeCluster, names: &(&str, &str, &str)) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: "admissionregistration.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "admissionregistration.k8s.io/v1".to_owned(),
        kind: names.0.to_owned(),
        plural: names.1.to_owned(),
    };
    Api::all_with(cluster.client(), &resource)
}

/// Each state of a configuration; `None`: it is not there.
fn changes(
    index: usize,
    api: &Api<DynamicObject>,
) -> impl Stream<Item = (usize, Option<Seen>)> + use<> {
    let only =
        watcher::Config::default().fields(&format!("metadata.name={}", CONFIGURATIONS[index].2));
    let events = watcher(api.clone(), only).default_backoff();
    let mut trouble = Trouble::default();
    events.filter_map(move |event| ready(change(index, event, &mut trouble)))
}

fn change(
    index: usize,
    event: Result<watcher::Event<DynamicObject>, watcher::Error>,
    trouble: &mut Trouble,
) -> Option<(usize, Option<Seen>)> {
    match event {
        Ok(event) => {
            trouble.over_with(&event);
            match event {
                watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                    Some((index, Some(read(&object))))
                }
                watcher::Event::Delete(_) => Some((index, None)),
                _ => None,
            }
        }
        Err(error) => {
            trouble.tell("configurations of webhooks cannot be watched", &error);
            None
        }
    }
}

fn read(object: &DynamicObject) -> Seen {
    let webhooks = object.data.get("webhooks").and_then(Value::as_array).into_iter().flatten();
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    Seen {
        version: object.metadata.resource_version.clone().unwrap_or_default(),
        webhooks: webhooks
            .map(|webhook| {
                (
                    text(webhook.get("name")).unwrap_or_default(),
                    text(webhook.pointer("/clientConfig/caBundle")),
                )
            })
            .collect(),
    }
}

/// What to send for a configuration to have the root; `None`: it has it. Lists of webhooks are
/// merged by name, and nothing is written if the configuration has changed meanwhile.
fn correction(seen: &Seen, root: &str) -> Option<Value> {
    let right = seen.webhooks.iter().all(|(_, bundle)| bundle.as_deref() == Some(root));
    let webhook = |name: &String| json!({ "name": name, "clientConfig": { "caBundle": root } });
    let webhooks: Vec<Value> = seen.webhooks.iter().map(|(name, _)| webhook(name)).collect();
    (!right)
        .then(|| json!({ "metadata": { "resourceVersion": seen.version }, "webhooks": webhooks }))
}

/// Sees to it that a configuration has the root, as far as this replica knows.
async fn write(
    api: &Api<DynamicObject>,
    name: &str,
    seen: &Seen,
    root: &str,
) -> Result<(), kube::Error> {
    let Some(patch) = correction(seen, root) else { return Ok(()) };
    match api
        .patch(
            name,
            &PatchParams { field_manager: Some(OURS.to_owned()), ..PatchParams::default() },
            &Patch::Strategic(patch),
        )
        .await
    {
        Ok(_) => {
            tracing::info!(
                configuration = name,
                "the API server was told the root of the webhooks"
            );
            Ok(())
        }
        // Somebody else was faster: the watch brings the newer version, which is judged anew.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_configuration_without_the_root_is_corrected() {
        let seen = |bundles: &[Option<&str>]| Seen {
            version: "7".to_owned(),
            webhooks: bundles.iter().map(|b| ("w".to_owned(), b.map(str::to_owned))).collect(),
        };
        assert_eq!(correction(&seen(&[Some("root"), Some("root")]), "root"), None);
        assert_eq!(correction(&seen(&[]), "root"), None);
        for wrong in [seen(&[Some("root"), None]), seen(&[Some("old")])] {
            let patch = correction(&wrong, "root").expect("a correction");
            assert_eq!(patch["metadata"]["resourceVersion"], "7");
            let bundles = patch["webhooks"].as_array().expect("a list");
            assert_eq!(bundles.len(), wrong.webhooks.len());
            assert!(bundles.iter().all(|webhook| webhook["clientConfig"]["caBundle"] == "root"));
        }
    }
}
