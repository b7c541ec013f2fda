//! The introduction request: the tracker informs two nodes of each other at the same moment.

use std::time::Duration;

use qshare_content::fair::User;
use qshare_net::framed;
use qshare_registry::Contact;
use qshare_wire::Refusal;
use qshare_wire::introduction::{EXTENSION_BIRTHDAY_PUNCH, Introduce, Introduction};
use quinn::SendStream;
use tokio::time::timeout;
use tracing::debug;

use crate::client::{Client, SessionError};
use crate::contacts::{candidates_for, claimed};
use crate::reply::{BUSY_RETRY, refuse, respond};

/// Introduces the asking node and the node that it names to each other.
pub(crate) async fn introduce(
    client: &Client,
    request: Introduce,
    send: &mut SendStream,
) -> Result<(), SessionError> {
    let services = &client.services;
    let Some(other) = services.registry.introducible(request.node) else {
        let reason = "the node has no session with this tracker";
        refuse(client, send, Refusal::NotHere, reason, Duration::ZERO).await;
        return Ok(());
    };
    let by = User {
        network: client.user.network,
        id: client.node,
    };
    if request.node == client.node {
        let reason = "a node cannot be introduced to itself";
        refuse(client, send, Refusal::Invalid, reason, Duration::ZERO).await;
        return Ok(());
    }
    if !other.may_be_introduced(by) {
        let reason = "the node is introduced to too many others";
        refuse(client, send, Refusal::Busy, reason, BUSY_RETRY).await;
        return Ok(());
    }
    let proven = services.registry.introducible(client.node);
    let proven = proven.and_then(|member| member.proven());
    let claims = claimed(&request.candidates);
    let asker = Contact {
        observed: client.observed.get(),
        claimed: proven.into_iter().chain(claims).collect(),
    };
    let asked = Contact {
        observed: other.observed.get(),
        claimed: other.claims().into(),
    };
    let tickets = services
        .relay
        .as_ref()
        .and_then(|relay| relay.open(by, request.node));
    let (ticket_of_asker, ticket_of_asked) = tickets.unzip();
    let (id, key) = (rand::random(), rand::random());
    let asker_may = services.registry.introducible(client.node);
    let extensions = match asker_may.is_some_and(|asker| asker.may_birthday_punch) {
        true if other.may_birthday_punch && other.may_be_sent_many_probes(by) => {
            vec![(EXTENSION_BIRTHDAY_PUNCH, Vec::new())]
        }
        _ => Vec::new(),
    };
    let to_asked = Introduction {
        peer: client.node,
        asked: false,
        candidates: candidates_for(&asker, asked.observed.ip()),
        id,
        key,
        relay: ticket_of_asked,
        extensions: extensions.clone(),
    };
    let to_asker = Introduction {
        peer: request.node,
        asked: true,
        candidates: candidates_for(&asked, asker.observed.ip()),
        id,
        key,
        relay: ticket_of_asker,
        extensions,
    };
    debug!(to = %request.node.short(), "introducing");
    // A node that does not read its control stream delays the other node by the deadline at most.
    let deadline = services.limits.transfer_deadline;
    let tell = async {
        let mut control = other.control.lock().await;
        framed::write(&mut control, &to_asked).await
    };
    let (_, ()) = tokio::join!(timeout(deadline, tell), respond(client, send, &to_asker));
    Ok(())
}
