//! Tests of the compiler: one universe of objects, random histories over it, and single changes
//! that must stay small.

mod asked;
mod edge;
mod ejection;
mod entries;
mod facts;
mod incremental;
mod ingress;
mod namespaces;
mod parts;
mod relay;
mod start;
mod universe;
mod universe_ports;
mod work;
mod zones;
