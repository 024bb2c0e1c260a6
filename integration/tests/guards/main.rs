//! What keeps requests out, at an Envoy and at our proxy beside it, from one configuration: the same
//! answers, and the same bytes at the application.
#![cfg(feature = "e2e")]

mod authorizers;
mod beside;
mod limits;
mod service;
mod tokens;
