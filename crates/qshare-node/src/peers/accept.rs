//! Accepting connections from other nodes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use qshare_content::fair::Network;
use qshare_net::{Admission, ConnectionSlots, Endpoint, Greeting, HalfOpen, close};
use qshare_wire::CloseCode;
use tracing::{debug, trace};

use super::adopt::Adopter;
use crate::runtime::Tasks;

/// A connection of a network that has no more connections than the newcomer's is evicted only if it
/// has been idle for this long.
const IDLE_GRACE: Duration = Duration::from_secs(10);

/// Accepts connections. Their number is limited, in all and before their Hello. When all slots are
/// taken, the connection that has been idle longest in the network with the most connections is
/// evicted.
pub(crate) struct Acceptor {
    endpoint: Endpoint,
    greeting: Greeting,
    admission: Admission,
    slots: ConnectionSlots,
    adopter: Arc<Adopter>,
    tasks: Tasks,
}

impl Acceptor {
    pub(crate) fn new(
        endpoint: Endpoint,
        greeting: Greeting,
        half_open_max: usize,
        connections_max: usize,
        adopter: Arc<Adopter>,
        tasks: Tasks,
    ) -> Acceptor {
        Acceptor {
            endpoint,
            greeting,
            admission: Admission::new(half_open_max),
            slots: ConnectionSlots::new(connections_max, IDLE_GRACE),
            adopter,
            tasks,
        }
    }

    /// Accepts connections until the endpoint is closed, then stays pending.
    pub(crate) async fn run(self: Arc<Self>) {
        while let Some(incoming) = self.endpoint.accept().await {
            if let Some(half_open) = self.admission.admit(incoming) {
                let acceptor = self.clone();
                self.tasks
                    .spawn(async move { acceptor.serve(half_open).await });
            }
        }
        // The endpoint is closed only at shutdown.
        std::future::pending::<()>().await;
    }

    async fn serve(&self, half_open: HalfOpen) {
        let from = half_open.remote_address();
        let session = match half_open.greet(self.endpoint.id(), &self.greeting).await {
            Ok(session) => session,
            Err(error) => {
                debug!(%from, %error, "turned away");
                return;
            }
        };
        trace!(%from, "received Hello");
        let connection = session.connection.clone();
        let ip = self.endpoint.real_address(from).ip();
        let Some(slot) = self.slots.take(Instant::now(), Network::of(ip)) else {
            debug!(%from, "all connections are in use");
            close(&connection, CloseCode::Busy);
            return;
        };
        let slot = Arc::new(slot);
        if self.adopter.adopt_accepted(session, slot.clone()).is_none() {
            return;
        }
        tokio::select! {
            _ = connection.closed() => {}
            () = slot.evicted() => {
                debug!(%from, "evicted: the connection was idle, and others need its slot");
                close(&connection, CloseCode::Busy);
                connection.closed().await;
            }
        }
    }
}
