//! What the end-to-end tests share: real processes of the real binary, files to share, a peer
//! that misbehaves on demand.

pub mod binary;
pub mod files;
pub mod peer;
pub mod privilege;
pub mod process;
pub mod terminal;
pub mod tracker_client;
pub mod world;
