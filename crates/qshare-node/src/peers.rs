//! Connections to other nodes: one for each node, used in both directions, whoever dialled.
//!
//! While a node moves from one path to a better one, or away from a dead one, it has two.
//! Connections that come and go are told as [`PeerEvent`]s; nothing here knows what they are used
//! for.

mod accept;
mod adopt;
mod connection;
mod dial;
mod liveness;
mod path_monitor;
mod path_race;
mod table;

pub(crate) use accept::Acceptor;
pub(crate) use adopt::{Adopter, PeerEvent};
pub(crate) use connection::{Peer, PeerConnection};
pub(crate) use dial::Dialler;
pub(crate) use path_monitor::PathMonitor;
pub(crate) use path_race::PathRace;
pub(crate) use table::PeerTable;
