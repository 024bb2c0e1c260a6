//! An object as the API server sends it. Whatever somebody may write into one field of one object,
//! the list that it is in is read, and so are the objects beside it; whether the object itself can
//! be used is seen later.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, api::ApiResource, core::DynamicResourceScope};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;

use crate::json;

/// An object of whatever kind is watched.
#[derive(Clone, Debug)]
pub(super) struct WatchedObject {
    /// Its metadata, as far as a watch has to know them.
    meta: ObjectMeta,
    /// All of it, without what servers note about its fields.
    value: Value,
}

impl WatchedObject {
    /// The object as written, with its kind, which items of a list lack.
    pub(super) fn into_value(self, resource: &ApiResource) -> Value {
        let mut value = self.value;
        if let Some(fields) = value.as_object_mut() {
            fields.insert("apiVersion".to_owned(), resource.api_version.as_str().into());
            fields.insert("kind".to_owned(), resource.kind.as_str().into());
        }
        value
    }
}

impl<'de> Deserialize<'de> for WatchedObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = json::plain(deserializer)?;
        let meta = match value.get_mut("metadata") {
            Some(written) => {
                if let Some(fields) = written.as_object_mut() {
                    fields.remove("managedFields");
                }
                ObjectMeta::deserialize(&*written).map_err(D::Error::custom)?
            }
            None => ObjectMeta::default(),
        };
        Ok(Self { meta, value })
    }
}

impl Resource for WatchedObject {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use kube::{
        api::{GroupVersionKind, ObjectList},
        core::WatchEvent,
    };
    use serde_json::json;

    use super::*;

    fn entry(name: &str, labels: &str) -> String {
        format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"shop","resourceVersion":"7",
            "managedFields":[{{"manager":"kubectl"}}]}},"spec":{{"address":"10.0.0.1","labels":{labels}}}}}"#
        )
    }

    /// Labels that `serde_json::Value` does not read, or reads as something else, and some deeper
    /// than it reads at all.
    fn labels() -> Vec<String> {
        let reserved = |text: &str| format!(r#"{{"$serde_json::private::RawValue":{text}}}"#);
        let deep = format!("{}1{}", r#"{"a":"#.repeat(5_000), "}".repeat(5_000));
        vec![
            reserved("\"[\""),
            reserved("\"1\""),
            reserved("1"),
            reserved("\"{\\\"a\\\":1}\""),
            deep,
        ]
    }

    #[test]
    fn one_object_that_is_hard_to_read_takes_none_beside_it_out_of_a_list_or_a_watch() {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(
            "networking.istio.io",
            "v1",
            "WorkloadEntry",
        ));
        for labels in labels() {
            let (good, hard) = (entry("good", r#"{"app":"a"}"#), entry("hard", &labels));
            let list = format!(
                r#"{{"apiVersion":"networking.istio.io/v1","kind":"WorkloadEntryList",
                "metadata":{{"resourceVersion":"9"}},"items":[{hard},{good}]}}"#
            );
            let list: ObjectList<WatchedObject> = serde_json::from_str(&list).expect("a list");
            let names: Vec<_> = list.items.iter().filter_map(|o| o.meta.name.as_deref()).collect();
            assert_eq!(names, ["hard", "good"]);
            let event = format!(r#"{{"type":"ADDED","object":{hard}}}"#);
            let event: WatchEvent<WatchedObject> = serde_json::from_str(&event).expect("an event");
            let WatchEvent::Added(object) = event else { panic!("another event") };
            assert_eq!(object.meta.resource_version.as_deref(), Some("7"));
            let value = object.into_value(&resource);
            assert_eq!(value["kind"], "WorkloadEntry");
            assert_eq!(value["metadata"]["managedFields"], Value::Null);
            let kept = value["spec"]["labels"].as_object().expect("labels");
            assert!(kept.keys().all(|key| key.starts_with('$') || key == "a"), "{kept:?}");
        }
    }

    #[test]
    fn an_object_is_read_as_it_is_written() {
        let written = json!({
            "metadata": { "name": "a", "labels": { "app": "a" }, "generation": 3 },
            "spec": { "list": [1, -1, 1.5, null, true, "x"] },
        });
        let object: WatchedObject = serde_json::from_value(written.clone()).expect("an object");
        assert_eq!(object.value, written);
        assert_eq!(object.meta.generation, Some(3));
        let broken = json!({ "metadata": { "name": 1 } });
        assert!(serde_json::from_value::<WatchedObject>(broken).is_err());
    }
}
