//! `ferromesh proxy-config log`: what a proxy logs, asked of its admin interface. Our proxy and an
//! Envoy answer to the same words.

use anyhow::{Context, bail};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

use super::{print::print, remote::encode};

/// Prints what the proxy with this admin interface logs, after `levels` were chosen: a level for
/// everything, or LOGGER:LEVEL, with commas.
///
/// # Errors
/// The proxy knows no such logger or level, or does not answer.
pub(super) async fn run(admin: &str, levels: Option<&str>) -> anyhow::Result<()> {
    let admin = admin.trim_end_matches('/');
    let admin = match admin.contains("://") {
        true => admin.to_owned(),
        false => format!("http://{admin}"),
    };
    let mut said = String::new();
    for query in queries(levels) {
        said = ask(&format!("{admin}/logging{query}")).await?;
    }
    print(said.trim_end());
    Ok(())
}

/// A query for each question: Envoy takes one parameter at a time.
fn queries(levels: Option<&str>) -> Vec<String> {
    let words = || levels.into_iter().flat_map(|levels| levels.split(',')).map(str::trim);
    // A logger's name may have colons of its own.
    let of_one = |word: &str| word.rsplit_once([':', '=']).map(|(l, of)| format!("{l}:{of}"));
    let all = words().filter(|word| of_one(word).is_none());
    let all = all.map(|level| format!("?level={}", encode(level)));
    let ones: Vec<String> = words().filter_map(of_one).collect();
    let ones = (!ones.is_empty()).then(|| format!("?paths={}", encode(&ones.join(","))));
    let mut queries: Vec<String> = all.chain(ones).collect();
    if queries.is_empty() {
        queries.push(String::new());
    }
    queries
}

async fn ask(url: &str) -> anyhow::Result<String> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let request = Request::post(url).body(Full::default());
    let request = request.with_context(|| format!("{url}: expected such as 127.0.0.1:15000"))?;
    let response = client.request(request).await.with_context(|| {
        format!(
            "no proxy answers at {url}; give its --admin-address, of this machine, with --admin"
        )
    })?;
    let status = response.status();
    let bytes = response.into_body().collect().await?.to_bytes();
    let said = String::from_utf8_lossy(&bytes).into_owned();
    if !status.is_success() {
        bail!("{}", said.trim());
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_asked_at_a_time() {
        let table: [(Option<&str>, &[&str]); 4] = [
            (None, &[""]),
            (Some("debug"), &["?level=debug"]),
            (Some("http:debug, a::b=warning"), &["?paths=http%3Adebug%2Ca%3A%3Ab%3Awarning"]),
            (Some("info,http:debug"), &["?level=info", "?paths=http%3Adebug"]),
        ];
        for (levels, expected) in table {
            assert_eq!(queries(levels), expected, "{levels:?}");
        }
    }
}
