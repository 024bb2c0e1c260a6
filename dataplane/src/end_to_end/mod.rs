//! End-to-end tests of the hot path: real sockets on loopback, real TLS, configurations built by hand.

mod blame;
mod fixture;
mod floods;
mod hash;
mod http;
mod origination;
mod peer;
mod raw;
mod refusal;
mod tcp;
mod tls;
