//! What keeps requests out, and what is told of those that pass, at an Envoy and at our proxy beside
//! it, from one configuration: the same answers, and the same bytes at the application.
#![cfg(feature = "e2e")]

mod authorizers;
mod balancers;
mod beside;
mod hashing;
mod headers;
mod late_files;
mod limits;
mod revoked;
mod tokens;
