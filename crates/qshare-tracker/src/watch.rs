//! The watch requests: a sample of the holders of a content or topic, then every change until the stream ends.

use std::net::IpAddr;
use std::sync::Arc;

use qshare_registry::HolderChange;
use qshare_wire::Refusal;
use qshare_wire::limits::HOLDERS_MAX;
use qshare_wire::tracker::{Holder, Holders, HoldersChanged};
use quinn::{RecvStream, SendStream};
use tokio::sync::Notify;

use crate::client::{Client, SessionError};
use crate::contacts::{contact_for, readiness};
use crate::fair_budget::Reservation;
use crate::registry_service::Watched;
use crate::reply::{BUSY_RETRY, end_busy, refuse, send_message};

/// Serves a watch until the node closes either half of the stream.
pub(crate) async fn watch(
    client: &Client,
    watched: Watched,
    limit: u16,
    stream: &Reservation,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), SessionError> {
    let registry = &client.services.registry;
    let ready = Arc::new(Notify::new());
    // The watch begins before the sample is taken, so that no change is missed in between.
    let watching = match registry.watch(client.id, watched, Arc::clone(&ready)) {
        Ok(watching) => watching,
        Err(error) => {
            refuse(client, send, Refusal::Busy, error.to_string(), BUSY_RETRY).await;
            return Ok(());
        }
    };
    let limit = usize::from(limit).min(HOLDERS_MAX);
    let (sample, state) = registry.holders(watched, limit, client.node);
    client.charge_steps(sample.steps);
    let asker = client.observed_ip();
    let first = Holders {
        readiness: readiness(state),
        holders: sample
            .holders
            .iter()
            .map(|one| holder(one, asker))
            .collect(),
    };
    if !send_message(client, send, &first).await {
        return Ok(());
    }
    loop {
        let mut beyond = [0];
        tokio::select! {
            () = ready.notified() => {}
            () = stream.evicted() => {
                end_busy(client, send, "the tracker needs the watch for others").await;
                return Ok(());
            }
            _ = send.stopped() => return Ok(()),
            _ = recv.read(&mut beyond) => return Ok(()),
        }
        // A change that comes while a message is being written is part of the next one.
        loop {
            let changes = watching.changes(HOLDERS_MAX);
            if changes.is_empty() {
                break;
            }
            if !send_message(client, send, &changed(changes, client.observed_ip())).await {
                return Ok(());
            }
        }
    }
}

fn holder(holder: &qshare_registry::Holder, asker: IpAddr) -> Holder {
    Holder {
        contact: contact_for(holder, asker),
        complete: holder.complete,
    }
}

fn changed(changes: Vec<HolderChange>, asker: IpAddr) -> HoldersChanged {
    let mut message = HoldersChanged {
        joined: Vec::new(),
        left: Vec::new(),
    };
    for change in changes {
        match change {
            HolderChange::Joined(who) | HolderChange::Changed(who) => {
                message.joined.push(holder(&who, asker));
            }
            HolderChange::Left(node) => message.left.push(node),
        }
    }
    message
}
