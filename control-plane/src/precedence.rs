//! Which source's version of an object serves: sources in the order of [`SourceId`], the next one
//! takes over when the object is deleted in the one before.

use rustc_hash::FxHashMap;

use ferromesh_xds_translator::{dialect::Object, ir::ObjectId};

use crate::event::SourceId;

/// Every version of every object, by source.
#[derive(Default, Debug)]
pub struct Precedence(FxHashMap<ObjectId, Vec<(SourceId, Object)>>);

/// What becomes of an object.
#[derive(Debug)]
pub enum Effect {
    /// This version serves now.
    Serves(Box<Object>),
    /// No source has it any more.
    Gone(ObjectId),
    /// Another source's version keeps serving.
    Hidden,
}

impl Precedence {
    /// A source has this version now.
    pub fn upsert(&mut self, source: SourceId, object: Object) -> Effect {
        let versions = self.0.entry(object.id.clone()).or_default();
        versions.retain(|(s, _)| *s != source);
        let place = versions.partition_point(|(s, _)| *s < source);
        versions.insert(place, (source, object));
        if place == 0 { Effect::Serves(Box::new(versions[0].1.clone())) } else { Effect::Hidden }
    }

    /// A source has no version any more.
    pub fn delete(&mut self, source: SourceId, id: &ObjectId) -> Effect {
        let Some(versions) = self.0.get_mut(id) else { return Effect::Hidden };
        let served = versions.first().is_some_and(|(s, _)| *s == source);
        versions.retain(|(s, _)| *s != source);
        match versions.first() {
            _ if !served => Effect::Hidden,
            Some((_, next)) => Effect::Serves(Box::new(next.clone())),
            None => {
                self.0.remove(id);
                Effect::Gone(id.clone())
            }
        }
    }

    /// The version that serves.
    pub fn serving(&self, id: &ObjectId) -> Option<&Object> {
        self.0.get(id)?.first().map(|(_, object)| object)
    }

    /// Every version that serves, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Object> {
        self.0.values().filter_map(|versions| versions.first().map(|(_, object)| object))
    }

    /// Every version that serves, with its source; sorted by identity.
    pub fn list(&self) -> Vec<(SourceId, Object)> {
        let mut all: Vec<(SourceId, Object)> =
            self.0.values().filter_map(|v| v.first().cloned()).collect();
        all.sort_by(|(_, a), (_, b)| a.id.cmp(&b.id));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferromesh_xds_translator::dialect::parse_value;
    use serde_json::json;

    fn service(marker: &str) -> Object {
        let value = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "a", "namespace": "shop", "labels": { "from": marker } },
            "spec": { "ports": [{ "name": "http", "port": 80 }] },
        });
        parse_value(value).expect("a service").0
    }

    fn show(effect: &Effect) -> String {
        match effect {
            Effect::Serves(object) => object.meta.labels["from"].to_string(),
            Effect::Gone(_) => "gone".to_owned(),
            Effect::Hidden => "hidden".to_owned(),
        }
    }

    #[test]
    fn the_first_source_serves_and_the_next_takes_over() {
        use SourceId::{Directory, Kubernetes, Rest};
        let mut precedence = Precedence::default();
        let id = service("").id;
        assert_eq!(show(&precedence.upsert(Directory, service("file"))), "file");
        assert_eq!(show(&precedence.upsert(Rest, service("rest"))), "rest");
        assert_eq!(show(&precedence.upsert(Directory, service("file2"))), "hidden");
        assert_eq!(show(&precedence.upsert(Kubernetes, service("kube"))), "kube");
        assert_eq!(show(&precedence.delete(Rest, &id)), "hidden");
        assert_eq!(show(&precedence.delete(Kubernetes, &id)), "file2");
        assert_eq!(show(&precedence.delete(Kubernetes, &id)), "hidden");
        assert_eq!(show(&precedence.delete(Directory, &id)), "gone");
        assert!(precedence.serving(&id).is_none());
    }
}
