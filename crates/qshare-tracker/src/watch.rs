//! The watch requests: a sample of the holders of a content or topic, then every change until the
//! stream ends.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_registry::{HolderChange, topic_key};
use qshare_wire::Refusal;
use qshare_wire::limits::HOLDERS_MAX;
use qshare_wire::tracker::{Holder, Holders, HoldersChanged, Readiness};
use quinn::{RecvStream, SendStream};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::client::{Client, SessionError};
use crate::contacts::{contact_for, readiness};
use crate::fair_budget::Reservation;
use crate::registry_service::Watched;
use crate::reply::{BUSY_RETRY, end_busy, refuse, send_message};
use crate::shared::RemoteHolders;

/// Longest wait for the holders at other trackers before a watch begins without them.
const FIRST_READ_DEADLINE: Duration = Duration::from_millis(700);

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
    let shared = client.services.shared.as_ref();
    let content = match watched {
        Watched::Content(content) => content,
        Watched::Topic(topic) => topic_key(topic).content,
    };
    let mut remote = RemoteWatch::new(shared.map(|shared| shared.watch(content)));
    remote.read().await;
    let limit = usize::from(limit).min(HOLDERS_MAX);
    let (sample, state) = registry.holders(watched, limit, client.node);
    client.charge_steps(Instant::now(), sample.steps);
    let asker = client.observed_ip();
    for holder in &sample.holders {
        remote.here.insert(holder.node, holder.clone());
    }
    let elsewhere = remote.changes(client.node);
    let elsewhere = elsewhere.into_iter().filter_map(|change| match change {
        HolderChange::Joined(who) | HolderChange::Changed(who) => Some(who),
        HolderChange::Left(_) => None,
    });
    let elsewhere: Vec<_> = elsewhere
        .filter(|who| !remote.here.contains_key(&who.node))
        .collect();
    let here = sample.holders.into_iter();
    let here = here.map(|who| with_all(who, &remote.told));
    let first = Holders {
        readiness: match remote.is_read() {
            true => readiness(state),
            false => Readiness::Warming,
        },
        holders: (here.chain(elsewhere))
            .take(HOLDERS_MAX)
            .map(|one| holder(&one, asker))
            .collect(),
    };
    if !send_message(client, send, &first).await {
        return Ok(());
    }
    loop {
        let mut beyond = [0];
        tokio::select! {
            () = ready.notified() => {}
            () = remote.changed() => {}
            () = stream.evicted() => {
                end_busy(client, send, "the tracker needs the watch for others").await;
                return Ok(());
            }
            _ = send.stopped() => return Ok(()),
            _ = recv.read(&mut beyond) => return Ok(()),
        }
        // A change that comes while a message is being written is part of the next one.
        loop {
            let changes = watching.changes(HOLDERS_MAX).into_iter();
            let mut changes: Vec<HolderChange> =
                changes.map(|change| remote.complete(change)).collect();
            if changes.is_empty() {
                changes = remote.changes(client.node);
            }
            if changes.is_empty() {
                break;
            }
            if !send_message(client, send, &changed(changes, client.observed_ip())).await {
                return Ok(());
            }
        }
    }
}

/// The holders that have sessions with other trackers, and what the watcher knows of them.
struct RemoteWatch {
    holders: Option<watch::Receiver<Option<RemoteHolders>>>,
    told: HashMap<NodeId, qshare_registry::Holder>,
    /// Holders at this tracker that the watcher knows. A node that moves from one tracker to
    /// another is known twice for a while, and has all of a content if either place says so. When
    /// one place forgets it, what the other says counts; it has left when it is known neither here
    /// nor there.
    here: HashMap<NodeId, qshare_registry::Holder>,
}

impl RemoteWatch {
    fn new(holders: Option<watch::Receiver<Option<RemoteHolders>>>) -> RemoteWatch {
        RemoteWatch {
            holders,
            told: HashMap::new(),
            here: HashMap::new(),
        }
    }

    /// Waits a moment until the holders were read for the first time.
    async fn read(&mut self) {
        if let Some(holders) = &mut self.holders {
            let read = holders.wait_for(Option::is_some);
            let _ = timeout(FIRST_READ_DEADLINE, read).await;
        }
    }

