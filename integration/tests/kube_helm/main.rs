//! The charts with real Helm: what they render, which mistakes they name, and their whole life in a
//! real cluster. `UPDATE_GOLDEN=1` writes the goldens anew. Needs root, the images of
//! `integration/images.sh`, and what `integration/peers.sh kube` installs.
#![cfg(feature = "kube")]

mod life;
mod names;
mod render;
mod upgrades;
mod values;
