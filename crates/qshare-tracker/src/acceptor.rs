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
use crate::session::{OpenSession, open, serve};

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
            // On the heap, so that a session's task does not keep room for its beginning, which
            // needs several times as much.
            let opening = Box::pin(Arc::clone(&self).open(half_open));
            let stopped = stopping.clone().cancelled_owned();
            tasks.spawn(async move {
                let served = async {
                    if let Some(session) = opening.await {
                        serve(session).await;
                    }
                };
                tokio::select! {
                    () = stopped => {}
                    () = served => {}
                }
            });
        }
    }

    /// Waits for a node's handshake and Hello; returns its session unless it is refused.
    async fn open(self: Arc<Self>, half_open: HalfOpen) -> Option<OpenSession> {
        let address = half_open.remote_address();
        let greeting = self.greeting();
        let session = match half_open.greet(self.endpoint.id(), &greeting).await {
            Ok(session) => session,
            Err(error) => {
                debug!(%address, %error, "refused");
                return None;
            }
        };
        let network = Network::of(address.ip());
        let Some(slot) = self.sessions.take(Instant::now(), network) else {
            debug!(%address, "refused: too many sessions");
            self.services.metrics.session_refused();
            close(&session.connection, CloseCode::Busy);
            return None;
        };
        if !self.services.access.may_connect(&session.peer) {
            debug!(%address, "refused: denied");
            self.services.metrics.session_refused();
            close(&session.connection, CloseCode::NotAllowed);
            return None;
        }
        open(session, slot, Arc::clone(&self.services))
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
