//! Knocking: a node has the tracker send it a small datagram from another port than the one that
//! it talks to, to see whether it comes in, and from where an answer goes out.
//!
//! A node asks on a stream of its own with [`Knock`], which is answered by [`Knocked`] or a
//! refusal. The datagrams are [`crate::datagram::Datagram::Knock`], from the tracker's *second
//! port*, and [`crate::datagram::Datagram::Heard`], to it. A tracker knocks at no other IP address
//! than the one at which it sees the asker.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::hello::{Extensions, check_extensions};
use crate::limits::SMALL_BODY_MAX_BYTES;
use crate::{Message, WireError};

/// `Knock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knock {
    /// Names it in datagrams; known to the asker and the tracker only.
    pub id: u64,
    /// The port to knock at; None knocks nowhere, and waits for what the asker sends by itself.
    pub port: Option<u16>,
    /// If an answer comes back through that port, others are told that the asker is there, until
    /// it asks again or its session ends.
    pub offer: bool,
    /// Additions of later versions.
    pub extensions: Extensions,
}

impl Message for Knock {
    const TYPE: u16 = 25;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "Knock";

    fn check(&self) -> Result<(), WireError> {
        check_extensions::<Self>(&self.extensions)
    }
}

/// `Knocked`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knocked {
    /// Where the tracker sees the asker's connection.
    pub observed: SocketAddr,
    /// The tracker's second port.
    pub second_port: u16,
    /// Where the asker's datagram to the second port came from; None if none came.
    pub came_from: Option<SocketAddr>,
    /// Additions of later versions.
    pub extensions: Extensions,
}

impl Message for Knocked {
    const TYPE: u16 = 26;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "Knocked";

    fn check(&self) -> Result<(), WireError> {
        check_extensions::<Self>(&self.extensions)
    }
}
