//! Istio's kinds: their fields, and the rules their values must keep.

pub mod destination_rule;
pub mod gateway;
pub mod mesh_config;
pub(super) mod rules;
pub mod security;
pub mod service_entry;
pub mod shared;
pub mod sidecar;
pub mod virtual_service;
