//! Reaches a node: returns its existing connection, or dials over the first path that works.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use qshare_content::NodeId;
use tokio::time::timeout;
use tracing::info;

use super::adopt::Adopter;
use super::connection::Peer;
use super::path_race::{LateProbes, PathRace, PathsWanted, Won};
use super::table::PeerTable;
use crate::error::ReachError;
use crate::neighbours::Neighbours;
use crate::runtime::Tasks;
use crate::trackers::IntroductionFrom;
use crate::vocabulary::PathKind;

/// Of two crossing dials, the slower one completes within this many RTTs of the faster.
const CROSSING_RTTS: u32 = 3;
/// A dial is continued for this long after the other side's dial has succeeded.
const FINISH_DIAL: Duration = Duration::from_secs(10);

/// Connects to nodes.
pub(crate) struct Dialler {
    table: Arc<PeerTable>,
    neighbours: Arc<Neighbours>,
    race: Arc<PathRace>,
    adopter: Arc<Adopter>,
    tasks: Tasks,
}

impl Dialler {
    pub(crate) fn new(
        table: Arc<PeerTable>,
        neighbours: Arc<Neighbours>,
        race: Arc<PathRace>,
        adopter: Arc<Adopter>,
        tasks: Tasks,
    ) -> Dialler {
        Dialler {
            table,
            neighbours,
            race,
            adopter,
            tasks,
        }
    }

    /// Returns the node, connected. Dials it if necessary, at `addresses` and through an
    /// introduction. The caller requests from the node, so the connection gets a share of the
    /// receive windows.
    ///
    /// # Errors
    ///
    /// When the node is this one, is shunned, or no path to it works.
    pub(crate) async fn reach(
        self: &Arc<Self>,
        node: NodeId,
        addresses: &[SocketAddr],
    ) -> Result<Arc<Peer>, ReachError> {
        let peer = self.connect(node, addresses).await?;
        if !peer.set_asked() {
            self.table.share_windows();
        }
        Ok(peer)
    }

    async fn connect(
        self: &Arc<Self>,
        node: NodeId,
        addresses: &[SocketAddr],
    ) -> Result<Arc<Peer>, ReachError> {
        if node == self.table.us() {
            return Err(ReachError::Ourselves);
        }
        if self.table.is_shunned(&node) {
            return Err(ReachError::Shunned);
        }
        if let Some(peer) = self.table.connected(&node) {
            return Ok(peer);
        }
        let dialling = self.table.dialling(node);
        let _turn = dialling.lock().await;
        if let Some(peer) = self.table.connected(&node) {
            return Ok(peer);
        }
        let mut addresses = addresses.to_vec();
        for near in self.neighbours.addresses(&node) {
            if !addresses.contains(&near) {
                addresses.push(near);
            }
        }
        let result = self.dial(node, addresses).await;
        let result = match (result, self.table.connected(&node)) {
            (Err(_), Some(peer)) => Ok(peer),
            (result, _) => result,
        };
        self.table.forget_if_empty(&node);
        result
    }

    /// Races the paths to a node, and the node's own dial against them.
    async fn dial(
        self: &Arc<Self>,
        node: NodeId,
        addresses: Vec<SocketAddr>,
    ) -> Result<Arc<Peer>, ReachError> {
        let race = self.race.clone();
        let mut racing =
            Box::pin(async move { race.run(node, &addresses, PathsWanted::All).await });
        let won = tokio::select! {
            won = &mut racing => won,
            // The other side's dial succeeded while this side's dial was running.
            peer = self.table.appearance(&node) => {
                if node < self.table.us() {
                    return Ok(peer);
                }
                // The other side gives up its dial in favour of this side's. If this side did the
                // same, no connection would be left.
                let rtt = peer.quic().rtt();
                match timeout(rtt * CROSSING_RTTS, &mut racing).await {
                    Ok(won) => won,
                    Err(_) => {
                        let dialler = self.clone();
                        self.tasks.spawn(async move {
                            let stopping = dialler.tasks.stopping().clone();
                            let racing = stopping.run_until_cancelled(racing);
                            if let Ok(Some(Ok(won))) = timeout(FINISH_DIAL, racing).await {
                                dialler.adopt(node, won);
                            }
                        });
                        return Ok(peer);
                    }
                }
            }
        };
        self.adopt(node, won?).ok_or(ReachError::Replaced)
    }

    /// Adopts the session of a race. If its path is relayed, the node moves to a direct path as
    /// soon as an outstanding probe is answered.
    pub(super) fn adopt(self: &Arc<Self>, node: NodeId, won: Won) -> Option<Arc<Peer>> {
        let peer = self.adopter.adopt_dialled(won.session);
        if let Some(late) = won.late {
            let dialler = self.clone();
            self.tasks.spawn(async move {
                let stopping = dialler.tasks.stopping().clone();
                stopping
                    .run_until_cancelled(dialler.leave_relay_once_answered(node, late))
                    .await;
            });
        }
        peer
    }

    async fn leave_relay_once_answered(self: &Arc<Self>, node: NodeId, late: LateProbes) {
        let Some(address) = late.answered().await else {
            return;
        };
        let is_relayed = |peer: Arc<Peer>| peer.path() == PathKind::Relay;
        if !self.table.connected(&node).is_some_and(is_relayed) {
            return;
        }
        if let Some(session) = self.race.dial_answered(node, address).await
            && self.adopter.adopt_dialled(session).is_some()
        {
            info!(peer = %node, "left the relay: a probe was answered");
        }
    }

    /// Handles an introduction that another node requested at a tracker: sends probes, and accepts
    /// the relay's channel.
    pub(crate) fn handle_introduction(&self, introduced: IntroductionFrom) {
        let peer = introduced.introduction.peer;
        if peer == self.table.us() || self.table.is_shunned(&peer) {
            return;
        }
        self.race.handle_introduction(introduced);
    }
}
