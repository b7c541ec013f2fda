//! Watches: a sample of a content's holders, then every change, until the stream is closed.

use std::net::IpAddr;
use std::sync::Arc;

use qshare_registry::{self as registry, HolderChange};
use qshare_wire::limits::HOLDERS_MAX;
use qshare_wire::tracker::{Holder, Holders, HoldersChanged, Watch};
use qshare_wire::{Refusal, Refused};
use quinn::{RecvStream, SendStream};
use tokio::sync::Notify;

use crate::contacts::contact_for;
use crate::request::{readiness, respond, send_message};
use crate::session::{Client, Fault};

/// Serves a watch until the node closes either half of the stream.
pub(crate) async fn watch(
    client: &Client,
    request: Watch,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), Fault> {
    let directory = &client.shared.directory;
    let ready = Arc::new(Notify::new());
    // Before the sample is taken, so that nothing falls in between.
    let watching = match directory.watch(client.id, request.content, Arc::clone(&ready)) {
        Ok(watching) => watching,
        Err(error) => {
            let refused = Refused::because(Refusal::Busy, error.to_string());
            respond(client, send, &refused).await;
            return Ok(());
        }
    };
    let limit = usize::from(request.limit).min(HOLDERS_MAX);
    let (holders, state) = directory.holders(request.content, limit, client.node);
    let asker = client.seen_at();
    let first = Holders {
        readiness: readiness(state),
        holders: holders.iter().map(|one| holder(one, asker)).collect(),
    };
    if !send_message(client, send, &first).await {
        return Ok(());
    }
    loop {
        let mut beyond = [0];
        tokio::select! {
            () = ready.notified() => {}
            _ = send.stopped() => return Ok(()),
            _ = recv.read(&mut beyond) => return Ok(()),
        }
        // Whatever happens while this is being written is told, as it stands then, by the next.
        loop {
            let changes = watching.changes(HOLDERS_MAX);
            if changes.is_empty() {
                break;
            }
            if !send_message(client, send, &changed(changes, client.seen_at())).await {
                return Ok(());
            }
        }
    }
}

fn holder(holder: &registry::Holder, asker: IpAddr) -> Holder {
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
