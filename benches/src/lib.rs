//! What the benchmarks share: what a command cost, a table of it, and two hosts on one machine.

pub mod measure;
#[cfg(target_os = "linux")]
pub mod pair;
pub mod table;
