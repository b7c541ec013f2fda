//! The service: starts its tasks, and stops them in order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use qshare_content::NodeId;
use qshare_net::{Admission, BindError, ConnectionSlots, Endpoint, EndpointConfig, Greeting};
use qshare_registry::{Counts, GroupId};
use qshare_wire::hello::{FEATURE_CODES, Role};
use qshare_wire::private::FEATURE_PRIVATE_SHARES;
use qshare_wire::{ALPN_TRACKER, CloseCode};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use crate::TrackerConfig;
use crate::acceptor::Acceptor;
use crate::access::{Access, AccessListError};
use crate::client::Services;
use crate::contacts::canonical;
use crate::fair_budget::FairBudget;
use crate::knocker::Knocker;
use crate::mailboxes::Mailboxes;
use crate::metrics::Metrics;
use crate::operations::Operations;
use crate::registry_service::RegistryService;
use crate::relay::{Relay, RelayCounts};
use crate::shared::{RegistryFault, SharedRegistry};
use crate::tracker_peer::ServesTrackers;
use crate::turns::Turns;

/// Why a tracker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The UDP socket cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The socket's own address cannot be read.
    #[error("cannot read the address of the UDP socket: {0}")]
    Address(io::Error),
    /// A list of nodes cannot be used.
    #[error(transparent)]
    Access(#[from] AccessListError),
    /// The shared registry's settings are unusable.
    #[error("cannot use the shared registry: {0}")]
    Registry(#[from] RegistryFault),
}

/// How long a session is idle before it yields its slot to a newcomer although its network has no
/// more sessions than others: longer than the pauses of a node that is at work.
const SESSION_GRACE: Duration = Duration::from_secs(60);

/// A running tracker. Dropping it stops it; [`Tracker::shutdown`] also tells the nodes.
#[derive(Debug)]
pub struct Tracker {
    id: NodeId,
    listen: SocketAddr,
    endpoint: Endpoint,
    operations: Operations,
    shared: Option<Arc<SharedRegistry>>,
    second_port: Option<u16>,
    tasks: TaskTracker,
    stopping: DropGuard,
}

impl Tracker {
    /// Binds the socket and starts serving on the current tokio runtime.
    pub fn start(config: TrackerConfig) -> Result<Tracker, StartError> {
        let access = Access::open(config.allow.as_deref(), config.deny.as_deref())?;
        let endpoint = Endpoint::bind(
            &config.identity,
            &EndpointConfig {
                listen: config.listen,
                accept_alpn: ALPN_TRACKER,
                transport: config.limits.transport.clone(),
            },
        )?;
        let listen = canonical(endpoint.local_addr().map_err(StartError::Address)?);
        let is_open = config.group.is_none();
        let group = match &config.group {
            Some(secret) => GroupId(secret.group_id()),
            None => GroupId::OPEN,
        };
        let lease = config.registry.lease;
        let shared = match &config.shared {
            Some(shared) => Some(Arc::new(SharedRegistry::new(
                shared,
                group,
                endpoint.id(),
                listen,
                lease,
            )?)),
            None => None,
        };
        let registry = RegistryService::new(group, config.registry, config.clock, shared.clone());
        let registry = Arc::new(registry);
        let greeting = Greeting {
            group: config.group,
            features: FEATURE_CODES | FEATURE_PRIVATE_SHARES,
            ..Greeting::new(Role::Tracker)
        };
        let relay = config
            .relay
            .map(|limits| Relay::install(endpoint.non_quic(), limits));
        let knocker = Knocker::bind(listen);
        let mailboxes = match &shared {
            Some(shared) => Mailboxes::shared(shared, config.limits.mailboxes_max),
            None => Mailboxes::in_memory(config.limits.mailboxes_max),
        };
        let moves_interval = config.limits.moves_interval;
        let services = Arc::new(Services {
            registry: Arc::clone(&registry),
            announcements: FairBudget::new(config.limits.announcements_max_bytes),
            answers: FairBudget::new(config.limits.answers_max_bytes),
            streams: FairBudget::new(config.limits.open_streams_max),
            turns: Turns::default(),
            relay: relay.clone(),
            knocker: knocker.clone(),
            mailboxes,
            access: access.clone(),
            metrics: Metrics::new(),
            shared: shared.clone(),
            limits: config.limits.clone(),
        });
        let operations = Operations::new(endpoint.id(), is_open, Arc::clone(&services));
        let acceptor = Arc::new(Acceptor {
            endpoint: endpoint.clone(),
            greeting,
            admission: Admission::new(config.limits.half_open_max),
            sessions: ConnectionSlots::new(config.limits.sessions_max, SESSION_GRACE),
            services: Arc::clone(&services),
        });

        let tasks = TaskTracker::new();
        let stopping = CancellationToken::new();
        tasks.spawn(until(
            &stopping,
            acceptor.accept_all(tasks.clone(), stopping.clone()),
        ));
        tasks.spawn(until(&stopping, {
            let registry = Arc::clone(&registry);
            async move { registry.expire_leases().await }
        }));
        tasks.spawn(until(&stopping, {
            let (registry, endpoint) = (Arc::clone(&registry), endpoint.clone());
            async move { registry.follow_moves(endpoint, moves_interval).await }
        }));
        tasks.spawn(until(&stopping, operations.clone().sample()));
        tasks.spawn(until(&stopping, {
            let registry = Arc::clone(&registry);
            access.follow(move |access| registry.apply_lists(access))
        }));
        if let Some(shared) = shared.clone() {
            let own = Arc::clone(&registry);
            let peer = Arc::new(ServesTrackers(Arc::clone(&services)));
            tasks.spawn(until(&stopping, {
                let connections = shared.connections();
                async move { services.mailboxes.restore(connections).await }
            }));
            tasks.spawn(until(&stopping, shared.run(endpoint.clone(), own, peer)));
        }
        if let Some(relay) = relay {
            tasks.spawn(until(&stopping, relay.run()));
        }
        let second_port = knocker.as_ref().map(Knocker::port);
        if let Some(knocker) = knocker {
            tasks.spawn(until(&stopping, knocker.run()));
        }
        info!(id = %endpoint.id(), %listen, second_port, "tracker started");
        Ok(Tracker {
            id: endpoint.id(),
            listen,
            endpoint,
            operations,
            shared,
            second_port,
            tasks,
            stopping: stopping.drop_guard(),
        })
    }

    /// Returns the tracker's id.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Returns the address that the tracker listens on; an unspecified one means all interfaces.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Returns the UDP port from which the tracker knocks at nodes, if it has one.
    pub fn second_port(&self) -> Option<u16> {
        self.second_port
    }

    /// Returns how much the registry holds.
    pub fn counts(&self) -> Counts {
        self.operations.counts()
    }

    /// Returns what the relay has done; None if the tracker does not relay.
    pub fn relay_counts(&self) -> Option<RelayCounts> {
        self.operations.relay_counts()
    }

    /// Returns what an operator sees of it.
    pub fn operations(&self) -> &Operations {
        &self.operations
    }

    /// Waits until the shared registry answers.
    ///
    /// # Errors
    ///
    /// The fault if it does not, or would lose entries. The tracker serves its own nodes meanwhile
    /// and keeps trying.
    pub async fn check_registry(&self) -> Result<(), RegistryFault> {
        match &self.shared {
            Some(shared) => shared.check().await,
            None => Ok(()),
        }
    }

    /// Whether the shared registry answers; None if there is none.
    pub fn registry_is_up(&self) -> Option<bool> {
        self.shared.as_ref().map(|shared| shared.is_up())
    }

    /// Tells all nodes that the tracker shuts down, and waits until its tasks have ended, for at
    /// most `deadline`.
    pub async fn shutdown(self, deadline: Duration) {
        let Tracker {
            endpoint,
            shared,
            tasks,
            stopping,
            ..
        } = self;
        let ended = async move {
            if let Some(shared) = shared {
                // Nodes that go to a sibling are not sent back by it.
                shared.leave().await;
            }
            endpoint.close(CloseCode::ShuttingDown, deadline).await;
            drop(stopping);
            tasks.close();
            tasks.wait().await;
        };
        // Past the deadline, dropping the future drops the guard, which cancels the tasks.
        if tokio::time::timeout(deadline, ended).await.is_err() {
            debug!("some sessions did not end before the deadline");
        }
        info!("tracker stopped");
    }
}

/// Runs a task until the tracker stops.
fn until(
    stopping: &CancellationToken,
    task: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    let stopped = stopping.clone().cancelled_owned();
    async move {
        tokio::select! {
            () = stopped => {}
            () = task => {}
        }
    }
}