    /// Whether they were read. True without a shared registry.
    fn is_read(&self) -> bool {
        let holders = self.holders.as_ref();
        holders.is_none_or(|holders| holders.borrow().is_some())
    }

    /// Waits until they have changed. Stays pending without a shared registry.
    async fn changed(&mut self) {
        if let Some(holders) = &mut self.holders
            && holders.changed().await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }

    /// Returns what has changed since the last call.
    fn changes(&mut self, watcher: NodeId) -> Vec<HolderChange> {
        let Some(holders) = &mut self.holders else {
            return Vec::new();
        };
        let Some(now) = holders.borrow_and_update().clone() else {
            return Vec::new();
        };
        let mut changes = Vec::new();
        let left: Vec<NodeId> = self
            .told
            .keys()
            .filter(|node| !now.contains_key(node))
            .copied()
            .collect();
        for node in left {
            self.told.remove(&node);
            changes.push(match self.here.get(&node) {
                Some(holder) => HolderChange::Changed(holder.clone()),
                None => HolderChange::Left(node),
            });
        }
        for (node, holder) in now.iter().filter(|(node, _)| **node != watcher) {
            if self.told.get(node) != Some(holder) {
                self.told.insert(*node, holder.clone());
                let holder = with_all(holder.clone(), &self.here);
                changes.push(HolderChange::Joined(holder));
            }
        }
        changes
    }

    /// Returns what a change at this tracker means: a node that has gone to another tracker has
    /// not left.
    fn complete(&mut self, change: HolderChange) -> HolderChange {
        if self.holders.is_none() {
            return change;
        }
        match change {
            HolderChange::Left(node) => {
                self.here.remove(&node);
                match self.told.get(&node) {
                    Some(holder) => HolderChange::Changed(holder.clone()),
                    None => HolderChange::Left(node),
                }
            }
            HolderChange::Joined(holder) | HolderChange::Changed(holder) => {
                self.here.insert(holder.node, holder.clone());
                HolderChange::Changed(with_all(holder, &self.told))
            }
        }
    }
}

/// Returns a holder as it is known in two places: it is complete if it is so in one of them.
fn with_all(
    mut holder: qshare_registry::Holder,
    elsewhere: &HashMap<NodeId, qshare_registry::Holder>,
) -> qshare_registry::Holder {
    let known = elsewhere.get(&holder.node);
    holder.complete |= known.is_some_and(|known| known.complete);
    holder
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use qshare_registry::Contact;

    use super::*;

    const WATCHER: NodeId = NodeId([1; 32]);

    fn known(complete: bool) -> qshare_registry::Holder {
        qshare_registry::Holder {
            node: NodeId([2; 32]),
            contact: Contact {
                observed: SocketAddr::from(([192, 0, 2, 1], 1)),
                claimed: Arc::new([]),
            },
            complete,
        }
    }

    #[test]
    fn when_one_place_forgets_a_node_what_the_other_says_counts() {
        let (elsewhere, receiver) = watch::channel(None);
        let mut remote = RemoteWatch::new(Some(receiver));
        let tell = |holders: &[qshare_registry::Holder]| {
            let holders = holders.iter().map(|one| (one.node, one.clone()));
            elsewhere.send_replace(Some(Arc::new(holders.collect())));
        };
        tell(&[known(true)]);
        let joined = HolderChange::Joined(known(true));
        assert_eq!(remote.changes(WATCHER), [joined]);
        // Both places know it: what it holds in either counts.
        let here = HolderChange::Changed(known(false));
        let both = HolderChange::Changed(known(true));
        assert_eq!(remote.complete(here.clone()), both);
        tell(&[]);
        assert_eq!(remote.changes(WATCHER), [here]);
        tell(&[known(true)]);
        remote.changes(WATCHER);
        let left = HolderChange::Left(known(true).node);
        let elsewhere_only = HolderChange::Changed(known(true));
        assert_eq!(remote.complete(left.clone()), elsewhere_only);
        tell(&[]);
        assert_eq!(remote.changes(WATCHER), [left]);
    }
}
