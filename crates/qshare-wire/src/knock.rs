//! Knocks: a node has the tracker send it a small datagram from another port than that of their
//! connection, and learns whether it arrives and which external address the answer comes from.
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

/// `Knock`: asks the tracker to knock.
///
/// ```text
/// id u64 │ port option u16 │ offer bool │ extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knock {
    /// Identifies the knock in datagrams; known to the asker and the tracker only.
    pub id: u64,
    /// The port to knock at. None: the tracker sends nothing and waits for an unsolicited datagram.
    pub port: Option<u16>,
    /// Whether the tracker shall tell others of this port if the knock is answered from there,
    /// until the node asks again or its session ends.
    pub offer: bool,
    /// For later versions.
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

/// `Knocked`: the result.
///
/// ```text
/// observed socket │ second_port u16 │ came_from option socket │ extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knocked {
    /// The address at which the tracker sees the asker.
    pub observed: SocketAddr,
    /// The tracker's second port.
    pub second_port: u16,
    /// The source of the asker's datagram to the second port; None if none arrived.
    pub came_from: Option<SocketAddr>,
    /// For later versions.
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
