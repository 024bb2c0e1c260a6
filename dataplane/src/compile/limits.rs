//! Limits of HTTP connections, and of what is held of messages, from the places where Envoy's API
//! has them.

use std::num::NonZeroU32;

use envoy_types::pb::{
    envoy::{
        config::core::v3::{Http2ProtocolOptions, HttpProtocolOptions},
        extensions::filters::network::http_connection_manager::v3::HttpConnectionManager,
    },
    google::protobuf::{UInt32Value, UInt64Value},
};

use super::field::{At, Invalid, limit};
use crate::runtime::limits::{BodyLimit, BufferLimit, FrameLimits, HttpLimits};

/// What clients of a connection manager may ask.
pub(super) fn downstream(message: &HttpConnectionManager) -> Result<HttpLimits, Invalid> {
    let common = message.common_http_protocol_options.as_ref();
    let limits = of_versions(common, message.http2_protocol_options.as_ref())?;
    Ok(HttpLimits {
        header_bytes: header_bytes(
            "max_request_headers_kb",
            message.max_request_headers_kb.as_ref(),
            limits,
        )?,
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
    let limits = HttpLimits {
        header_bytes: HttpLimits::RESPONSE_HEADER_BYTES,
        ..of_versions(common, http2)?
    };
    let header_bytes = header_bytes("max_response_headers_kb", response, limits)
        .at("common_http_protocol_options")?;
    Ok(HttpLimits { header_bytes, ..limits })
}

/// What stands in the same messages for both directions.
fn of_versions(
    common: Option<&HttpProtocolOptions>,
    http2: Option<&Http2ProtocolOptions>,
) -> Result<HttpLimits, Invalid> {
    let default = HttpLimits::default();
    let headers = common.and_then(|common| common.max_headers_count.as_ref());
    Ok(HttpLimits {
        headers: positive("max_headers_count", headers, default.headers)
            .at("common_http_protocol_options")?,
        streams: http2
            .map(|http2| {
                positive(
                    "max_concurrent_streams",
                    http2.max_concurrent_streams.as_ref(),
                    default.streams,
                )
            })
            .transpose()
            .at("http2_protocol_options")?
            .unwrap_or(default.streams),
        frames: http2.map_or(default.frames, |http2| frames(http2, default.frames)),
        ..default
    })
}

fn frames(http2: &Http2ProtocolOptions, default: FrameLimits) -> FrameLimits {
    let number =
        |value: Option<&UInt32Value>, default: u32| value.map_or(default, |value| value.value);
    FrameLimits {
        control: number(http2.max_outbound_control_frames.as_ref(), default.control),
        empty: number(
            http2.max_consecutive_inbound_frames_with_empty_payload.as_ref(),
            default.empty,
        ),
        priority_per_stream: number(
            http2.max_inbound_priority_frames_per_stream.as_ref(),
            default.priority_per_stream,
        ),
        window_updates_per_data: number(
            http2.max_inbound_window_update_frames_per_data_frame_sent.as_ref(),
            default.window_updates_per_data,
        ),
    }
}

/// How much a connection of a listener or a cluster holds. Zero is no limit in Envoy; here somebody
/// must bound it.
pub(super) fn buffer(message: Option<&UInt32Value>) -> Result<BufferLimit, Invalid> {
    let bytes = message.map(|message| {
        NonZeroU32::new(message.value).ok_or_else(|| {
            let default = BufferLimit::DEFAULT;
            Invalid::new(format!("expected at least 1, got 0; leave it out for {default}"))
                .at("per_connection_buffer_limit_bytes")
        })
    });
    Ok(BufferLimit::new(bytes.transpose()?))
}

/// How much of a body is kept, as a route or a virtual host says.
pub(super) fn body(
    own: Option<&UInt64Value>,
    older: Option<&UInt32Value>,
) -> Result<Option<BodyLimit>, Invalid> {
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    match (own, older) {
        (Some(_), Some(_)) => {
            let reason = "expected one of this and per_request_buffer_limit_bytes, got both";
            Err(Invalid::new(reason).at("request_body_buffer_limit"))
        }
        (Some(limit), None) => Ok(Some(BodyLimit::Own(size(limit.value)))),
        (None, Some(limit)) => Ok(Some(BodyLimit::Older(size(limit.value.into())))),
        (None, None) => Ok(None),
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

/// A size in KiB, as bytes; Envoy's own bound is 8 MiB.
fn header_bytes(
    field: &str,
    value: Option<&UInt32Value>,
    default: HttpLimits,
) -> Result<u32, Invalid> {
    const MOST: u32 = 8192;
    match positive(field, value, default.header_bytes / 1024)? {
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
        let (down, up) =
            (downstream(&HttpConnectionManager::default()).unwrap(), upstream(None, None).unwrap());
        assert_eq!(down, HttpLimits::default());
        assert_eq!(up, HttpLimits { header_bytes: 81920, ..down });
        assert_eq!((down.headers, down.header_bytes, down.frames.control), (100, 61440, 1000));
    }

    #[test]
    fn what_is_held_of_a_body_is_said_by_its_route_or_its_listener() {
        let small = buffer(number(1000).as_ref()).unwrap();
        let large = |value| Some(UInt64Value { value });
        for (exactly, at_most, of_default, of_small) in [
            (None, None, 1 << 20, 1000),
            (large(5 << 20), None, 5 << 20, 5 << 20),
            (large(0), None, 0, 0),
            (None, number(5 << 20), 5 << 20, 5 << 20),
            (None, number(7), 7, 7),
        ] {
            let own = body(exactly.as_ref(), at_most.as_ref()).unwrap();
            assert_eq!(BufferLimit::default().of_body(own), of_default, "{own:?}");
            assert_eq!(small.of_body(own), of_small, "{own:?}");
        }
        let both = body(large(1).as_ref(), number(1).as_ref()).unwrap_err();
        assert_eq!(both.field, "request_body_buffer_limit");
        let none = buffer(number(0).as_ref()).unwrap_err();
        assert_eq!(none.field, "per_connection_buffer_limit_bytes");
        assert!(none.reason.contains("1048576"), "{}", none.reason);
        let usual = BufferLimit::default();
        assert_eq!((usual.window(1 << 20), usual.buffer(4096, 16)), (1 << 20, 4096));
        assert_eq!((small.window(1 << 20), small.buffer(4096, 16)), (65_535, 1000));
    }

    #[test]
    fn the_newer_field_of_a_route_or_its_host_wins() {
        use BodyLimit::{Older, Own};
        for (of_route, of_host, expected) in [
            (Some(Own(1)), Some(Own(2)), Some(Own(1))),
            (Some(Older(1)), Some(Own(2)), Some(Own(2))),
            (Some(Own(1)), Some(Older(2)), Some(Own(1))),
            (Some(Older(1)), Some(Older(2)), Some(Older(1))),
            (None, Some(Older(2)), Some(Older(2))),
            (None, None, None),
        ] {
            assert_eq!(
                BodyLimit::in_force(of_route, of_host),
                expected,
                "{of_route:?} {of_host:?}"
            );
        }
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
            frames: FrameLimits {
                control: 11,
                empty: 2,
                priority_per_stream: 12,
                window_updates_per_data: 13,
            },
            ..HttpLimits::default()
        };
        assert_eq!(upstream(Some(&common), Some(&http2)), Ok(expected));
        let manager = HttpConnectionManager {
            common_http_protocol_options: Some(common),
            http2_protocol_options: Some(http2),
            max_request_headers_kb: number(5),
            request_headers_timeout: Some(envoy_types::pb::google::protobuf::Duration {
                seconds: 4,
                nanos: 0,
            }),
            ..Default::default()
        };
        let head_time = Duration::from_secs(4);
        assert_eq!(
            downstream(&manager),
            Ok(HttpLimits { header_bytes: 5 * 1024, head_time, ..expected })
        );
    }

    #[test]
    fn a_limit_that_refuses_everything_is_refused() {
        let manager =
            HttpConnectionManager { max_request_headers_kb: number(0), ..Default::default() };
        assert_eq!(downstream(&manager).unwrap_err().field, "max_request_headers_kb");
        let common = HttpProtocolOptions { max_headers_count: number(0), ..Default::default() };
        assert_eq!(
            upstream(Some(&common), None).unwrap_err().field,
            "common_http_protocol_options.max_headers_count"
        );
        let manager =
            HttpConnectionManager { max_request_headers_kb: number(8193), ..Default::default() };
        assert!(downstream(&manager).unwrap_err().reason.contains("8193"));
    }
}
