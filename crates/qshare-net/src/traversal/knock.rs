//! Knocks: a tracker verifies whether its packets from another port reach this node, and reports
//! the source address of this node's packets to that port ([`qshare_wire::knock`]).

use std::net::SocketAddr;
use std::time::Duration;

use qshare_wire::datagram::Datagram;
use qshare_wire::{Refused, knock as wire};
use quinn::Connection;
use tokio::time::{interval, timeout};

use super::Traversal;
use crate::framed::{self, ReadError};

/// Deadline for the tracker's answer. The tracker itself waits a second for our datagram.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// Interval of unsolicited datagrams to the second port. Some of them may be lost.
const AGAIN: Duration = Duration::from_millis(150);

/// The port at which the tracker shall knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnockTarget {
    /// A port of the IP address at which the tracker sees us.
    Port {
        /// The port.
        port: u16,
        /// Whether the tracker shall tell others of this port if its knock is answered.
        offer: bool,
    },
    /// None: this node sends to the tracker's second port, and learns its own external address
    /// there.
    Nowhere {
        /// The tracker's second port, from an earlier answer.
        second_port: u16,
    },
}

/// The result of a knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Knocked {
    /// The address at which the tracker sees our connection.
    pub observed: SocketAddr,
    /// The port from which the tracker knocks.
    pub second_port: u16,
    /// Whether a knock arrived.
    pub was_heard: bool,
    /// The address from which our datagram to the second port came, if one arrived.
    pub came_from: Option<SocketAddr>,
}

/// Why a knock has no result.
#[derive(Debug, thiserror::Error)]
pub enum KnockError {
    /// The tracker does not knock, or not now.
    #[error("the tracker refused: {0}")]
    Refused(Refused),
    /// The tracker did not answer before the deadline.
    #[error("no answer within {} s", ANSWER_DEADLINE.as_secs())]
    TimedOut,
    /// The answer could not be read.
    #[error(transparent)]
    Lost(ReadError),
}

/// Has the tracker at the other end of `connection` knock. The connection belongs to the endpoint
/// of `traversal`. Takes about a second if no datagram gets through.
///
/// # Errors
///
/// When the tracker gives no answer. A report that no datagram got through is an answer.
pub async fn knock(
    traversal: &Traversal,
    connection: &Connection,
    at: KnockTarget,
) -> Result<Knocked, KnockError> {
    let id = rand::random();
    let (port, offer) = match at {
        KnockTarget::Port { port, offer } => (Some(port), offer),
        KnockTarget::Nowhere { .. } => (None, false),
    };
    let request = wire::Knock {
        id,
        port,
        offer,
        extensions: Vec::new(),
    };
    let expected = traversal.expect_knock(id);
    let ask = async {
        let asked = framed::ask::<wire::Knock, wire::Knocked>(connection, &request);
        match timeout(ANSWER_DEADLINE, asked).await {
            Ok(Ok((answer, ..))) => Ok(answer),
            Ok(Err(ReadError::Refused(refused))) => Err(KnockError::Refused(refused)),
            Ok(Err(error)) => Err(KnockError::Lost(error)),
            Err(_) => Err(KnockError::TimedOut),
        }
    };
    let send = async {
        let KnockTarget::Nowhere { second_port } = at else {
            return std::future::pending().await;
        };
        let second = SocketAddr::new(connection.remote_address().ip(), second_port);
        let mut ticks = interval(AGAIN);
        loop {
            ticks.tick().await;
            let cookie = [0; 8];
            traversal.send(second, &Datagram::Heard { id, cookie });
        }
    };
    let answer = tokio::select! {
        answer = ask => answer?,
        // Sending never ends.
        () = send => return Err(KnockError::TimedOut),
    };
    let canonical = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
    Ok(Knocked {
        observed: canonical(answer.observed),
        second_port: answer.second_port,
        was_heard: expected.was_heard(),
        came_from: answer.came_from.map(canonical),
    })
}
