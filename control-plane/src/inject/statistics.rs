//! Which statistics a pod wants its Envoy to keep: Istio's annotations, and what is said of proxies
//! by objects. Our proxy keeps all that it has.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use ferromesh_xds_translator::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{decode::Decoder, istio::pod_config::is_tag, schema::Decode},
    ir::{ProxyStart, StatisticNames},
};
use serde_json::{Map, Value, json};

use super::{
    pod,
    values::{self, unfit},
};

/// The variable that tells the agent.
pub(super) const VARIABLE: &str = "FERROMESH_ENVOY_STATISTICS";

const PREFIXES: &str = "sidecar.istio.io/statsInclusionPrefixes";
const SUFFIXES: &str = "sidecar.istio.io/statsInclusionSuffixes";
const REGEXES: &str = "sidecar.istio.io/statsInclusionRegexps";
const TAGS: &str = "sidecar.istio.io/extraStatTags";
const BUCKETS: &str = "sidecar.istio.io/statsHistogramBuckets";
const FLUSH: &str = "sidecar.istio.io/statsFlushInterval";
/// Most names of each list, so that checking them and telling the agent, by a variable of at most 128
/// KiB, have an end.
const MOST: usize = 100;
/// Longest name, in bytes.
const LONGEST: usize = 200;
/// Most prefixes with bounds of their own, and most bounds of each.
const MOST_BUCKETS: (usize, usize) = (20, 50);
/// How often Envoy takes statistics to be flushed (`Bootstrap.stats_flush_interval`).
const INTERVALS: Range<Duration> = Duration::from_millis(1)..Duration::from_secs(300);
/// Every annotation that is read here.
const ANNOTATIONS: [&str; 6] = [PREFIXES, SUFFIXES, REGEXES, TAGS, BUCKETS, FLUSH];

/// What a pod wants of its Envoy's statistics beyond those that are always kept.
#[derive(Clone, PartialEq, Default, Debug)]
pub(super) struct Statistics {
    names: StatisticNames,
    tags: Vec<Arc<str>>,
    /// Bounds of histograms, by the beginning of their names.
    buckets: BTreeMap<String, Vec<f64>>,
    flush_interval: Option<Duration>,
}

impl Statistics {
    /// Reads a pod's annotations; `start` is what holds where they say nothing.
    pub(super) fn read(pod: &Value, start: &ProxyStart, at: &mut Decoder) -> Self {
        let said = start.statistics.clone().unwrap_or_default();
        let mut list = |key: &str, said: Vec<Arc<str>>, check: fn(&str, &mut Decoder)| {
            let read = |text: &str, at: &mut Decoder| names(text, check, at);
            pod::annotated(pod, key, at, read).unwrap_or(said)
        };
        let names = StatisticNames {
            prefixes: list(PREFIXES, said.prefixes, |_, _| {}),
            suffixes: list(SUFFIXES, said.suffixes, |_, _| {}),
            regexes: list(REGEXES, said.regexes, |regex, at| at.check_regex(regex)),
        };
        let mut tags = list(TAGS, start.statistic_tags.clone().unwrap_or_default(), check_tag);
        // Envoy starts with no tag that it is told twice.
        let mut seen = BTreeSet::new();
        tags.retain(|tag| seen.insert(tag.clone()));
        Self {
            names,
            tags,
            buckets: pod::annotated(pod, BUCKETS, at, buckets).unwrap_or_default(),
            flush_interval: pod::annotated(pod, FLUSH, at, interval),
        }
    }

    /// As the agent reads it; empty: nothing is asked for.
    pub(super) fn told(&self) -> Map<String, Value> {
        let lists = [
            ("prefixes", &self.names.prefixes),
            ("suffixes", &self.names.suffixes),
            ("regexes", &self.names.regexes),
            ("tags", &self.tags),
        ];
        let mut told: Map<String, Value> = lists
            .into_iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(name, list)| (name.to_owned(), json!(list)))
            .collect();
        if !self.buckets.is_empty() {
            told.insert("buckets".to_owned(), json!(self.buckets));
        }
        if let Some(interval) = self.flush_interval {
            told.insert("flushInterval".to_owned(), json!(values::duration(interval)));
        }
        told
    }
}

/// What a pod says of statistics although its proxy is ours.
pub(super) fn of_no_effect<'a>(
    pod: &'a Value,
    own: &ProxyStart,
    config: &'a FieldPath,
) -> impl Iterator<Item = Diagnostic> + use<'a> {
    let annotated = ANNOTATIONS.into_iter().filter(|key| pod::annotation(pod, key).is_some());
    let of_config = [
        ("proxyStatsMatcher", own.statistics.is_some()),
        ("extraStatTags", own.statistic_tags.is_some()),
    ];
    let of_config = of_config.into_iter().filter(|(_, said)| *said);
    annotated.map(pod::annotation_path).chain(of_config.map(|(field, _)| config.field(field))).map(
        |field| {
            let message = "no effect: the Ferromesh proxy keeps all of its statistics";
            Diagnostic::info(Code::NotActedOn, field, message)
        },
    )
}

