//! Helpers of the end-to-end tests: processes of the real program, files to share, a peer that
//! misbehaves on demand, and a network of namespaces on one machine.

pub mod asker;
mod background;
pub mod binary;
pub mod client;
pub mod controlled;
mod fake_tracker;
pub mod files;
pub mod fleet;
#[cfg(target_os = "linux")]
pub mod lab;
pub mod libtorrent;
pub mod lying_tracker;
#[cfg(target_os = "linux")]
pub mod mappings;
#[cfg(target_os = "linux")]
pub mod moves;
#[cfg(target_os = "linux")]
pub mod networked;
pub mod peer;
pub mod privilege;
pub mod process;
pub mod redis;
#[cfg(test)]
mod source_tree;
pub mod swapping_tracker;
pub mod terminal;
pub mod tracker_client;
pub mod world;
