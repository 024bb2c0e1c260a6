//! What keeps requests out, and what is told of those that pass, at an Envoy and at our proxy beside
//! it, from one configuration: the same answers, and the same bytes at the application.
#![cfg(feature = "e2e")]

mod authorizers;
mod beside;
mod headers;
mod limits;
mod revoked;
mod tokens;