/// Reads names with commas.
fn names(text: &str, check: fn(&str, &mut Decoder), at: &mut Decoder) -> Vec<Arc<str>> {
    let parts = || text.split(',').map(str::trim).filter(|part| !part.is_empty());
    if parts().nth(MOST).is_some() || parts().any(|part| part.len() > LONGEST) {
        unfit(text, &format!("at most {MOST} names of at most {LONGEST} bytes"), at);
        return Vec::new();
    }
    parts().inspect(|part| check(part, at)).map(Arc::from).collect()
}

fn interval(text: &str, at: &mut Decoder) -> Duration {
    let interval = Duration::decode(&Value::String(text.to_owned()), at);
    if !INTERVALS.contains(&interval) {
        unfit(text, "from 1ms to less than 5m", at);
    }
    interval
}

fn check_tag(tag: &str, at: &mut Decoder) {
    if !is_tag(tag) {
        unfit(tag, "letters, digits and `_`", at);
    }
}

/// Reads `{"PREFIX": [1, 5, 10]}`.
fn buckets(text: &str, at: &mut Decoder) -> BTreeMap<String, Vec<f64>> {
    let read: Option<BTreeMap<String, Vec<f64>>> = serde_json::from_str(text).ok();
    let rising = |bounds: &Vec<f64>| {
        let positive = bounds.first().is_some_and(|first| *first > 0.0);
        positive
            && bounds.windows(2).all(|pair| pair[0] < pair[1])
            && bounds.len() <= MOST_BUCKETS.1
    };
    let named = |prefix: &String| (1..=LONGEST).contains(&prefix.len());
    let fits = read.filter(|buckets| {
        buckets.len() <= MOST_BUCKETS.0 && buckets.keys().all(named) && buckets.values().all(rising)
    });
    if fits.is_none() {
        let most = format!(
            "such as {{\"istio\":[1,5,10]}}, at most {} of {} each",
            MOST_BUCKETS.0, MOST_BUCKETS.1
        );
        unfit(text, &format!("rising bounds by prefix, {most}"), at);
    }
    fits.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(annotations: Value, start: &ProxyStart) -> (Value, Vec<String>) {
        let pod = json!({ "metadata": { "annotations": annotations } });
        let mut at = Decoder::default();
        let told = Statistics::read(&pod, start, &mut at).told();
        (Value::Object(told), at.finish().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn annotations_go_before_what_objects_say_one_by_one() {
        let start = ProxyStart {
            statistics: Some(StatisticNames {
                prefixes: vec!["a".into()],
                suffixes: vec!["z".into()],
                regexes: Vec::new(),
            }),
            statistic_tags: Some(vec!["tier".into()]),
            ..ProxyStart::default()
        };
        let (told, found) = read(json!({}), &start);
        assert_eq!(told, json!({ "prefixes": ["a"], "suffixes": ["z"], "tags": ["tier"] }));
        assert!(found.is_empty(), "{found:?}");
        let annotations = json!({
            PREFIXES: "b, c,", REGEXES: "x.*y", TAGS: "one,two", BUCKETS: "{\"istio\":[1,5]}", FLUSH: "10s",
        });
        let (told, found) = read(annotations, &start);
        assert!(found.is_empty(), "{found:?}");
        let expected = json!({
            "prefixes": ["b", "c"], "suffixes": ["z"], "regexes": ["x.*y"], "tags": ["one", "two"],
            "buckets": { "istio": [1.0, 5.0] }, "flushInterval": "10s",
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn nothing_is_told_where_nothing_is_asked() {
        assert_eq!(read(json!({}), &ProxyStart::default()).0, json!({}));
    }

    #[test]
    fn what_no_envoy_would_start_with_is_named() {
        for (key, text, word) in [
            (REGEXES, "(", "not a regular expression"),
            (TAGS, "a-b", "letters, digits"),
            (BUCKETS, "{\"istio\":[5,1]}", "rising bounds"),
            (BUCKETS, "[1,2]", "rising bounds"),
            (BUCKETS, "{\"\":[1,5]}", "rising bounds"),
            (FLUSH, "soon", "a duration"),
            (FLUSH, "0s", "from 1ms"),
            (FLUSH, "10m", "less than 5m"),
            (REGEXES, &*"a{1000},".repeat(MOST + 1), "at most 100 names"),
            (PREFIXES, &*"a".repeat(LONGEST + 1), "at most 200 bytes"),
        ] {
            let (_, found) = read(json!({ key: text }), &ProxyStart::default());
            let said = found.join("\n");
            assert!(said.contains(word) && said.contains(key), "{key} {text}: {said}");
        }
    }

    #[test]
    fn what_is_asked_for_twice_is_told_once() {
        let (told, found) = read(json!({ TAGS: "tier,team,tier" }), &ProxyStart::default());
        assert!(found.is_empty(), "{found:?}");
        assert_eq!(told, json!({ "tags": ["tier", "team"] }));
    }
}
