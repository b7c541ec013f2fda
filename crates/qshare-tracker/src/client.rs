//! A node in session, as the handlers of its streams see it, and the services that all sessions
//! use.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_content::fair::{Network, User};
use qshare_net::{Slot, close_because};
use qshare_registry::SessionId;
use qshare_wire::CloseCode;
use quinn::Connection;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::TrackerLimits;
use crate::access::Access;
use crate::answer_memory::AnswerMemory;
use crate::budget::{Budget, Verdict};
use crate::fair_budget::{FairBudget, NoRoom, Reservation, SessionUser};
use crate::knocker::Knocker;
use crate::mailboxes::Mailboxes;
use crate::member::ObservedAddress;
use crate::metrics::Metrics;
use crate::registry_service::RegistryService;
use crate::relay::Relay;
use crate::shared::SharedRegistry;
use crate::turns::Turns;

/// Steps of work in the registry that cost as much as one request: some 0.1 ms, which is what the
/// thread needs to receive a request and to send an answer.
const STEPS_PER_REQUEST: f64 = 25_000.0;

/// The services and budgets that all sessions use.
pub(crate) struct Services {
    pub(crate) registry: Arc<RegistryService>,
    /// Bytes of announcements that have arrived and are not yet acknowledged.
    pub(crate) announcements: FairBudget,
    /// Bytes of answers that the nodes have not acknowledged yet.
    pub(crate) answers: FairBudget,
    /// Open request streams, watches included.
    pub(crate) streams: FairBudget,
    /// Whose lookup runs next.
    pub(crate) turns: Turns,
    /// None if the tracker does not relay.
    pub(crate) relay: Option<Relay>,
    /// None if there is no second port.
    pub(crate) knocker: Option<Knocker>,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) access: Access,
    pub(crate) metrics: Metrics,
    /// None if the tracker shares no registry with others.
    pub(crate) shared: Option<Arc<SharedRegistry>>,
    pub(crate) limits: TrackerLimits,
}

/// A node in session: its identity, its connection and its request budget.
pub(crate) struct Client {
    pub(crate) services: Arc<Services>,
    pub(crate) id: SessionId,
    pub(crate) node: NodeId,
    pub(crate) connection: Connection,
    /// Where the node is; see [`ObservedAddress`].
    pub(crate) observed: ObservedAddress,
    /// The session as a user of the shared budgets.
    pub(crate) user: SessionUser,
    /// Cancelled when the session has to yield memory to others: it ends then.
    pub(crate) evicted: CancellationToken,
    slot: Slot,
    budget: Mutex<Budget>,
    /// When the slot was last told that the session is in use.
    touched: Mutex<Instant>,
    /// How many sessions the network of this one had then.
    sessions_of_network: AtomicUsize,
    /// The memory of answers that the node has not acknowledged.
    pub(crate) answers: Arc<AnswerMemory>,
}

/// Why the tracker ends a session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// The node broke the protocol.
    #[error("{0}")]
    Protocol(String),
    /// The node ignored refusals and exceeded its request budget by a whole burst.
    #[error("too many requests")]
    Flood,
    /// The session used more of a full resource than others.
    #[error("{0}; reconnect in {seconds} s", seconds = RETRY_AFTER_EVICTION.as_secs())]
    Overloaded(&'static str),
    /// The node left, or opened a newer session.
    #[error("the session has ended")]
    Gone,
}

/// When a node whose session had to yield should come back: in the meantime the others are served.
const RETRY_AFTER_EVICTION: Duration = Duration::from_secs(5);

/// How exactly a slot knows when its session was last in use. Slots are evicted after seconds.
const TOUCH_INTERVAL: Duration = Duration::from_millis(100);

impl Client {
    pub(crate) fn new(
        services: Arc<Services>,
        id: SessionId,
        node: NodeId,
        connection: Connection,
        observed: ObservedAddress,
        slot: Slot,
    ) -> Client {
        let user = User {
            network: Network::of(observed.get().ip()),
            id,
        };
        let evicted = CancellationToken::new();
        let now = Instant::now();
        let sessions_of_network = AtomicUsize::new(slot.touch(now));
        Client {
            user,
            answers: AnswerMemory::new(services.answers.clone(), user, evicted.clone()),
            evicted,
            slot,
            budget: Mutex::new(Budget::new(&services.limits, now)),
            touched: Mutex::new(now),
            sessions_of_network,
            services,
            id,
            node,
            connection,
            observed,
        }
    }

    /// Returns the IP address at which the node is.
    pub(crate) fn observed_ip(&self) -> IpAddr {
        self.observed.get().ip()
    }

    /// Charges a request.
    pub(crate) fn request(&self, cost: f64) -> Verdict {
        let now = Instant::now();
        self.touch(now);
        self.budget().request(now, cost)
    }

    /// Charges a request that came at `now` if it is granted; otherwise charges nothing and
    /// returns false.
    pub(crate) fn try_request(&self, now: Instant, cost: f64) -> bool {
        self.touch(now);
        self.budget().try_request(now, cost)
    }

    /// Charges work that is delayed rather than refused; returns the delay.
    pub(crate) fn charge(&self, cost: f64) -> Duration {
        let now = Instant::now();
        self.touch(now);
        self.budget().charge(now, cost)
    }

    /// Tells the slot that the session is in use, which sorts it among all slots: not for each of
    /// thousands of requests a second.
    fn touch(&self, now: Instant) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(*touched) >= TOUCH_INTERVAL {
            *touched = now;
            let sessions = self.slot.touch(now);
            self.sessions_of_network.store(sessions, Ordering::Relaxed);
        }
    }

    /// Returns how many sessions the network of this one has, as of [`TOUCH_INTERVAL`] ago.
    pub(crate) fn sessions_of_network(&self) -> usize {
        self.sessions_of_network.load(Ordering::Relaxed)
    }

    /// Takes a place among the open streams of all sessions, which may be evicted for others.
    pub(crate) fn hold_stream(&self) -> Result<Reservation, NoRoom> {
        let evicted = CancellationToken::new();
        self.services.streams.try_reserve(self.user, 1, evicted)
    }

    /// Charges the work that the registry did for a request, once it is done.
    pub(crate) fn charge_steps(&self, now: Instant, steps: u64) {
        self.budget().charge(now, steps as f64 / STEPS_PER_REQUEST);
    }

    /// Waits until the session has to yield its memory or its slot to others.
    pub(crate) async fn overloaded(&self) -> SessionError {
        tokio::select! {
            () = self.evicted.cancelled() => {
                SessionError::Overloaded("the tracker needs its memory for others")
            }
            () = self.slot.evicted() => {
                SessionError::Overloaded("the tracker needs the slot for another network")
            }
        }
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the connection with a reason that the node's user can read.
    pub(crate) fn end(&self, error: &SessionError) {
        let code = match error {
            SessionError::Protocol(_) => CloseCode::Protocol,
            SessionError::Flood => CloseCode::Flood,
            SessionError::Overloaded(_) => CloseCode::Busy,
            SessionError::Gone => return,
        };
        debug!(reason = %error, "closing");
        close_because(&self.connection, code, &error.to_string());
    }
}
