//! Which form of the metrics a scraper is given: OpenMetrics, or the text format of Prometheus.
//!
//! Both say the same. They differ in the names that counters and descriptions have in comments, in
//! names of types, and in how the text ends (OpenMetrics 1.0.0; Prometheus' exposition format 0.0.4).

/// A form of the metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exposition {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4, which everybody reads.
    Text,
}

impl Exposition {
    /// What an `Accept` header asks for, by its weights (RFC 9110 section 12.5.1); of equals what
    /// stands first. Whoever asks for neither is given text.
    pub fn asked(accept: &str) -> Self {
        let mut best = (0.0, Self::Text);
        for range in accept.split(',') {
            let mut parameters = range.split(';').map(str::trim);
            let kind = parameters.next().unwrap_or_default().to_ascii_lowercase();
            let parameters: Vec<(&str, &str)> =
                parameters.filter_map(|parameter| parameter.split_once('=')).collect();
            let value = |name: &str| {
                let own = parameters.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
                own.map(|(_, value)| value.trim_matches('"'))
            };
            let form = match (kind.as_str(), value("version")) {
                ("application/openmetrics-text", None | Some("1.0.0" | "0.0.1")) => {
                    Self::OpenMetrics
                }
                ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", _) => Self::Text,
                _ => continue,
            };
            let weight = value("q").map_or(1.0, |q| q.parse::<f64>().unwrap_or(0.0));
            if weight > best.0 {
                best = (weight, form);
            }
        }
        best.1
    }

    /// The media type of an answer.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// OpenMetrics text in this form.
    pub fn spell(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Text => as_text(&open_metrics),
        }
    }
}

/// A type of OpenMetrics, the same of Prometheus, and what the former leaves out of a name.
const TYPES: [(&str, &str, &str); 3] =
    [("counter", "counter", "_total"), ("info", "gauge", "_info"), ("unknown", "untyped", "")];

/// Each description comes before the type that decides what the metric is called.
fn as_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        let comment = line.strip_prefix("# ").and_then(|comment| comment.split_once(' '));
        match comment {
            Some(("HELP", said)) => help = said.split_once(' '),
            Some(("TYPE", said)) => {
                let (name, kind) = said.split_once(' ').unwrap_or((said, "unknown"));
                let row = TYPES.iter().find(|(own, ..)| *own == kind);
                let (kind, ending) = row.map_or((kind, ""), |(_, kind, ending)| (kind, ending));
                if let Some((_, said)) = help.take().filter(|(own, _)| *own == name) {
                    text.push_str(&format!("# HELP {name}{ending} {said}\n"));
                }
                text.push_str(&format!("# TYPE {name}{ending} {kind}\n"));
            }
            _ if line.starts_with('#') => {}
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_is_given_what_it_asks_for_most() {
        let (open, text) = (Exposition::OpenMetrics, Exposition::Text);
        let table = [
            ("", text),
            ("*/*", text),
            ("text/html", text),
            ("text/plain", text),
            ("application/openmetrics-text", open),
            ("Application/OpenMetrics-Text; Version=1.0.0", open),
            ("application/openmetrics-text;version=2.0.0", text),
            ("application/openmetrics-text;q=0", text),
            ("application/openmetrics-text;q=0.5,text/plain;q=0.9", text),
            ("text/plain;q=0.3, application/openmetrics-text; version=\"1.0.0\"; q=0.4", open),
            // What Prometheus 3 sends.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,\
                 text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                open,
            ),
        ];
        for (accept, expected) in table {
            assert_eq!(Exposition::asked(accept), expected, "{accept}");
        }
    }

    #[test]
    fn counters_and_descriptions_have_their_whole_names_in_text() {
        let open_metrics = "# HELP mesh_writes Writes.\n# TYPE mesh_writes counter\nmesh_writes_total 1\n\
                            # HELP build Which.\n# TYPE build info\nbuild_info{tag=\"1\"} 1\n\
                            # HELP time_seconds How long.\n# TYPE time_seconds histogram\n\
                            # UNIT time_seconds seconds\ntime_seconds_bucket{le=\"+Inf\"} 0\n\
                            # HELP open Open.\n# TYPE open gauge\nopen 3\n# EOF\n";
        let text = "# HELP mesh_writes_total Writes.\n# TYPE mesh_writes_total counter\nmesh_writes_total 1\n\
                    # HELP build_info Which.\n# TYPE build_info gauge\nbuild_info{tag=\"1\"} 1\n\
                    # HELP time_seconds How long.\n# TYPE time_seconds histogram\n\
                    time_seconds_bucket{le=\"+Inf\"} 0\n\
                    # HELP open Open.\n# TYPE open gauge\nopen 3\n";
        assert_eq!(Exposition::Text.spell(open_metrics.to_owned()), text);
        assert_eq!(Exposition::OpenMetrics.spell(open_metrics.to_owned()), open_metrics);
    }
}
