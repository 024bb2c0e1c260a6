//! End-to-end tests of the hot path: real sockets on loopback, real TLS, configurations built by
//! hand.

mod ages;
mod announced;
mod blame;
mod ends;
mod ext_authz;
mod filters;
mod fixture;
mod floods;
mod hash;
mod http;
mod malformed;
mod mirror;
mod origination;
mod outlived;
mod peer;
mod pools;
mod rate_limits;
mod raw;
mod refusal;
mod tcp;
mod timing;
mod tls;
mod tokens;
mod traces;
