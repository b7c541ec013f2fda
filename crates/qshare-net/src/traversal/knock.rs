//! Having a tracker knock: does what it sends from another port come in, and where does what we
//! send to that port come from? ([`qshare_wire::knock`])

use std::net::SocketAddr;
use std::time::Duration;

use qshare_wire::datagram::Datagram;
use qshare_wire::{Refused, knock as wire};
use quinn::Connection;
use tokio::time::{interval, timeout};

use super::Traversal;
use crate::framed::{self, ReadError};

/// Time for the tracker's answer: it waits a second for ours.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// Pause between datagrams that are sent unasked; one of them may be lost.
const AGAIN: Duration = Duration::from_millis(150);

/// Where the tracker is to knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnockTarget {
    /// At this port of the IP address at which it sees us.
    Port {
        /// The port.
        port: u16,
        /// Others are to be told that we are there, if we are.
        offer: bool,
    },
    /// Nowhere: we send to its second port ourselves, to be told where that comes from.
    Nowhere {
        /// The second port of the tracker, from an earlier answer.
        second_port: u16,
    },
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Knocked {
    /// Where the tracker sees our connection.
    pub observed: SocketAddr,
    /// The port that it knocks from.
    pub second_port: u16,
    /// Whether its knock came in.
    pub was_heard: bool,
    /// Where it saw what we sent to its second port come from, if it did.
    pub came_from: Option<SocketAddr>,
}

/// Why it is not known.
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

/// Has the tracker at the other end of `connection`, which belongs to the endpoint of `traversal`,
/// knock. Takes about a second where nothing comes through.
///
/// # Errors
///
/// When the tracker gives no answer. That nothing came through is one.
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
