//! End-to-end tests: real processes of the program, on loopback.

mod demo;
mod downloads;
mod hostile;
mod links;
mod messages;
mod node_life;
mod resume;
mod serving;
mod status;
mod trackers;
