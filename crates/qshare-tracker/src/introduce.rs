//! Introductions: two nodes are told of each other at the same moment.

use qshare_net::framed;
use qshare_registry::Contact;
use qshare_wire::introduction::{EXTENSION_BIRTHDAY_PUNCH, Introduce, Introduction};
use qshare_wire::{Refusal, Refused};
use quinn::SendStream;
use tokio::time::timeout;
use tracing::debug;

use crate::client::{Client, SessionError};
use crate::contacts::{candidates_for, canonical, claimed};
use crate::reply::respond;

/// Introduces the asker to the node that it names.
pub(crate) async fn introduce(
    client: &Client,
    request: Introduce,
    send: &mut SendStream,
) -> Result<(), SessionError> {
    let refuse = |refusal, reason: &str| Refused::because(refusal, reason);
    let services = &client.services;
    let Some(other) = services.registry.introducible(request.node) else {
        let refused = refuse(Refusal::NotHere, "it is not connected to this tracker");
        respond(client, send, &refused).await;
        return Ok(());
    };
    if request.node == client.node || !other.may_be_introduced() {
        let refused = refuse(Refusal::Busy, "it is introduced to too many nodes");
        respond(client, send, &refused).await;
        return Ok(());
    }
    let proven = services.registry.introducible(client.node);
    let proven = proven.and_then(|member| member.proven());
    let claims = claimed(&request.candidates);
    let asker = Contact {
        observed: canonical(client.connection.remote_address()),
        claimed: proven.into_iter().chain(claims).collect(),
    };
    let asked = Contact {
        observed: canonical(other.connection.remote_address()),
        claimed: other.claims().into(),
    };
    let tickets = services
        .relay
        .as_ref()
        .and_then(|relay| relay.open(client.node, request.node));
    let (ticket_of_asker, ticket_of_asked) = tickets.unzip();
    let (id, key) = (rand::random(), rand::random());
    let asker_may = services.registry.introducible(client.node);
    let extensions = match asker_may.is_some_and(|asker| asker.may_birthday_punch) {
        true if other.may_birthday_punch => vec![(EXTENSION_BIRTHDAY_PUNCH, Vec::new())],
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
    // A node that takes nothing from its control stream is not waited for.
    let deadline = services.limits.transfer_deadline;
    let tell = async {
        let mut control = other.control.lock().await;
        framed::write(&mut control, &to_asked).await
    };
    let (_, ()) = tokio::join!(timeout(deadline, tell), respond(client, send, &to_asker));
    Ok(())
}
