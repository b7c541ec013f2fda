//! Monitors the path to a connected node: replaces a dead path, and replaces a relayed path as soon
//! as a direct one exists.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::{debug, info};

use super::connection::{Peer, PeerConnection};
use super::dial::Dialler;
use super::liveness::{LOOK, Liveness, ping};
use super::path_race::{PathRace, PathsWanted};
use crate::runtime::Tasks;
use crate::vocabulary::PathKind;

/// Pause after no other path was found.
const AGAIN: Duration = Duration::from_secs(1);
/// The first and the longest pause between attempts to replace a relayed path: NATs and networks
/// change.
const IMPROVE_FIRST: Duration = Duration::from_secs(1);
const IMPROVE_LAST: Duration = Duration::from_secs(60);

/// Watches the paths of all connected nodes.
pub(crate) struct PathMonitor {
    race: Arc<PathRace>,
    dialler: Arc<Dialler>,
    tasks: Tasks,
}

impl PathMonitor {
    pub(crate) fn new(race: Arc<PathRace>, dialler: Arc<Dialler>, tasks: Tasks) -> PathMonitor {
        PathMonitor {
            race,
            dialler,
            tasks,
        }
    }

    /// Watches a peer until it is gone.
    pub(crate) fn start(self: &Arc<Self>, peer: Arc<Peer>) {
        let monitor = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = monitor.tasks.stopping().cancelled() => {}
                () = gone(&peer) => {}
                () = monitor.replace_dead_paths(&peer) => {}
                () = monitor.leave_relays(&peer) => {}
            }
        });
    }

    /// Detects a dead path while data is expected on it, and finds another path. Never returns.
    async fn replace_dead_paths(&self, peer: &Arc<Peer>) {
        let mut activity = peer.activity();
        loop {
            if activity.wait_for(|&count| count > 0).await.is_err() {
                return;
            }
            let connection = peer.connection();
            let mut liveness = Liveness::new(&connection);
            while *activity.borrow() > 0
                && Arc::ptr_eq(&connection, &peer.connection())
                && connection.is_alive()
            {
                sleep(LOOK).await;
                liveness.look(&connection);
                let now = Instant::now();
                if liveness.poll_ping(now) {
                    self.tasks.spawn(ping(connection.clone()));
                }
                if liveness.is_dead(now, connection.connection.rtt()) {
                    self.replace(peer, &connection, &mut liveness).await;
                }
            }
            if !connection.is_alive() {
                // Wait until another connection replaces this one, or the peer is gone.
                connection.retired.cancelled().await;
            }
        }
    }

    /// Finds another path in place of a dead one, unless something is received on it meanwhile.
    async fn replace(
        &self,
        peer: &Arc<Peer>,
        connection: &Arc<PeerConnection>,
        liveness: &mut Liveness,
    ) {
        debug!(peer = %peer.node, address = %connection.address(), "the path seems dead");
        connection.is_suspect.store(true, Ordering::Relaxed);
        let addresses = [connection.address()];
        let found = tokio::select! {
            found = self.race.run(peer.node, &addresses, PathsWanted::All) => Some(found),
            () = connection.retired.cancelled() => return,
            _ = connection.connection.closed() => return,
            () = heard_again(connection, liveness) => None,
        };
        match found {
            None => debug!(peer = %peer.node, "the path works again"),
            Some(Ok(won)) => {
                let silence = liveness.silence(Instant::now());
                if self.dialler.adopt(peer.node, won).is_some() {
                    let path = peer.path();
                    info!(peer = %peer.node, ?path, ?silence, "switched to another path");
                }
                return;
            }
            Some(Err(cause)) => {
                debug!(peer = %peer.node, %cause, "found no other path");
                sleep(AGAIN).await;
            }
        }
        connection.is_suspect.store(false, Ordering::Relaxed);
    }

    /// Looks for a direct path while there is only a relayed one. Never returns.
    async fn leave_relays(&self, peer: &Arc<Peer>) {
        let mut connections = peer.connections();
        loop {
            let connection = connections.borrow_and_update().clone();
            // Only the side that dialled needs to try.
            if connection.path == PathKind::Relay && connection.is_dialled {
                tokio::select! {
                    () = self.leave_relay(peer) => {}
                    _ = connections.changed() => {}
                }
            } else if connections.changed().await.is_err() {
                return;
            }
        }
    }

    async fn leave_relay(&self, peer: &Arc<Peer>) {
        let mut pause = IMPROVE_FIRST;
        loop {
            sleep(pause).await;
            pause = (pause * 2).min(IMPROVE_LAST);
            match self.race.run(peer.node, &[], PathsWanted::Direct).await {
                Ok(won) => {
                    if self.dialler.adopt(peer.node, won).is_some() {
                        info!(peer = %peer.node, path = ?peer.path(), "left the relay");
                        return;
                    }
                }
                Err(cause) => debug!(peer = %peer.node, %cause, "found no direct path"),
            }
        }
    }
}

/// Waits until there is no connection to the peer any more.
async fn gone(peer: &Peer) {
    loop {
        let connection = peer.connection();
        connection.connection.closed().await;
        if Arc::ptr_eq(&connection, &peer.connection()) {
            return;
        }
    }
}

async fn heard_again(connection: &PeerConnection, liveness: &mut Liveness) {
    loop {
        sleep(LOOK).await;
        if liveness.look(connection) {
            return;
        }
    }
}
