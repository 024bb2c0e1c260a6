//! The harness of the end-to-end tests: programs, network namespaces and the mesh that the tests
//! drive. Nobody imports it but the tests beside it.

pub mod certificate;
pub mod fuzz;
pub mod kube_cluster;
pub mod matrix;
pub mod mesh;
pub mod namespace;
pub mod offline;
pub mod paths;
pub mod plane;
pub mod process;
pub mod random_mesh;
pub mod service;
pub mod sidecar;
pub mod token;
pub mod wasm_module;
pub mod workload;
