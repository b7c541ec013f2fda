//! The introduction request: the tracker informs two nodes of each other at the same moment.

use std::time::Duration;

use qshare_content::fair::{Network, User};
use qshare_net::framed;
use qshare_registry::Contact;
use qshare_wire::hello::FEATURE_BIRTHDAY_PUNCH;
use qshare_wire::introduction::{EXTENSION_BIRTHDAY_PUNCH, Introduce, Introduction};
use qshare_wire::{Address, Refusal};
use quinn::SendStream;
use tokio::time::timeout;
use tracing::debug;

use crate::client::{Client, Services, SessionError};
use crate::contacts::{candidates_for, claimed};
use crate::reply::{BUSY_RETRY, refuse, respond};
use crate::shared::{IntroductionRequest, IntroductionResult, SharedRegistry};

/// Time for telling a node of an introduction that a node of another tracker asked for.
const TELL_DEADLINE: Duration = Duration::from_secs(1);

/// Introduces the asking node and the node that it names to each other.
pub(crate) async fn introduce(
    client: &Client,
    request: Introduce,
    send: &mut SendStream,
) -> Result<(), SessionError> {
    let services = &client.services;
    let Some(other) = services.registry.introducible(request.node) else {
        if let Some(shared) = &services.shared
            && request.node != client.node
        {
            return introduce_elsewhere(client, shared, request, send).await;
        }
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
    let extensions = match asker_may.is_some_and(|asker| asker.may_birthday_punch()) {
        true if other.may_birthday_punch() && other.may_be_sent_many_probes(by) => {
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

/// Introduces the asking node to one that has a session with another tracker.
async fn introduce_elsewhere(
    client: &Client,
    shared: &SharedRegistry,
    request: Introduce,
    send: &mut SendStream,
) -> Result<(), SessionError> {
    let services = &client.services;
    let by = User {
        network: client.user.network,
        id: client.node,
    };
    let us = services.registry.introducible(client.node);
    let features = us.as_ref().map_or(0, |member| member.features);
    let proven = us.and_then(|member| member.proven());
    let claims = proven.into_iter().chain(claimed(&request.candidates));
    let details = shared.details(client.observed.get(), claims.collect(), features);
    let relay = services.relay.as_ref();
    let tickets = relay.and_then(|relay| relay.open(by, request.node));
    let (ticket_of_asker, ticket_of_asked) = tickets.unzip();
    let (id, key) = (rand::random(), rand::random());
    debug!(to = %request.node.short(), "introducing at another tracker");
    let result = shared.introduce(request.node, client.node, details, id, key, ticket_of_asked);
    match result.await {
        Some(IntroductionResult::Introduced(asked, may_birthday_punch)) => {
            let contact = asked.contact_at(shared.observer());
            let introduction = Introduction {
                peer: request.node,
                asked: true,
                candidates: candidates_for(&contact, client.observed_ip()),
                id,
                key,
                relay: ticket_of_asker,
                extensions: birthday_extension(may_birthday_punch),
            };
            respond(client, send, &introduction).await;
        }
        Some(IntroductionResult::Busy) => {
            let reason = "the node is introduced to too many others";
            refuse(client, send, Refusal::Busy, reason, BUSY_RETRY).await;
        }
        Some(IntroductionResult::NotHere) | None => {
            let reason = "the node has no session with a tracker of this registry";
            refuse(client, send, Refusal::NotHere, reason, Duration::ZERO).await;
        }
    }
    Ok(())
}

fn birthday_extension(is_agreed: bool) -> Vec<(u16, Vec<u8>)> {
    match is_agreed {
        true => vec![(EXTENSION_BIRTHDAY_PUNCH, Vec::new())],
        false => Vec::new(),
    }
}

/// Introduces one of this tracker's nodes to a node of another tracker.
pub(crate) async fn introduce_for_other(
    services: &Services,
    request: &IntroductionRequest,
) -> IntroductionResult {
    let Some(shared) = &services.shared else {
        return IntroductionResult::NotHere;
    };
    let Some(other) = services.registry.introducible(request.asked) else {
        return IntroductionResult::NotHere;
    };
    let by = User {
        network: Network::of(request.details.observed.ip()),
        id: request.asker,
    };
    if !other.may_be_introduced(by) {
        return IntroductionResult::Busy;
    }
    let may_birthday_punch = request.details.features & FEATURE_BIRTHDAY_PUNCH != 0
        && other.may_birthday_punch()
        && other.may_be_sent_many_probes(by);
    let asker = request.details.contact_at(shared.observer());
    let observed = other.observed.get();
    let mut extensions = birthday_extension(may_birthday_punch);
    // The relay is the asking node's tracker. The node learns its address if that is proven: as
    // a sibling's, or because both trackers run on this machine.
    let is_here = request.details.observer.host == shared.observer().host;
    let siblings = shared.siblings().borrow().clone();
    let relay_address = match is_here {
        true => Some(Address::TrackerHost {
            port: request.tracker_port,
        }),
        false => siblings
            .iter()
            .find(|sibling| sibling.tracker == request.tracker)
            .map(|sibling| sibling.address),
    };
    extensions.extend(relay_address.map(Introduction::relay_address_extension));
    let to_asked = Introduction {
        peer: request.asker,
        asked: false,
        candidates: candidates_for(&asker, observed.ip()),
        id: request.id,
        key: request.key,
        relay: request.relay.clone().filter(|_| relay_address.is_some()),
        extensions,
    };
    let tell = async {
        let mut control = other.control.lock().await;
        framed::write(&mut control, &to_asked).await
    };
    debug!(to = %request.asked.short(), "introducing for another tracker");
    match timeout(TELL_DEADLINE, tell).await {
        Ok(Ok(())) => IntroductionResult::Introduced(
            shared.details(observed, other.claims(), other.features),
            may_birthday_punch,
        ),
        _ => IntroductionResult::NotHere,
    }
}
