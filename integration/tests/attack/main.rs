//! Peers that mean harm, beside others that do not: no good request fails, memory stays within a
//! bound that is printed, and afterwards everything is as it was. `integration/soak.sh attack` runs
//! it for long.
//!
//! An attack is a row of a table of [`flood::Flood`]s; [`round::run`] plays them one after the
//! other against a process, while [`good::Good`] clients ask.
#![cfg(feature = "e2e")]

mod control;
mod flood;
mod frames;
mod good;
mod memory;
mod proxy;
mod round;
mod site;
