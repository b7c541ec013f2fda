//! What the benchmarks share: what a command cost, a table of it, yardsticks, and two hosts on one
//! machine.

pub mod bare;
pub mod from_cargo;
pub mod measure;
#[cfg(target_os = "linux")]
pub mod pair;
#[cfg(unix)]
pub mod parts;
pub mod server;
pub mod size;
pub mod stage;
pub mod table;
