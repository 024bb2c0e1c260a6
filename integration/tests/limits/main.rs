//! Limits and bad input: whatever is put into the control plane's directory, data or ports, it says
//! in one line what is wrong and goes on serving the rest, or refuses to start and changes nothing.
#![cfg(feature = "e2e")]

mod canary;
mod departures;
mod input;
mod load;
mod memory;
mod pipe;
mod plane;
mod rest;
mod start;
mod watcher;
