//! A ConfigMap in which each replica has a key of its own: how replicas tell each other what the
//! API server has no objects for. It is made with the first words, and replicas that say nothing
//! have no key.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Error,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{KubeCluster, bounded};

/// The map, as one replica sees it.
pub struct ReplicaMap {
    api: Api<ConfigMap>,
    name: &'static str,
    key: String,
}

impl ReplicaMap {
    /// The map `name` in the root namespace, with the key of the replica `instance`.
    pub fn new(
        cluster: &KubeCluster,
        root_namespace: &str,
        name: &'static str,
        instance: &str,
    ) -> Self {
        let api = Api::namespaced(cluster.client(), root_namespace);
        Self { api, name, key: key_of(instance) }
    }

    /// What other replicas say, by their keys; empty if nobody says anything.
    ///
    /// # Errors
    /// The API server refuses, or does not answer in time.
    pub async fn others(&self) -> Result<BTreeMap<String, String>, Error> {
        let found = bounded(self.api.get_opt(self.name)).await?;
        let mut words = found.and_then(|map| map.data).unwrap_or_default();
        words.remove(&self.key);
        Ok(words)
    }

    /// Says something in the place of what this replica said; `None`: nothing.
    ///
    /// # Errors
    /// As [`Self::others`].
    pub async fn write(&self, words: Option<&str>) -> Result<(), Error> {
        let change = Value::Object([(self.key.clone(), json!(words))].into_iter().collect());
        match (self.patch(change).await, words) {
            (Err(Error::Api(status)), Some(words)) if status.code == 404 => {
                let name = Some(self.name.to_owned());
                let metadata = ObjectMeta { name, ..ObjectMeta::default() };
                let data = Some(BTreeMap::from([(self.key.clone(), words.to_owned())]));
                let map = ConfigMap { metadata, data, ..ConfigMap::default() };
                bounded(self.api.create(&PostParams::default(), &map)).await.map(drop)
            }
            (outcome, _) => absent_is_empty(outcome),
        }
    }

    /// Removes the words of a replica that is gone.
    ///
    /// # Errors
    /// As [`Self::others`].
    pub async fn remove(&self, key: &str) -> Result<(), Error> {
        absent_is_empty(self.patch(json!({ key: null })).await)
    }

    async fn patch(&self, data: Value) -> Result<(), Error> {
        let change = Patch::Merge(json!({ "data": data }));
        bounded(self.api.patch(self.name, &PatchParams::default(), &change)).await.map(drop)
    }
}

fn absent_is_empty(outcome: Result<(), Error>) -> Result<(), Error> {
    match outcome {
        Err(Error::Api(status)) if status.code == 404 => Ok(()),
        outcome => outcome,
    }
}

/// The replica's name as a key of a ConfigMap.
fn key_of(instance: &str) -> String {
    instance
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_what_a_config_map_takes() {
        assert_eq!(key_of("ferromesh-6f9c-x.y"), "ferromesh-6f9c-x.y");
        assert_eq!(key_of("host name/1"), "host-name-1");
    }
}
