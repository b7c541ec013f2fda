//! End-to-end tests: real processes of the program, on loopback and on hosts of the network lab.
//!
//! This binary belongs to the package `qshare` (`crates/qshare/Cargo.toml`), so that Cargo builds
//! the program together with it.

mod answers;
mod arguments;
mod cat;
mod changes;
mod codes;
mod configuration;
#[cfg(target_os = "linux")]
mod control;
mod demo;
mod digests;
mod downloads;
mod folder_downloads;
mod folders;
mod handed;
mod hostile;
#[cfg(target_os = "linux")]
mod lan;
#[cfg(target_os = "linux")]
mod limits;
mod links;
#[cfg(target_os = "linux")]
mod manual;
mod messages;
#[cfg(target_os = "linux")]
mod nat;
#[cfg(target_os = "linux")]
mod net;
mod node_life;
mod operations;
#[cfg(target_os = "linux")]
mod packages;
#[cfg(target_os = "linux")]
mod port_mapping;
mod private;
mod processes;
mod registries;
mod resume;
mod reuse;
mod serving;
mod several_trackers;
mod sharing;
mod status;
mod times;
mod tracker_faults;
mod trackers;
#[cfg(unix)]
mod upgrade;
mod web;
#[cfg(unix)]
mod week;
#[cfg(target_os = "linux")]
mod why_slow;
