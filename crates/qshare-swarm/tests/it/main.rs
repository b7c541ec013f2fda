//! The integration tests of this crate, one binary.

mod hostile;
mod patience;
mod properties;
mod random_swarms;
mod sim;
mod swarm;
