//! Connections to other nodes: one for each node, used in both directions, whichever side dialled.
//!
//! A node has two connections while it moves to a better path or away from a dead one.
//! [`PeerEvent`]s report connections that are added and removed. This module does not know what the
//! connections are used for.

mod accept;
mod adopt;
mod connection;
mod dial;
mod liveness;
mod path_monitor;
mod path_race;
mod table;
mod unlock;

pub(crate) use accept::Acceptor;
pub(crate) use adopt::{Adopter, PeerEvent};
pub(crate) use connection::{Peer, PeerConnection};
pub(crate) use dial::Dialler;
pub(crate) use path_monitor::PathMonitor;
pub(crate) use path_race::PathRace;
pub(crate) use table::PeerTable;
