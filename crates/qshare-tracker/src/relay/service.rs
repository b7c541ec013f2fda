//! The relay's IO: packets from and to the tracker's socket.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_content::fair::User;
use qshare_net::{NonQuic, NonQuicSender, Route, Verdict};
use qshare_wire::introduction::RelayTicket;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::trace;

use super::state::{Reply, State};
use super::{RelayCounts, RelayLimits};

/// Interval at which expired channels are closed. One whose place is needed is closed at once.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(10);

/// The relay. Clones share its state.
#[derive(Clone)]
pub(crate) struct Relay {
    shared: Arc<SharedState>,
}

struct SharedState {
    sender: NonQuicSender,
    state: Mutex<State>,
    queued: Notify,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").finish_non_exhaustive()
    }
}

impl Relay {
    /// Takes over the datagrams on this socket that are not QUIC. [`Relay::run`] must run, too.
    pub(crate) fn install(sender: &NonQuicSender, limits: RelayLimits) -> Relay {
        let shared = Arc::new(SharedState {
            sender: sender.clone(),
            state: Mutex::new(State::new(limits, Instant::now(), StdRng::from_os_rng())),
            queued: Notify::new(),
        });
        sender.install(Box::new(Handler(Arc::clone(&shared))));
        Relay { shared }
    }

    /// Opens or renews the channel between two nodes; returns the asker's ticket and the other's.
    /// None if there is no room and no heavier user that could yield.
    pub(crate) fn open(
        &self,
        asker: User<NodeId>,
        asked: NodeId,
    ) -> Option<(RelayTicket, RelayTicket)> {
        self.shared.lock().open(Instant::now(), asker, asked)
    }

    /// Closes the channels of a node whose session has ended.
    pub(crate) fn remove_node(&self, node: NodeId) {
        self.shared.lock().left(node);
    }

    pub(crate) fn counts(&self) -> RelayCounts {
        self.shared.lock().counts()
    }

    /// Sends queued packets at the common rate, and closes expired channels. Never returns.
    pub(crate) async fn run(self) {
        let mut expired_at = Instant::now();
        loop {
            let next = {
                let mut state = self.shared.lock();
                let now = Instant::now();
                if now.saturating_duration_since(expired_at) >= EXPIRY_INTERVAL {
                    expired_at = now;
                    state.expire(now);
                }
                state.next_queued(now)
            };
            match next {
                Ok((_, to, bytes)) => {
                    while let Err(error) = self.shared.sender.send(to, &bytes) {
                        trace!(%error, "the socket is full");
                        self.shared.sender.writable().await;
                    }
                    self.shared.lock().count(bytes.len());
                }
                Err(Some(wait)) => sleep(wait.max(Duration::from_millis(1))).await,
                Err(None) => {
                    tokio::select! {
                        () = self.shared.queued.notified() => {}
                        () = sleep(EXPIRY_INTERVAL) => {}
                    }
                }
            }
        }
    }
}

impl SharedState {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Handler(Arc<SharedState>);

impl NonQuic for Handler {
    fn handle(&self, from: SocketAddr, datagram: &[u8]) -> Verdict {
        let shared = &self.0;
        let mut state = shared.lock();
        match state.handle(Instant::now(), from, datagram) {
            Reply::Nothing => {}
            Reply::Send(to, bytes) => _ = shared.sender.send(to, &bytes),
            Reply::Queued => shared.queued.notify_one(),
            Reply::Forward(node, to, bytes) => match shared.sender.send(to, &bytes) {
                Ok(()) => state.count(bytes.len()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if state.queue(node, to, bytes) == Reply::Queued {
                        shared.queued.notify_one();
                    }
                }
                Err(_) => {}
            },
        }
        Verdict::Done
    }

    fn route(&self, _: SocketAddr) -> Option<Route> {
        None
    }
}
