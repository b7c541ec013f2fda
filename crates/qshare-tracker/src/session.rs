//! A node's session, from its Hello to the end of its connection.

use std::pin::pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use qshare_net::{Session, Slot, close, close_because, framed, is_goodbye};
use qshare_wire::CloseCode;
use qshare_wire::hello::{EXTENSION_SESSION_NUMBER, FEATURE_SIBLINGS, Hello, extension};
use qshare_wire::siblings::{Sibling, Siblings};
use quinn::{ConnectionError, RecvStream};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::timeout;
use tracing::{Instrument, debug, debug_span, warn};

use crate::announcements::receive_announcements;
use crate::client::{Client, Services};
use crate::contacts::claimed;
use crate::member::{Control, Member, ObservedAddress};
use crate::requests::Requests;

/// A session that the registry knows.
pub(crate) struct OpenSession {
    client: Arc<Client>,
    control: Control,
    control_recv: RecvStream,
    knows_siblings: bool,
}

/// Makes a node a member of the registry; refuses it if there is no room.
pub(crate) fn open(session: Session, slot: Slot, services: Arc<Services>) -> Option<OpenSession> {
    let Session {
        connection,
        peer,
        hello,
        control_send,
        control_recv,
        address,
        ..
    } = session;
    let observed = ObservedAddress::new(address);
    let control = Control::new(control_send.into());
    let member = Member::new(
        peer,
        connection.clone(),
        observed.clone(),
        control.clone(),
        claimed(&hello.candidates),
        hello.features,
        services.access.may_announce(&peer),
    );
    let number = session_number(&hello);
    let id = match services.registry.open(peer, number, member) {
        Ok(id) => id,
        Err(error) => {
            warn!(peer = %peer.short(), %error, "refused");
            services.metrics.session_refused();
            close_because(&connection, CloseCode::Busy, &error.to_string());
            return None;
        }
    };
    services.metrics.session_opened();
    let client = Client::new(services, id, peer, connection, observed, slot);
    Some(OpenSession {
        client: Arc::new(client),
        control,
        control_recv,
        knows_siblings: hello.features & FEATURE_SIBLINGS != 0,
    })
}

/// Returns the number that a node gives its session; that of now for a node that gives none.
fn session_number(hello: &Hello) -> u64 {
    let given = extension(&hello.extensions, EXTENSION_SESSION_NUMBER);
    let given = given.and_then(|bytes| bytes.try_into().ok());
    given.map_or_else(
        || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
        },
        u64::from_le_bytes,
    )
}

/// Serves a node until its connection ends.
pub(crate) async fn serve(session: OpenSession) {
    let span = debug_span!("session", peer = %session.client.node.short());
    serve_streams(session).instrument(span).await;
}

async fn serve_streams(session: OpenSession) {
    let OpenSession {
        client,
        control,
        control_recv,
        knows_siblings,
    } = session;
    debug!(id = %client.id, address = %client.observed.get(), "opened");
    let mut requests = Requests::new(Arc::clone(&client));
    if knows_siblings && let Some(shared) = &client.services.shared {
        let (client, control) = (Arc::clone(&client), Arc::clone(&control));
        let siblings = shared.siblings();
        let telling = async move { tell_siblings(&client, &control, siblings).await };
        requests.tasks.spawn(telling);
    }
    requests.tasks.spawn({
        let client = Arc::clone(&client);
        let mut recv = control_recv;
        async move {
            if let Err(error) = receive_announcements(&client, &control, &mut recv).await {
                client.end(&error);
            }
        }
    });
    let mut overloaded = pin!(client.overloaded());
    let reason = loop {
        let yields = tokio::select! {
            biased;
            error = &mut overloaded => {
                client.end(&error);
                break ConnectionError::LocallyClosed;
            }
            Some(_) = requests.tasks.join_next() => false,
            accepted = client.connection.accept_bi() => match accepted {
                Ok((send, recv)) => requests.take(send, recv),
                Err(reason) => break reason,
            },
        };
        if yields {
            yield_now().await;
        }
    };
    requests.tasks.shutdown().await;
    let clean = is_goodbye(&reason) || !may_keep_entries(&client);
    let by_us = matches!(reason, ConnectionError::LocallyClosed);
    debug!(%reason, clean, by_us, "ended");
    let services = &client.services;
    let was_last = services.registry.close(client.id, client.node, clean);
    if was_last && let Some(relay) = &services.relay {
        relay.remove_node(client.node);
    }
}

/// Whether the lists of nodes allow the entries of a session to outlive it.
fn may_keep_entries(client: &Client) -> bool {
    let access = &client.services.access;
    access.may_connect(&client.node) && access.may_announce(&client.node)
}

/// Tells a node of the tracker's siblings, now and as they change.
async fn tell_siblings(
    client: &Client,
    control: &Control,
    mut siblings: watch::Receiver<Arc<Vec<Sibling>>>,
) {
    let mut told = Vec::new();
    loop {
        let now = siblings.borrow_and_update().to_vec();
        if now != told {
            told = now;
            let message = Siblings {
                siblings: told.clone(),
                extensions: Vec::new(),
            };
            let written = async {
                let mut send = control.lock().await;
                framed::write(&mut send, &message).await
            };
            let deadline = client.services.limits.transfer_deadline;
            if !matches!(timeout(deadline, written).await, Ok(Ok(()))) {
                // A part of the message may have been written: nothing can follow it.
                close(&client.connection, CloseCode::Busy);
                return;
            }
        }
        if siblings.changed().await.is_err() {
            return;
        }
    }
}
