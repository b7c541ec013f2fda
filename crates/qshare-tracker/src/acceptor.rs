//! Admission of nodes: from an incoming connection to its session.

use std::sync::Arc;
use std::time::Instant;

use qshare_content::fair::Network;
use qshare_net::{Admission, ConnectionSlots, Endpoint, Greeting, HalfOpen, close};
use qshare_wire::CloseCode;
use qshare_wire::hello::EXTENSION_REGISTRY;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::client::Services;
use crate::session::serve;

/// Takes incoming connections and serves those that become sessions.
pub(crate) struct Acceptor {
    pub(crate) endpoint: Endpoint,
    pub(crate) greeting: Greeting,
    pub(crate) admission: Admission,
    pub(crate) sessions: ConnectionSlots,
    pub(crate) services: Arc<Services>,
}

impl Acceptor {
    /// Accepts connections until the endpoint is closed. The task of each ends when `stopping` is
    /// cancelled.
    pub(crate) async fn accept_all(
        self: Arc<Self>,
        tasks: TaskTracker,
        stopping: CancellationToken,
    ) {
        while let Some(incoming) = self.endpoint.accept().await {
            let Some(half_open) = self.admission.admit(incoming) else {
                continue;
            };
            let acceptor = Arc::clone(&self);
            let stopped = stopping.clone().cancelled_owned();
            tasks.spawn(async move {
                tokio::select! {
                    () = stopped => {}
                    () = acceptor.serve(half_open) => {}
                }
            });
        }
    }

    async fn serve(&self, half_open: HalfOpen) {
        let address = half_open.remote_address();
        let greeting = self.greeting();
        // On the heap, so that a session's task does not keep room for the handshake.
        let greeted = Box::pin(half_open.greet(self.endpoint.id(), &greeting));
        let session = match greeted.await {
            Ok(session) => session,
            Err(error) => {
                debug!(%address, %error, "refused");
                return;
            }
        };
        let network = Network::of(address.ip());
        let Some(slot) = self.sessions.take(Instant::now(), network) else {
            debug!(%address, "refused: too many sessions");
            self.services.metrics.session_refused();
            close(&session.connection, CloseCode::Busy);
            return;
        };
        if !self.services.access.may_connect(&session.peer) {
            debug!(%address, "refused: denied");
            self.services.metrics.session_refused();
            close(&session.connection, CloseCode::NotAllowed);
            return;
        }
        serve(session, slot, Arc::clone(&self.services)).await;
    }

    /// Returns what the tracker says of itself: with the registry's id once it is known.
    fn greeting(&self) -> Greeting {
        let mut greeting = self.greeting.clone();
        let shared = self.services.shared.as_ref();
        if let Some(id) = shared.and_then(|shared| shared.id()) {
            greeting.extensions.push((EXTENSION_REGISTRY, id.to_vec()));
        }
        greeting
    }
}
