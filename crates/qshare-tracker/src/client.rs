//! A node in session, as the handlers of its streams see it, and the services that all sessions
//! use.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_net::close_because;
use qshare_registry::SessionId;
use qshare_wire::CloseCode;
use quinn::Connection;
use tracing::debug;

use crate::TrackerLimits;
use crate::budget::{Budget, Verdict};
use crate::contacts::canonical;
use crate::knocker::Knocker;
use crate::memory_budget::MemoryBudget;
use crate::registry_service::RegistryService;
use crate::relay::Relay;
use crate::turns::Turns;

/// Steps of work in the registry that cost as much as one request: some 0.1 ms, which is what the
/// thread needs to receive a request and to send an answer.
const STEPS_PER_REQUEST: f64 = 25_000.0;

/// The services and budgets that all sessions use.
pub(crate) struct Services {
    pub(crate) registry: Arc<RegistryService>,
    /// Memory for announcements that are being read.
    pub(crate) announcements: MemoryBudget,
    /// Memory for answers that are being written.
    pub(crate) answers: MemoryBudget,
    /// Whose lookup runs next.
    pub(crate) turns: Turns,
    /// None if the tracker does not relay.
    pub(crate) relay: Option<Relay>,
    /// None if there is no second port.
    pub(crate) knocker: Option<Knocker>,
    pub(crate) limits: TrackerLimits,
}

/// A node in session: its identity, its connection and its request budget.
pub(crate) struct Client {
    pub(crate) services: Arc<Services>,
    pub(crate) id: SessionId,
    pub(crate) node: NodeId,
    pub(crate) connection: Connection,
    budget: Mutex<Budget>,
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
    /// The node left, or opened a newer session.
    #[error("the session has ended")]
    Gone,
}

impl Client {
    pub(crate) fn new(
        services: Arc<Services>,
        id: SessionId,
        node: NodeId,
        connection: Connection,
    ) -> Client {
        Client {
            budget: Mutex::new(Budget::new(&services.limits, Instant::now())),
            services,
            id,
            node,
            connection,
        }
    }

    /// Returns the IP address from which the node's packets come now.
    pub(crate) fn observed_ip(&self) -> IpAddr {
        canonical(self.connection.remote_address()).ip()
    }

    /// Charges a request.
    pub(crate) fn request(&self, cost: f64) -> Verdict {
        self.budget().request(Instant::now(), cost)
    }

    /// Charges work that is delayed rather than refused; returns the delay.
    pub(crate) fn charge(&self, cost: f64) -> Duration {
        self.budget().charge(Instant::now(), cost)
    }

    /// Charges the work that the registry did for a request, once it is done.
    pub(crate) fn charge_steps(&self, steps: u64) {
        self.charge(steps as f64 / STEPS_PER_REQUEST);
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the connection with a reason that the node's user can read.
    pub(crate) fn end(&self, error: &SessionError) {
        let code = match error {
            SessionError::Protocol(_) => CloseCode::Protocol,
            SessionError::Flood => CloseCode::Flood,
            SessionError::Gone => return,
        };
        debug!(reason = %error, "closing");
        close_because(&self.connection, code, &error.to_string());
    }
}
