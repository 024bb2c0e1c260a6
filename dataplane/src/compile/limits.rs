//! Limits of HTTP connections, from the two places where Envoy's API has them.

use envoy_types::pb::{
    envoy::{
        config::core::v3::{Http2ProtocolOptions, HttpProtocolOptions},
        extensions::filters::network::http_connection_manager::v3::HttpConnectionManager,
    },
    google::protobuf::UInt32Value,
};

use super::field::{At, Invalid, limit};
use crate::runtime::limits::{FrameLimits, HttpLimits};

/// What clients of a connection manager may ask.
pub(super) fn downstream(message: &HttpConnectionManager) -> Result<HttpLimits, Invalid> {
    let common = message.common_http_protocol_options.as_ref();
    let limits = of_versions(common, message.http2_protocol_options.as_ref())?;
    Ok(HttpLimits {
        header_bytes: kilobytes("max_request_headers_kb", message.max_request_headers_kb.as_ref())?,
        head_time: limit("request_headers_timeout", message.request_headers_timeout.as_ref())?
            .unwrap_or(limits.head_time),
        ..limits
    })
}

/// What servers of a cluster may send back.
pub(super) fn upstream(
    common: Option<&HttpProtocolOptions>,
    http2: Option<&Http2ProtocolOptions>,
) -> Result<HttpLimits, Invalid> {
    let response = common.and_then(|common| common.max_response_headers_kb.as_ref());
    let header_bytes = kilobytes("max_response_headers_kb", response).at("common_http_protocol_options")?;
    Ok(HttpLimits { header_bytes, ..of_versions(common, http2)? })
}

/// What stands in the same messages for both directions.
fn of_versions(
    common: Option<&HttpProtocolOptions>,
    http2: Option<&Http2ProtocolOptions>,
) -> Result<HttpLimits, Invalid> {
    let default = HttpLimits::default();
    let headers = common.and_then(|common| common.max_headers_count.as_ref());
    Ok(HttpLimits {
        headers: positive("max_headers_count", headers, default.headers).at("common_http_protocol_options")?,
        streams: http2
            .map(|http2| positive("max_concurrent_streams", http2.max_concurrent_streams.as_ref(), default.streams))
            .transpose()
            .at("http2_protocol_options")?
            .unwrap_or(default.streams),
        frames: http2.map_or(default.frames, |http2| frames(http2, default.frames)),
        ..default
    })
}

fn frames(http2: &Http2ProtocolOptions, default: FrameLimits) -> FrameLimits {
    let number = |value: Option<&UInt32Value>, default: u32| value.map_or(default, |value| value.value);
    FrameLimits {
        control: number(http2.max_outbound_control_frames.as_ref(), default.control),
        empty: number(http2.max_consecutive_inbound_frames_with_empty_payload.as_ref(), default.empty),
        priority_per_stream: number(http2.max_inbound_priority_frames_per_stream.as_ref(), default.priority_per_stream),
        window_updates_per_data: number(
            http2.max_inbound_window_update_frames_per_data_frame_sent.as_ref(),
            default.window_updates_per_data,
        ),
    }
}

/// Envoy refuses zero for these, and so do we: it would refuse every request.
fn positive(field: &str, value: Option<&UInt32Value>, default: u32) -> Result<u32, Invalid> {
    match value.map(|value| value.value) {
        None => Ok(default),
        Some(0) => Err(Invalid::new("expected at least 1, got 0").at(field)),
        Some(value) => Ok(value),
    }
}

/// A size in KiB; Envoy's own bound is 8 MiB.
fn kilobytes(field: &str, value: Option<&UInt32Value>) -> Result<u32, Invalid> {
    const MOST: u32 = 8192;
    match positive(field, value, HttpLimits::default().header_bytes / 1024)? {
        size if size <= MOST => Ok(size * 1024),
        size => Err(Invalid::new(format!("expected at most {MOST}, got {size}")).at(field)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn number(value: u32) -> Option<UInt32Value> {
        Some(UInt32Value { value })
    }

    #[test]
    fn what_is_not_said_is_envoy_s_default() {
        let (down, up) = (downstream(&HttpConnectionManager::default()).unwrap(), upstream(None, None).unwrap());
        assert_eq!((down, up), (HttpLimits::default(), HttpLimits::default()));
        assert_eq!((down.headers, down.header_bytes, down.frames.control), (100, 61440, 1000));
    }

    #[test]
    fn every_limit_that_is_said_is_taken_in_both_directions() {
        let common = HttpProtocolOptions {
            max_headers_count: number(7),
            max_response_headers_kb: number(3),
            ..Default::default()
        };
        let http2 = Http2ProtocolOptions {
            max_concurrent_streams: number(9),
            max_outbound_control_frames: number(11),
            max_consecutive_inbound_frames_with_empty_payload: number(2),
            max_inbound_priority_frames_per_stream: number(12),
            max_inbound_window_update_frames_per_data_frame_sent: number(13),
            ..Default::default()
        };
        let expected = HttpLimits {
            headers: 7,
            header_bytes: 3 * 1024,
            streams: 9,
            frames: FrameLimits { control: 11, empty: 2, priority_per_stream: 12, window_updates_per_data: 13 },
            ..HttpLimits::default()
        };
        assert_eq!(upstream(Some(&common), Some(&http2)), Ok(expected));
        let manager = HttpConnectionManager {
            common_http_protocol_options: Some(common),
            http2_protocol_options: Some(http2),
            max_request_headers_kb: number(5),
            request_headers_timeout: Some(envoy_types::pb::google::protobuf::Duration { seconds: 4, nanos: 0 }),
            ..Default::default()
        };
        let head_time = Duration::from_secs(4);
        assert_eq!(downstream(&manager), Ok(HttpLimits { header_bytes: 5 * 1024, head_time, ..expected }));
    }

    #[test]
    fn a_limit_that_refuses_everything_is_refused() {
        let manager = HttpConnectionManager { max_request_headers_kb: number(0), ..Default::default() };
        assert_eq!(downstream(&manager).unwrap_err().field, "max_request_headers_kb");
        let common = HttpProtocolOptions { max_headers_count: number(0), ..Default::default() };
        assert_eq!(upstream(Some(&common), None).unwrap_err().field, "common_http_protocol_options.max_headers_count");
        let manager = HttpConnectionManager { max_request_headers_kb: number(8193), ..Default::default() };
        assert!(downstream(&manager).unwrap_err().reason.contains("8193"));
    }
}
