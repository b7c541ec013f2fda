//! The knock request: tests whether packets to a port of the asker get in.

use std::net::SocketAddr;
use std::time::Duration;

use qshare_wire::Refusal;
use qshare_wire::datagram::Datagram;
use qshare_wire::knock::{Knock, Knocked};
use qshare_wire::limits::CANDIDATE_PORT_MIN;
use quinn::SendStream;
use tokio::time::{sleep, timeout};

use crate::client::Client;
use crate::reply::{refuse, respond};

/// Pauses before the datagrams of one knock: one or two may be lost.
const PAUSES: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_millis(300),
];
/// How long the tracker waits for an answer, from the first datagram on.
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);

/// Knocks at the asker if its request names a port, and waits for a *heard* at the second port.
pub(crate) async fn knock(client: &Client, request: Knock, send: &mut SendStream) {
    let observed = client.observed.get();
    let Some(knocker) = &client.services.knocker else {
        let reason = "this tracker has no second port";
        return refuse(client, send, Refusal::NotHere, reason, Duration::ZERO).await;
    };
    let to = request
        .port
        .map(|port| SocketAddr::new(observed.ip(), port));
    if to.is_some_and(|to| !may_knock_at(to, observed)) {
        let reason = "the tracker does not knock at this port";
        return refuse(client, send, Refusal::NotAllowed, reason, Duration::ZERO).await;
    }
    // A node that is not knocked at has no cookie to repeat.
    let cookie = match to {
        Some(_) => rand::random(),
        None => [0; 8],
    };
    let Some(mut expected) = knocker.expect_answer(request.id, cookie) else {
        let reason = "the tracker knocks at too many nodes";
        return refuse(client, send, Refusal::Busy, reason, ANSWER_DEADLINE).await;
    };
    let knocking = async {
        if let Some(to) = to {
            let id = request.id;
            for pause in PAUSES {
                sleep(pause).await;
                knocker.send(to, &Datagram::Knock { id, cookie }).await;
            }
        }
        std::future::pending::<()>().await;
    };
    let came_from = timeout(ANSWER_DEADLINE, async {
        tokio::select! {
            from = expected.received() => from,
            () = knocking => None,
        }
    });
    let came_from = came_from.await.ok().flatten();
    drop(expected);
    if request.offer {
        // An answer from another address left the router by another mapping than the knock
        // entered by.
        let proven = came_from.filter(|_| came_from == to);
        client
            .services
            .registry
            .set_proven(client.node, client.id, proven);
    }
    let knocked = Knocked {
        observed,
        second_port: knocker.port(),
        came_from,
        extensions: Vec::new(),
    };
    respond(client, send, &knocked).await;
}

/// Whether the tracker may knock at a port: not at well-known services, and on the tracker's own
/// host only at the socket that the session itself uses.
fn may_knock_at(to: SocketAddr, observed: SocketAddr) -> bool {
    to.port() >= CANDIDATE_PORT_MIN && (!to.ip().is_loopback() || to == observed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn well_known_services_and_those_of_this_host_are_not_knocked_at() {
        let observed = at("192.0.2.1:40000");
        assert!(may_knock_at(at("192.0.2.1:64500"), observed));
        assert!(!may_knock_at(at("192.0.2.1:53"), observed));
        let observed = at("127.0.0.1:40000");
        assert!(may_knock_at(observed, observed));
        assert!(!may_knock_at(at("127.0.0.1:5353"), observed));
    }
}
